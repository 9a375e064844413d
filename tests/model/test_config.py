import pytest

from puna.core.errors import ConfigError
from puna.model.config import PRESETS, ModelConfig, preset


def test_presets_have_the_published_sizes() -> None:
    assert {
        name: (c.dim, c.n_layers, c.n_heads, c.n_kv_heads, c.hidden_dim) for name, c in PRESETS.items()
    } == {
        "nano": (128, 4, 4, 2, 352),
        "7b": (4096, 32, 32, 32, 11008),
        "13b": (5120, 40, 40, 40, 13824),
        "34b": (8192, 48, 64, 8, 22016),
        "70b": (8192, 80, 64, 8, 28672),
    }
    for name in ("7b", "13b", "34b", "70b"):
        config = preset(name)
        assert (config.vocab_size, config.max_seq_len, config.norm_eps) == (32000, 4096, 1e-5)
        assert (config.rope_theta, config.tie_embeddings, config.head_dim) == (10_000, False, 128)


def test_vocabulary_and_context_can_be_replaced() -> None:
    config = preset("nano", vocab_size=333, max_seq_len=77)
    assert (config.vocab_size, config.max_seq_len) == (333, 77)
    assert preset("nano").vocab_size == 1024


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean '70b'"):
        preset("70B")


@pytest.mark.parametrize(
    "sizes",
    [{"dim": 30}, {"n_kv_heads": 3}, {"n_layers": 0}, {"dim": 4}, {"n_layers": 10**9}, {"vocab_size": -1}],
)
def test_sizes_that_do_not_fit_are_refused(tiny: ModelConfig, sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ModelConfig.model_validate(tiny.model_dump() | sizes)
