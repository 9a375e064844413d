"""Human preference data (§3.2.1): sampled pairs, annotators' choices and ratings, agreement between them."""

from puna.human_feedback.agreement import gwet_ac
from puna.human_feedback.config import PreferencesConfig
from puna.human_feedback.pairs import collect_preferences
from puna.human_feedback.protocol import check_comparison
from puna.human_feedback.statistics import describe

__all__ = [
    "PreferencesConfig",
    "check_comparison",
    "collect_preferences",
    "describe",
    "gwet_ac",
]
