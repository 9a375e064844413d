"""llama2.c's files: both float32 versions against a writer of their own here, the released model, and damage."""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conversions import assert_same_bits, run, weights
from puna.conversion.convert import open_checkpoint
from puna.conversion.llama2c import Llama2cSource, is_llama2c
from puna.conversion.llama2c_tokenizer import read_llama2c_tokenizer
from puna.core.errors import CheckpointError, DataError
from puna.core.inputs import resolve_path
from puna.inference.engine import Engine
from puna.inference.sampling import SamplingConfig
from puna.model.checkpoint import load_model
from puna.tokenizer.tokenizer import Tokenizer

MakeFolder = Callable[..., Path]
LAYER = {
    "attention_norm": "input_layernorm", "wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj",
    "wo": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "w1": "mlp.gate_proj", "w2": "mlp.down_proj",
    "w3": "mlp.up_proj",
}  # fmt: skip


def export(folder: Path, *, version: int) -> bytes:
    """A Hugging Face folder as llama2.c's export.py writes it."""
    config = json.loads((folder / "config.json").read_text())
    hf = {name: tensor.float() for name, tensor in weights(folder).items()}
    n_layers, dim, tied = config["num_hidden_layers"], config["hidden_size"], config["tie_word_embeddings"]
    heads = {"wq": config["num_attention_heads"], "wk": config["num_key_value_heads"]}

    def layers(part: str) -> list[torch.Tensor]:
        found = [hf[f"model.layers.{i}.{LAYER[part]}.weight"] for i in range(n_layers)]
        if part in heads:
            found = [w.view(heads[part], 2, -1, dim).transpose(1, 2).reshape(w.shape) for w in found]
        return found

    norms, final, table = (
        ["attention_norm", "ffn_norm"],
        [hf["model.norm.weight"]],
        [hf["model.embed_tokens.weight"]],
    )
    matrices = ["wq", "wk", "wv", "wo", "w1", "w2", "w3"]
    output = [] if tied else [hf["lm_head.weight"]]
    length = config["max_position_embeddings"]
    sizes = [
        dim,
        config["intermediate_size"],
        n_layers,
        *heads.values(),
        296 if tied or version else -296,
        length,
    ]
    if version == 0:
        order = ["attention_norm", "wq", "wk", "wv", "wo", "ffn_norm", "w1", "w2", "w3"]
        angles = [torch.randn(length, dim // heads["wq"])]
        tensors = [*table, *(w for part in order for w in layers(part)), *final, *angles, *output]
        header = struct.pack("<7i", *sizes)
    else:
        tensors = [*(w for part in norms for w in layers(part)), *final, *table]
        tensors += [*(w for part in matrices for w in layers(part)), *output]
        header = struct.pack("<Ii7iB", 0x616B3432, version, *sizes, tied).ljust(256, b"\x00")
    return header + b"".join(tensor.numpy().tobytes() for tensor in tensors)


def export_tokenizer(model: Path) -> bytes:
    """A tokenizer.model as llama2.c's tokenizer.py writes it."""
    tokenizer = Tokenizer.load(model)
    content = struct.pack("<I", 16)
    for token_id, piece in enumerate(tokenizer.pieces(range(tokenizer.vocab_size))):
        text = (
            {1: "\n<s>\n", 2: "\n</s>\n"}.get(token_id, piece)
            .replace("\N{LOWER ONE EIGHTH BLOCK}", " ")
            .encode()
        )
        content += struct.pack("<fI", 0.0 if token_id < 259 else 259.0 - token_id, len(text)) + text
    return content


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("tied", [False, True])
def test_both_versions_give_the_same_bits(
    make_folder: MakeFolder, tmp_path: Path, version: int, tied: bool
) -> None:
    folder = make_folder(tied=tied)
    path = tmp_path / "model.bin"
    path.write_bytes(export(folder, version=version))
    run(path, tmp_path / "out", "hf", tokenizer=folder)
    assert_same_bits(weights(tmp_path / "out"), weights(folder))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] is tied
    assert config["max_position_embeddings"] == 64


def test_its_tokenizer_encodes_as_the_model_it_came_from(tokenizer_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(export_tokenizer(tokenizer_model))
    (tmp_path / "tokenizer.model").write_bytes(read_llama2c_tokenizer(path))
    ours, theirs = Tokenizer.load(tmp_path), Tokenizer.load(tokenizer_model)
    assert ours.vocab_size == theirs.vocab_size
    texts = [
        "the goat runs home",
        "  two  spaces\n\ttab",
        "17 é 日本 \U0001f999",
        "",
        " ",
        "<s> no control",
        "\x00\x7f",
    ]
    for text in texts:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == text
    ours.save(tmp_path / "saved", max_seq_len=64)  # raises unless tokenizer.json gives the same ids


@pytest.mark.real
def test_the_released_model_tells_its_story(tmp_path: Path) -> None:
    released = resolve_path("PUNA_DATA/weights/stories260K")
    folder = tmp_path / "stories"
    run(released / "stories260K.bin", folder, "hf", tokenizer=released / "tok512.bin")
    expected = (released / "expected_greedy_200.txt").read_text().rstrip("\n")
    tokenizer = Tokenizer.load(folder)
    prompt = tokenizer.encode("Once upon a time", bos=True)
    n_new = len(tokenizer.encode(expected, bos=True)) - len(prompt)
    engine = Engine(load_model(folder, device="cpu"), tokenizer)
    (completion,) = engine.generate(
        [prompt], SamplingConfig(temperature=0.0, max_new_tokens=n_new), seeds=[0]
    )
    assert "Once upon a time" + engine.text(completion) == expected


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda b: b[:-4], "as its header says"),
    "longer": (lambda b: b + b"\x00" * 4, "as its header says"),
    "only a header": (lambda b: b[:28], "header"),
    "heads": (lambda b: b[:12] + struct.pack("<i", 7) + b[16:], "n_heads 7"),
    "layers": (lambda b: b[:8] + struct.pack("<i", 10**6) + b[12:], "n_layers"),
    "huge": (lambda b: b[:4] + struct.pack("<i", 2**19) + b[8:], "a file of 1,208,411,548 bytes"),
    "quantized": (lambda b: struct.pack("<Ii", 0x616B3432, 2) + b, "quantized to 8 bits"),
    "version 9": (lambda b: struct.pack("<Ii", 0x616B3432, 9) + b, "version 9"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(make_folder: MakeFolder, tmp_path: Path, damage: str) -> None:
    spoil, message = DAMAGES[damage]
    path = tmp_path / "model.bin"
    path.write_bytes(spoil(export(make_folder(), version=0)))
    with pytest.raises(CheckpointError, match=message):
        run(path, tmp_path / "out", "hf")


def test_weights_that_are_no_numbers_are_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    content = bytearray(export(make_folder(), version=1))
    content[256 + 96 * 4 : 256 + 96 * 4 + 4] = struct.pack("<f", math.nan)  # the second layer's first norm
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"finite numbers in model\.layers\.1\.input_layernorm\.weight"):
        run(tmp_path / "model.bin", tmp_path / "out", "hf")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b[:-1], "a piece of 1 to 4096 bytes"),
        (lambda b: b + b"\x00\x00", "a score and a length"),
        (lambda b: b[:8] + struct.pack("<I", 2**31 - 1) + b[12:], "a piece of 1 to 4096 bytes"),
        (lambda b: b.replace(b"<0x41>", b"<0xzz>"), "one for every byte"),
        (lambda b: b.replace(b"\n<s>\n", b"\nabc\n"), "<s> as token 1"),
        (lambda b: b[:4] + struct.pack("<f", math.nan) + b[8:], "a finite score"),
        (lambda b: b.replace(b"<0x42>", b"<0x41>"), "different pieces"),
        (lambda b: b.replace(b"<0x42>", b"<0x\xff2>"), "pieces in UTF-8"),
    ],
)
def test_damage_of_the_tokenizer_is_named(
    tokenizer_model: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(spoil(export_tokenizer(tokenizer_model)))
    with pytest.raises(CheckpointError, match=message):
        read_llama2c_tokenizer(path)


def test_other_files_are_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for content in (b"", b"short", b"PK\x03\x04" + bytes(60), bytes(100), b"{}" * 60):
        path.write_bytes(content)
        assert not is_llama2c(path)
        with pytest.raises(DataError, match="a file of another kind"):
            open_checkpoint(path)


@settings(max_examples=200)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=7, max_size=7), st.booleans(), st.integers(0, 400))
def test_no_header_makes_it_allocate(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], has_magic: bool, n_bytes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.bin"
    start = struct.pack("<Ii", 0x616B3432, 1) if has_magic else b""
    path.write_bytes(start + struct.pack("<7i", *sizes) + bytes(n_bytes))
    with pytest.raises(CheckpointError):
        Llama2cSource(path)
