"""Dialogs as training examples: read, checked, tokenized, held out by content (§3.1)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from puna.core.errors import ConfigError, DataError
from puna.core.records import Dialog, read_records
from puna.core.seeding import derive_seed, rng
from puna.core.splits import is_held_out
from puna.inference.sampled_tokens import check_sampled_by, with_end_of_turn
from puna.tokenizer.dialog_tokens import loss_mask, render_dialog
from puna.tokenizer.tokenizer import Tokenizer
from puna.training.packing import TokenizedExample

__all__ = ["Examples", "dialog_file", "load_examples", "tokenize_dialog"]

FILE_NAMES = ("dialogs.jsonl", "selected.jsonl")
HELD_OUT_STREAM = "held out"
"""Of the draw that sets dialogs aside for the validation loss: not the one that holds out prompts."""


@dataclass(slots=True)
class Examples:
    """What is learned, what is held out, and what was left out and why."""

    train: list[TokenizedExample] = field(default_factory=list)
    validation: list[TokenizedExample] = field(default_factory=list)
    dropped: dict[str, int] = field(
        default_factory=lambda: {"too_long": 0, "special_tags": 0, "no_answer": 0}
    )


def dialog_file(path: Path) -> Path:
    """The dialogs of an input: the file itself, or the one an artifact folder holds.

    Raises:
        DataError: the folder holds none.
    """
    if not path.is_dir():
        return path
    for name in FILE_NAMES:
        if (path / name).is_file():
            return path / name
    raise DataError(
        where=str(path),
        expected=f"a folder with {' or '.join(FILE_NAMES)}",
        got="neither",
        fix="Give a dialogs file or the folder of a stage that writes one.",
    )


def tokenize_dialog(dialog: Dialog, tokenizer: Tokenizer) -> TokenizedExample:
    """Tokens in the chat format, with the answers as what is learned.

    Source: §3.1, loss zeroed on prompts; §3.3, only the last answer where train_on is "last" (GAtt).
    What separates prompt from answer is the chat format's own [/INST]: the paper does not name its token.
    A last answer that was sampled is learned token by token as it was sampled and scored, not as its text is encoded.

    Raises:
        DataError: the sampled tokens do not say the answer's text in this tokenizer.
    """
    rendered = render_dialog(dialog.messages, tokenizer)
    if dialog.answer_token_ids is None:
        return TokenizedExample(rendered.token_ids, loss_mask(rendered, dialog.train_on))
    text = dialog.messages[-1].content
    check_sampled_by(tokenizer, dialog.answer_token_ids, text, where=f"dialog {dialog.id}, answer_token_ids")
    answer = with_end_of_turn(dialog.answer_token_ids, tokenizer, end_id=rendered.token_ids[-1])
    before = render_dialog(dialog.messages[:-1], tokenizer)
    earlier = loss_mask(before) if dialog.train_on == "all" else [False] * len(before.token_ids)
    return TokenizedExample((*before.token_ids, *answer), [*earlier, *[True] * len(answer)])


def load_examples(
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    *,
    seq_len: int,
    repeats: Sequence[float],
    validation_fraction: float,
    seed: int,
) -> Examples:
    """Read every input, repeat the training share of each, and count what is dropped.

    Raises:
        ConfigError: repeats are given, but not one for each input.
        DataError: nothing is left to train on.
    """
    times = _times(paths, repeats)
    examples = Examples()
    held_out: set[str] = set()
    for number, path in enumerate(paths):
        train: list[TokenizedExample] = []
        for content, example in _usable(path, tokenizer, seq_len, examples.dropped):
            if not is_held_out(content, validation_fraction, stream=HELD_OUT_STREAM):
                train.append(example)
            elif content not in held_out:
                held_out.add(content)
                examples.validation.append(example)
        examples.train += _repeated(train, times[number], derive_seed(seed, "repeats", number))
    if not examples.train:
        raise DataError(
            where=", ".join(str(path) for path in paths),
            expected="at least one dialog to train on",
            got="none" + "".join(f", {n} dropped as {why}" for why, n in examples.dropped.items() if n),
            fix="Raise seq_len, or add dialogs with answers and without chat-format tags.",
        )
    return examples


def _times(paths: Sequence[Path], repeats: Sequence[float]) -> Sequence[float]:
    if repeats and len(repeats) != len(paths):
        raise ConfigError(
            where="repeats",
            expected=f"one number per input, {len(paths)}",
            got=str(len(repeats)),
            fix="Give as many numbers as inputs, or none.",
        )
    return repeats or [1.0] * len(paths)


def _usable(
    path: Path, tokenizer: Tokenizer, seq_len: int, dropped: dict[str, int]
) -> Iterator[tuple[str, TokenizedExample]]:
    """Content and tokens of each dialog that can be trained on."""
    for dialog in read_records(dialog_file(path), Dialog):
        if tokenizer.chat.refusal(dialog.messages) is not None:
            dropped["special_tags"] += 1
            continue
        example = tokenize_dialog(dialog, tokenizer)
        if not any(example.loss_mask):
            dropped["no_answer"] += 1
        elif example.n_positions > seq_len:
            dropped["too_long"] += 1
        else:
            yield json.dumps([[m.role, m.content] for m in dialog.messages]), example


def _repeated(examples: list[TokenizedExample], times: float, seed: int) -> list[TokenizedExample]:
    n_whole, share = int(times), times - int(times)
    part = sorted(rng(seed, "share").sample(range(len(examples)), round(share * len(examples))))
    return examples * n_whole + [examples[i] for i in part]
