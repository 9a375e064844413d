"""Encoding speed on a batch of documents with two threads, against SentencePiece and the tokenizers package.

The Llama 2 tokenizer on real text from PUNA_DATA. Every round encodes documents that no round before it held, so that
nothing is remembered but what ordinary text repeats; the ids of all sides are compared on the first documents.

Example: PUNA_DATA=... python benchmarks/tokenizer.py
"""

import gzip
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

from harness import Measure, compare, finish, interleaved, parser

N_THREADS = 2
ROUNDS, WARMUPS = 9, 2
DOCUMENT_CHARS = 8_000
ROUND_CHARS = 2_000_000
MODEL = Path("tokenizers/llama2/tokenizer.model")

Encode = Callable[[list[str]], list[list[int]]]


def main() -> None:
    """Measure, print, and keep the result when asked."""
    options = parser(__doc__ or "", rounds=ROUNDS).parse_args()
    if "PUNA_DATA" not in os.environ or not (data_folder() / MODEL).is_file():
        sys.exit(
            "benchmarks/tokenizer.py: set PUNA_DATA to a folder with tokenizers/llama2 and pretraining/books."
        )
    os.environ |= {"RAYON_NUM_THREADS": str(N_THREADS), "TOKENIZERS_PARALLELISM": "true"}
    sides = {"ours": ours, "sentencepiece": sentencepiece, "tokenizers": tokenizers}
    values = interleaved(sides, rounds=options.rounds, warmups=WARMUPS)
    checks = {side: found["check"][0] for side, found in values.items()}
    if len(set(checks.values())) != 1:
        sys.exit(f"benchmarks/tokenizer.py: the sides give different ids: {checks}")
    figures = [
        compare(f"encode_vs_{peer}", values["ours"]["speed"], values[peer]["speed"], unit="MB/s")
        for peer in ("sentencepiece", "tokenizers")
    ]
    facts = {
        "threads": N_THREADS,
        "data": "20 Gutenberg books, WikiText-2, StackExchange",
        "model": "Llama 2",
    }
    finish("tokenizer", figures, save=options.save, **facts)


def ours() -> Measure:
    """What this program encodes documents with."""
    from puna.tokenizer import Tokenizer

    return rounds(Tokenizer.load(data_folder() / MODEL).encode_batch)


def sentencepiece() -> Measure:
    """SentencePiece with its own threads."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(data_folder() / MODEL))
    return rounds(lambda texts: processor.encode(texts, num_threads=N_THREADS))


def tokenizers() -> Measure:
    """The tokenizers package on the converted model, by its faster batch call."""
    from sentencepiece import SentencePieceProcessor

    from puna.tokenizer.hugging_face import fast_tokenizer

    fast = fast_tokenizer(SentencePieceProcessor(model_file=str(data_folder() / MODEL)))
    return rounds(lambda texts: [row.ids for row in fast.encode_batch_fast(texts, add_special_tokens=False)])


def rounds(encode: Encode) -> Measure:
    """Each call times the next documents; the check sums the ids of a fixed few."""
    batches = cycle(list(document_batches()))
    check = float(sum(sum(row) for row in encode(next(batches)[:20])))

    def measure() -> dict[str, float]:
        texts = next(batches)
        n_bytes = sum(len(text.encode()) for text in texts)
        started = time.perf_counter()
        encode(texts)
        return {"speed": n_bytes / 1e6 / (time.perf_counter() - started), "check": check}

    return measure


def document_batches() -> Iterator[list[str]]:
    """Documents in batches of about ROUND_CHARS, every batch from many files."""
    folder = data_folder() / "pretraining"
    paths = [
        path
        for name in ("books", "wikitext2", "stackexchange")
        for path in sorted((folder / name).glob("*.gz"))
    ]
    texts = [gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace") for path in paths]
    documents = [
        text[start : start + DOCUMENT_CHARS]
        for start in range(0, max(map(len, texts)), DOCUMENT_CHARS)
        for text in texts
        if start < len(text)
    ]
    stream = iter(documents)
    while batch := list(islice(stream, ROUND_CHARS // DOCUMENT_CHARS)):
        yield batch


def data_folder() -> Path:
    """Where the real data is."""
    return Path(os.environ["PUNA_DATA"])


if __name__ == "__main__":
    main()
