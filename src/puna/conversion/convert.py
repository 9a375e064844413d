"""Any format to any other: recognise the source by looking, write the target, verify, publish."""

import math
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import torch

from puna.conversion.gguf_read import GGUFSource
from puna.conversion.gguf_write import GGUFFormat, verify_gguf, write_gguf
from puna.conversion.hugging_face import HuggingFaceSource, write_hugging_face
from puna.conversion.llama2c import Llama2cSource, is_llama2c
from puna.conversion.meta import MetaSource, write_meta
from puna.conversion.meta_params import PARAMS_FILE
from puna.conversion.publish import built_aside, refuse_overwriting, verify
from puna.conversion.source import PreparedSource, TensorSource
from puna.conversion.tokenizer_files import given_tokenizer
from puna.core.artifacts import describe
from puna.core.errors import ConfigError, DataError
from puna.core.inputs import require
from puna.core.progress import Reporter
from puna.model.hf_config import broken

__all__ = ["Conversion", "Dtype", "Format", "convert", "open_checkpoint"]


class Format(StrEnum):
    """What a conversion can write."""

    HF = "hf"
    META = "meta"
    GGUF = "gguf"


class Dtype(StrEnum):
    """Number formats of the written weights."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"
    Q8_0 = "q8_0"


_DTYPES = {Dtype.BF16: torch.bfloat16, Dtype.FP16: torch.float16, Dtype.FP32: torch.float32}
_GGUF_DTYPES: dict[Dtype, GGUFFormat] = {
    Dtype.BF16: "bf16", Dtype.FP16: "f16", Dtype.FP32: "f32", Dtype.Q8_0: "q8_0",
}  # fmt: skip
GGUF_MAGIC = b"GGUF"


class Conversion(NamedTuple):
    """What was written."""

    n_parameters: int
    n_bytes: int
    """Of everything written, configuration and tokenizer too."""
    n_tensors: int
    has_tokenizer: bool


def open_checkpoint(path: Path) -> TensorSource:
    """A checkpoint of any format that is read.

    Raises:
        DataError: nothing is there, or nothing that is known.
        CheckpointError: it is damaged.
    """
    require(path, "a model folder or file")
    if path.is_dir():
        if (path / "config.json").is_file():
            return HuggingFaceSource(path)
        if (path / PARAMS_FILE).is_file():
            return MetaSource(path)
        expected, got = f"a folder with config.json (Hugging Face) or {PARAMS_FILE} (Meta)", "neither in it"
    else:
        if _magic(path) == GGUF_MAGIC:
            return GGUFSource(path)
        if is_llama2c(path):
            return Llama2cSource(path)
        expected, got = "a llama2.c or GGUF file", "a file of another kind"
    raise DataError(where=str(path), expected=expected, got=got, fix="Check the path.")


def convert(
    source: Path,
    target: Path,
    *,
    to: Format,
    n_shards: int | None = None,
    dtype: Dtype | None = None,
    tokenizer: Path | None = None,
    reporter: Reporter,
) -> Conversion:
    """Write a checkpoint in another format and read it back; the memory it takes is one file of weights.

    The result is built aside and published whole; a killed conversion starts again. A Hugging Face folder gets a
    manifest that names the source and its checksum, as every artifact has one.

    Args:
        n_shards: Of Meta's format; 1 when None.
        dtype: Of the written weights; None keeps each tensor's own (of GGUF: the embedding's, for all matrices).
        tokenizer: Instead of the one beside the weights.
    Raises:
        ConfigError: the target exists, or an option does not fit the model.
        CheckpointError: the source is damaged.
        StorageError: the disk is full, or returned other bits than were written.
    """
    refuse_overwriting(target)
    _check_options(source, target, to, n_shards, dtype)
    started = datetime.now(UTC)
    checkpoint = open_checkpoint(source)
    if tokenizer is not None:
        checkpoint.tokenizer = given_tokenizer(tokenizer)
        checkpoint.generation = None
    _check_tokenizer(checkpoint, source)
    with built_aside(target) as result:
        if to is Format.GGUF:
            _to_gguf(checkpoint, result, dtype, target.stem, reporter)
        else:
            _to_folder(checkpoint, result, to, n_shards or 1, dtype, reporter)
        if to is Format.HF:
            describe(
                result,
                out=target,
                kind="model",
                labels={"version": "converted"},
                config={"to": to, "dtype": dtype},
                inputs={"source": source, **({"tokenizer": tokenizer} if tokenizer else {})},
                started=started,
                metrics={},
            )
    return Conversion(
        n_parameters=sum(math.prod(info.shape) for info in checkpoint.tensors.values()),
        n_bytes=_size(target),
        n_tensors=len(checkpoint.tensors),
        has_tokenizer=checkpoint.tokenizer is not None,
    )


def _to_folder(
    source: TensorSource, result: Path, to: Format, n_shards: int, dtype: Dtype | None, reporter: Reporter
) -> None:
    """A Hugging Face or a Meta folder; Meta's reads every tensor once for each shard."""
    kind = _DTYPES[dtype] if dtype else None
    with reporter.track("writing", len(source.tensors) * n_shards, "tensors") as tracker:
        prepared = PreparedSource(source, dtype=kind, on_read=tracker.advance)
        if to is Format.META:
            write_meta(prepared, result, n_shards=n_shards)
        else:
            write_hugging_face(prepared, result)
    with reporter.track("verifying", len(source.tensors), "tensors") as tracker:
        prepared = PreparedSource(source, dtype=kind, on_read=tracker.advance)
        verify(MetaSource(result) if to is Format.META else HuggingFaceSource(result), prepared)


def _to_gguf(source: TensorSource, result: Path, dtype: Dtype | None, name: str, reporter: Reporter) -> None:
    """One GGUF file."""
    embedding = next(iter(source.tensors.values()))
    own = {value: key for key, value in _DTYPES.items()}[embedding.dtype]
    kind = _GGUF_DTYPES[dtype or own]
    with reporter.track("writing", len(source.tensors), "tensors") as tracker:
        write_gguf(PreparedSource(source, on_read=tracker.advance), result, dtype=kind, name=name)
    with reporter.track("verifying", len(source.tensors), "tensors") as tracker:
        verify_gguf(PreparedSource(source, on_read=tracker.advance), result, dtype=kind)


def _check_options(source: Path, target: Path, to: Format, n_shards: int | None, dtype: Dtype | None) -> None:
    if target.resolve().is_relative_to(source.resolve()):
        raise ConfigError(
            where=str(target), expected="a target outside the source", got=f"one inside {source}",
            fix="Choose another target.",
        )  # fmt: skip
    if n_shards is not None and to is not Format.META:
        raise ConfigError(
            where="--shards",
            expected="--to meta, whose files are cut",
            got=f"--to {to}",
            fix="Leave out --shards.",
        )
    if dtype is Dtype.Q8_0 and to is not Format.GGUF:
        raise ConfigError(
            where="--dtype q8_0", expected="--to gguf, which has it", got=f"--to {to}",
            fix="Choose bf16, fp16 or fp32.",
        )  # fmt: skip


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(GGUF_MAGIC))


def _size(target: Path) -> int:
    files = target.rglob("*") if target.is_dir() else [target]
    return sum(file.stat().st_size for file in files)


def _check_tokenizer(checkpoint: TensorSource, source: Path) -> None:
    if checkpoint.tokenizer is None:
        return
    checkpoint.tokenizer.check_can_be_saved()
    if checkpoint.tokenizer.vocab_size > checkpoint.config.vocab_size:
        expected = f"a tokenizer of at most {checkpoint.config.vocab_size} tokens, as the model has"
        raise broken(source, expected, f"{checkpoint.tokenizer.vocab_size}")
