"""Training curves: losses (Figure 5 for pretraining) and PPO's reward, KL, length and entropy."""

from itertools import starmap
from typing import Any

from puna.reporting.blocks import Block, Cell, Drawing, Section, Table, plain
from puna.reporting.run_folder import Artifact, RunFolder
from puna.reporting.sections.loss_curves import HELD_OUT_SPLITS, PAPER_ENDS, held_out, loss_by_tokens, thin
from puna.reporting.style import MUTED, SERIES, describe, legend, new_figure, shade

__all__ = ["losses", "ppo"]


def losses(run: RunFolder) -> Section:
    """Loss against step for every model that the shared loop trained."""
    head = ("losses", "Loss curves", "Section 2.2, Figure 5; Sections 3.1 and 3.2")
    groups = {name: _with_loss(found) for name, found in _groups(run).items()}
    groups = {name: found for name, found in groups.items() if found}
    if not groups:
        return Section.absent(*head, "no training log yet")
    drawings: list[Block] = []
    for name, found in groups.items():
        by_tokens = loss_by_tokens(found, name="loss_pretraining") if name == "Pretraining" else []
        drawings += by_tokens or [_loss_drawing(name, found)]
    numbers = {name: {label: _ends(a) for label, a in found.items()} for name, found in groups.items()}
    perplexity = _perplexity(groups.get("Pretraining", {}))
    return Section(*head, (*drawings, *perplexity), numbers)


def _perplexity(found: dict[str, Artifact]) -> list[Table]:
    """Held-out perplexity by source, where the pretraining stage measured it."""
    by_source = {name: _by_source(artifact) for name, artifact in found.items()}
    sources = sorted({source for values in by_source.values() for source in values})
    if not sources:
        return []
    rows = tuple(
        (Cell(source), *(plain(v.get(source), digits=2) for v in by_source.values())) for source in sources
    )
    return [Table("Perplexity per token on held-out text of each source.", ("Source", *by_source), rows)]


def _by_source(artifact: Artifact) -> dict[str, float]:
    values = artifact.metrics.get("validation", {})
    prefix = "perplexity/"
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _groups(run: RunFolder) -> dict[str, dict[str, Artifact]]:
    pretrained = {v: a for v, a in run.models.items() if v.startswith("pretrained")}
    tuned = {v: a for v, a in run.models.items() if v not in pretrained}
    for other in run.beside:
        found = other.models.items()
        pretrained |= {f"{other.path.name} {v}": a for v, a in found if v.startswith("pretrained")}
    rewards = {_reward_name(a): a for a in run.of_kind("reward_model")}
    return {"Pretraining": pretrained, "Fine-tuning": tuned, "Reward models": rewards}


def _reward_name(model: Artifact) -> str:
    return " ".join([model.labels.get("role", model.name), model.labels.get("round", "")]).strip()


def _with_loss(found: dict[str, Artifact]) -> dict[str, Artifact]:
    return {
        name: artifact
        for name, artifact in found.items()
        if artifact.curve("loss") and not _ppo_curves(artifact)
    }


def _loss_drawing(name: str, found: dict[str, Artifact]) -> Drawing:
    figure, (panel,) = new_figure(width=7.6, height=3.4)
    for index, (label, artifact) in enumerate(found.items()):
        colour = SERIES[index % len(SERIES)] if name == "Reward models" else shade(index + 1, len(found) + 1)
        panel.plot(*thin(artifact.curve("loss")), color=colour, linewidth=1.6, label=label)
        if measured := held_out(artifact):
            panel.plot(*thin(measured), color=colour, linewidth=0, marker="o", markersize=4)
    unit = "nats per pair" if name == "Reward models" else "nats per token"
    describe(panel, title=name, x="step", y=f"loss, {unit}")
    panel.margins(x=0.01)
    legend(panel, columns=1 + (len(found) > 3))
    paper = (
        f" The paper's models end near {PAPER_ENDS} nats on their own data." if name == "Pretraining" else ""
    )
    caption = f"{name}: lines are training loss, dots held-out loss.{paper}"
    return Drawing(f"loss_{name.split()[0].lower()}", figure, caption, f"{name} loss against step")


def _ends(artifact: Artifact) -> dict[str, float]:
    curve = artifact.curve("loss")
    ends = {"first_loss": curve[0][1], "last_loss": curve[-1][1], "steps": curve[-1][0]}
    return ends | {f"perplexity/{source}": value for source, value in _by_source(artifact).items()}


_PPO_PANELS = {"Score, logits": "score", "KL, nats": "kl", "Length, tokens": "response_tokens"}
_PPO_PANELS |= {"Entropy, nats per token": "entropy", "Clipped, share": "clip_fraction"}
"""Panel title -> the name in the log. The score is the one before whitening."""


def ppo(run: RunFolder) -> Section:
    """What PPO did, iteration by iteration; a rising score with a run-away KL would be reward hacking."""
    head = ("ppo", "PPO", "Section 3.2.3, Equations 3 and 4")
    found = {v: curves for v, artifact in run.models.items() if (curves := _ppo_curves(artifact))}
    if not found:
        return Section.absent(*head, "no PPO run yet")
    return Section(
        *head, tuple(starmap(_ppo_drawing, found.items())), {v: _ppo_ends(c) for v, c in found.items()}
    )


def _ppo_curves(artifact: Artifact) -> dict[str, dict[str, list[tuple[float, float]]]]:
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    if not artifact.curve("kl"):
        return {}
    for title, name in _PPO_PANELS.items():
        for split in ("train", *HELD_OUT_SPLITS):
            if points := artifact.curve(name, split):
                curves.setdefault(title, {})[split] = points
    return curves


def _ppo_ends(curves: dict[str, dict[str, list[tuple[float, float]]]]) -> dict[str, dict[str, list[float]]]:
    """First and last value of every curve."""
    return {
        _PPO_PANELS[title]: {split: [points[0][1], points[-1][1]] for split, points in by_split.items()}
        for title, by_split in curves.items()
    }


def _ppo_drawing(version: str, curves: dict[str, dict[str, list[tuple[float, float]]]]) -> Drawing:
    figure, panels = new_figure(len(curves), width=2.5 * len(curves), height=2.9)
    for panel, (title, by_split) in zip(panels, curves.items(), strict=True):
        for split, points in by_split.items():
            _ppo_line(panel, split, points)
        describe(panel, title=title, x="iteration")
    legend(panels[0])
    caption = (
        f"{version}: means over each iteration's batch; KL is to the policy PPO started from, over a whole response. "
        "The paper runs 200 to 400 iterations and stops early on held-out prompts."
    )
    return Drawing(f"ppo_{version}", figure, caption, f"PPO curves of {version}", wide=True)


def _ppo_line(panel: Any, split: str, points: list[tuple[float, float]]) -> None:
    is_training = split == "train"
    label = "training" if is_training else "held out"
    panel.plot(*thin(points), color=SERIES[0] if is_training else SERIES[1], linewidth=1.7, label=label)
    if len(points) == 1:
        panel.plot(*thin(points), color=MUTED, marker="o")
