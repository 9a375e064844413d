"""GGUF files are written bit for bit, in llama.cpp's layout, and read back."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.constants import GGMLQuantizationType as Kind
from gguf.quants import quantize
from hypothesis import given
from hypothesis import strategies as st

import gguf_files
from gguf_files import gguf_name
from puna.conversion.gguf_read import GGUFSource
from puna.conversion.gguf_write import GGUFFormat, verify_gguf, write_gguf
from puna.core.errors import CheckpointError, ConfigError, StorageError
from puna.model.config import ModelConfig
from puna.model.rope_scaling import LinearScaling, Llama3Scaling, YarnScaling

PLAIN: dict[GGUFFormat, torch.dtype] = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(scope="module")
def wide() -> ModelConfig:
    """Matrices whose rows are whole blocks of Q8_0."""
    return ModelConfig(
        dim=64, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=40, hidden_dim=96, max_seq_len=64
    )


@given(
    n_kv=st.integers(1, 3),
    n_repeats=st.integers(1, 3),
    half=st.integers(1, 5),
    hidden=st.integers(1, 9),
    tied=st.booleans(),
    dtype=st.sampled_from(sorted(PLAIN)),
    seed=st.integers(0, 99),
)
def test_round_trips_are_exact(
    tmp_path_factory: pytest.TempPathFactory,
    n_kv: int, n_repeats: int, half: int, hidden: int, tied: bool, dtype: GGUFFormat, seed: int,
) -> None:  # fmt: skip
    config = ModelConfig(
        dim=n_kv * n_repeats * half * 2, n_layers=2, n_heads=n_kv * n_repeats, n_kv_heads=n_kv,
        vocab_size=7, hidden_dim=hidden, max_seq_len=128, norm_eps=3e-6, rope_theta=12_345.0, tie_embeddings=tied,
    )  # fmt: skip
    values = gguf_files.random_values(config, dtype=PLAIN[dtype], seed=seed)
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(gguf_files.MemorySource(config, values), path, dtype=dtype)
    back = GGUFSource(path)
    assert back.config == config
    assert list(back.tensors) == list(values)
    for name, value in values.items():
        got = back.read(name)
        assert got.dtype == (torch.float32 if value.dim() == 1 else value.dtype)
        assert torch.equal(got.to(value.dtype), value), name


@pytest.mark.parametrize(
    "change",
    [
        {"custom_head_dim": 24},
        {"rope_scaling": LinearScaling(factor=2.5)},
        {
            "rope_theta": 500_000.0,
            "rope_scaling": Llama3Scaling(
                factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192
            ),
        },
        {
            "rope_scaling": Llama3Scaling(
                factor=3.0, low_freq_factor=2.0, high_freq_factor=5.0, original_max_seq_len=99
            ),
        },
    ],
)
def test_head_widths_and_rotary_scaling_survive(
    tmp_path: Path, wide: ModelConfig, change: dict[str, object]
) -> None:
    config = wide.model_copy(update=change)
    values = gguf_files.random_values(config)
    write_gguf(gguf_files.MemorySource(config, values), tmp_path / "model.gguf", dtype="f32")
    back = GGUFSource(tmp_path / "model.gguf")
    assert back.config == config
    assert all(torch.equal(back.read(name), value) for name, value in values.items())


def test_llama_3_divisors_are_those_of_llama_cpps_converter(tmp_path: Path, wide: ModelConfig) -> None:
    scaling = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_seq_len=8192)
    config = wide.model_copy(
        update={"rope_scaling": scaling, "rope_theta": 500_000.0, "custom_head_dim": 128}
    )
    wanted = []
    for i in range(0, 128, 2):
        turns = 8192 * 500_000.0 ** (-i / 128) / (2 * math.pi)  # in the trained context
        smooth = min(max((turns - 1) / (4 - 1), 0), 1)
        wanted.append(1 / ((1 - smooth) / 8 + smooth))
    source = gguf_files.MemorySource(config, gguf_files.random_values(config))
    write_gguf(source, tmp_path / "model.gguf", dtype="bf16")
    stored = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert np.allclose(stored["rope_freqs.weight"].data, wanted, rtol=1e-5)
    assert stored["rope_freqs.weight"].data.dtype == np.float32


def test_scaling_that_llama_cpp_lacks_is_refused(tmp_path: Path, wide: ModelConfig) -> None:
    scaling = YarnScaling(factor=4.0, original_max_seq_len=16)
    config = wide.model_copy(update={"rope_scaling": scaling})
    source = gguf_files.MemorySource(config, gguf_files.random_values(config))
    with pytest.raises(ConfigError, match="none, linear or llama3 in a GGUF file, got yarn"):
        write_gguf(source, tmp_path / "model.gguf", dtype="f32")


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_the_bytes_are_those_of_the_gguf_package(
    tmp_path: Path, wide: ModelConfig, dtype: GGUFFormat
) -> None:
    """Its reader, its rounding and quantization, and its converter's order of rows; norms stay in float32."""
    values = gguf_files.random_values(wide)
    write_gguf(gguf_files.MemorySource(wide, values), tmp_path / "model.gguf", dtype=dtype)
    stored = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert len(stored) == len(values)
    for name, value in values.items():
        if n_heads := gguf_files.heads_turned(name, wide):
            value = gguf_files.llama_cpp_rows(value, n_heads)
        kind = Kind.F32 if value.dim() == 1 else Kind[dtype.upper()]
        assert stored[gguf_name(name)].tensor_type == kind
        wanted = quantize(value.numpy(), kind)
        assert stored[gguf_name(name)].data.tobytes() == wanted.tobytes(), name


@pytest.mark.parametrize(("dtype", "label"), [("f32", 0), ("f16", 1), ("bf16", 32), ("q8_0", 7)])
def test_the_file_is_labelled_as_its_matrices_are(
    tmp_path: Path, wide: ModelConfig, dtype: GGUFFormat, label: int
) -> None:
    """general.file_type by llama.h's own numbers: programs show it, and choose by it."""
    source = gguf_files.MemorySource(wide, gguf_files.random_values(wide))
    write_gguf(source, tmp_path / "model.gguf", dtype=dtype)
    reader = GGUFReader(tmp_path / "model.gguf")
    assert reader.fields["general.file_type"].contents() == label
    kinds = {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) == 2}
    assert kinds == {dtype.upper()}


def test_q8_0_errs_by_half_a_step_of_its_block(tmp_path: Path, wide: ModelConfig) -> None:
    """|d| <= amax / 254, half of the step amax / 127; the step itself is stored in float16, which moves the largest
    multiple, 127 steps, by up to amax / 2^11 more."""
    values = {name: value * 3 for name, value in gguf_files.random_values(wide, seed=5).items()}
    write_gguf(gguf_files.MemorySource(wide, values), tmp_path / "model.gguf", dtype="q8_0")
    worst = 0.0
    back = GGUFSource(tmp_path / "model.gguf")
    for name, value in values.items():
        if value.dim() == 1:
            continue
        blocks, got = value.view(-1, 32), back.read(name).view(-1, 32)
        largest = blocks.abs().amax(dim=1, keepdim=True)
        error = (blocks - got).abs() / largest
        assert (error <= 1 / 254 + 2**-11 + 1e-7).all(), name
        worst = max(worst, error.max().item())
    assert worst > 1 / 300  # the bound is reached, so it is no vacuous one


def test_q8_0_falls_back_to_f16_where_rows_are_no_whole_blocks(tmp_path: Path, tiny: ModelConfig) -> None:
    """As llama.cpp's converter does: here the rows of w2 are 48 numbers, those of the others 32."""
    write_gguf(
        gguf_files.MemorySource(tiny, gguf_files.random_values(tiny)), tmp_path / "model.gguf", dtype="q8_0"
    )
    kinds = {tensor.name: tensor.tensor_type for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == Kind.F16
    assert kinds["blk.0.ffn_up.weight"] == Kind.Q8_0


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_numbers_beyond_the_format_are_named(tmp_path: Path, tiny: ModelConfig, dtype: GGUFFormat) -> None:
    values = gguf_files.random_values(tiny)
    values["model.layers.1.mlp.up_proj.weight"][3, 4] = 1e8
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight within the range"):
        write_gguf(gguf_files.MemorySource(tiny, values), tmp_path / "model.gguf", dtype=dtype)


def test_a_byte_that_changes_on_the_disk_is_noticed(tmp_path: Path, wide: ModelConfig) -> None:
    """Each tensor's last one, in turn."""
    source = gguf_files.MemorySource(wide, gguf_files.random_values(wide))
    path = tmp_path / "model.gguf"
    for dtype in ("f32", "q8_0"):
        write_gguf(source, path, dtype=dtype)
        verify_gguf(source, path, dtype=dtype)
        whole = path.read_bytes()
        for tensor in GGUFReader(path).tensors:
            raw = bytearray(whole)
            raw[tensor.data_offset + tensor.n_bytes - 1] ^= 1
            path.write_bytes(raw)
            with pytest.raises(StorageError, match="other bits when read back"):
                verify_gguf(source, path, dtype=dtype)
        path.unlink()


def test_bfloat16_rounds_as_the_gguf_package_does() -> None:
    values = torch.randn(4096, generator=torch.Generator().manual_seed(0)).view(-1, 32)
    values[0, :4] = torch.tensor(
        [1 + 2**-8, 1 + 3 * 2**-8, 1e-40, -0.0]
    )  # ties to even, subnormal, signed zero
    theirs = quantize(values.numpy(), Kind.BF16)
    assert values.bfloat16().view(torch.int16).numpy().tobytes() == np.ascontiguousarray(theirs).tobytes()
