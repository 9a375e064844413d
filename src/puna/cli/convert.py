"""`puna convert`: a checkpoint of any format to another."""

from pathlib import Path
from typing import Annotated

import typer

from puna.cli.options import JsonOption, show
from puna.conversion.convert import Dtype, Format
from puna.conversion.convert import convert as convert_checkpoint
from puna.core.progress import Reporter

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(convert)


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SRC", help="A Hugging Face or Meta folder, a GGUF file, or a llama2.c .bin."),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Where to write; nothing may be there.")],
    to: Annotated[Format, typer.Option("--to", help="Format to write.")],
    shards: Annotated[
        int | None, typer.Option("--shards", min=1, help="Files of Meta's format: 1, 2, 4 or 8.")
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option("--dtype", help="Number format of the weights; each tensor's own by default."),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", help="A tokenizer file or folder, where none lies beside the weights."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model in another format, and check it by reading it back.

    Example: puna convert llama-2-7b llama-2-7b-hf --to hf --dtype bf16
    """
    done = convert_checkpoint(
        source, target, to=to, n_shards=shards, dtype=dtype, tokenizer=tokenizer, reporter=Reporter()
    )
    facts = {
        "target": str(target),
        "format": str(to),
        "parameters": done.n_parameters,
        "bytes": done.n_bytes,
        "tensors": done.n_tensors,
        "tokenizer": done.has_tokenizer,
    }
    text = f"{target}: {done.n_parameters:,} parameters in {done.n_tensors} tensors, {done.n_bytes:,} bytes, read back"
    if not done.has_tokenizer:
        text += "\nno tokenizer lay beside the weights: name one with --tokenizer, or copy it into the result"
    show(facts, text, as_json=as_json)
