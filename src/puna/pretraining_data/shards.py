"""The tokenize stage: kept pages become flat token shards, up-sampled, shuffled, <s> ... </s> around each page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.errors import DataError
from puna.core.progress import Reporter
from puna.core.records import Document, read_records
from puna.core.stage import Metrics, stage
from puna.pretraining_data.mixture import mixture_order
from puna.pretraining_data.stage import AUDIT, TRAIN, VALIDATION
from puna.tokenizer import Tokenizer
from puna.training.token_shards import INDEX_PATH, ShardFile, ShardIndex, shard_dtype

__all__ = ["ShardConfig", "tokenize"]

Pages = dict[str, list[NDArray[Any]]]
"""Token ids of every page by source, in file order."""


class ShardConfig(Settings):
    """How tokens are laid out on disk; the mixture's weights come with the data."""

    max_shard_tokens: int = Field(default=100_000_000, ge=1)
    """Tokens after which a new shard file starts, at a page's end; our choice."""


@stage("token_shards")
def tokenize(config: ShardConfig, context: StageContext, *, data: Path, tokenizer: Path) -> Metrics:
    """Write shards/train-*.bin, shards/validation-*.bin by source, and shards/index.json.

    Args:
        data: Folder of the data stage; its audit holds each source's weight (passes over it, §2.1).
        tokenizer: Folder or file of the tokenizer.
    """
    vocabulary = Tokenizer.load(tokenizer)
    dtype = shard_dtype(vocabulary.vocab_size)
    width = np.dtype(dtype).newbyteorder("<")
    audit = _read_audit(data)
    train = _encode(data / TRAIN, vocabulary, width, context.reporter, "tokenizing")
    validation = _encode(data / VALIDATION, vocabulary, width, context.reporter, "tokenizing validation")
    folder = context.folder / INDEX_PATH.parent
    folder.mkdir(exist_ok=True)
    weights = {name: source["weight"] for name, source in audit["sources"].items()}
    order = mixture_order({name: len(pages) for name, pages in train.items()}, weights, seed=context.seed)
    shards = _split([train[source][index] for source, index in order], config.max_shard_tokens)
    index = ShardIndex(
        dtype=dtype,
        train=tuple(_write_shard(folder, f"train-{n:05}.bin", shard) for n, shard in enumerate(shards)),
        validation={
            source: _write_shard(folder, f"validation-{number:03}.bin", pages)
            for number, (source, pages) in enumerate(sorted(validation.items()))
        },
    )
    (context.folder / INDEX_PATH).write_text(index.model_dump_json(indent=1), encoding="utf-8")
    return _metrics(index, train, weights, order, n_bytes=_bytes_by_source(data / TRAIN))


def _read_audit(data: Path) -> dict[str, Any]:
    path = data / AUDIT
    if not path.is_file():
        fix = "Give the folder that the data stage wrote."
        raise DataError(where=str(path), expected="the audit of a data artifact", got="no such file", fix=fix)
    return json.loads(path.read_text(encoding="utf-8"))


def _encode(
    path: Path, tokenizer: Tokenizer, width: np.dtype[Any], reporter: Reporter, description: str
) -> Pages:
    pages: Pages = {}
    with reporter.track(description, None, "page") as progress:
        for batch in _batches(read_records(path, Document)):
            encoded = tokenizer.encode_batch([page.text for page in batch])
            for page, ids in zip(batch, encoded, strict=True):
                tokens = np.array([tokenizer.bos_id, *ids, tokenizer.eos_id], dtype=width)
                pages.setdefault(page.source, []).append(tokens)
            progress.advance(len(batch))
    return pages


def _batches(documents: Iterator[Document], size: int = 1000) -> Iterator[list[Document]]:
    batch: list[Document] = []
    for document in documents:
        batch.append(document)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _split(pages: Sequence[NDArray[Any]], max_tokens: int) -> Iterator[list[NDArray[Any]]]:
    """Consecutive pages of at most max_tokens together; one longer page is a shard of its own."""
    shard: list[NDArray[Any]] = []
    n_tokens = 0
    for page in pages:
        if shard and n_tokens + len(page) > max_tokens:
            yield shard
            shard, n_tokens = [], 0
        shard.append(page)
        n_tokens += len(page)
    if shard:
        yield shard


def _write_shard(folder: Path, name: str, pages: Sequence[NDArray[Any]]) -> ShardFile:
    tokens = np.concatenate(pages)
    tokens.tofile(folder / name)
    return ShardFile(file=name, n_tokens=len(tokens))


def _bytes_by_source(path: Path) -> dict[str, int]:
    n_bytes: dict[str, int] = {}
    for page in read_records(path, Document):
        n_bytes[page.source] = n_bytes.get(page.source, 0) + len(page.text.encode())
    return n_bytes


def _metrics(
    index: ShardIndex,
    train: Pages,
    weights: Mapping[str, float],
    order: Sequence[tuple[str, int]],
    *,
    n_bytes: Mapping[str, int],
) -> dict[str, Any]:
    """Tokens in all and by source: before up-sampling, seen, and bytes a token."""
    n_seen = dict.fromkeys(sorted(train), 0)
    for source, page in order:
        n_seen[source] += len(train[source][page])
    n_once = {source: sum(map(len, pages)) for source, pages in train.items()}
    return {
        "n_train_tokens": sum(shard.n_tokens for shard in index.train),
        "n_validation_tokens": sum(shard.n_tokens for shard in index.validation.values()),
        "sources": {
            source: {
                "weight": weights.get(source, 1.0),
                "n_tokens_once": n_once[source],
                "n_tokens_seen": n_seen[source],
                "bytes_per_token": n_bytes[source] / n_once[source],
            }
            for source in n_seen
        },
    }
