"""Layouts use every GPU, and tensor parallelism only where it divides the model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.errors import ConfigError
from puna.model.config import PRESETS
from puna.planning.layouts import PlannedLayout, check_tensor_parallel, layouts_for


@given(st.sampled_from(sorted(PRESETS)), st.integers(1, 4096), st.sampled_from([1, 2, 4, 8]))
def test_every_layout_uses_every_gpu_once(model: str, n_gpus: int, per_node: int) -> None:
    found = layouts_for(PRESETS[model], n_gpus, gpus_per_node=per_node, tp=None)
    assert found
    assert len(set(found)) == len(found)
    assert {layout.n_gpus for layout in found} == {n_gpus}
    assert all(layout.tp <= per_node and PRESETS[model].n_kv_heads % layout.tp == 0 for layout in found)


def test_the_layouts_of_two_nodes() -> None:
    names = [layout.name for layout in layouts_for(PRESETS["70b"], 16, gpus_per_node=8, tp=None)]
    assert names[:3] == ["copies (DDP) 16", "FSDP 16", "FSDP 8 x 2 copies"]
    assert "TP 8 x FSDP 2" in names
    assert [layout.name for layout in layouts_for(PRESETS["7b"], 1, gpus_per_node=8, tp=None)] == ["one GPU"]


def test_one_degree_only() -> None:
    found = layouts_for(PRESETS["70b"], 32, gpus_per_node=8, tp=4)
    assert found[0] == PlannedLayout(dp_shard=8, tp=4)
    assert {layout.tp for layout in found} == {4}


@pytest.mark.parametrize(
    ("model", "tp", "n_gpus", "what"),
    [
        ("70b", 16, 16, "n_kv_heads = 8"),
        ("7b", 3, 3, "n_kv_heads = 32"),
        ("7b", 8, 12, "the number of GPUs = 12"),
        ("7b", 16, 16, "the GPUs of a node = 8"),
    ],
)
def test_a_degree_that_does_not_divide_is_refused(model: str, tp: int, n_gpus: int, what: str) -> None:
    with pytest.raises(ConfigError, match=f"expected a divisor of .*{what}, got {tp}"):
        check_tensor_parallel(PRESETS[model], tp, n_gpus=n_gpus, gpus_per_node=8)
