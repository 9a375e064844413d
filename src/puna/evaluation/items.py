"""Which measures a prompt counts for."""

from puna.core.items import Suite
from puna.core.records import Prompt

__all__ = ["suite_of"]

_SUITES: dict[str, Suite] = {
    "helpful": "helpful",
    "adversarial": "adversarial",
    "borderline": "borderline",
    "constraint": "constraint",
}


def suite_of(prompt: Prompt) -> Suite:
    """What meta['set'] says; without it prompts of domain safety are adversarial and all others helpful."""
    named = _SUITES.get(str(prompt.meta.get("set")))
    return named or ("adversarial" if prompt.domain == "safety" else "helpful")
