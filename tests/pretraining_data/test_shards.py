"""Token shards: what is on disk is the tokenized pages, up-sampled and shuffled, each in <s> and </s>."""

from collections import Counter
from pathlib import Path

import pytest

from puna.core.errors import DataError
from puna.core.progress import quiet
from puna.core.records import Document, read_records, write_records
from puna.pretraining_data import DataConfig, ShardConfig, SourceConfig, build_corpus, tokenize
from puna.pretraining_data.filters import FilterConfig
from puna.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from puna.training.token_shards import TokenStream, read_index

FILTERS = FilterConfig(quality=None, personal_information=None, dedup=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data artifact of two sources and a tokenizer for it."""
    folder = tmp_path_factory.mktemp("shards")
    pages = [
        Document(
            id=str(n), text=f"the goat number {n} eats hay in the barn.", source=("facts", "tales")[n % 2]
        )
        for n in range(40)
    ]
    write_records(folder / "raw.jsonl", pages)
    config = DataConfig(
        sources=(SourceConfig(name="facts", weight=2.5),), filters=FILTERS, validation_fraction=0.1
    )
    build_corpus(config, documents=folder / "raw.jsonl", out=folder / "data", seed=0, reporter=quiet())
    train_tokenizer(
        [page.text for page in pages], folder / "tokenizer.model", TokenizerConfig(vocab_size=300)
    )
    return folder


def pages_on_disk(shards: Path, tokenizer: Tokenizer) -> list[str]:
    """The stream cut at </s> and decoded."""
    index = read_index(shards)
    stream = TokenStream(shards, index.train, index.dtype)
    texts, page = [], []
    for token in stream.read(0, len(stream)).tolist():
        page.append(token)
        if token == tokenizer.eos_id:
            assert page[0] == tokenizer.bos_id
            texts.append(tokenizer.decode(page[1:-1]))
            page = []
    assert not page
    return texts


def test_the_stream_holds_every_page_as_often_as_its_weight_says(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    manifest = tokenize(
        ShardConfig(max_shard_tokens=100),
        data=folder / "data",
        tokenizer=folder / "tokenizer.model",
        out=tmp_path / "tokens",
        seed=0,
        reporter=quiet(),
    )
    train = list(read_records(folder / "data" / "documents.jsonl.zst", Document))
    counts = Counter(pages_on_disk(tmp_path / "tokens", tokenizer))
    assert set(counts) == {page.text for page in train}
    assert {counts[page.text] for page in train if page.source == "tales"} == {1}
    facts = [counts[page.text] for page in train if page.source == "facts"]
    assert set(facts) == {2, 3}
    assert sum(facts) == round(2.5 * len(facts))
    index = read_index(tmp_path / "tokens")
    assert index.dtype == "uint16"
    assert len(index.train) > 1
    assert all(shard.n_tokens <= 100 for shard in index.train)
    assert set(index.validation) == {"facts", "tales"}
    assert manifest.kind == "token_shards"
    assert manifest.metrics["n_train_tokens"] == sum(shard.n_tokens for shard in index.train)
    sources = manifest.metrics["sources"]
    assert sources["tales"]["n_tokens_seen"] == sources["tales"]["n_tokens_once"]
    assert sources["facts"]["n_tokens_seen"] > 2 * sources["facts"]["n_tokens_once"]


def test_the_order_follows_the_seed(folder: Path, tmp_path: Path) -> None:
    files = [
        tokenize(
            ShardConfig(),
            data=folder / "data",
            tokenizer=folder / "tokenizer.model",
            out=tmp_path / name,
            seed=seed,
            reporter=quiet(),
        ).files
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert files[0] == files[1]
    assert files[0]["shards/train-00000.bin"] != files[2]["shards/train-00000.bin"]


def test_a_folder_without_an_audit_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"audit\.json"):
        tokenize(
            ShardConfig(),
            data=tmp_path / "empty",
            tokenizer=folder / "tokenizer.model",
            out=tmp_path / "tokens",
            seed=0,
            reporter=quiet(),
        )
