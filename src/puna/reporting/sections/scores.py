"""Distributions of reward-model scores: Figure 14 (before and after safety tuning) and Figure 20."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from puna.reporting.blocks import Cell, Drawing, Section, Table, percent, plain
from puna.reporting.items import scores_by_prompt
from puna.reporting.run_folder import Artifact, RunFolder
from puna.reporting.style import FAINT, SERIES, density, describe, legend, new_figure, shade

__all__ = ["before_and_after", "by_version"]

UNSAFE_BELOW = 0.5
"""A safety score under one half counts as unsafe (Table 29)."""

_SUITE = {"safety": "adversarial", "helpfulness": "helpful"}
_COLOUR = {"safety": SERIES[1], "helpfulness": SERIES[0]}


Pairs = dict[str, tuple[NDArray[Any], NDArray[Any]]]
"""By role of the reward model: scores before, scores after, prompt by prompt."""


def before_and_after(run: RunFolder) -> Section:
    """Each prompt's score before and after safety tuning (Figure 14)."""
    head = ("safety-shift", "Scores before and after safety tuning", "Section 4.2.3, Figure 14")
    measured = _measured(run) or _from_evaluations(run)
    if measured is None:
        return Section.absent(*head, "needs reward-model scores of the same prompts for two chat versions")
    first, last, pairs = measured
    shifts = {role: _shift(*pair) for role, pair in pairs.items()}
    table = Table(
        "The same in numbers; scores after a sigmoid, from 0 to 1.",
        (
            "Reward model",
            "n",
            *(f"{what}, {v}" for what in ("Mean", "Under 0.5") for v in (first, last)),
            "Improved",
        ),
        tuple(_shift_row(role, shift) for role, shift in shifts.items()),
    )
    return Section(*head, (_scatter(pairs, first, last), table), {"before": first, "after": last, **shifts})


def _measured(run: RunFolder) -> tuple[str, str, Pairs] | None:
    """From the stage that compares two models on purpose, each role on the prompts of its own guideline."""
    found = [artifact for artifact in run.of_kind("score_shift") if artifact.has("scores.jsonl")]
    if not found:
        return None
    rows = found[-1].rows("scores.jsonl")
    names = [_version(run.input_of(found[-1], name), name) for name in ("before", "after")]
    pairs = {}
    for role in _SUITE:
        own = [
            row for row in rows if row.get("guideline", row.get("domain")) == role and role in row["before"]
        ]
        if own:
            pairs[role] = (
                np.array([r["before"][role] for r in own]),
                np.array([r["after"][role] for r in own]),
            )
    return (names[0], names[1], pairs) if pairs else None


def _version(model: Artifact | None, otherwise: str) -> str:
    return model.labels.get("version", model.name) if model else otherwise


def _from_evaluations(run: RunFolder) -> tuple[str, str, Pairs] | None:
    """From the first and the last chat version's evaluation on the same prompts."""
    scored = [v for v, found in run.evaluations.items() if v != "pretrained" and _scores(found, "safety")]
    if len(scored) < 2:
        return None
    first, last = scored[0], scored[-1]
    pairs = {role: _paired(run.evaluations[first], run.evaluations[last], role) for role in _SUITE}
    return first, last, {role: pair for role, pair in pairs.items() if len(pair[0])}


def _scatter(pairs: Pairs, first: str, last: str) -> Drawing:
    figure, panels = new_figure(len(pairs), width=4.6 * len(pairs), height=4.5)
    for panel, (role, (before, after)) in zip(panels, pairs.items(), strict=True):
        panel.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        panel.scatter(
            before, after, s=14, color=_COLOUR[role], alpha=0.45, linewidths=0, rasterized=len(before) > 1500
        )
        describe(panel, title=_title(role), x=f"score of {first}", y=f"score of {last}")
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    caption = (
        f"One dot a prompt; above the line {last} scores higher than {first}. In the paper safety scores rise and the "
        "low tail thins, while helpfulness scores stay symmetric about the line."
    )
    return Drawing("figure_14", figure, caption, f"Scores of {last} against those of {first}", wide=True)


def _title(role: str) -> str:
    return f"{role} RM, {_SUITE[role]} prompts".capitalize().replace(" rm", " RM")


def _shift(before: NDArray[Any], after: NDArray[Any]) -> dict[str, float]:
    return {
        "n": len(before),
        "mean_before": float(before.mean()),
        "mean_after": float(after.mean()),
        "low_before": float((before < UNSAFE_BELOW).mean()),
        "low_after": float((after < UNSAFE_BELOW).mean()),
        "improved": float((after > before).mean()),
    }


def _shift_row(role: str, shift: dict[str, float]) -> tuple[Cell, ...]:
    means = (plain(shift[f"mean_{when}"], digits=3) for when in ("before", "after"))
    lows = (percent(shift[f"low_{when}"]) for when in ("before", "after"))
    return (Cell(role), plain(shift["n"], digits=0), *means, *lows, percent(shift["improved"]))


def _scores(artifact: Artifact, role: str) -> dict[str, float]:
    return scores_by_prompt(artifact, role, _SUITE[role])


def _paired(one: Artifact, two: Artifact, role: str) -> tuple[NDArray[Any], NDArray[Any]]:
    left, right = _scores(one, role), _scores(two, role)
    ids = [key for key in left if key in right]
    return np.array([left[key] for key in ids]), np.array([right[key] for key in ids])


def by_version(run: RunFolder) -> Section:
    """How the scores move from version to version (Figure 20)."""
    head = ("score-shift", "Reward-model scores by version", "Section 5.1, Figure 20")
    found = {
        v: {role: list(_scores(a, role).values()) for role in _SUITE} for v, a in run.evaluations.items()
    }
    found = {v: scores for v, scores in found.items() if any(scores.values())}
    if not found:
        return Section.absent(*head, "no evaluation was scored by the reward models")
    figure, panels = new_figure(2, width=9.0, height=3.6)
    at = np.linspace(0, 1, 101)
    for panel, role in zip(panels, _SUITE, strict=True):
        for index, (version, scores) in enumerate(found.items()):
            colour = shade(index, len(found))
            panel.plot(at, density(scores[role], at), color=colour, linewidth=1.9, label=version)
        describe(panel, title=_title(role), x="score", y="density")
        panel.set(xlim=(0, 1), ylim=(0, None))
    legend(panels[0], place="upper center")
    caption = (
        "In the paper the density moves right from SFT to RLHF-V1 and V2, and the worst tail goes first."
    )
    drawing = Drawing("figure_20", figure, caption, "Densities of scores by version", wide=True)
    numbers = {v: {role: float(np.mean(s)) for role, s in scores.items() if s} for v, scores in found.items()}
    return Section(*head, (drawing,), {"mean_score": numbers})
