"""Safety (§4): context distillation, and how scores move with safety training."""

from puna.safety.context_distillation import DistillationConfig, distill
from puna.safety.preprompts import PrepromptConfig
from puna.safety.score_shift import ShiftConfig, score_shift

__all__ = [
    "DistillationConfig",
    "PrepromptConfig",
    "ShiftConfig",
    "distill",
    "score_shift",
]
