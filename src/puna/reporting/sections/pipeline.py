"""Figure 4, drawn with the run's own numbers: rows, tokens and seconds of every box."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from puna.reporting.blocks import Drawing, Section, seconds
from puna.reporting.run_folder import Artifact, RunFolder, last_version
from puna.reporting.style import FAINT, INK, MUTED, SERIES, SURFACE, new_figure

__all__ = ["pipeline"]

WIDTH, HEIGHT = 22.0, 17.5
"""Of a box, in units of the 100 by 50 canvas."""
TOP, BOTTOM = 32.5, 3.0


@dataclass(frozen=True)
class Box:
    """One box of the figure: where it stands, its name, and the artifacts it sums up."""

    x: float
    y: float
    title: str
    artifacts: Sequence[Artifact]
    lines: tuple[str, ...]
    colour: str


def pipeline(run: RunFolder) -> Section:
    """The whole recipe on one drawing; boxes that have not run yet are dashed."""
    boxes = _boxes(run)
    figure, (panel,) = new_figure(width=10.4, height=5.3)
    panel.set(xlim=(-0.5, 100.5), ylim=(2, 51))
    panel.axis("off")
    for box in boxes.values():
        _draw_box(panel, box)
    _draw_arrows(panel, boxes, run)
    done = sum(bool(box.artifacts) for box in boxes.values())
    caption = "Figure 4 of the paper with this run's numbers. Times are sums over the box's stages." + (
        "" if done == len(boxes) else " Dashed boxes have not run."
    )
    numbers = {
        name: {"seconds": _time(box.artifacts), "lines": list(box.lines)} for name, box in boxes.items()
    }
    alt = "Pretraining data, pretrained model, supervised fine-tuning, preference data, reward models, RLHF, chat model"
    return Section(
        "pipeline",
        "The pipeline",
        "Figure 4",
        (Drawing("figure_4", figure, caption, alt, wide=True),),
        numbers,
    )


def _boxes(run: RunFolder) -> dict[str, Box]:
    models = run.models
    tuned = [a for v, a in models.items() if v.startswith("rlhf") and not _is_ppo(v)]
    ppo = [a for v, a in models.items() if _is_ppo(v)]
    data = [a for kind in ("pretraining_data", "tokenizer", "token_shards") for a in run.of_kind(kind)]
    base = [a for v, a in models.items() if v.startswith("pretrained")]
    sft = [a for v, a in models.items() if v.startswith("sft")]
    pairs, rewards, samples = (run.of_kind(kind) for kind in ("preferences", "reward_model", "samples"))
    blue, orange, green = SERIES[0], SERIES[1], SERIES[2]
    last = last_version(models)
    final = [last] if last and (tuned or ppo or sft) else []
    boxes = {
        "data": Box(0, TOP, "Pretraining data", data, _data_lines(data), green),
        "base": Box(26, TOP, "Pretrained model", base, _model_lines(base), blue),
        "sft": Box(52, TOP, "Supervised fine-tuning", sft, _model_lines(sft), blue),
        "chat": Box(78, TOP, "Chat model", [models[v] for v in final], _chat_lines(final, run), blue),
        "pairs": Box(26, BOTTOM, "Preference data", pairs, _pair_lines(pairs, run), green),
        "rewards": Box(52, BOTTOM, "Reward models", rewards, _reward_lines(rewards), orange),
        "rlhf": Box(78, BOTTOM, "RLHF", [*samples, *tuned, *ppo], _rlhf_lines(samples, ppo), blue),
    }
    return {name: box if name == "chat" else _timed(box) for name, box in boxes.items()}


def _timed(box: Box) -> Box:
    return replace(box, lines=(*box.lines, seconds(_time(box.artifacts))))


def _chat_lines(final: Sequence[str], run: RunFolder) -> tuple[str, ...]:
    found = [run.evaluations[version].metrics for version in final if version in run.evaluations]
    points = [f"{metrics['helpfulness']:.1f} points" for metrics in found if "helpfulness" in metrics]
    harm = [
        f"{100 * metrics['violation_rate']:.1f} % violations"
        for metrics in found
        if "violation_rate" in metrics
    ]
    return (*final, *points, *harm)


def _is_ppo(version: str) -> bool:
    return version.endswith("ppo")


def _time(artifacts: Sequence[Artifact]) -> float:
    return sum(artifact.manifest.wall_seconds for artifact in artifacts)


def _total(artifacts: Sequence[Artifact], name: str) -> int:
    """Sum of a metric over the artifacts that have it."""
    return sum(int(artifact.metrics.get(name, 0)) for artifact in artifacts)


def _say(count: int, unit: str) -> tuple[str, ...]:
    if not count:
        return ()
    text = f"{count / 1e6:.2f} M" if count >= 1_000_000 else f"{count:,}"
    return (f"{text} {unit}",)


def _data_lines(data: Sequence[Artifact]) -> tuple[str, ...]:
    return (*_say(_total(data, "n_kept"), "documents kept"), *_say(_total(data, "n_train_tokens"), "tokens"))


def _model_lines(models: Sequence[Artifact]) -> tuple[str, ...]:
    parameters = max((_total([m], "n_parameters") for m in models), default=0)
    return (
        *_say(parameters, "parameters"),
        *_say(_total(models, "n_dialogs"), "dialogs"),
        *_say(_total(models, "tokens"), "tokens"),
    )


def _pair_lines(pairs: Sequence[Artifact], run: RunFolder) -> tuple[str, ...]:
    who = ("by simulated annotators",) if run.is_simulated and pairs else ()
    return (*_say(_total(pairs, "comparisons"), "comparisons"), *who)


def _reward_lines(rewards: Sequence[Artifact]) -> tuple[str, ...]:
    latest = {a.labels.get("role", a.name): a.metrics.get("accuracy") for a in rewards}
    return tuple(
        f"{role}: {100 * value:.0f} % of pairs" for role, value in latest.items() if value is not None
    )


def _rlhf_lines(samples: Sequence[Artifact], ppo: Sequence[Artifact]) -> tuple[str, ...]:
    """A round is one set of samples: Ghost Attention tunes a model of its own without one."""
    n_rounds = f"{len(samples)} round{'s' * (len(samples) != 1)}"
    rounds = (f"rejection sampling, {n_rounds}",) if samples else ()
    steps = _total(ppo, "iterations")
    last = (f"PPO, {steps} iterations" if steps else "PPO",) if ppo else ()
    return (*rounds, *_say(_total(samples, "n_samples"), "samples"), *last)


def _draw_box(panel: Axes, box: Box) -> None:
    is_done = bool(box.artifacts)
    frame = FancyBboxPatch(
        (box.x, box.y),
        WIDTH,
        HEIGHT,
        boxstyle="round,pad=0,rounding_size=1.2",
        linewidth=1.3,
        facecolor=SURFACE,
        edgecolor=box.colour if is_done else FAINT,
        linestyle="-" if is_done else (0, (3, 3)),
    )
    panel.add_patch(frame)
    middle = box.x + WIDTH / 2
    panel.text(
        middle,
        box.y + HEIGHT - 2.4,
        box.title,
        ha="center",
        va="center",
        color=INK,
        weight="bold",
        fontsize=11,
    )
    lines = box.lines if is_done else ("not run",)
    for index, line in enumerate(lines):
        y = box.y + HEIGHT - 5.4 - 2.9 * index
        panel.text(middle, y, line, ha="center", va="center", color=MUTED, fontsize=9.5)


_STRAIGHT = (("data", "base"), ("base", "sft"), ("sft", "chat"), ("pairs", "rewards"), ("rewards", "rlhf"))


def _draw_arrows(panel: Axes, boxes: dict[str, Box], run: RunFolder) -> None:
    for left, right in _STRAIGHT:
        y = boxes[left].y + HEIGHT / 2
        _arrow(panel, (boxes[left].x + WIDTH, y), (boxes[right].x, y))
    bottom, chat, pairs = BOTTOM + HEIGHT, boxes["chat"].x + WIDTH / 2, boxes["pairs"].x
    _arrow(panel, (chat + 4, bottom), (chat + 4, TOP))
    _arrow(panel, (chat - 4, TOP), (chat - 4, bottom))
    _say_beside(panel, (chat, 26.5), "sample,\ntune")
    is_imported = any("sources" in artifact.metrics for artifact in boxes["pairs"].artifacts)
    who = (
        "public\ncomparisons"
        if is_imported
        else "simulated\nannotators"
        if run.is_simulated
        else "annotators"
    )
    _say_beside(panel, (8, BOTTOM + HEIGHT / 2), who)
    _arrow(panel, (16, BOTTOM + HEIGHT / 2), (pairs, BOTTOM + HEIGHT / 2))
    if not is_imported:
        start, end = (boxes["sft"].x + WIDTH / 2, TOP), (pairs + WIDTH / 2 + 4, bottom)
        _arrow(panel, start, end, bend="arc3,rad=-0.08")
        _say_beside(panel, (37, 27.8), "two answers to each prompt")


def _say_beside(panel: Axes, place: tuple[float, float], text: str) -> None:
    panel.text(*place, text, color=MUTED, fontsize=9.5, ha="center", va="center")


def _arrow(panel: Axes, start: tuple[float, float], end: tuple[float, float], bend: str = "arc3") -> None:
    panel.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=FAINT,
            linewidth=1.3,
            connectionstyle=bend,
            shrinkA=2,
            shrinkB=2,
        )
    )
