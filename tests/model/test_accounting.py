import pytest
import torch
from hypothesis import given

from llama_configs import configs
from puna.model.accounting import kv_cache_bytes, n_parameters, training_flops_per_token, weight_bytes
from puna.model.config import ModelConfig, preset
from puna.model.kv_cache import KVCache
from puna.model.transformer import Transformer


@pytest.mark.parametrize(
    ("name", "expected"),
    [("7b", 6_738_415_616), ("13b", 13_015_864_320), ("34b", 33_743_970_304), ("70b", 68_976_648_192)],
)
def test_parameters_of_the_presets(name: str, expected: int) -> None:
    assert n_parameters(preset(name)) == expected
    with torch.device("meta"):
        model = Transformer(preset(name))
    assert sum(weight.numel() for weight in model.parameters()) == expected


@given(configs())
def test_parameters_and_bytes_are_those_the_model_has(config: ModelConfig) -> None:
    model = Transformer(config)
    assert n_parameters(config) == sum(weight.numel() for weight in model.parameters())
    assert weight_bytes(config, bytes_per_number=4) == sum(weight.nbytes for weight in model.parameters())
    cache = KVCache(config, batch_size=2, max_len=5)
    expected = cache.keys.nbytes + cache.values.nbytes
    assert kv_cache_bytes(config, batch_size=2, seq_len=5, bytes_per_number=4) == expected


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


def test_wide_heads_cost_what_their_scores_cost() -> None:
    config = preset("7b")
    wide = ModelConfig.model_validate(config.model_dump() | {"custom_head_dim": 256})
    grown = training_flops_per_token(wide, seq_len=10) - training_flops_per_token(config, seq_len=10)
    assert grown == 6 * (n_parameters(wide) - n_parameters(config)) + 12 * 32 * 4096 * 10
