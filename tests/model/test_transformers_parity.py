"""The same logits as transformers' LlamaForCausalLM: every kind of Llama, cached, padded, packed, in bfloat16."""

import inspect

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaForCausalLM

from llama_configs import configs, sharpened, text, twin
from puna.model.config import ModelConfig
from puna.model.kv_cache import KVCache
from puna.model.transformer import Transformer

IS_NEW = "cache" in inspect.signature(LlamaForCausalLM.forward).parameters
CACHE_ARGUMENT = "cache" if IS_NEW else "past_key_values"
"""transformers renamed it in version 5."""


def built(config: ModelConfig) -> Transformer:
    model = sharpened(Transformer(config))
    assert isinstance(model, Transformer)
    return model


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@settings(max_examples=60)
@given(configs())
def test_logits_of_a_whole_text(config: ModelConfig) -> None:
    model = built(config)
    assert_same(model(text(config)), twin(model)(text(config)).logits)


@settings(max_examples=40)
@given(configs(), st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_logits_with_a_cache_in_any_pieces(config: ModelConfig, pieces: list[int]) -> None:
    model, tokens = built(config), text(config)
    theirs, past = twin(model), DynamicCache()
    cache = KVCache(config, batch_size=2, max_len=tokens.shape[1])
    ends = [sum(pieces[: i + 1]) for i in range(len(pieces))]
    for piece in tokens.tensor_split([end for end in ends if end < tokens.shape[1]], dim=1):
        expected = theirs(piece, use_cache=True, **{CACHE_ARGUMENT: past}).logits
        assert_same(model(piece, cache=cache), expected)


@settings(max_examples=40)
@given(configs(), st.integers(1, 6), st.sampled_from(["left", "right"]))
def test_padding_on_either_side(config: ModelConfig, n_padding: int, side: str) -> None:
    """Two rows of different lengths, against each row alone in transformers."""
    model, tokens = built(config), text(config)
    theirs, width = twin(model), tokens.shape[1]
    if side == "right":
        ours = model(tokens)  # nothing marks the filler: what comes later is not seen
        assert_same(ours[:1, : width - n_padding], theirs(tokens[:1, : width - n_padding]).logits)
    else:
        padding = torch.tensor([n_padding, 0])
        cache = KVCache(config, batch_size=2, max_len=width, n_padding=padding)
        ours = model(tokens, cache=cache)
        assert_same(ours[:1, n_padding:], theirs(tokens[:1, n_padding:]).logits)
    assert_same(ours[1:], theirs(tokens[1:]).logits)


@settings(max_examples=40)
@given(configs(), st.integers(1, 6), st.sampled_from(["left", "right"]))
def test_transformers_own_padded_batch(config: ModelConfig, n_padding: int, side: str) -> None:
    """The padded batch itself, with its mask, as transformers users run it; filler is document -1 to us."""
    model, tokens = built(config), text(config)
    mask = torch.ones_like(tokens)
    mask[0, slice(0, n_padding) if side == "left" else slice(-n_padding, None)] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    is_real = mask.bool()
    theirs = twin(model)(tokens, attention_mask=mask, position_ids=positions).logits
    ours = model(tokens, positions=positions, document_ids=mask - 1)
    assert_same(ours[is_real], theirs[is_real])


@settings(max_examples=40)
@given(configs(), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 3))
def test_packed_documents(config: ModelConfig, lengths: list[int], n_filler: int) -> None:
    """One row of documents, against each alone in transformers."""
    model = built(config)
    theirs = twin(model)
    documents = [text(config, n_rows=1, seed=i)[:, :n] for i, n in enumerate(lengths)]
    lengths = [document.shape[1] for document in documents]
    row = torch.cat([*documents, torch.zeros(1, n_filler, dtype=torch.long)], dim=1)
    ids = [i for i, n in enumerate(lengths) for _ in range(n)] + [-1] * n_filler
    positions = torch.cat([*(torch.arange(n) for n in lengths), torch.zeros(n_filler, dtype=torch.long)])
    packed = model(row, positions=positions[None], document_ids=torch.tensor([ids]))
    alone = torch.cat([theirs(document).logits for document in documents], dim=1)
    assert_same(packed[:, : sum(lengths)], alone)


@settings(max_examples=25)
@given(configs())
def test_bfloat16_errs_no_more_than_transformers(config: ModelConfig) -> None:
    """Mean error against float32, ours against theirs; a factor of 1.5 leaves room for the luck of rounding."""
    model, tokens = built(config), text(config, n_rows=8)
    theirs, exact = twin(model), model(tokens)
    error_of_theirs = (theirs.bfloat16()(tokens).logits.float() - exact).abs().mean()
    error_of_ours = (model.bfloat16()(tokens) - exact).abs().mean()
    assert error_of_ours <= 1.5 * error_of_theirs
