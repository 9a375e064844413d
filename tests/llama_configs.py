"""Llama configurations of every kind, drawn small, and the same model in transformers."""

import torch
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from puna.model.checkpoint import hf_name
from puna.model.config import ModelConfig
from puna.model.hf_config import config_to_hf
from puna.model.rope_scaling import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from puna.model.transformer import Transformer

__all__ = ["configs", "scalings", "sharpened", "text", "twin"]


def scalings() -> st.SearchStrategy[RopeScaling]:
    """Every kind of RoPE scaling, with trained contexts that a short text exceeds."""
    factor, trained = st.sampled_from([1.0, 1.5, 2.0, 4.0, 8.0]), st.sampled_from([8, 12, 64])
    return st.one_of(
        st.builds(LinearScaling, factor=factor),
        st.builds(
            Llama3Scaling,
            factor=factor,
            low_freq_factor=st.sampled_from([0.5, 1.0]),
            high_freq_factor=st.sampled_from([1.5, 4.0]),
            original_max_seq_len=trained,
        ),
        st.builds(
            YarnScaling,
            factor=factor,
            original_max_seq_len=trained,
            beta_fast=st.sampled_from([8.0, 32.0]),
            beta_slow=st.sampled_from([1.0, 2.0]),
            attention_factor=st.sampled_from([None, 0.9]),
            truncate=st.booleans(),
        ),
    )


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Multi-head, grouped and multi-query attention; tied or not; usual and unusual heads; any scaling or none."""
    n_kv_heads, n_repeats = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    n_heads = n_kv_heads * n_repeats
    usual_head_dim = 2 * draw(st.integers(2, 5))
    custom_head_dim = draw(st.sampled_from([None, None, 4, 6, 16]))
    scaling = draw(st.none() | scalings())
    return ModelConfig(
        dim=n_heads * usual_head_dim,
        n_layers=draw(st.integers(1, 3)),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        custom_head_dim=None if custom_head_dim == usual_head_dim else custom_head_dim,
        vocab_size=draw(st.integers(5, 60)),
        hidden_dim=draw(st.integers(3, 40)),
        norm_eps=draw(st.sampled_from([1e-6, 1e-5, 1e-2])),
        rope_theta=draw(st.sampled_from([100.0, 10_000.0, 1e6])),
        rope_scaling=scaling,
        max_seq_len=draw(st.integers(24, 64)),
        tie_embeddings=draw(st.booleans()),
    )


def sharpened(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that a wrong layout, epsilon or theta moves the logits."""
    for weight in model.requires_grad_(False).parameters():
        weight *= 1.2 if weight.ndim == 2 else 1.3
    return model


def text(config: ModelConfig, *, n_rows: int = 2, seed: int = 0) -> torch.Tensor:
    """Up to 24 random tokens a row, never longer than the context; none of the special ones."""
    source = torch.Generator().manual_seed(seed)
    return torch.randint(3, config.vocab_size, (n_rows, min(config.max_seq_len, 24)), generator=source)


def twin(model: Transformer) -> LlamaForCausalLM:
    """transformers' model of the same config.json and the same weights."""
    values = config_to_hf(model.config, architecture="LlamaForCausalLM", dtype=torch.float32)
    theirs = LlamaForCausalLM(LlamaConfig.from_dict(values)).requires_grad_(False).eval()
    weights = {hf_name(name): weight for name, weight in model.named_parameters()}
    missing, unknown = theirs.load_state_dict(weights, strict=False)
    assert not unknown
    assert set(missing) <= ({"lm_head.weight"} if model.config.tie_embeddings else set())
    return theirs
