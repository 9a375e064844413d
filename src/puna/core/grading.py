"""What a grader says of one response: the contract between the sandbox's oracle, annotators and evaluation."""

from typing import Protocol, runtime_checkable

from pydantic import Field

from puna.core.records import Comparison, Prompt, Record

__all__ = ["Annotator", "Grade", "Grader"]


class Grade(Record):
    """The truth about one response to one prompt."""

    helpfulness: float = Field(ge=0, le=1)
    """Share of the points a perfect answer to this prompt earns."""
    is_violation: bool
    """The response does or enables harm."""
    is_refusal: bool
    """The response declines to answer."""
    keeps_constraint: bool | None = None
    """Whether a standing instruction was kept; None when the prompt carries none."""
    reasons: tuple[str, ...] = ()
    """Which points were won or lost, for people who read the items."""


@runtime_checkable
class Grader(Protocol):
    """Knows the truth, as the sandbox's oracle does."""

    def grade(self, prompt: Prompt, response: str) -> Grade:
        """Grade one response."""
        ...


@runtime_checkable
class Annotator(Protocol):
    """Compares two responses as a person would (§3.2.1); simulated ones must say so in their name."""

    @property
    def name(self) -> str:
        """Recorded in every comparison."""
        ...

    def compare(self, prompt: Prompt, left: str, right: str, *, seed: int) -> Comparison | None:
        """Choose and rate; None when the pair is excluded (chosen unsafe, rejected safe: §3.2.1).

        The returned comparison has no provenance and no batch: the caller, who sampled, adds them.
        """
        ...
