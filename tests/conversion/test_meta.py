"""Meta's layout: bits there and back, an independent permutation, and a forward pass as Meta's code does it."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from conversions import assert_same_bits, run, weights
from puna.conversion.meta_params import feed_forward_dim, params_from_config, read_params
from puna.conversion.meta_split import check_split
from puna.conversion.rotary_rows import separate
from puna.core.errors import CheckpointError, ConfigError
from puna.model.checkpoint import load_model
from puna.model.config import PRESETS, ModelConfig

MakeFolder = Callable[..., Path]
Shards = list[dict[str, torch.Tensor]]


def load_shards(folder: Path) -> Shards:
    """The shards as Meta's loader sorts and reads them."""
    paths = sorted(folder.glob("*.pth"))
    return [torch.load(path, map_location="cpu", weights_only=True) for path in paths]


def save_shards(shards: Shards, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number, shard in enumerate(shards):
        torch.save(shard, folder / f"consolidated.{number:02d}.pth")


def change(folder: Path, target: Path, edit: Callable[[Shards], object]) -> Path:
    """A copy of a Meta folder, saved by torch itself, with its tensors edited."""
    shards = load_shards(folder)
    edit(shards)
    save_shards(shards, target)
    (target / "params.json").write_text((folder / "params.json").read_text())
    return target


@pytest.mark.parametrize("n_shards", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_bits_survive_the_way_there_and_back(
    make_folder: MakeFolder, tmp_path: Path, n_shards: int, dtype: torch.dtype
) -> None:
    folder = make_folder(dtype)
    run(folder, tmp_path / "meta", "meta", shards=n_shards)
    assert len(list((tmp_path / "meta").glob("*.pth"))) == n_shards
    run(tmp_path / "meta", tmp_path / "back", "hf")
    assert_same_bits(weights(folder), weights(tmp_path / "back"))
    for name in (
        "config.json",
        "tokenizer.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ):
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()


def test_shards_hold_what_the_published_scripts_put_there(
    make_folder: MakeFolder, tmp_path: Path, shardable: ModelConfig
) -> None:
    """The published scripts' way written anew: permute whole matrices, then chunk."""
    folder, n = make_folder(torch.bfloat16), 4
    run(folder, tmp_path / "meta", "meta", shards=n)
    shards, hf = load_shards(tmp_path / "meta"), weights(folder)
    dim, kv = shardable.dim, shardable.n_kv_heads * shardable.head_dim

    def unpermute(w: torch.Tensor, n_heads: int, height: int) -> torch.Tensor:
        return w.view(n_heads, 2, height // n_heads // 2, dim).transpose(1, 2).reshape(height, dim)

    layer = "model.layers.1."
    expected = {
        "layers.1.attention.wq.weight": unpermute(hf[f"{layer}self_attn.q_proj.weight"], 16, dim).chunk(n, 0),
        "layers.1.attention.wk.weight": unpermute(hf[f"{layer}self_attn.k_proj.weight"], 8, kv).chunk(n, 0),
        "layers.1.attention.wv.weight": hf[f"{layer}self_attn.v_proj.weight"].chunk(n, 0),
        "layers.1.attention.wo.weight": hf[f"{layer}self_attn.o_proj.weight"].chunk(n, 1),
        "layers.1.feed_forward.w1.weight": hf[f"{layer}mlp.gate_proj.weight"].chunk(n, 0),
        "layers.1.feed_forward.w2.weight": hf[f"{layer}mlp.down_proj.weight"].chunk(n, 1),
        "layers.1.feed_forward.w3.weight": hf[f"{layer}mlp.up_proj.weight"].chunk(n, 0),
        "layers.1.attention_norm.weight": [hf[f"{layer}input_layernorm.weight"]] * n,
        "layers.1.ffn_norm.weight": [hf[f"{layer}post_attention_layernorm.weight"]] * n,
        "tok_embeddings.weight": hf["model.embed_tokens.weight"].chunk(n, 1),
        "norm.weight": [hf["model.norm.weight"]] * n,
        "output.weight": hf["lm_head.weight"].chunk(n, 0),
    }
    for name, parts in expected.items():
        for shard, part in zip(shards, parts, strict=True):
            assert torch.equal(shard[name], part), name
    assert {name.replace("layers.0.", "layers.1.") for name in shards[0]} == set(expected)


def meta_logits(
    shard: dict[str, torch.Tensor], params: dict[str, float], tokens: torch.Tensor
) -> torch.Tensor:
    """Meta's forward pass on one whole shard: rotary pairs are neighbours, multiplied as complex numbers."""
    n_heads, n_kv_heads = int(params["n_heads"]), int(params.get("n_kv_heads", params["n_heads"]))
    head_dim, length = int(params["dim"]) // n_heads, tokens.shape[1]
    freqs = 1.0 / 10000.0 ** (torch.arange(0, head_dim, 2).float() / head_dim)
    turns = torch.polar(torch.ones(length, head_dim // 2), torch.outer(torch.arange(length).float(), freqs))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"]) * shard[f"{name}.weight"]

    def rotary(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns[None, :, None]).flatten(3)

    h = F.embedding(tokens, shard["tok_embeddings.weight"])
    mask = torch.full((length, length), -math.inf).triu(1)
    for i in range(int(params["n_layers"])):
        at = f"layers.{i}.attention"
        x = norm(h, f"layers.{i}.attention_norm")
        q = rotary(F.linear(x, shard[f"{at}.wq.weight"]).unflatten(-1, (n_heads, head_dim)))
        k = rotary(F.linear(x, shard[f"{at}.wk.weight"]).unflatten(-1, (n_kv_heads, head_dim)))
        v = F.linear(x, shard[f"{at}.wv.weight"]).unflatten(-1, (n_kv_heads, head_dim))
        k, v = (t.repeat_interleave(n_heads // n_kv_heads, dim=2) for t in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(head_dim) + mask
        mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)
        h = h + F.linear(mixed, shard[f"{at}.wo.weight"])
        ff = f"layers.{i}.feed_forward"
        x = norm(h, f"layers.{i}.ffn_norm")
        gate = F.silu(F.linear(x, shard[f"{ff}.w1.weight"])) * F.linear(x, shard[f"{ff}.w3.weight"])
        h = h + F.linear(gate, shard[f"{ff}.w2.weight"])
    return F.linear(norm(h, "norm"), shard["output.weight"])


@pytest.mark.parametrize("tied", [False, True])
def test_metas_forward_on_our_shard_gives_our_logits(
    make_folder: MakeFolder, tmp_path: Path, tied: bool
) -> None:
    folder = make_folder(tied=tied)
    run(folder, tmp_path / "meta", "meta")
    (shard,) = load_shards(tmp_path / "meta")
    params = json.loads((tmp_path / "meta" / "params.json").read_text())
    tokens = torch.randint(3, 296, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = load_model(folder, device="cpu")(tokens)
    assert ours.std() > 0.3
    torch.testing.assert_close(meta_logits(shard, params, tokens), ours, atol=1e-4, rtol=0)
    at = "layers.0.attention.wq.weight"
    wrong = shard | {at: separate(shard[at], head_dim=6)}
    assert (meta_logits(wrong, params, tokens) - ours).abs().max() > 0.01


def test_a_tied_model_comes_back_tied(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder(tied=True)
    run(folder, tmp_path / "meta", "meta", shards=2)
    run(tmp_path / "meta", tmp_path / "back", "hf")
    assert_same_bits(weights(folder), weights(tmp_path / "back"))
    assert json.loads((tmp_path / "back" / "config.json").read_text())["tie_word_embeddings"] is True


def test_metas_own_files_are_read(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Saved by torch, with rope.freqs, few keys in params.json, and the tokenizer one folder up."""
    folder = make_folder(torch.bfloat16)
    run(folder, tmp_path / "meta", "meta", shards=2)

    def edit(shards: Shards) -> None:
        for shard in shards:
            shard["rope.freqs"] = torch.ones(1)

    released = tmp_path / "llama" / "llama-2-nano"
    released.parent.mkdir()
    change(tmp_path / "meta", released, edit)
    sizes = {"dim": 96, "n_heads": 16, "n_kv_heads": 8, "n_layers": 2, "vocab_size": -1}
    (released / "params.json").write_text(json.dumps(sizes))
    (released.parent / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    lines = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}" for path in released.glob("*.pth")]
    (released / "checklist.chk").write_text("\n".join(lines))
    assert run(released, tmp_path / "back", "hf").has_tokenizer
    assert_same_bits(weights(folder), weights(tmp_path / "back"))
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (config["rms_norm_eps"], config["max_position_embeddings"], config["rope_theta"]) == (
        1e-5,
        4096,
        10_000.0,
    )


def rename(shards: Shards) -> None:
    shards[1]["layers.9.attention.wq.weight"] = shards[1].pop("norm.weight")


def cut_rows(shards: Shards) -> None:
    for shard in shards:
        shard["layers.0.attention.wv.weight"] = shard["layers.0.attention.wv.weight"][:-1].clone()


DAMAGES: dict[str, tuple[Callable[[Shards], object], str]] = {
    "replica": (lambda shards: shards[1]["norm.weight"].mul_(2), "norm.weight as in consolidated.00.pth"),
    "missing": (
        lambda shards: shards[1].pop("norm.weight"),
        "consolidated.01.pth: expected the tensor norm.weight",
    ),
    "renamed": (rename, "norm.weight"),
    "unknown": (lambda shards: shards[0].update(more=torch.ones(1)), "also more"),
    "shape": (cut_rows, r"v_proj.weight of shape \(48, 96\)"),
    "mixed formats": (
        lambda s: s[0].update({"norm.weight": s[0]["norm.weight"].half()}),
        "in one shape and format",
    ),
    "NaN": (
        lambda shards: shards[1]["output.weight"].__setitem__((3, 4), torch.nan),
        "finite numbers in lm_head",
    ),
    "integers": (lambda s: [d.update({"norm.weight": torch.ones(96).int()}) for d in s], "int32"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(make_folder: MakeFolder, tmp_path: Path, damage: str) -> None:
    run(make_folder(), tmp_path / "meta", "meta", shards=2)
    edit, message = DAMAGES[damage]
    broken = change(tmp_path / "meta", tmp_path / "broken", edit)
    with pytest.raises(CheckpointError, match=message):
        run(broken, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()


def test_checksums_and_their_names_are_checked(make_folder: MakeFolder, tmp_path: Path) -> None:
    run(make_folder(), tmp_path / "meta", "meta")
    checklist = tmp_path / "meta" / "checklist.chk"
    whole = checklist.read_text()
    for text, message in (
        (whole.replace(whole[0], "f" if whole[0] != "f" else "0", 1), "the md5 sum"),
        ("0" * 32 + "  ../hf/config.json", "names of files of this folder"),
        ("0" * 32 + "  /etc/hostname", "names of files of this folder"),
        ("0" * 32 + "  consolidated.07.pth", "no such file"),
    ):
        checklist.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            run(tmp_path / "meta", tmp_path / "out", "hf")


def test_a_missing_shard_is_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    run(make_folder(), tmp_path / "meta", "meta", shards=4)
    (tmp_path / "meta" / "checklist.chk").unlink()
    (tmp_path / "meta" / "consolidated.02.pth").unlink()
    with pytest.raises(CheckpointError, match=r"3 shards but no consolidated\.02\.pth"):
        run(tmp_path / "meta", tmp_path / "out", "hf")
    (tmp_path / "meta" / "consolidated.03.pth").unlink()
    with pytest.raises(CheckpointError, match="a feed-forward width of 40, got tensors of 20"):
        run(tmp_path / "meta", tmp_path / "out", "hf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": None}, "the key dim"),
        ({"n_heads": "16"}, "n_heads"),
        ({"vocab_size": 32_000}, "vocab_size -1 or 296"),
        ({"moe_args": {}}, "the keys of Llama 2"),
        ({"use_scaled_rope": "yes"}, "use_scaled_rope as true or false"),
        ({"multiple_of": 64}, "a feed-forward width of 64, got tensors of 40"),
        ({"multiple_of": 0}, "multiple_of and ffn_dim_multiplier"),
        ({"ffn_dim_multiplier": "1"}, "multiple_of and ffn_dim_multiplier"),
        ({"n_layers": 3}, "layers.2.attention_norm"),
        ({"n_kv_heads": 5}, "multiple of n_kv_heads"),
    ],
)
def test_parameters_must_fit_the_tensors(
    make_folder: MakeFolder, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    run(make_folder(), tmp_path / "meta", "meta")
    (tmp_path / "meta" / "checklist.chk").unlink()
    path = tmp_path / "meta" / "params.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path / "meta", tmp_path / "out", "hf")


def test_llama_3_1_s_rotary_scaling_survives(make_folder: MakeFolder, tmp_path: Path) -> None:
    """Meta's file says only that there is scaling: the constants are its code's."""
    folder = make_folder()
    path = folder / "config.json"
    values = json.loads(path.read_text())
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    values.pop("rope_parameters")
    path.write_text(json.dumps(values | {"rope_scaling": scaling}))
    run(folder, tmp_path / "meta", "meta")
    assert json.loads((tmp_path / "meta" / "params.json").read_text())["use_scaled_rope"] is True
    run(tmp_path / "meta", tmp_path / "back", "hf")
    assert load_model(tmp_path / "back", device="cpu").config == load_model(folder, device="cpu").config
    path.write_text(json.dumps(values | {"rope_scaling": scaling | {"factor": 32.0}}))
    with pytest.raises(ConfigError, match="another rope_scaling"):
        run(folder, tmp_path / "again", "meta")


def test_published_widths_follow_from_metas_rule() -> None:
    """The FFN widths of the family from the roundings in its params.json files."""
    published = {"7b": (256, None), "13b": (256, None), "34b": (256, None), "70b": (4096, 1.3)}
    for name, (multiple_of, multiplier) in published.items():
        config = PRESETS[name]
        assert (
            feed_forward_dim(config.dim, multiple_of=multiple_of, multiplier=multiplier) == config.hidden_dim
        )
        params = params_from_config(config)
        assert (params["multiple_of"], params.get("ffn_dim_multiplier")) == (multiple_of, multiplier)
        assert params["vocab_size"] == -1
        for n_shards in {"7b": [1, 8], "13b": [2], "34b": [4], "70b": [8]}[name]:
            check_split(config, n_shards)


@given(dim=st.integers(1, 300), hidden_dim=st.integers(1, 2000), theta=st.sampled_from([1e4, 1e6]))
def test_any_width_can_be_written_in_metas_terms(
    tmp_path_factory: pytest.TempPathFactory, dim: int, hidden_dim: int, theta: float
) -> None:
    config = ModelConfig(
        dim=2 * dim,
        n_layers=1,
        n_heads=1,
        n_kv_heads=1,
        vocab_size=7,
        hidden_dim=hidden_dim,
        rope_theta=theta,
    )
    folder = tmp_path_factory.mktemp("params")
    (folder / "params.json").write_text(json.dumps(params_from_config(config)))
    assert read_params(folder, vocab_size=7, hidden_dim=hidden_dim) == config


def test_a_number_of_shards_that_does_not_divide_is_refused_by_name(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_folder()
    for shards, message in ((3, r"one of 1, 2, 4, 8 .* got 3"), (16, "got 16")):
        with pytest.raises(ConfigError, match=message):
            run(folder, tmp_path / "out", "meta", shards=shards)
    few = ModelConfig(dim=64, n_layers=1, n_heads=8, n_kv_heads=2, vocab_size=40, hidden_dim=40)
    with pytest.raises(
        ConfigError, match="one of 1, 2 for this model, got 4, which does not divide n_kv_heads 2"
    ):
        check_split(few, 4)
