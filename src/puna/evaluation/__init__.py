"""Evaluation (§3.4, §4.4): a version and held-out prompts in, measures with intervals out."""

from puna.core.items import Item
from puna.evaluation.config import EvaluationConfig
from puna.evaluation.harness import evaluate_version
from puna.evaluation.items import suite_of
from puna.evaluation.metrics import measures
from puna.evaluation.win_rate import WinRate, read_items, win_rate

__all__ = [
    "EvaluationConfig",
    "Item",
    "WinRate",
    "evaluate_version",
    "measures",
    "read_items",
    "suite_of",
    "win_rate",
]
