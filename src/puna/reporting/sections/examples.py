"""What every version answered to the same prompts: a few of each kind, chosen by order, not by result."""

from puna.core.items import Item
from puna.reporting.blocks import Examples, Paragraph, Section
from puna.reporting.items import read_items
from puna.reporting.run_folder import RunFolder

__all__ = ["examples"]

PER_GROUP = 3
"""Prompts shown of each kind."""


def examples(run: RunFolder) -> Section:
    """The first few prompts of each kind that every version answered."""
    head = ("examples", "The same prompts, version by version", "Section 4.2.3, Table 12")
    answers = {
        version: {item.id: item for item in read_items(found)} for version, found in run.evaluations.items()
    }
    answers = {version: items for version, items in answers.items() if items}
    if not answers:
        return Section.absent(*head, "no evaluation kept its answers")
    shared = set.intersection(*(set(items) for items in answers.values()))
    first = next(iter(answers.values()))
    by_group: dict[str, list[Item]] = {}
    last_turn = max((item.turn or 0 for item in first.values()), default=0)
    for item in first.values():
        if item.id in shared and item.turn in (None, last_turn):
            by_group.setdefault(item.suite, []).append(item)
    blocks = [
        _block(item, group, answers)
        for group, items in by_group.items()
        for item in _spread(items, PER_GROUP)
    ]
    note = (
        "Taken at even steps through the held-out prompts, whatever the answers were. "
        "Of longer dialogs only the user's turns are shown."
    )
    return Section(
        *head, (Paragraph(note), *blocks), {group: len(items) for group, items in by_group.items()}
    )


def _spread(items: list[Item], n: int) -> list[Item]:
    return [items[i * len(items) // n] for i in range(n)] if len(items) > n else items


def _block(item: Item, group: str, answers: dict[str, dict[str, Item]]) -> Examples:
    """Earlier answers of a dialog are each version's own: only what the user said is common to all."""
    turns = tuple((message.role, message.content) for message in item.messages if message.role != "assistant")
    return Examples(
        group,
        turns,
        tuple(
            (version, items[item.id].response, _verdict(items[item.id])) for version, items in answers.items()
        ),
    )


def _verdict(item: Item) -> str:
    """The grade and the scores in a few words."""
    grade, words = item.grade, []
    if grade is not None:
        words += ["violation"] * grade.is_violation + ["refusal"] * grade.is_refusal
        if grade.keeps_constraint is not None:
            words.append("constraint kept" if grade.keeps_constraint else "constraint broken")
        words.append(f"{100 * grade.helpfulness:.0f} points")
    scores = (("helpful", item.rm_helpfulness), ("safe", item.rm_safety))
    rated = [f"{score:.2f} {name}" for name, score in scores if score is not None]
    if rated:
        words.append(f"RM {', '.join(rated)}")
    return " · ".join(words)
