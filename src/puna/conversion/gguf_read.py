"""Read a GGUF of architecture `llama`, quantized or not.

Formats: F32, F16 and BF16 are delivered as they are; Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and the K-quants as their exact
float32 values, through the gguf package. Others are refused by name.
"""

from pathlib import Path

import numpy as np
import torch
from gguf import ReaderTensor
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from puna.conversion.gguf_config import config_from_gguf
from puna.conversion.gguf_file import GGUFFile, damaged, read_gguf, shape_of
from puna.conversion.gguf_names import gguf_names
from puna.conversion.gguf_rope import ROPE_FREQS, llama3_scaling
from puna.conversion.gguf_tokenizer import tokenizer_from_gguf
from puna.conversion.rotary_rows import is_rotated, separate
from puna.conversion.source import TensorInfo, TensorSource, check_tensors
from puna.model.config import ModelConfig

__all__ = ["GGUFSource"]

_PLAIN = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
_QUANTIZED = {
    GGMLQuantizationType[name]
    for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
}


class GGUFSource(TensorSource):
    """An open GGUF file."""

    def __init__(self, path: Path) -> None:
        """Check the header, the tensors and the tokenizer; no weight is read yet.

        Raises:
            CheckpointError: it is damaged, of another architecture, or in a number format that is not read.
        """
        self.path = path
        file = read_gguf(path)
        self.config = _with_llama3_scaling(config_from_gguf(file, where=path), file, path)
        self._names = gguf_names(self.config)
        self._stored = file.tensors
        ours = {theirs: name for name, theirs in self._names.items()}
        found = {ours.get(name, name): _info(tensor, path) for name, tensor in file.tensors.items()}
        found.pop(ROPE_FREQS, None)
        self.tensors = check_tensors(self.config, found, where=path)
        self.tokenizer = tokenizer_from_gguf(file.metadata, where=path)

    def read(self, name: str) -> Tensor:
        """One tensor in Hugging Face's layout; a quantized one in float32.

        Raises:
            CheckpointError: it holds NaN or infinity.
        """
        values = _values(self._stored[self._names[name]])
        if not values.isfinite().all():
            raise damaged(self.path, f"finite numbers in {self._names[name]}", "NaN or infinity")
        return separate(values, head_dim=self.config.head_dim) if is_rotated(name) else values


def _values(stored: ReaderTensor) -> Tensor:
    """The numbers of a tensor, in the file's order of rows."""
    kind = stored.tensor_type
    if kind in _PLAIN:
        raw = np.array(stored.data).view(np.uint8)
        return torch.from_numpy(raw).view(_PLAIN[kind]).view(shape_of(stored))
    with np.errstate(all="ignore"):  # what is not finite is refused by `read`
        return torch.from_numpy(dequantize(stored.data, kind))


def _with_llama3_scaling(config: ModelConfig, file: GGUFFile, where: Path) -> ModelConfig:
    """The configuration with what the tensor of rotary divisors means, where there is one."""
    stored = file.tensors.get(ROPE_FREQS)
    if stored is None:
        return config
    half = config.head_dim // 2
    kind, shape = stored.tensor_type, shape_of(stored)
    if kind is not GGMLQuantizationType.F32 or shape != (half,) or config.rope_scaling:
        raise damaged(where, f"{ROPE_FREQS} of {half} F32 numbers", f"{kind.name} {shape}")
    values = _values(stored)
    if not values.isfinite().all() or not (values > 0).all():
        raise damaged(where, f"positive numbers in {ROPE_FREQS}", "others")
    scaling = llama3_scaling(values, config, file.metadata, where=where)
    return config.model_copy(update={"rope_scaling": scaling})


def _info(stored: ReaderTensor, where: Path) -> TensorInfo:
    kind = stored.tensor_type
    if kind not in _PLAIN and kind not in _QUANTIZED:
        known = ", ".join(kind.name for kind in [*_PLAIN, *sorted(_QUANTIZED)])
        raise damaged(where, f"{stored.name[:80]} in one of {known}", kind.name)
    return TensorInfo(shape_of(stored), _PLAIN.get(kind, torch.float32))
