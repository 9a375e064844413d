import pytest

from puna.model.accounting import kv_cache_bytes, n_parameters, training_flops_per_token
from puna.model.config import ModelConfig, preset
from puna.model.transformer import Transformer


@pytest.mark.parametrize(
    ("name", "expected"),
    [("7b", 6_738_415_616), ("13b", 13_015_864_320), ("34b", 33_743_970_304), ("70b", 68_976_648_192)],
)
def test_parameters_of_the_presets(name: str, expected: int) -> None:
    assert n_parameters(preset(name)) == expected


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_parameters_are_those_the_model_has(tiny: ModelConfig, tie_embeddings: bool) -> None:
    config = tiny.model_copy(update={"tie_embeddings": tie_embeddings})
    assert n_parameters(config) == sum(weight.numel() for weight in Transformer(config).parameters())


def test_grouped_queries_shrink_the_70b_cache_eightfold() -> None:
    grouped = preset("70b")
    full = grouped.model_copy(update={"n_kv_heads": grouped.n_heads})
    sizes = [kv_cache_bytes(config, batch_size=1, seq_len=4096) for config in (full, grouped)]
    assert sizes[0] == 8 * sizes[1] == 2 * 80 * 4096 * 8192 * 2


def test_flops_are_six_a_multiplied_parameter_plus_attention() -> None:
    config = preset("7b")
    multiplied = n_parameters(config) - 32000 * 4096
    assert training_flops_per_token(config, seq_len=4096) == 6 * multiplied + 12 * 32 * 4096 * 4096
    tied = config.model_copy(update={"tie_embeddings": True})
    assert training_flops_per_token(tied, seq_len=1) == training_flops_per_token(config, seq_len=1)
