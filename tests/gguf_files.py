"""Checkpoints in memory and small GGUF files for the tests of that format."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from puna.conversion.gguf_config import add_config
from puna.conversion.source import TensorInfo, TensorSource, shapes
from puna.model.config import ModelConfig


class MemorySource(TensorSource):
    """Tensors that are there already."""

    def __init__(self, config: ModelConfig, values: Mapping[str, Tensor]) -> None:
        self.path = Path("memory")
        self.config = config
        self.values = dict(values)
        self.tensors = {name: TensorInfo(tuple(t.shape), t.dtype) for name, t in values.items()}
        self.tokenizer = None
        self.n_reads = 0

    def read(self, name: str) -> Tensor:
        self.n_reads += 1
        return self.values[name]


def random_values(
    config: ModelConfig, *, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Tensor]:
    """Every tensor of a model, of normally distributed numbers."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes(config).items()}


def llama_cpp_rows(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of wq or wk in llama.cpp's order, as its converter of Hugging Face folders writes it."""
    n_rows = weight.shape[0]
    return weight.reshape(n_heads, 2, n_rows // n_heads // 2, -1).swapaxes(1, 2).reshape(n_rows, -1)


_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor of LlamaForCausalLM, said here anew."""
    stem = name.removesuffix(".weight")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.weight"
    _, _, number, part = stem.split(".", 3)
    return f"blk.{number}.{_NAMES[part]}.weight"


def heads_turned(name: str, config: ModelConfig) -> int:
    """Heads of a matrix whose rows llama.cpp keeps in another order; 0 for all others. Said here anew, from its
    converter: wq has the query heads, wk the key and value heads."""
    return {"q_proj": config.n_heads, "k_proj": config.n_kv_heads}.get(name.split(".")[-2], 0)


def random_blocks(kind: GGMLQuantizationType, shape: tuple[int, ...], *, seed: int) -> np.ndarray:
    """Any bytes are a quantized tensor, once the float16 scales in them are finite and not huge."""
    block, n_bytes = GGML_QUANT_SIZES[kind]
    n_blocks = int(np.prod(shape)) // block
    raw = np.random.default_rng(seed).integers(0, 256, (n_blocks, n_bytes), dtype=np.uint8)
    for start in _SCALES[kind]:
        scales = np.random.default_rng(seed + 1).normal(0, 0.01, n_blocks).astype("<f2")
        raw[:, start : start + 2] = scales.view(np.uint8).reshape(-1, 2)
    return raw.reshape(*shape[:-1], -1)


_SCALES = {
    GGMLQuantizationType.Q4_0: (0,),
    GGMLQuantizationType.Q4_1: (0, 2),
    GGMLQuantizationType.Q5_0: (0,),
    GGMLQuantizationType.Q5_1: (0, 2),
    GGMLQuantizationType.Q8_0: (0,),
    GGMLQuantizationType.Q2_K: (80, 82),
    GGMLQuantizationType.Q3_K: (108,),
    GGMLQuantizationType.Q4_K: (0, 2),
    GGMLQuantizationType.Q5_K: (0, 2),
    GGMLQuantizationType.Q6_K: (208,),
}
"""Where the float16 numbers of a block begin (ggml-common.h)."""


def write_quantized(
    path: Path, config: ModelConfig, kind: GGMLQuantizationType, *, extra: Mapping[str, object] | None = None
) -> dict[str, np.ndarray]:
    """A GGUF by the gguf package alone, matrices of random blocks; what it stores, by Hugging Face name."""
    writer = GGUFWriter(path, "llama")
    add_config(writer, config)
    for key, value in (extra or {}).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            assert isinstance(value, int)
            writer.add_uint32(key, value)
    stored = {}
    for seed, (name, shape) in enumerate(shapes(config).items()):
        if len(shape) == 1:
            stored[name] = np.random.default_rng(seed).normal(1, 0.1, shape).astype(np.float32)
            writer.add_tensor(gguf_name(name), stored[name])
        else:
            stored[name] = random_blocks(kind, shape, seed=seed)
            writer.add_tensor(gguf_name(name), stored[name], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored
