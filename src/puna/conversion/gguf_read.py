"""Read a GGUF of architecture `llama`, quantized or not, one tensor at a time.

Formats: F32, F16 and BF16 are delivered as they are; Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and the K-quants as their exact
float32 values, through the gguf package. Others are refused by name.
"""

import math
from pathlib import Path

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from puna.conversion.gguf_config import config_from_gguf
from puna.conversion.gguf_header import Header, StoredTensor, damaged, read_header
from puna.conversion.gguf_layout import gguf_name, hf_name, interleaved_rows, n_rotary_heads
from puna.conversion.gguf_rope import ROPE_FREQS, llama3_scaling
from puna.conversion.gguf_tokenizer import tokenizer_from_gguf
from puna.conversion.stream import BLOCK_BYTES, TensorInfo, TensorSource, check_tensors
from puna.model.config import ModelConfig

__all__ = ["GGUFSource", "open_gguf"]

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
    """An open GGUF file; made by `open_gguf`."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.config = _with_llama3_scaling(config_from_gguf(header, where=path), header, path)
        self._stored = header.tensors
        found = {hf_name(name): _info(tensor, name, path) for name, tensor in header.tensors.items()}
        found.pop(ROPE_FREQS, None)
        self.tensors = check_tensors(self.config, found, where=path)
        self.tokenizer = tokenizer_from_gguf(header.metadata, where=path)
        self._file = path.open("rb")

    def read(self, name: str) -> Tensor:
        """One tensor in Hugging Face's layout; a quantized one in float32.

        Raises:
            CheckpointError: it holds NaN or infinity, or the file was cut since it was opened.
        """
        stored, info = self._stored[gguf_name(name)], self.tensors[name]
        out = torch.empty(info.shape, dtype=info.dtype)
        rows = out if out.dim() > 1 else out.view(1, -1)
        n_heads = n_rotary_heads(name, self.config)
        step = _block_rows(rows, multiple=self.config.head_dim if n_heads else 1)
        self._file.seek(stored.start)
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            block = self._block(stored, len(part), name)
            if n_heads:
                order = interleaved_rows(self.config.head_dim)
                heads = block.view(-1, self.config.head_dim, block.shape[1])
                part.view_as(heads).index_copy_(1, order, heads)
            else:
                part.copy_(block)
            if not part.isfinite().all():
                raise damaged(self.path, f"finite numbers in {gguf_name(name)}", "NaN or infinity")
        return out

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _block(self, stored: StoredTensor, n_rows: int, name: str) -> Tensor:
        """The next rows, in the file's order."""
        raw = bytearray(n_rows * stored.row_bytes)
        if self._file.readinto(raw) != len(raw):
            raise damaged(self.path, f"{stored.n_bytes} bytes of {gguf_name(name)}", "the file's end")
        if stored.kind in _PLAIN:
            return torch.frombuffer(raw, dtype=_PLAIN[stored.kind]).view(n_rows, -1)
        with np.errstate(all="ignore"):  # what is not finite is refused by `read`
            values = dequantize(np.frombuffer(raw, np.uint8).reshape(n_rows, -1), stored.kind)
        return torch.from_numpy(values)


def open_gguf(path: Path) -> GGUFSource:
    """Open a GGUF file after checking its header, tensors and tokenizer; no weight is read yet.

    Raises:
        CheckpointError: it is damaged, of another architecture, or in a number format that is not read.
    """
    return GGUFSource(path, read_header(path))


def _with_llama3_scaling(config: ModelConfig, header: Header, where: Path) -> ModelConfig:
    """The configuration with what the tensor of rotary divisors means, where there is one."""
    stored = header.tensors.get(ROPE_FREQS)
    if stored is None:
        return config
    half = config.head_dim // 2
    if stored.kind is not GGMLQuantizationType.F32 or stored.shape != (half,) or config.rope_scaling:
        raise damaged(where, f"{ROPE_FREQS} of {half} F32 numbers", f"{stored.kind.name} {stored.shape}")
    with where.open("rb") as file:
        file.seek(stored.start)
        values = torch.frombuffer(bytearray(file.read(stored.n_bytes)), dtype=torch.float32)
    if not values.isfinite().all() or not (values > 0).all():
        raise damaged(where, f"positive numbers in {ROPE_FREQS}", "others")
    scaling = llama3_scaling(values, config, header.metadata, where=where)
    return config.model_copy(update={"rope_scaling": scaling})


def _info(stored: StoredTensor, name: str, where: Path) -> TensorInfo:
    if stored.kind not in _PLAIN and stored.kind not in _QUANTIZED:
        known = ", ".join(kind.name for kind in [*_PLAIN, *sorted(_QUANTIZED)])
        raise damaged(where, f"{name} in one of {known}", stored.kind.name)
    return TensorInfo(stored.shape, _PLAIN.get(stored.kind, torch.float32))


def _block_rows(rows: Tensor, *, multiple: int) -> int:
    """Rows read at once: about BLOCK_BYTES of what is delivered."""
    row_bytes = math.prod(rows.shape[1:]) * rows.element_size()
    return max(1, BLOCK_BYTES // (row_bytes * multiple)) * multiple
