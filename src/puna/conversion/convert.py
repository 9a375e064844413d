"""Any format to any other: recognise the source by looking, stream it into the target, verify, publish."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import torch

from puna import __version__
from puna.conversion.gguf_read import open_gguf
from puna.conversion.gguf_write import GGUFFormat, write_gguf
from puna.conversion.hugging_face import HuggingFaceLayout, HuggingFaceSource
from puna.conversion.layout import Layout
from puna.conversion.llama2c import Llama2cSource, is_llama2c
from puna.conversion.meta import MetaLayout, MetaSource
from puna.conversion.meta_params import PARAMS_FILE
from puna.conversion.stream import TensorInfo, TensorSource
from puna.conversion.tokenizer_files import generation_of, given_tokenizer
from puna.conversion.tracking import tracked
from puna.conversion.writer import refuse_overwriting, verify, workspace, write_tensors
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
        CheckpointError: it is damaged; every size is checked before anything is allocated.
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
            return open_gguf(path)
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
    """Write a checkpoint in another format, one tensor at a time; a repeated call resumes a killed one.

    A Hugging Face folder gets a manifest that names the source and its checksum, as every artifact has one.

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
    _check_options(to, n_shards, dtype)
    request = _request(source, target, to, n_shards, dtype, tokenizer)
    started = datetime.now(UTC)
    with open_checkpoint(source) as stream:
        if tokenizer is not None:
            stream.tokenizer = given_tokenizer(tokenizer)
            stream.generation = None
        _check_tokenizer(stream, source)
        if to is Format.GGUF:
            _write_gguf(stream, target, dtype, reporter)
        else:
            layout, reopen = _layout(stream, to, n_shards or 1, dtype)
            with workspace(target, request) as work:
                write_tensors(stream, layout, work, reporter=reporter)
                verify(work, reopen, layout, reporter=reporter)
                if to is Format.HF:
                    describe(
                        work.result,
                        out=target,
                        kind="model",
                        labels={"version": "converted"},
                        config={"to": to, "dtype": dtype},
                        inputs={"source": source, **({"tokenizer": tokenizer} if tokenizer else {})},
                        started=started,
                        metrics={},
                    )
        return Conversion(
            n_parameters=sum(info.n_bytes // info.dtype.itemsize for info in stream.tensors.values()),
            n_bytes=_size(target),
            n_tensors=len(stream.tensors),
            has_tokenizer=stream.tokenizer is not None,
        )


def _layout(
    stream: TensorSource, to: Format, n_shards: int, dtype: Dtype | None
) -> tuple[Layout, Callable[[Path], TensorSource]]:
    written = {
        name: TensorInfo(info.shape, _DTYPES[dtype] if dtype else info.dtype)
        for name, info in stream.tensors.items()
    }
    if to is Format.META:
        return MetaLayout(stream.config, written, stream.tokenizer, n_shards=n_shards), MetaSource
    generation = stream.generation or generation_of(stream.tokenizer)
    return HuggingFaceLayout(stream.config, written, stream.tokenizer, generation), HuggingFaceSource


def _write_gguf(stream: TensorSource, target: Path, dtype: Dtype | None, reporter: Reporter) -> None:
    """One GGUF file; its writer has its own resumption and its own reading back."""
    embedding = next(iter(stream.tensors.values()))
    own = {value: key for key, value in _DTYPES.items()}[embedding.dtype]
    with tracked(stream, reporter) as source:
        write_gguf(source, target, dtype=_GGUF_DTYPES[dtype or own])


def _check_options(to: Format, n_shards: int | None, dtype: Dtype | None) -> None:
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


def _check_tokenizer(stream: TensorSource, source: Path) -> None:
    if stream.tokenizer is None:
        return
    stream.tokenizer.check_can_be_saved()
    if stream.tokenizer.vocab_size > stream.config.vocab_size:
        expected = f"a tokenizer of at most {stream.config.vocab_size} tokens, as the model has"
        raise broken(source, expected, f"{stream.tokenizer.vocab_size}")


def _request(
    source: Path, target: Path, to: Format, n_shards: int | None, dtype: Dtype | None, tokenizer: Path | None
) -> dict[str, Any]:
    """Everything that determines the result; a partial one of anything else is not taken up."""
    paths = [source, *([tokenizer] if tokenizer else [])]
    if target.resolve().is_relative_to(source.resolve()):
        raise ConfigError(
            where=str(target), expected="a target outside the source", got=f"one inside {source}",
            fix="Choose another target.",
        )  # fmt: skip
    return {
        "version": __version__,
        "to": to,
        "shards": n_shards,
        "dtype": dtype,
        "inputs": [_identity(path) for path in paths],
    }


def _identity(path: Path) -> list[list[Any]]:
    """Name, size and time of change of a file, or of each file of a folder."""
    files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
    found = [(file, file.stat()) for file in files if file.exists()]
    return [[os.fspath(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in found]
