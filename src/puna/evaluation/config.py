"""Settings of evaluation."""

from pydantic import Field

from puna.core.config import Settings
from puna.inference import SamplingConfig

__all__ = ["EvaluationConfig"]


class EvaluationConfig(Settings):
    """How a version is asked."""

    sampling: SamplingConfig = SamplingConfig()
    """Meta's reference settings; §3.4.2 and §4.4 do not state theirs."""
    max_batch_size: int = Field(default=256, ge=1)
    """Responses sampled or scored at once, for memory and speed only."""
    constraint_turns: tuple[int, ...] = (2, 4, 6)
    """User turns, counted from 1, at which a standing instruction is checked (Table 30 has 2, 4, 6 and 20)."""
