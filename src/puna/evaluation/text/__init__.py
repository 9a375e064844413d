"""What a base model can do with held-out text (App. A.2.1): perplexity, continuations, recall over a distance."""

from puna.evaluation.text.config import TextEvaluationConfig, TextHookConfig
from puna.evaluation.text.stage import TextSuite, evaluate_text

__all__ = ["TextEvaluationConfig", "TextHookConfig", "TextSuite", "evaluate_text"]
