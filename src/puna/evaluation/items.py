"""Which measures a prompt counts for."""

from puna.core.records import Prompt, PromptSet

__all__ = ["suite_of"]


def suite_of(prompt: Prompt) -> PromptSet:
    """The prompt's set; without one, prompts of the safety guideline are adversarial and all others helpful."""
    return prompt.set or ("adversarial" if prompt.guideline == "safety" else "helpful")
