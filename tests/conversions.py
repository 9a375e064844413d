"""Conversions in tests: one call, the weights that came out, and a comparison of every bit."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from puna.conversion.convert import Conversion, Dtype, Format, convert
from puna.core.progress import Reporter, quiet

__all__ = ["assert_same_bits", "run", "weights"]


def run(
    source: Path,
    target: Path,
    to: str,
    *,
    shards: int | None = None,
    dtype: str | None = None,
    tokenizer: Path | None = None,
    reporter: Reporter | None = None,
) -> Conversion:
    """`puna convert` as a function."""
    return convert(
        source, target, to=Format(to), n_shards=shards, dtype=Dtype(dtype) if dtype else None,
        tokenizer=tokenizer, reporter=reporter or quiet(),
    )  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a Hugging Face folder."""
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


def assert_same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Names, formats and every bit, the sign of zero included."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        assert torch.equal(tensor.view(torch.uint8), second[name].view(torch.uint8)), name
