"""Hugging Face folders: shards, what transformers reads of them, and damage."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from conversions import assert_same_bits, run, weights
from puna.conversion.hugging_face import HuggingFaceSource, write_hugging_face
from puna.conversion.source import TensorInfo, shapes
from puna.core.errors import CheckpointError
from puna.model.checkpoint import load_model
from puna.model.config import ModelConfig

MakeFolder = Callable[..., Path]


def test_a_written_folder_loads_in_transformers(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    run(folder, tmp_path / "meta", "meta", shards=8)
    run(tmp_path / "meta", tmp_path / "back", "hf")
    tokens = torch.arange(3, 40)[None]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(tokens).logits, load_model(folder, device="cpu")(tokens), atol=1e-4, rtol=0
        )


def test_shards_are_cut_and_indexed_as_transformers_reads_them(
    make_folder: MakeFolder, tmp_path: Path, shardable: ModelConfig
) -> None:
    folder, target = make_folder(torch.bfloat16), tmp_path / "out"
    write_hugging_face(HuggingFaceSource(folder), target, max_shard_bytes=60_000)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(shapes(shardable))
    assert len(set(index["weight_map"].values())) > 3
    stored = weights(folder)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in stored.values())
    for file in set(index["weight_map"].values()):
        held = load_file(target / file)
        assert sum(tensor.nbytes for tensor in held.values()) <= 60_000
        assert set(held) == {name for name, of in index["weight_map"].items() if of == file}
    assert_same_bits(weights(target), weights(folder))
    theirs = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(tokens).logits, load_model(folder, device="cpu")(tokens), atol=1e-4, rtol=0
        )
    run(target, tmp_path / "again", "hf")
    assert_same_bits(weights(tmp_path / "again"), weights(folder))


def test_each_tensor_keeps_its_own_format(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_file(tensors, folder / "model.safetensors")
    run(folder, tmp_path / "meta", "meta", shards=2)
    run(tmp_path / "meta", tmp_path / "back", "hf")
    assert_same_bits(weights(tmp_path / "back"), tensors)


def test_frequencies_and_a_tied_output_are_left_out(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(tied=True)
    tensors = load_file(folder / "model.safetensors")
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3),
        "lm_head.weight": tensors["model.embed_tokens.weight"].clone(),
    }
    save_file(tensors | extra, folder / "model.safetensors")
    run(folder, tmp_path / "out", "hf")
    assert_same_bits(weights(tmp_path / "out"), tensors)


def index(folder: Path, **files: str) -> None:
    """Replace the index: every tensor in model.safetensors but those named."""
    names = dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names | files}))


def edit(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors: dict[str, torch.Tensor | None] = {**load_file(folder / "model.safetensors"), **changes}
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / "model.safetensors")


NORM = "model.norm.weight"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "path above": (lambda f: index(f, **{NORM: "../x.safetensors"}), "files of this folder"),
    "absolute path": (lambda f: index(f, **{NORM: "/etc/hostname"}), "files of this folder"),
    "missing file": (lambda f: index(f, **{NORM: "other.safetensors"}), "no such file"),
    "missing tensor": (lambda f: edit(f, **{NORM: None}), f"no {NORM}"),
    "unknown tensor": (lambda f: edit(f, bias=torch.ones(3)), "also bias"),
    "shape": (lambda f: edit(f, **{NORM: torch.ones(5)}), r"shape \(96,\).* got shape \(5,\)"),
    "integers": (lambda f: edit(f, **{NORM: torch.ones(96).int()}), f"{NORM} in F32, BF16 or F16, got I32"),
    "doubles": (lambda f: edit(f, **{NORM: torch.ones(96).double()}), "got F64"),
    "NaN": (lambda f: edit(f, **{NORM: torch.full((96,), torch.nan)}), f"finite numbers in {NORM}"),
    "infinity": (lambda f: edit(f, **{NORM: torch.full((96,), -torch.inf)}), f"finite numbers in {NORM}"),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1]),
        "a whole safetensors file",
    ),
    "huge header": (
        lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 7 + b"\x00" + b"{}" * 50),
        "a whole safetensors file",
    ),
    "tokenizer": (lambda f: (f / "tokenizer.model").write_bytes(b"\x00" * 40), "tokenizer.model"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_nothing_is_published(
    make_folder: MakeFolder, tmp_path: Path, damage: str
) -> None:
    folder = make_folder()
    spoil, message = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        run(folder, tmp_path / "out", "meta")
    assert not (tmp_path / "out").exists()


def test_a_lying_header_is_refused_before_anything_is_allocated(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    """A tensor of 2**50 bytes in a file of a few."""
    folder = make_folder()
    entry = {NORM: {"dtype": "F32", "shape": [2**48], "data_offsets": [0, 2**50]}}
    header = json.dumps(entry).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x00" * 64)
    with pytest.raises(CheckpointError, match="a whole safetensors file"):
        run(folder, tmp_path / "out", "meta")


def test_the_planned_sizes_are_those_of_the_files(make_folder: MakeFolder) -> None:
    folder = make_folder(torch.float16)
    source = HuggingFaceSource(folder)
    stored = load_file(folder / "model.safetensors")
    assert source.tensors == {
        name: TensorInfo(tuple(stored[name].shape), torch.float16) for name in source.tensors
    }
    assert list(source.tensors) == list(shapes(source.config))
