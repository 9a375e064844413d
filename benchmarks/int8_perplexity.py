"""Perplexity with 8-bit weights beside the same model in bfloat16, on real text.

    perplexity_int8_vs_bfloat16   exp of the mean negative log-prob a token; ratio below 1: the 8 bits cost something

The text is the beginning of WikiText-2's validation part and of a book in windows of 512 tokens, from the folder that
PUNA_DATA names. No time is measured: it may run beside other work.
"""

import argparse
import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from harness import compare, finish

from puna.inference.fused import FusedTransformer
from puna.inference.quantize import perplexity
from puna.model import load_model
from puna.tokenizer import Tokenizer

N_WINDOW = 512
SOURCES = ("wikitext2/valid.txt.gz", "books/1342-0.txt.gz")


def _windows(tokenizer: Tokenizer, n_windows: int) -> Iterator[list[int]]:
    """As many windows of each source."""
    folder = Path(os.environ["PUNA_DATA"]) / "pretraining"
    for source in SOURCES:
        text = gzip.decompress((folder / source).read_bytes()).decode("utf-8", errors="replace")
        ids = tokenizer.encode(text[: 8 * N_WINDOW * n_windows])
        for start in range(0, n_windows * N_WINDOW, N_WINDOW):
            yield ids[start : start + N_WINDOW]


def main() -> None:
    """Measure both, print the figure."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("model", type=Path, help="a Hugging Face folder")
    options.add_argument("--windows", type=int, default=20, help=f"windows of {N_WINDOW} tokens a source")
    options.add_argument("--save", action="store_true", help="also write it under benchmarks/results")
    given = options.parse_args()
    if not os.environ.get("PUNA_DATA"):
        sys.stderr.write(
            "int8_perplexity: expected the variable PUNA_DATA, got none. Set it to the real data.\n"
        )
        raise SystemExit(2)
    model = load_model(given.model, dtype=torch.bfloat16, device="cpu")
    windows = list(_windows(Tokenizer.load(given.model), given.windows))
    small = FusedTransformer(model, dtype=torch.bfloat16, has_int8_weights=True)
    found = [[perplexity(candidate, windows)] for candidate in (small, model)]
    figure = compare("perplexity_int8_vs_bfloat16", *found, unit="perplexity", is_higher_better=False)
    finish(
        "int8_perplexity",
        [figure],
        save=given.save,
        model=given.model.name,
        data=list(SOURCES),
        tokens=sum(len(window) - 1 for window in windows),
    )


if __name__ == "__main__":
    main()
