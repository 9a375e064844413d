"""How text is drawn and computed, as options that `puna generate` and `puna chat` share."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from pydantic import ValidationError

from puna.cli.signature import keyword, with_options
from puna.core.errors import ConfigError
from puna.core.validation import option_error
from puna.inference.engine import Engine
from puna.inference.packed import has_bfloat16
from puna.inference.sampling import SamplingConfig
from puna.model.checkpoint import load_model
from puna.model.hf_config import saved_dtype
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["CompileOption", "DtypeOption", "QuantizeOption", "load_engine", "takes_sampling"]

Dtype = Literal["auto", "float32", "bfloat16"]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype", help="Of weights and products; auto is the file's own where this machine is fast in it."
    ),
]
QuantizeOption = Annotated[
    Literal["none", "int8"], typer.Option("--quantize", help="int8: compute from 8-bit weights, in bfloat16.")
]
CompileOption = Annotated[
    bool,
    typer.Option(
        "--compile", help="Compile the model with torch.compile: slow to start, needs a C++ compiler."
    ),
]

_OPTIONS: dict[str, Any] = {
    "max_new_tokens": Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")
    ],
    "temperature": Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")],
    "top_p": Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Nucleus sampling.")],
    "top_k": Annotated[
        int | None, typer.Option("--top-k", min=1, help="Draw from the K likeliest tokens only.")
    ],
    "repetition_penalty": Annotated[
        float,
        typer.Option("--repetition-penalty", help="Above 1: what was said already becomes less likely."),
    ],
    "presence_penalty": Annotated[
        float,
        typer.Option("--presence-penalty", help="Taken from the logits of tokens in the answer so far."),
    ],
    "stop": Annotated[
        list[str] | None, typer.Option("--stop", help="End the answer before this text; may be repeated.")
    ],
}
"""One a field of SamplingConfig."""

Command = Callable[..., None]


def takes_sampling(**defaults: Any) -> Callable[[Command], Command]:
    """Give a command's parameter `sampling` as one option a field; `defaults` are what this command starts from."""

    def expand(command: Command) -> Command:
        initial = (
            {name: SamplingConfig.model_fields[name].default for name in _OPTIONS} | {"stop": None} | defaults
        )
        own = inspect.signature(command, eval_str=True).parameters
        kept = [keyword(p.name, p.annotation, p.default) for p in own.values() if p.name != "sampling"]
        added = [keyword(name, option, initial[name]) for name, option in _OPTIONS.items()]

        def run(**given: Any) -> None:
            chosen = {name: given.pop(name) for name in _OPTIONS}
            command(**given, sampling=_sampling(**chosen | {"stop": tuple(chosen["stop"] or ())}))

        return with_options(run, [*kept, *added], name=command.__name__, doc=command.__doc__ or "")

    return expand


def load_engine(
    folder: Path,
    *,
    device: torch.device,
    dtype: Dtype = "auto",
    quantize: Literal["none", "int8"] = "none",
    compiles: bool = False,
) -> tuple[Engine, Tokenizer]:
    """A model folder as an engine on a device, and its tokenizer.

    Raises:
        ConfigError: float32 was asked for together with 8-bit weights, which compute in bfloat16.
    """
    is_int8 = quantize == "int8"
    if is_int8 and dtype == "float32":
        raise ConfigError(
            where="--dtype", expected="auto or bfloat16 with --quantize int8", got="float32", fix="Leave one out."
        )  # fmt: skip
    if dtype == "auto":
        is_fast = device.type != "cpu" or has_bfloat16()
        is_narrow = saved_dtype(folder) in (torch.bfloat16, torch.float16)
        chosen = torch.bfloat16 if is_int8 or (is_narrow and is_fast) else torch.float32
    else:
        chosen = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    model = load_model(folder, dtype=chosen, device=device)
    tokenizer = Tokenizer.load(folder)
    return Engine(model, tokenizer, has_int8_weights=is_int8, compiles=compiles), tokenizer


def _sampling(**options: Any) -> SamplingConfig:
    try:
        return SamplingConfig(**options)
    except ValidationError as error:
        raise option_error(error) from None
