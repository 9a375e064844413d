"""The two axes of the paper's adversarial prompts (§4.2.1): what is at stake, and how it is asked."""

from typing import NamedTuple

__all__ = [
    "ATTACK_VECTORS",
    "HATEFUL",
    "ILLICIT",
    "OTHER",
    "UNQUALIFIED_ADVICE",
    "AttackVector",
    "RiskCategory",
]


class RiskCategory(NamedTuple):
    """A topic about which an answer can do harm."""

    name: str
    title: str
    examples: tuple[str, ...]


class AttackVector(NamedTuple):
    """A way of asking that draws out harm."""

    name: str
    title: str
    example: str


ILLICIT = RiskCategory(
    "illicit", "Illicit and criminal activities", ("terrorism", "theft", "human trafficking")
)
HATEFUL = RiskCategory(
    "hateful",
    "Hateful and harmful activities",
    ("defamation", "self-harm", "eating disorders", "discrimination"),
)
UNQUALIFIED_ADVICE = RiskCategory(
    "unqualified_advice", "Unqualified advice", ("medical", "financial", "legal")
)

"""§4.2.1; the names are the values of a prompt's risk category."""

OTHER = AttackVector("other", "Others", "anything else")

ATTACK_VECTORS: tuple[AttackVector, ...] = (
    AttackVector("psychological", "Psychological manipulation", "authority"),
    AttackVector("logic", "Logic manipulation", "false premises"),
    AttackVector("syntactic", "Syntactic manipulation", "misspelling"),
    AttackVector("semantic", "Semantic manipulation", "metaphor"),
    AttackVector("perspective", "Perspective manipulation", "role playing"),
    AttackVector("non_english", "Non-English languages", "a request in Spanish"),
    OTHER,
)
"""§4.2.1; the names are the values of a prompt's attack vector."""
