"""Memory of a conversion: the tensors of one file, never the whole model.

Measured in a process of its own, as its private memory (RssAnon of /proc) at each reading of a tensor and each
writing of a file, less that before: pages of mapped files are the system's, which takes them back when it needs them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import gguf_files
from puna.conversion.hugging_face import write_hugging_face
from puna.conversion.source import TensorInfo, shapes
from puna.model.config import ModelConfig

CONFIG = ModelConfig(dim=512, n_layers=24, n_heads=8, n_kv_heads=8, vocab_size=48_000, hidden_dim=1376)
LARGEST_BYTES = CONFIG.vocab_size * CONFIG.dim * 2
EXTRA_BYTES = 8 * 2**20
"""What the allocator keeps. The C library is told to return freed memory from 1 MB on, as it does for the tensors of
real models, which have more than 32 MiB."""

PROGRAM = """
import json, pathlib, re, sys
import gguf, torch
from puna.conversion import source as form
from puna.conversion.convert import Dtype, Format, convert
from puna.core.progress import quiet
from puna.model import checkpoint

def private_bytes():
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", text).group(1)) * 1024

peak = 0
def watched(work):
    def watch(*arguments, **options):
        global peak
        result = work(*arguments, **options)
        peak = max(peak, private_bytes())
        return result
    return watch

form.PreparedSource.read = watched(form.PreparedSource.read)
torch.save, checkpoint.save_file = watched(torch.save), watched(checkpoint.save_file)
gguf.GGUFWriter.write_tensor_data = watched(gguf.GGUFWriter.write_tensor_data)
source, target, to, shards, dtype, warm_up = json.loads(sys.argv[1])
options = dict(to=Format(to), n_shards=shards, dtype=Dtype(dtype) if dtype else None, reporter=quiet())
convert(pathlib.Path(warm_up), pathlib.Path(target + " warm-up"), **options)
before, peak = private_bytes(), 0
convert(pathlib.Path(source), pathlib.Path(target), **options)
print(peak - before)
"""


def write_random(config: ModelConfig, folder: Path) -> None:
    source = gguf_files.MemorySource(config, gguf_files.random_values(config, dtype=torch.bfloat16))
    write_hugging_face(source, folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("memory")
    write_random(CONFIG, base / "hf")
    write_random(CONFIG.model_copy(update={"n_layers": 1, "vocab_size": 64}), base / "small")
    yield base
    for path in base.rglob("*.*"):
        path.unlink(missing_ok=True)


def peak_bytes(*arguments: object) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "shards", "dtype"), [("meta", 4, None), ("meta", 8, "fp16"), ("gguf", None, "q8_0")]
)
def test_the_peak_is_one_file_and_a_tensor(
    folders: Path, to: str, shards: int | None, dtype: str | None
) -> None:
    """Of a GGUF one tensor is held at a time: there and in float32, where it is quantized, with its copy."""
    total = sum(TensorInfo(shape, torch.bfloat16).n_bytes for shape in shapes(CONFIG).values())
    limit = (total / shards + 2 * LARGEST_BYTES if shards else 4 * LARGEST_BYTES) + EXTRA_BYTES
    assert limit < 0.9 * total
    name = f"{to}{shards}{dtype}"
    peak = peak_bytes(str(folders / "hf"), str(folders / name), to, shards, dtype, str(folders / "small"))
    print(f"all {total / 1e6:.1f} MB, limit {limit / 1e6:.1f} MB, peak {peak / 1e6:.1f} MB")
    assert peak < limit
