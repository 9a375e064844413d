"""Byte-level BPE tokenizers by llama.cpp's names for how they cut text into words before they merge.

Source: the regular expressions of llama.cpp's vocabulary code and the tokenizer.json files they stand for. A kind
that is not here is refused by name, since another cut gives other tokens without any error.
"""

import json
from collections.abc import Sequence
from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.pre_tokenizers import PreTokenizer

__all__ = ["BOS_ADDED", "CUTS", "byte_level_bpe", "cut_of"]

_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _cuts(*patterns: str) -> PreTokenizer:
    """Each pattern cuts what the one before left, keeping matches and gaps alike."""
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


_GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)

CUTS: dict[str, PreTokenizer] = {
    "gpt-2": _GPT_2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT_2]),
    "llama-bpe": _cuts(_LLAMA_3),
    "default": _cuts(r"[\p{P}\$\+<=>\^~\|]+", _WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
"""By the name in tokenizer.ggml.pre."""
for _name, _same in {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "starcoder": "smollm"}.items():
    CUTS[_name] = CUTS[_same]

BOS_ADDED = frozenset({"llama-bpe", "llama3", "llama-v3"})
"""Kinds where <s> comes first unless the file says otherwise, and a word that is a token is taken whole."""


def byte_level_bpe(
    tokens: Sequence[str],
    kinds: Sequence[TokenType],
    merges: Sequence[tuple[str, str]],
    *,
    cut: str,
    bos_id: int | None,
) -> FastTokenizer:
    """A tokenizer with these tokens.

    Args:
        cut: A name of `CUTS`.
        bos_id: The token to put first; None for none.
    """
    fast = FastTokenizer(
        models.BPE(
            vocab={token: token_id for token_id, token in enumerate(tokens)},
            merges=list(merges),
            ignore_merges=cut in BOS_ADDED,
        )
    )
    whole = {TokenType.CONTROL: True, TokenType.UNKNOWN: True, TokenType.USER_DEFINED: False}
    fast.add_tokens(
        [
            AddedToken(token, normalized=False, special=whole[kind])
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in whole
        ]
    )
    fast.pre_tokenizer = CUTS[cut]
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.ByteLevel(trim_offsets=False)
    if bos_id is not None:
        bos = tokens[bos_id]
        fast.post_processor = processors.TemplateProcessing(
            single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, bos_id)]
        )
    return fast


def cut_of(state: Any) -> str | None:
    """llama.cpp's name of the `pre_tokenizer` of a tokenizer.json; None when it is none that we know."""
    wanted = _steps(state)
    known = {name: _steps(json.loads(cut.__getstate__())) for name, cut in CUTS.items()}
    return next((name for name, steps in known.items() if steps == wanted), None)


def _steps(state: Any) -> list[Any]:
    """The steps without what does not change the tokens, which is the offsets."""
    if not isinstance(state, dict):
        return [state]
    if state.get("type") == "Sequence":
        return [step for inner in state.get("pretokenizers", []) for step in _steps(inner)]
    return [{key: value for key, value in state.items() if key != "trim_offsets"}]
