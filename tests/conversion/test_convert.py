"""Any format to any other with the same bits, and damage anywhere that never escapes as anything but our errors."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from conversions import assert_same_bits, run, weights
from imported_tokenizers import put_unigram_model
from puna.conversion.convert import open_checkpoint
from puna.conversion.source import shapes
from puna.core.errors import CheckpointError, ConfigError, RecipeError
from puna.model.checkpoint import save_model
from puna.model.config import ModelConfig
from puna.model.rope_scaling import LinearScaling
from puna.model.transformer import Transformer
from puna.tokenizer.tokenizer import Tokenizer

MakeFolder = Callable[..., Path]


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("tied", [False, True])
def test_through_gguf_and_back(make_folder: MakeFolder, tmp_path: Path, dtype: str, tied: bool) -> None:
    """GGUF keeps norms in float32, so the way back names the format."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    folder = make_folder(kind, tied=tied)
    run(folder, tmp_path / "model.gguf", "gguf")
    run(tmp_path / "model.gguf", tmp_path / "back", "hf", dtype=dtype)
    assert_same_bits(weights(folder), weights(tmp_path / "back"))
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "back" / name).read_text()) == json.loads((folder / name).read_text())
    before, after = Tokenizer.load(folder), Tokenizer.load(tmp_path / "back")
    for text in ("the red fox sees 17 goats", "  two\n\nspaces é \U0001f999", ""):
        assert after.encode(text, bos=True) == before.encode(text, bos=True)


@pytest.mark.parametrize(
    ("dtype", "kind", "file_type"),
    [("bf16", torch.bfloat16, 32), ("fp16", torch.float16, 1), ("fp32", torch.float32, 0)],
)
@pytest.mark.parametrize("is_named", [True, False])
def test_the_label_is_the_tensors_own_format(
    make_folder: MakeFolder, tmp_path: Path, dtype: str, kind: torch.dtype, file_type: int, is_named: bool
) -> None:
    """config.json and general.file_type, whether the format is asked for or the source's own."""
    folder = make_folder(torch.float32 if is_named else kind)
    wanted = dtype if is_named else None
    run(folder, tmp_path / "out", "hf", dtype=wanted)
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {kind}
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert f"torch.{values['torch_dtype']}" == str(kind)
    run(folder, tmp_path / "meta", "meta", shards=2, dtype=wanted)
    for path in (tmp_path / "meta").glob("*.pth"):
        assert {tensor.dtype for tensor in torch.load(path, weights_only=True).values()} == {kind}
    run(folder, tmp_path / "model.gguf", "gguf", dtype=wanted)
    reader = GGUFReader(tmp_path / "model.gguf")
    assert reader.fields["general.file_type"].contents() == file_type
    stored = {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) == 2}
    assert stored == {dtype.upper().replace("FP", "F")}


def test_meta_to_gguf_to_meta(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(torch.float32)
    run(folder, tmp_path / "meta", "meta", shards=4)
    run(tmp_path / "meta", tmp_path / "model.gguf", "gguf", dtype="fp32")
    run(tmp_path / "model.gguf", tmp_path / "meta again", "meta", shards=8)
    run(tmp_path / "meta again", tmp_path / "back", "hf")
    assert_same_bits(weights(folder), weights(tmp_path / "back"))


def test_eight_bits_stay_near(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Half a step of a block of 32: 1/254 of its largest value."""
    folder = make_folder()
    run(folder, tmp_path / "model.gguf", "gguf", dtype="q8_0")
    run(tmp_path / "model.gguf", tmp_path / "back", "hf")
    before, after = weights(folder), weights(tmp_path / "back")
    for name, tensor in before.items():
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            largest = tensor.view(-1, 32).abs().amax(1)
            error = (after[name].float() - tensor).view(-1, 32).abs().amax(1)
            assert (error <= largest * (0.5 / 127 + 2e-3)).all(), name
            assert error.max() > 0


def test_the_special_tokens_of_a_folder_are_kept(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    values = json.loads((folder / "generation_config.json").read_text()) | {
        "eos_token_id": [2, 7],
        "top_p": 0.5,
    }
    (folder / "generation_config.json").write_text(json.dumps(values))
    run(folder, tmp_path / "out", "hf", dtype="bf16")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == values


def test_what_metas_code_lacks_is_refused_by_name(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder()
    path = folder / "config.json"
    values = json.loads(path.read_text())
    scaling = LinearScaling(factor=2.0).model_dump()
    path.write_text(json.dumps(values | {"rope_scaling": scaling, "rope_parameters": None}))
    with pytest.raises(ConfigError, match="got another rope_scaling"):
        run(folder, tmp_path / "out", "meta")
    path.write_text(json.dumps(values | {"head_dim": 12}))
    with pytest.raises(CheckpointError, match=r"q_proj\.weight of shape \(192, 96\)"):
        run(folder, tmp_path / "out", "meta")


@pytest.mark.parametrize("to", ["hf", "meta", "gguf"])
def test_dynamic_scaling_is_refused_by_name(make_folder: MakeFolder, tmp_path: Path, to: str) -> None:
    folder = make_folder()
    path = folder / "config.json"
    scaling = {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_parameters": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | scaling))
    with pytest.raises(
        CheckpointError, match=r"config\.json: expected rope_type default, .* got rope_type 'dyn"
    ):
        run(folder, tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    make_folder: MakeFolder, tmp_path: Path, tokenizer_model: Path
) -> None:
    folder = make_folder()
    tensors = {
        name: tensor[:290].contiguous() if len(tensor) == 296 else tensor
        for name, tensor in weights(folder).items()
    }
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"vocab_size": 290}))
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="a tokenizer of at most 290 tokens"):
        run(folder, tmp_path / "out", "hf")


def test_a_tokenizer_that_cannot_be_saved_is_refused_before_anything_is_written(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_folder()
    put_unigram_model(folder)
    with pytest.raises(CheckpointError, match="a unigram model that encodes differently"):
        run(folder, tmp_path / "out", "meta")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("kind", ["meta", "hf", "gguf"])
@pytest.mark.parametrize("name", ["70b é.v1", "model.gguf", "50%20 'q';$HOME", "-out", ".hidden"])
def test_any_folder_name_is_a_plain_target(
    make_folder: MakeFolder, tmp_path: Path, name: str, kind: str
) -> None:
    """The name is a name: what is written there is what `plain` gets, and nothing is left beside it."""
    folder, place = make_folder(), tmp_path / "a b"
    place.mkdir()
    for target in (tmp_path / "plain", place / name):
        run(folder, target, kind)
    assert [path.name for path in place.iterdir()] == [name]
    if kind == "gguf":  # its header holds the name
        (config, tensors), (plain_config, plain) = map(read_all, (place / name, tmp_path / "plain"))
        assert config == plain_config
        assert_same_bits(plain, tensors)
    else:
        assert contents(place / name) == contents(tmp_path / "plain")


def contents(target: Path) -> dict[str, bytes]:
    """Bytes of every file of a conversion but its manifest, which holds times."""
    files = [path for path in target.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert files
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in files}


def read_all(path: Path) -> tuple[ModelConfig, dict[str, torch.Tensor]] | None:
    """What a checkpoint holds, or None where it is refused; only our errors may come."""
    try:
        source = open_checkpoint(path)
        return source.config, {name: source.read(name).clone() for name in source.tensors}
    except RecipeError:  # which the command line turns into one message and exit code 2
        return None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small checkpoint of each kind, without tokenizer and checksums, which would notice any damage."""
    base = tmp_path_factory.mktemp("whole")
    config = ModelConfig(
        dim=16, n_layers=1, n_heads=2, n_kv_heads=2, vocab_size=40, hidden_dim=24, max_seq_len=64
    )
    save_model(Transformer(config), base / "hf")
    run(base / "hf", base / "meta", "meta", shards=2)
    (base / "meta" / "checklist.chk").unlink()
    return {kind: base / kind for kind in ("hf", "meta")}


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first.view(torch.int32), second.view(torch.int32))


@pytest.mark.parametrize("kind", ["hf", "meta"])
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), flips=st.integers(0, 5), cut=st.booleans())
def test_random_damage_of_any_file_is_refused_or_stays_where_it_is(
    whole: dict[str, Path], kind: str, seed: int, flips: int, cut: bool
) -> None:
    """Flipped bytes near the start of a file, where the headers are, and cuts anywhere.

    A file of weights that is cut is always refused. What is read in spite of flipped bytes has the shapes of
    the configuration, and is the undamaged model but for as many tensors as bytes were flipped. A configuration
    may say something else that fits the same weights: they are then the same.
    """
    chance = random.Random(seed)
    damaged = whole[kind].with_name(f"damaged {kind}")
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(whole[kind], damaged)
    path = chance.choice(sorted(damaged.iterdir()))
    content = bytearray(path.read_bytes())
    for _ in range(flips):
        content[chance.randrange(min(len(content), 4000))] = chance.randrange(256)
    path.write_bytes(content[: chance.randrange(len(content))] if cut else content)
    found = read_all(damaged)
    is_weights = path.suffix in (".safetensors", ".pth")
    if cut and is_weights:
        assert found is None
    if found is None:
        assert cut or flips, "an undamaged checkpoint was refused"
        return
    config, tensors = found
    undamaged = read_all(whole[kind])
    assert undamaged is not None
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes(config)
    shared = [name for name in undamaged[1] if name in tensors]
    others = [name for name in shared if not same_bits(tensors[name], undamaged[1][name])]
    if is_weights:
        assert len(others) <= flips
        assert config == undamaged[0]
    elif config.n_heads == undamaged[0].n_heads and config.n_kv_heads == undamaged[0].n_kv_heads:
        assert not others  # the number of heads turns the rows of Meta's wq and wk
