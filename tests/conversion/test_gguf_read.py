"""GGUF files are read as the gguf package and transformers read them, and refused by name where they are no Llama."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGMLQuantizationType as Kind
from gguf.quants import dequantize
from transformers import AutoModelForCausalLM

import gguf_files
from puna.conversion.gguf_read import GGUFSource
from puna.conversion.gguf_write import write_gguf
from puna.core.errors import CheckpointError
from puna.model.config import ModelConfig

K_WIDE = ModelConfig(
    dim=256, n_layers=1, n_heads=4, n_kv_heads=2, vocab_size=24, hidden_dim=512, max_seq_len=64
)
"""Rows of whole K-quant blocks."""
KINDS = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


@pytest.mark.parametrize("name", KINDS)
def test_quantized_tensors_have_the_values_that_the_gguf_package_gives(tmp_path: Path, name: str) -> None:
    stored = gguf_files.write_quantized(tmp_path / "model.gguf", K_WIDE, Kind[name])
    source = GGUFSource(tmp_path / "model.gguf")
    assert source.config == K_WIDE
    for tensor_name, raw in stored.items():
        got = source.read(tensor_name)
        assert got.dtype == torch.float32
        if raw.dtype == np.float32:
            assert torch.equal(got, torch.from_numpy(raw))
            continue
        wanted = torch.from_numpy(dequantize(raw, Kind[name]))
        assert wanted.std() > 0
        if n_heads := gguf_files.heads_turned(tensor_name, K_WIDE):
            got = gguf_files.llama_cpp_rows(got, n_heads)
        assert torch.equal(got, wanted), tensor_name


def test_transformers_reads_the_same_weights(tmp_path: Path) -> None:
    gguf_files.write_quantized(tmp_path / "model.gguf", K_WIDE, Kind.Q4_1)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    ).state_dict()
    source = GGUFSource(tmp_path / "model.gguf")
    assert theirs.keys() == source.tensors.keys()
    assert all(torch.equal(source.read(name), theirs[name]) for name in theirs)


@pytest.mark.parametrize("tied", [True, False])
def test_an_absent_output_matrix_is_the_embedding(tmp_path: Path, tied: bool) -> None:
    config = K_WIDE.model_copy(update={"tie_embeddings": tied})
    gguf_files.write_quantized(tmp_path / "model.gguf", config, Kind.Q8_0)
    source = GGUFSource(tmp_path / "model.gguf")
    assert source.config.tie_embeddings is tied
    assert ("lm_head.weight" in source.tensors) is not tied


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"general.type": "adapter"}, "general.type 'model', got 'adapter'"),
        ({"split.count": 3}, "one file: join the parts"),
        ({"llama.expert_count": 8}, "without llama.expert_count, got 8"),
        ({"llama.attention.sliding_window": 4096}, "without llama.attention.sliding_window, got 4096"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, "'yarn'"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer.ggml.model 'llama' or 'gpt2', got 't5'"),
    ],
)
def test_what_is_no_llama_is_refused_by_name(tmp_path: Path, extra: dict[str, object], message: str) -> None:
    gguf_files.write_quantized(tmp_path / "model.gguf", K_WIDE, Kind.Q8_0, extra=extra)
    with pytest.raises(CheckpointError, match=message):
        GGUFSource(tmp_path / "model.gguf")


def test_another_architecture_and_another_number_format_are_named(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "qwen.gguf", "qwen2")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    _finish(writer)
    with pytest.raises(CheckpointError, match=r"general\.architecture 'llama', got 'qwen2'"):
        GGUFSource(tmp_path / "qwen.gguf")
    path = tmp_path / "model.gguf"
    gguf_files.write_quantized(path, K_WIDE, Kind.Q4_0)  # IQ4_NL has blocks of the same size
    raw = bytearray(path.read_bytes())
    place = raw.index(b"blk.0.attn_v.weight") + len("blk.0.attn_v.weight") + 4 + 16
    assert raw[place] == Kind.Q4_0
    raw[place] = Kind.IQ4_NL
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"blk\.0\.attn_v\.weight in one of F32.*got IQ4_NL"):
        GGUFSource(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, tiny: ModelConfig, bad: float
) -> None:
    values = gguf_files.random_values(tiny)
    path = tmp_path / "model.gguf"
    write_gguf(gguf_files.MemorySource(tiny, values), path, dtype="f32")
    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    start = stored["blk.1.ffn_up.weight"].data_offset
    with path.open("r+b") as file:
        file.seek(start + 4 * 7)
        file.write(np.float32(bad).tobytes())
    source = GGUFSource(path)
    with pytest.raises(CheckpointError, match=r"finite.*blk\.1\.ffn_up\.weight"):
        source.read("model.layers.1.mlp.up_proj.weight")


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
