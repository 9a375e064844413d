"""Safety (§4): taxonomy, refusals, context distillation, and how scores move with safety training."""

from puna.safety.context_distillation import DistillationConfig, distill
from puna.safety.preprompts import PrepromptConfig
from puna.safety.refusal import RefusalConfig, RefusalDetector
from puna.safety.score_shift import ShiftConfig, score_shift
from puna.safety.taxonomy import ATTACK_VECTORS, RISK_CATEGORIES

__all__ = [
    "ATTACK_VECTORS",
    "RISK_CATEGORIES",
    "DistillationConfig",
    "PrepromptConfig",
    "RefusalConfig",
    "RefusalDetector",
    "ShiftConfig",
    "distill",
    "score_shift",
]
