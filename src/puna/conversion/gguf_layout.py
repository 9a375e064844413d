"""Where a GGUF of llama.cpp's `llama` architecture keeps each tensor of a Llama, and in which order of rows.

Source: gguf-py's constants and llama.cpp's converter of Hugging Face folders.
"""

import re

import torch
from jaxtyping import Int
from torch import Tensor

from puna.conversion.gguf_rope import ROPE_FREQS
from puna.model.config import ModelConfig

__all__ = ["gguf_name", "hf_name", "interleaved_rows", "n_rotary_heads"]

_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TO_GGUF = {hf: ours for ours, hf in (_OUTSIDE | _IN_BLOCK).items()} | {ROPE_FREQS: ROPE_FREQS}


def hf_name(name: str) -> str:
    """Hugging Face's name of a tensor; one that no Llama has keeps its own."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    match = re.fullmatch(r"blk\.(0|[1-9]\d{0,5})\.(\w+)\.weight", name)
    if match is None or match[2] not in _IN_BLOCK:
        return name
    return f"model.layers.{match[1]}.{_IN_BLOCK[match[2]]}.weight"


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor of LlamaForCausalLM."""
    if name in _TO_GGUF:
        return _TO_GGUF[name]
    _, _, number, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{number}.{_TO_GGUF[part]}.weight"


def n_rotary_heads(name: str, config: ModelConfig) -> int:
    """Heads whose rows llama.cpp orders otherwise; 0 for a tensor that is the same in both, given HF's name."""
    if name.endswith("q_proj.weight"):
        return config.n_heads
    return config.n_kv_heads if name.endswith("k_proj.weight") else 0


def interleaved_rows(head_dim: int) -> Int[Tensor, " head_dim"]:
    """Row of a Hugging Face head that stands at each place in a GGUF: its two halves, one row of each in turn."""
    return torch.arange(head_dim).view(2, head_dim // 2).T.reshape(-1)
