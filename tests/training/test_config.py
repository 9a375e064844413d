"""The loop's settings: derived numbers and refused ones."""

import pytest
from pydantic import ValidationError

from puna.core.errors import ConfigError
from puna.training.config import LoopConfig


def test_reward_model_warmup_is_three_percent_but_five_updates_at_least() -> None:
    config = LoopConfig(warmup_fraction=0.03, warmup_steps=5)
    assert config.for_steps(1000).n_warmup_steps == 30
    assert config.for_steps(50).n_warmup_steps == 5


def test_a_number_of_steps_in_the_recipe_wins() -> None:
    assert LoopConfig(total_steps=3000).for_steps(9999).n_steps == 3000


def test_without_a_number_of_steps_there_is_no_rate() -> None:
    with pytest.raises(ConfigError, match="total_steps"):
        LoopConfig().lr(0)


def test_warmup_longer_than_training_is_refused() -> None:
    with pytest.raises(ValidationError, match="lower it"):
        LoopConfig(total_steps=100)
    with pytest.raises(ConfigError, match="at most the 100 updates"):
        LoopConfig().for_steps(100)


def test_constant_schedule_does_not_fall() -> None:
    config = LoopConfig(schedule="constant", total_steps=10, warmup_steps=0)
    assert {config.lr(step) for step in range(10)} == {3e-4}
