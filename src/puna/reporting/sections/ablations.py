"""The ablations of App. A.2.1: context length (Tables 16, 17), attention (Table 18, Figure 24), sizes (Figure 5)."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from puna.reporting.blocks import Block, Cell, Drawing, Paragraph, Section, Table, percent, plain
from puna.reporting.paper_numbers import ATTENTION, CONTEXT_LONG, CONTEXT_SHORT
from puna.reporting.run_folder import Artifact, RunFolder
from puna.reporting.sections.loss_curves import loss_by_tokens
from puna.reporting.style import MUTED, SERIES, describe, legend, new_figure

__all__ = ["ablation_limits", "attention", "context", "decoding", "sizes"]


def _models(run: RunFolder, ablation: str) -> dict[str, Artifact]:
    found = {a.labels["variant"]: a for a in run.of_kind("model", ablation=ablation)}
    return dict(sorted(found.items(), key=lambda pair: pair[1].manifest.started))


def _texts(run: RunFolder, ablation: str, text: str) -> dict[str, dict[str, Any]]:
    """Measurements of each variant, in the order of training."""
    found = {
        a.labels["variant"]: a.metrics for a in run.of_kind("text_evaluation", ablation=ablation, text=text)
    }
    return {variant: found[variant] for variant in _models(run, ablation) if variant in found}


def context(run: RunFolder) -> Section:
    """Two context lengths, otherwise alike: far positions and far passages gain, near ones do not lose."""
    head = ("context", "Context length", "Appendix A.2.1, Tables 16 and 17")
    long, short = (_texts(run, "context", text) for text in ("text", "short_text"))
    if not long:
        return Section.absent(*head, "no context ablation in this run")
    blocks: list[Block] = [_positions(long), _recall(long)]
    if short:
        blocks.append(_by_source(short, "Text that fits the shorter context (Table 17).", {}))
    blocks += [
        _paper("The paper's Table 16: 2k against 4k after 150 B tokens, long tasks.", CONTEXT_LONG),
        _paper("The paper's Table 17: the same models, general tasks.", CONTEXT_SHORT),
    ]
    blocks += loss_by_tokens(_models(run, "context"), name="loss_context")[:1]
    return Section(*head, tuple(blocks), {"long": long, "short": short})


def attention(run: RunFolder) -> Section:
    """Multi-head, multi-query and grouped-query attention at equal parameters."""
    head = ("attention", "Attention variants", "Appendix A.2.1, Table 18")
    texts, models = _texts(run, "attention", "text"), _models(run, "attention")
    if not texts:
        return Section.absent(*head, "no attention ablation in this run")
    sizes_ = {variant: models[variant].metrics.get("n_parameters") for variant in texts}
    caption = "Held-out text by source (Table 18): perplexity, then zero-shot choice of the continuation."
    blocks: list[Block] = [
        _by_source(texts, caption, sizes_),
        _recall(texts),
        _paper("The paper's Table 18: 30B models after 150 B tokens.", ATTENTION),
    ]
    blocks += loss_by_tokens(models, name="loss_attention")[:1]
    return Section(*head, tuple(blocks), texts)


def sizes(run: RunFolder) -> Section:
    """The same data, several sizes: Figure 5."""
    head = ("sizes", "Sizes", "Section 2.2, Figure 5")
    models = _models(run, "size")
    blocks: list[Block] = list(loss_by_tokens(models, name="loss_sizes"))
    if not blocks:
        return Section.absent(*head, "no comparison of sizes in this run")
    if texts := _texts(run, "size", "text"):
        parameters = {variant: models[variant].metrics.get("n_parameters") for variant in texts}
        blocks.append(_by_source(texts, "Held-out text by source.", parameters))
    numbers = {variant: a.metrics.get("validation") for variant, a in models.items()}
    return Section(*head, tuple(blocks), numbers)


def _positions(texts: Mapping[str, Any]) -> Table:
    groups = list(next(iter(texts.values()))["positions"])
    rows = tuple(
        (
            Cell(variant),
            *(plain(found["positions"].get(group, {}).get("perplexity"), digits=2) for group in groups),
            _choice(found["choice"]),
        )
        for variant, found in texts.items()
    )
    columns = ("Trained with", *(f"places {group}" for group in groups), "choice at the end")
    caption = (
        "Long text (Table 16): perplexity of held-out documents by position. A model reads no further back than the "
        "context it was trained with. Last, how often the document's own continuation is the likeliest of four."
    )
    return Table(caption, columns, rows)


def _recall(texts: Mapping[str, Any]) -> Table:
    distances = list(next(iter(texts.values()))["recall"])
    rows = []
    for variant, found in texts.items():
        for name, label in (("found", variant), ("control", f"{variant}, passage taken out")):
            cells = (found["recall"].get(distance, {}).get(name, {}) for distance in distances)
            rows.append((Cell(label), *(percent(c.get("accuracy"), c.get("interval")) for c in cells)))
    columns = ("Model", *(f"{distance} tokens" for distance in distances))
    caption = (
        "A passage quoted again after so many tokens: tokens of it that the model gets right when its beginning is "
        "given, and the same with nothing to be found."
    )
    return Table(caption, columns, tuple(rows))


def _by_source(texts: Mapping[str, Any], caption: str, parameters: Mapping[str, int | None]) -> Table:
    sources = list(next(iter(texts.values()))["by_source"])
    rows = tuple(
        (
            Cell(variant),
            *((plain(parameters[variant], digits=0),) if parameters else ()),
            *(plain(found["by_source"].get(s, {}).get("perplexity"), digits=2) for s in sources),
            *(_choice(found["by_source"].get(s, {}).get("choice", {})) for s in sources),
            _choice(found["choice"]),
        )
        for variant, found in texts.items()
    )
    columns = ("Model", *(("Parameters",) if parameters else ()))
    columns += (*(f"{s}, perplexity" for s in sources), *(f"{s}, choice" for s in sources), "choice, all")
    return Table(caption, columns, rows)


def _choice(found: Mapping[str, Any]) -> Cell:
    return percent(found.get("accuracy"), found.get("interval"))


def _paper(caption: str, rows: Mapping[str, Mapping[str, str]]) -> Table:
    columns = ("Paper", *next(iter(rows.values())))
    return Table(
        caption, columns, tuple((Cell(name), *map(Cell, values.values())) for name, values in rows.items())
    )


def decoding(run: RunFolder) -> Section:
    """Tokens a second by batch size, and the cache that ends each curve."""
    head = ("decoding", "Decoding speed", "Appendix A.2.1, Figure 24")
    by_variant = {a.labels.get("variant", a.name): a for a in run.of_kind("decoding")}
    ordered = [variant for variant in _models(run, "attention") if variant in by_variant]
    found = {variant: by_variant[variant] for variant in ordered or by_variant}
    if not found:
        return Section.absent(*head, "decoding was not timed")
    curves = {variant: artifact.metrics["curves"] for variant, artifact in found.items()}
    limit = next(iter(found.values())).manifest.config["cache_bytes"]
    lengths = list(next(iter(curves.values())))
    figure, panels = new_figure(len(lengths) + 1, width=3.4 * (len(lengths) + 1), height=3.3)
    for panel, length in zip(panels, lengths, strict=False):
        for index, (variant, by_length) in enumerate(curves.items()):
            _speed_line(panel, by_length[length], SERIES[index], variant)
        panel.set_ylim(bottom=0)
        describe(panel, title=f"{length} tokens before", x="batch size", y="tokens per second")
    for index, (variant, by_length) in enumerate(curves.items()):
        _cache_line(panels[-1], by_length[lengths[-1]], SERIES[index], variant)
    panels[-1].axhline(limit / 2**20, color=MUTED, linewidth=1, linestyle="--")
    describe(panels[-1], title="keys and values", x="batch size", y="MiB")
    legend(panels[0])
    caption = (
        "Decoding by batch size, doubled until keys and values no longer fit the memory allowed (dashed; crosses do "
        f"not fit). Cache for {lengths[-1]} tokens and the new ones. The paper's Figure 24 shows the same on eight "
        "A100s: multi-head attention runs out of memory first, and ends slower."
    )
    drawing = Drawing("decoding", figure, caption, "Tokens per second against batch size", wide=True)
    return Section(*head, (drawing, _decoding_table(curves)), curves)


def _speed_line(panel: Axes, rows: list[dict[str, Any]], colour: str, label: str) -> None:
    fit = [row for row in rows if row["tokens_per_second"] is not None]
    batches = [row["batch_size"] for row in fit]
    panel.plot(
        batches,
        [row["tokens_per_second"] for row in fit],
        color=colour,
        linewidth=1.6,
        marker="o",
        markersize=4,
        label=label,
    )
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.minorticks_off()
    if full := [row["batch_size"] for row in rows if row["tokens_per_second"] is None]:
        panel.plot(
            full, [fit[-1]["tokens_per_second"]] if fit else [0], color=colour, marker="x", markersize=6
        )


def _cache_line(panel: Axes, rows: list[dict[str, Any]], colour: str, label: str) -> None:
    batches = [row["batch_size"] for row in rows]
    panel.plot(
        batches,
        [row["cache_bytes"] / 2**20 for row in rows],
        color=colour,
        linewidth=1.6,
        marker="o",
        markersize=4,
        label=label,
    )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.minorticks_off()
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")


def _decoding_table(curves: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> Table:
    rows = []
    for length in next(iter(curves.values())):
        for variant, by_length in curves.items():
            fit = [row for row in by_length[length] if row["tokens_per_second"] is not None]
            if not fit:
                continue
            best = max(fit, key=lambda row: row["tokens_per_second"])
            rows.append(
                (
                    Cell(f"{variant}, {length} tokens"),
                    plain(fit[0]["milliseconds_per_token"], digits=1),
                    Cell(str(fit[-1]["batch_size"])),
                    plain(best["tokens_per_second"], digits=0),
                    Cell(str(best["batch_size"])),
                    plain(best["milliseconds_per_token"], digits=1),
                    plain(fit[-1]["cache_bytes"] / fit[-1]["batch_size"] / 2**20, digits=2),
                )
            )
    columns = (
        *("Model", "ms per token, alone", "largest batch", "most tokens/s", "at batch", "ms per token there"),
        "cache per sequence, MiB",
    )
    return Table("The ends of the curves.", columns, tuple(rows))


def ablation_limits(run: RunFolder) -> Section:
    """What a reader must not conclude."""
    texts = (
        "The models are tiny beside the paper's 7 and 30 billion parameters and saw a millionth of its tokens: the "
        "tables compare shapes, never levels.",
        "Each variant was trained once. Intervals cover the choice of held-out text, not another seed; a difference "
        "inside them says nothing.",
        "Choice and recall ask what a model of any size can be asked; they are not the paper's tasks.",
        "Decoding was timed once on this machine, beside whatever else ran there.",
    )
    head = ("limits", "What these numbers cannot say", "Section 5.2")
    return Section(*head, tuple(map(Paragraph, texts)))
