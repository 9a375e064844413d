"""`puna plan`: what a training will need and cost, before it starts; and Table 2 of the paper again."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from puna.cli.options import JsonOption, show
from puna.cli.plan_tables import paper_tables, plan_tables
from puna.core.energy import PAPER_GRID, PAPER_PUE
from puna.core.validation import option_error
from puna.planning.paper_table import implied_factor, paper_rows
from puna.planning.plan import make_plan
from puna.planning.quantities import parse_count
from puna.planning.request import PlanRequest, find_model

__all__ = ["register"]

WIDTH = 100
"""Columns that every table fits into."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(plan)


def plan(
    model: Annotated[
        str, typer.Option(help="A preset (7b, 13b, 34b, 70b, nano), a Hugging Face folder or a config.json.")
    ] = "7b",
    tokens: Annotated[str, typer.Option(help="Tokens to train on, such as 2T, 500B or 4M.")] = "2T",
    gpu: Annotated[str, typer.Option(help="GPU, such as a100, h100, h200, l40s, rtx-4090, mi300x.")] = "a100",
    gpus: Annotated[
        int | None, typer.Option(min=1, help="How many; by default the fewest that it fits on.")
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs with a fast link.")] = 8,
    tp: Annotated[int | None, typer.Option(min=1, help="Only this degree of tensor parallelism.")] = None,
    seq_len: Annotated[int | None, typer.Option(min=1, help="Tokens of a row; default: the context.")] = None,
    micro_batch: Annotated[int, typer.Option(min=1, help="Rows of one forward pass on a GPU.")] = 1,
    batch_tokens: Annotated[str, typer.Option(help="Tokens of an update, over all GPUs.")] = str(2**22),
    mfu: Annotated[float, typer.Option(help="Share of the GPU's dense bf16 peak to count on.")] = 0.4,
    price: Annotated[float, typer.Option(min=0, help="US dollars for a GPU-hour.")] = 2.0,
    watts: Annotated[float | None, typer.Option(help="Power of a GPU; default: its TDP.")] = None,
    pue: Annotated[
        float, typer.Option(help="Energy of the data centre over energy of its GPUs.")
    ] = PAPER_PUE,
    grid: Annotated[float, typer.Option(help="kg CO2eq of a kWh of the grid.")] = PAPER_GRID,
    paper: Annotated[bool, typer.Option("--paper", help="Table 2 of the paper, row by row.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Parameters, memory of a GPU by part and layout, time, money, energy and carbon of a pretraining.

    Example: puna plan --model 7b --tokens 2T --gpu h200 --gpus 64 --mfu 0.5 --price 3 --json
    """
    if paper:
        show(
            _paper_facts(pue, grid),
            _text(paper_tables(paper_rows(pue=pue, grid=grid), implied_factor())),
            as_json=as_json,
        )
        return
    try:
        request = PlanRequest(
            model=find_model(model),
            n_tokens=parse_count(tokens, where="tokens"),
            gpu=gpu,
            n_gpus=gpus,
            gpus_per_node=gpus_per_node,
            tp=tp,
            seq_len=seq_len,
            micro_batch_size=micro_batch,
            batch_tokens=parse_count(batch_tokens, where="batch-tokens"),
            mfu=mfu,
            usd_per_gpu_hour=price,
            watts=watts,
            pue=pue,
            grid=grid,
        )
    except ValidationError as error:
        raise option_error(error) from None
    made = make_plan(request)
    show({"model": model} | made.as_dict(), _text(plan_tables(made, model)), as_json=as_json)


def _text(renderables: list[Any]) -> str:
    console = Console(width=WIDTH, no_color=True, force_terminal=False, highlight=False)
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable)
    return capture.get().rstrip()


def _paper_facts(pue: float, grid: float) -> dict[str, Any]:
    rows = paper_rows(pue=pue, grid=grid)
    low, high = implied_factor()
    return {
        "rows": [asdict(row) for row in rows],
        "total": {
            "gpu_hours": sum(row.gpu_hours for row in rows),
            "energy_mwh": sum(row.energy_mwh for row in rows),
            "tco2eq": sum(row.tco2eq_exact for row in rows),
        },
        "pue": pue,
        "grid_kg_per_kwh": grid,
        "implied_pue_times_grid": [low, high],
    }
