"""Layouts: what multiplies to the world size, and what cannot be cut into equal parts."""

import pytest

from puna.core.errors import ConfigError
from puna.model.config import PRESETS
from puna.training.config import LoopConfig
from puna.training.optimizer import OptimizerConfig
from puna.training.parallel.config import Layout, ParallelConfig


@pytest.mark.parametrize(
    ("config", "world_size", "expected"),
    [
        (ParallelConfig(), 1, Layout(1, 1, 1)),
        (ParallelConfig(), 8, Layout(1, 8, 1)),
        (ParallelConfig(tp=8), 256, Layout(1, 32, 8)),
        (ParallelConfig(dp_replicate=4, tp=2), 64, Layout(4, 8, 2)),
        (ParallelConfig(dp_replicate=2, dp_shard=4, tp=1), 8, Layout(2, 4, 1)),
    ],
)
def test_the_rest_goes_to_sharding(config: ParallelConfig, world_size: int, expected: Layout) -> None:
    layout = config.layout(world_size)
    assert layout == expected
    assert layout.n_shares * layout.tp == world_size


@pytest.mark.parametrize(
    ("config", "world_size"),
    [
        (ParallelConfig(tp=2), 1),
        (ParallelConfig(tp=3), 8),
        (ParallelConfig(dp_shard=4), 8),
        (ParallelConfig(dp_replicate=16), 8),
    ],
)
def test_what_does_not_multiply_is_refused(config: ParallelConfig, world_size: int) -> None:
    with pytest.raises(ConfigError, match=f"the {world_size} processes that were started"):
        config.layout(world_size)


def test_a_world_that_does_not_divide_the_batch_is_refused() -> None:
    config, loop = ParallelConfig(), LoopConfig(batch_size=48, micro_batch_size=2)
    config.check_loop(loop, config.layout(8))
    with pytest.raises(ConfigError, match=r"loop.batch_size: expected a multiple of .* 2 x 16, got 48 rows"):
        config.check_loop(loop, config.layout(16))


def test_grouped_heads_limit_tensor_parallelism() -> None:
    ParallelConfig(tp=8).check_model(PRESETS["70b"])
    with pytest.raises(
        ConfigError, match=r"parallel.tp: expected a divisor of the model's n_kv_heads = 8, got 16"
    ):
        ParallelConfig(tp=16).check_model(PRESETS["70b"])
    odd = PRESETS["7b"].model_copy(update={"vocab_size": 32_001})
    with pytest.raises(ConfigError, match="vocab_size = 32001"):
        ParallelConfig(tp=2).check_model(odd)


def test_decaying_norms_beside_cut_matrices_is_refused() -> None:
    loop = LoopConfig(optimizer=OptimizerConfig(decay_norms=True))
    ParallelConfig().check_loop(loop, Layout(1, 8, 1))
    with pytest.raises(ConfigError, match="decay_norms"):
        ParallelConfig(tp=2).check_loop(loop, Layout(1, 4, 2))
