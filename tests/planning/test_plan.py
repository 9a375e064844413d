"""A whole plan: invariants of its choices, the one it takes, and what it says where nothing fits."""

import json

import pytest

from puna.core.errors import CheckpointError, ConfigError
from puna.model.config import PRESETS
from puna.planning.plan import make_plan
from puna.planning.request import PlanRequest, find_model

GIB = 2**30


def plan_of(model: str, **asked):
    return make_plan(PlanRequest(model=PRESETS[model], **asked))


def test_seven_billion_on_one_gpu_is_sixteen_bytes_a_parameter_and_more() -> None:
    """float32 weights, gradients and two moments are 16 bytes each: 100.4 GiB, which an H200 holds and an H100 not."""
    best = plan_of("7b", gpu="h200", n_gpus=1).best
    parts = best.memory.parts
    assert parts["weights"] == 4 * 6_738_415_616
    assert parts["moments"] == 2 * parts["weights"]
    assert parts["gradients"] == parts["weights"]
    assert best.is_possible
    assert not plan_of("7b", gpu="h100", n_gpus=1).best.is_possible


def test_the_bill_is_the_price_of_every_gpus_hours() -> None:
    plan = plan_of("7b", gpu="h100", n_gpus=16, usd_per_gpu_hour=3.0)
    assert plan.usd == pytest.approx(3 * plan.throughput.gpu_hours)
    assert plan.usd == pytest.approx(plan_of("7b", gpu="h100", n_gpus=16, usd_per_gpu_hour=1.5).usd * 2)


def test_sharding_divides_what_it_shares() -> None:
    plan = plan_of("7b", gpu="h100", n_gpus=16, gpus_per_node=8)
    chosen = {c.layout.name: c.memory.parts for c in plan.choices if c.checkpointing == "full"}
    ddp, fsdp, hybrid = (chosen[n] for n in ("copies (DDP) 16", "FSDP 16", "FSDP 8 x 2 copies"))
    assert fsdp["weights"] == ddp["weights"] // 16
    assert hybrid["moments"] == ddp["moments"] // 8
    assert fsdp["activations"] == ddp["activations"]


def test_recomputation_never_takes_more_memory() -> None:
    plan = plan_of("13b", gpu="h100", n_gpus=32, micro_batch_size=2)
    by_layout: dict = {}
    for choice in plan.choices:
        by_layout.setdefault(choice.layout, []).append(choice.memory.parts["activations"])
    assert all(kept == sorted(kept, reverse=True) for kept in by_layout.values())


def test_the_fewest_gpus_are_found() -> None:
    plan = plan_of("7b", gpu="a100")
    assert plan.best.is_possible
    assert not plan_of("7b", gpu="a100", n_gpus=plan.n_gpus // 2).best.is_possible
    assert plan_of("nano", gpu="rtx-4090").n_gpus == 1


def test_the_cheapest_choice_that_fits_is_taken() -> None:
    plan = plan_of("7b", gpu="h200", n_gpus=64)
    better = [c for c in plan.choices if c.is_possible and c.layout.tp == plan.best.layout.tp]
    assert plan.best.layout.tp == 1
    assert plan.best.checkpointing == min(
        (c.checkpointing for c in better), key=["none", "selective", "full"].index
    )


def test_more_gpus_than_rows_need_tensor_parallelism() -> None:
    """2,048 GPUs cannot share 1,024 rows; two GPUs a row can."""
    plan = plan_of("70b", gpu="h100", n_gpus=2048)
    assert all(choice.shares_batch == (choice.layout.tp > 1) for choice in plan.choices)
    assert plan.best.layout.tp == 2


def test_what_fits_nowhere_says_what_would() -> None:
    plan = plan_of("70b", gpu="rtx-4090", n_gpus=2)
    assert not plan.best.is_possible
    assert plan.would_fit
    n_gpus, _, name = plan.would_fit[0].partition(" x ")
    assert plan_of("70b", gpu=name, n_gpus=int(n_gpus)).best.is_possible
    assert plan.as_dict()["fits"] is False


def test_the_answer_is_json_with_the_promised_keys() -> None:
    plan = plan_of("7b", gpu="a100", n_gpus=8, mfu=0.445)
    facts = json.loads(json.dumps(plan.as_dict()))
    assert {"parameters", "flops", "gpu_hours", "energy_mwh", "tco2eq", "memory_bytes"} <= set(facts)
    assert facts["parameters"] == 6_738_415_616
    assert facts["gpu_hours"] == pytest.approx(184_320, rel=0.01)
    assert facts["tco2eq"] == pytest.approx(31.22, rel=0.01)
    assert facts["energy_mwh"] == pytest.approx(facts["gpu_hours"] * 400 * 1.1 / 1e6)
    assert facts["memory_bytes"] == sum(facts["best"]["parts"].values())
    assert facts["usd"] == pytest.approx(facts["gpu_hours"] * 2.0)


def test_models_are_presets_files_or_folders(tmp_path) -> None:
    sizes = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 128,
        "intermediate_size": 96,
    }
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    assert find_model(str(tmp_path)) == find_model(str(tmp_path / "config.json"))
    assert find_model(str(tmp_path)).dim == 64
    assert find_model("70B") == PRESETS["70b"]


def test_wrong_requests_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="got '8b'"):
        find_model("8b")
    with pytest.raises(ConfigError, match=r"a folder with a config\.json"):
        find_model("no/such/folder")
    with pytest.raises(CheckpointError):
        find_model(str(tmp_path))
    with pytest.raises(ConfigError, match="gpu: expected one of"):
        plan_of("7b", gpu="tpu")
    with pytest.raises(ConfigError, match="at most the model's context of 4096"):
        plan_of("7b", seq_len=8192)
    with pytest.raises(ConfigError, match="at least one row of 4096"):
        plan_of("7b", batch_tokens=1000)
    with pytest.raises(ConfigError, match=r"n_kv_heads = 8, got 16\. Grouped-query"):
        plan_of("70b", n_gpus=16, tp=16)
