"""The reward models: accuracy by rating (Table 8), the safety extras (Table 29), reward against K (Figure 7)."""

from typing import Any

from puna.core.records import RATINGS
from puna.reporting.blocks import DASH, Block, Cell, Drawing, Section, Table, percent, plain
from puna.reporting.paper_numbers import REWARD_ACCURACY, SAFETY_AUXILIARY
from puna.reporting.run_folder import Artifact, RunFolder
from puna.reporting.style import INK, SERIES, describe, legend, name_line, new_figure, shade

__all__ = ["accuracy", "reward_against_k", "reward_model_numbers"]


def reward_model_numbers(run: RunFolder) -> list[dict[str, Any]]:
    """Every reward model with its role, round and held-out accuracy."""
    return [
        {
            "role": model.labels.get("role", ""),
            "round": model.labels.get("round", ""),
            "accuracy": model.metrics.get("accuracy"),
            "accuracy_by_rating": model.metrics.get("accuracy_by_rating", {}),
        }
        for model in _models(run)
    ]


def _models(run: RunFolder) -> list[Artifact]:
    found = run.of_kind("reward_model")
    return sorted(
        found, key=lambda model: (model.labels.get("round", ""), model.labels.get("role", ""), model.name)
    )


def accuracy(run: RunFolder) -> Section:
    """Share of held-out pairs that the reward model orders as the annotator did (Table 8's shape)."""
    head = ("reward-accuracy", "Reward-model accuracy by rating", "Section 3.2.2, Tables 7, 8 and 29")
    models = _models(run)
    if not models:
        return Section.absent(*head, "no reward model has been trained yet")
    columns = ("Reward model", "Held-out pairs", *(name.replace("_", " ") for name in RATINGS), "all")
    table = Table(
        "Ours: percent of held-out pairs, 95 % interval and n in small type. Paper: Table 8, pairs rated by people. "
        + ("Our pairs are rated by simulated annotators. " if run.is_simulated else "")
        + "What should agree is the shape: the clearer the preference, the higher the accuracy.",
        columns,
        tuple(_accuracy_rows(models)),
    )
    blocks: list[Block] = [table, _accuracy_drawing(models), *_safety_extras(models)]
    return Section(*head, tuple(blocks), reward_model_numbers(run))


def _accuracy_rows(models: list[Artifact]) -> list[tuple[Cell, ...]]:
    """By reward model and test set: the rounds of this run, then the paper's row."""
    ours: dict[tuple[str, str], list[tuple[Cell, ...]]] = {}
    for model in models:
        role = model.labels.get("role", "")
        for test_set, found in (model.metrics.get("by_test_set") or {role: model.metrics}).items():
            ratings = [_rating_cell(found.get("accuracy_by_rating", {}).get(rating)) for rating in RATINGS]
            row = (Cell(_name(model)), Cell(test_set), *ratings, _rating_cell(found))
            ours.setdefault((role, test_set), []).append(row)
    rows = []
    for key, group in sorted(ours.items()):
        rows += group
        if key in REWARD_ACCURACY:
            role, test_set = key
            rows.append(
                (
                    Cell(f"paper, {role} RM"),
                    Cell(test_set),
                    *(plain(x, unit="%") for x in REWARD_ACCURACY[key]),
                )
            )
    return rows


def _name(model: Artifact) -> str:
    labels = model.labels
    return f"{labels.get('role', model.name)} RM" + (
        f", round {labels['round']}" if "round" in labels else ""
    )


def _rating_cell(found: dict[str, Any] | None) -> Cell:
    if not found or not found.get("n"):
        return Cell(DASH)
    cell = percent(found["accuracy"], _ends(found))
    return Cell(cell.text, f"{cell.note}, n {found['n']:,}".removeprefix(", "))


def _ends(found: dict[str, Any], prefix: str = "") -> list[float] | None:
    low, high = found.get(f"{prefix}low"), found.get(f"{prefix}high")
    return None if low is None or high is None else [low, high]


def _accuracy_drawing(models: list[Artifact]) -> Drawing:
    roles = sorted({model.labels.get("role", "") for model in models})
    figure, panels = new_figure(len(roles), width=4.6 * max(2, len(roles)), height=3.5)
    for panel, role in zip(panels, roles, strict=True):
        ours = [model for model in models if model.labels.get("role", "") == role]
        for index, model in enumerate(ours):
            _accuracy_line(panel, model, shade(index + 1, len(ours) + 1))
        paper = REWARD_ACCURACY.get((role, role))
        if paper:
            panel.plot(
                range(4),
                paper[:4][::-1],
                color=SERIES[1],
                linestyle="--",
                marker="s",
                markersize=4,
                label="paper",
            )
        panel.axhline(50, color=INK, linewidth=0.8, linestyle=":")
        describe(panel, title=f"{role.capitalize()} RM", y="accuracy, %")
        panel.set(ylim=(40, 102))
        panel.set_xticks(range(4), [rating.removesuffix("_better") for rating in RATINGS[::-1]])
        legend(panel, place="lower right")
    caption = (
        "Accuracy on the reward model's own guideline by rating; bars are 95 % intervals, dotted is chance."
    )
    return Drawing("table_8", figure, caption, "Accuracy by rating per reward model", wide=True)


def _accuracy_line(panel: Any, model: Artifact, colour: str) -> None:
    by_rating = model.metrics.get("accuracy_by_rating", {})
    points = [(x, by_rating[r]) for x, r in enumerate(RATINGS[::-1]) if by_rating.get(r, {}).get("n")]
    xs = [x for x, _ in points]
    values = [100 * found["accuracy"] for _, found in points]
    below = [100 * (found["accuracy"] - found.get("low", found["accuracy"])) for _, found in points]
    above = [100 * (found.get("high", found["accuracy"]) - found["accuracy"]) for _, found in points]
    bars = [[max(0.0, x) for x in below], [max(0.0, x) for x in above]]
    label = f"round {model.labels['round']}" if "round" in model.labels else model.name
    panel.errorbar(
        xs, values, yerr=bars, color=colour, marker="o", markersize=5, linewidth=2, elinewidth=1, label=label
    )


def _safety_extras(models: list[Artifact]) -> list[Table]:
    bins = ("chosen_safe_rejected_unsafe", "both_safe", "both_unsafe")
    ours = [
        model for model in models if model.labels.get("role") == "safety" and "unsafe_recall" in model.metrics
    ]
    if not ours:
        return []
    columns = ("", "all", *(name.replace("_", " ") for name in bins), "recall of unsafe at 0.5")
    rows = [
        (Cell(f"paper, {name}"), *(plain(x, unit="%") for x in row)) for name, row in SAFETY_AUXILIARY.items()
    ]
    for model in ours:
        found = model.metrics.get("accuracy_by_safety", {})
        recall = percent(model.metrics["unsafe_recall"], _ends(model.metrics, "unsafe_recall_"))
        cells = (_rating_cell(model.metrics), *(_rating_cell(found.get(name)) for name in bins), recall)
        rows.append((Cell(f"ours, {_name(model)}"), *cells))
    caption = "Table 29: accuracy by safety bin, and the share of unsafe answers that score under one half."
    return [Table(caption, columns, tuple(rows))]


def reward_against_k(run: RunFolder) -> Section:
    """Best and median reward among K samples of a prompt (Figure 7)."""
    head = ("reward-k", "Reward against the number of samples", "Section 3.2.3, Figure 7")
    found = {
        _round(sample): sample.metrics["reward_by_k"]
        for sample in run.of_kind("samples")
        if sample.metrics.get("reward_by_k")
    }
    if not found:
        return Section.absent(*head, "no rejection sampling has finished yet")
    figure, (panel,) = new_figure(width=7.6, height=3.8)
    ks = sorted({row["k"] for rows in found.values() for row in rows})
    for index, (name, rows) in enumerate(found.items()):
        colour = shade(index + 1, len(found) + 1)
        for key, line in (("max_mean", "-"), ("median_mean", ":")):
            points = [(row["k"], row[key]) for row in rows]
            panel.plot(
                *zip(*points, strict=True),
                color=colour,
                linestyle=line,
                linewidth=2,
                marker="o",
                markersize=3,
            )
            name_line(panel, points[-1], f"{key.split('_')[0]}, {name}")
    panel.set_xscale("log", base=2)
    panel.set_xticks(ks, map(str, ks))
    panel.minorticks_off()
    describe(panel, x="samples per prompt, K", y="mean reward")
    caption = (
        "Solid: mean over prompts of the best of K. Dotted: of the median of K, which more samples do not move. "
        "The gap is what rejection sampling can gain. In the paper the best climbs from about 0.54 to 0.67 by K = 20, "
        "the median stays."
    )
    return Section(*head, (Drawing("figure_7", figure, caption, "Reward against K"),), found)


def _round(sample: Artifact) -> str:
    labels = sample.labels
    return labels.get("version") or labels.get("round") or sample.name
