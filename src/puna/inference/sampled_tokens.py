"""Sampled tokens that come back from a file: whose they are, and how they end as a training target."""

from collections.abc import Sequence

from puna.core.errors import DataError
from puna.tokenizer import Tokenizer

__all__ = ["check_sampled_by", "with_end_of_turn"]


def check_sampled_by(tokenizer: Tokenizer, token_ids: Sequence[int], text: str, *, where: str) -> None:
    """Refuse tokens that do not say the text beside them: another tokenizer made them, or the text was edited.

    The text of a response that a stop string ended is the beginning of what its tokens say.

    Raises:
        DataError: names the record.
    """
    is_known = all(0 <= token_id < tokenizer.vocab_size for token_id in token_ids)
    said = tokenizer.decode(token_ids).strip() if is_known else None
    if said is None or not said.startswith(text.strip()):
        raise DataError(
            where=where,
            expected=f"token ids that say {text[:40]!r} in the model's tokenizer",
            got="ids outside its vocabulary" if said is None else f"{said[:40]!r}",
            fix="Use a model with the tokenizer that sampled them, or remove the token ids of an edited text.",
        )


def with_end_of_turn(token_ids: Sequence[int], tokenizer: Tokenizer, *, end_id: int) -> list[int]:
    """The sampled tokens, with the template's end of turn after a response that has none of its own.

    A response that was cut, or that a stop string ended, has none. Otherwise its last token is one of the stop ids.
    """
    is_ended = bool(token_ids) and token_ids[-1] in tokenizer.stop_ids
    return [*token_ids] if is_ended else [*token_ids, end_id]
