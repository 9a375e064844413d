"""Peak memory of a conversion: one tensor and its buffers, never the whole model.

Measured in a process of its own as the highest resident size (VmHWM), which counts mapped pages of files too, less
the resident size before.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from puna.conversion.hugging_face import HuggingFaceLayout, HuggingFaceSource
from puna.conversion.stream import TensorInfo, TensorSource, shapes
from puna.conversion.writer import verify, workspace, write_tensors
from puna.core.progress import quiet
from puna.model.config import ModelConfig
from puna.model.generation_config import GenerationConfig

CONFIG = ModelConfig(
    dim=512, n_layers=24, n_heads=8, n_kv_heads=8, vocab_size=48_000, hidden_dim=1376, tie_embeddings=False
)
LARGEST_BYTES = CONFIG.vocab_size * CONFIG.dim * 2
"""Above 32 MiB, so that the C library returns freed memory at once, as it does for the tensors of real models."""
BUFFER_BYTES = 8 * 2**20
"""A block of 2 MiB, its copies in another order and format, the check for NaN, and what the allocator keeps."""

PROGRAM = """
import json, pathlib, re, sys
from puna.core.progress import quiet
from puna.conversion.convert import Dtype, Format, convert

def status(field):
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\\s+(\\d+) kB", text).group(1)) * 1024

source, target, to, shards, dtype, warm_up = json.loads(sys.argv[1])
options = dict(to=Format(to), n_shards=shards, dtype=Dtype(dtype) if dtype else None, reporter=quiet())
convert(pathlib.Path(warm_up), pathlib.Path(target + " warm-up"), **options)
before = status("VmRSS")
convert(pathlib.Path(source), pathlib.Path(target), **options)
print(status("VmHWM") - before)
"""


class RandomSource(TensorSource):
    """A model that is made one tensor at a time."""

    def __init__(self, config: ModelConfig) -> None:
        self.path, self.config, self.tokenizer = Path("random"), config, None
        self.tensors = {name: TensorInfo(shape, torch.bfloat16) for name, shape in shapes(config).items()}

    def read(self, name: str) -> Tensor:
        generator = torch.Generator().manual_seed(len(name))
        return torch.randn(self.tensors[name].shape, generator=generator, dtype=torch.bfloat16)

    def close(self) -> None:
        pass


def write_random(config: ModelConfig, folder: Path) -> None:
    source = RandomSource(config)
    layout = HuggingFaceLayout(config, source.tensors, None, GenerationConfig())
    with workspace(folder, {}) as work:
        write_tensors(source, layout, work, reporter=quiet())
        verify(work, HuggingFaceSource, layout, reporter=quiet())


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
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("shards", "dtype"), [(1, "fp16"), (4, None)])
def test_the_peak_is_one_tensor(folders: Path, shards: int, dtype: str | None) -> None:
    total = sum(TensorInfo(shape, torch.bfloat16).n_bytes for shape in shapes(CONFIG).values())
    limit = 1.3 * LARGEST_BYTES + BUFFER_BYTES
    assert limit < 0.4 * total
    name = f"{shards}{dtype}"
    peaks = {}
    for source, target, to in (
        (folders / "hf", f"meta{name}", "meta"),
        (folders / f"meta{name}", f"hf{name}", "hf"),
    ):
        warm_up = str(folders / "small") if to == "meta" else str(folders / f"meta{name} warm-up")
        peaks[to] = peak_bytes(
            str(source), str(folders / target), to, shards if to == "meta" else None, dtype, warm_up
        )
    print(f"largest tensor {LARGEST_BYTES / 1e6:.1f} MB, all {total / 1e6:.1f} MB, peaks {peaks}")
    assert all(peak < limit for peak in peaks.values()), peaks
