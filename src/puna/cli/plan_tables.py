"""The tables of `puna plan`, each within 100 columns."""

from typing import Any

from rich.table import Table

from puna.core.energy import PAPER_GRID, PAPER_PUE
from puna.planning.memory import PARTS
from puna.planning.paper_table import PaperRow, cut_to_cents
from puna.planning.plan import CHECKPOINTING, Choice, Plan
from puna.planning.quantities import short_count

__all__ = ["paper_tables", "plan_tables"]

GIB = 2**30


def plan_tables(plan: Plan, name: str) -> list[Any]:
    """What it is, what it costs, where it fits, and the parts of the choice to take."""
    return [_costs(plan, name), _layouts(plan), _parts(plan), *_advice(plan)]


def _costs(plan: Plan, name: str) -> Table:
    speed, request = plan.throughput, plan.request
    watts = request.watts or plan.gpu.tdp_watts
    table = Table(title=f"{name} on {plan.n_gpus} x {plan.gpu.name}", show_header=False, title_justify="left")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("how", overflow="fold")
    rows = [
        ("parameters", f"{plan.parameters:,}", ""),
        (
            "tokens",
            short_count(request.n_tokens),
            f"rows of {request.row_tokens}, {request.batch_rows} an update",
        ),
        ("operations", f"{speed.flops:.3e}", f"{speed.flops_per_token:.3e} a token, with attention"),
        (
            "tokens/s",
            f"{speed.tokens_per_second:,.0f}",
            f"{speed.tokens_per_second_per_gpu:,.0f} a GPU, at an MFU of {speed.mfu:.0%}: an assumption",
        ),
        ("GPU-hours", f"{speed.gpu_hours:,.0f}", ""),
        ("days", f"{speed.days:,.1f}", "without evaluation, checkpoints and failures"),
        ("US dollars", f"{plan.usd:,.0f}", f"at {request.usd_per_gpu_hour:g} a GPU-hour"),
        ("energy", f"{plan.energy_mwh:,.2f} MWh", f"{watts:g} W a GPU, PUE {request.pue:g}"),
        ("carbon", f"{plan.tco2eq:,.2f} t CO2eq", f"{request.grid:g} kg for each kWh"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _layouts(plan: Plan) -> Table:
    title = f"GiB of a GPU's {plan.gpu.memory_bytes / GIB:.1f}, by what is made again backwards"
    table = Table(title=title, title_justify="left")
    table.add_column("layout")
    for checkpointing in CHECKPOINTING:
        table.add_column(checkpointing, justify="right")
    table.add_column("micro-batches", justify="right")
    by_layout: dict[str, list[Choice]] = {}
    for choice in plan.choices:
        by_layout.setdefault(choice.layout.name, []).append(choice)
    for layout, choices in by_layout.items():
        table.add_row(layout, *map(_verdict, choices), str(choices[0].n_micro_batches))
    table.caption = "* gradients are reduced after each micro-batch; rows: the batch has fewer rows than GPUs"
    table.caption_justify = "left"
    return table


def _verdict(choice: Choice) -> str:
    mark = "*" if choice.reduces_always and choice.fits else ""
    word = "no" if not choice.fits else "rows" if not choice.shares_batch else "fits"
    return f"{choice.memory.n_bytes / GIB:,.1f}{mark} {word}"


def _parts(plan: Plan) -> Table:
    best = plan.best
    title = f"{best.layout.name}, checkpointing {best.checkpointing}: highest at {best.memory.moment}"
    table = Table(title=title, title_justify="left")
    table.add_column("part")
    table.add_column("GiB", justify="right")
    table.add_column("what it is")
    for part, n_bytes in best.memory.parts.items():
        table.add_row(part, f"{n_bytes / GIB:,.2f}", PARTS[part])
    table.add_section()
    table.add_row("all", f"{best.memory.n_bytes / GIB:,.2f}", f"of {plan.gpu.memory_bytes / GIB:,.1f}")
    return table


def _advice(plan: Plan) -> list[str]:
    best = plan.best
    if not best.is_possible:
        changes = "; ".join(plan.would_fit) or "no single change of GPUs or rows that was tried"
        return [f"Nothing fits. What would, one change each: {changes}."]
    layout = best.layout
    setting = f"dp_replicate = {layout.dp_replicate}, dp_shard = {layout.dp_shard}, tp = {layout.tp}"
    always = ", reduce_every_micro_batch = true" if best.reduces_always else ""
    return [f"Take {layout.name} with checkpointing {best.checkpointing} ({setting}{always})."]


def paper_tables(rows: list[PaperRow], factor: tuple[float, float]) -> list[Any]:
    """Paper, ours, difference, and what the rows imply."""
    table = Table(title="Table 2: pretraining on A100-80GB, 2 T tokens each", title_justify="left")
    for column in (
        "model",
        "GPU-hours",
        "W",
        "MWh",
        "paper t",
        "ours t",
        "diff.",
        "tok/s/GPU",
        "MFU",
        "MFU 6N",
    ):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        table.add_row(
            row.model,
            f"{row.gpu_hours:,}",
            str(row.watts),
            f"{row.energy_mwh:,.2f}",
            f"{row.published_tco2eq:.2f}",
            f"{row.tco2eq:.2f}",
            f"{row.tco2eq - row.published_tco2eq:+.2f}",
            f"{row.tokens_per_second_per_gpu:,.0f}",
            f"{row.mfu:.1%}",
            f"{row.mfu_6n:.1%}",
        )
    table.add_section()
    hours, mwh = sum(row.gpu_hours for row in rows), sum(row.energy_mwh for row in rows)
    tonnes = sum(row.tco2eq_exact for row in rows)
    table.add_row(
        "all",
        f"{hours:,}",
        "",
        f"{mwh:,.2f}",
        "539.00",
        f"{cut_to_cents(tonnes):.2f}",
        f"{cut_to_cents(tonnes) - 539:+.2f}",
    )
    low, high = factor
    return [
        table,
        f"The paper states no PUE and no grid factor. Its rows fix their product to {low:.6f} to {high:.6f} kg "
        "for each kWh of the GPUs, if figures are cut to hundredths (no product gives them by rounding). "
        f"{PAPER_PUE:g} x {PAPER_GRID:g} = {PAPER_PUE * PAPER_GRID:.4f}, the two numbers of Llama 1, lies in it. "
        "MWh include the PUE.",
        "MFU counts attention's operations and a dense peak of 312 TFLOP/s; 6N leaves attention out.",
    ]
