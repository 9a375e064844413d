"""`puna pretrain`: §2.2 on one process, or on those that torchrun started."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from puna.cli.options import (
    DeviceOption,
    JsonOption,
    SeedOption,
    SetOption,
    ThreadsOption,
    on_machine,
    show_artifact,
)
from puna.core.config import load_recipe
from puna.core.errors import ConfigError
from puna.core.manifest import Manifest
from puna.core.progress import Reporter, quiet
from puna.evaluation.text import TextHookConfig, TextSuite
from puna.pretraining import pretrain
from puna.recipe.pretraining import PretrainingRecipe
from puna.recipe.settings import builtin_recipe
from puna.tokenizer import Tokenizer
from puna.training.parallel import SINGLE, Ranks, is_torchrun, torchrun
from puna.training.parallel.stage import run_together
from puna.training.signals import preemptible

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pretrain")(pretrain_command)


def pretrain_command(
    recipe: Annotated[
        Path, typer.Argument(help="A TOML recipe with a \\[pretraining] section, or a shipped one's name.")
    ],
    data: Annotated[
        Path, typer.Option(help="Folder with shards/index.json, as the tokenize stage writes it.")
    ],
    tokenizer: Annotated[Path, typer.Option(help="The tokenizer that the shards were made with.")],
    out: Annotated[Path, typer.Option(help="Folder of the model; the same again resumes or skips.")],
    seed: SeedOption = 0,
    set_: SetOption = None,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="Go on although settings differ from the interrupted run's."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a base model on token shards; under torchrun on many processes, together.

    A run that was stopped, killed or preempted goes on with the same command, on any number of processes.

    Example: torchrun --nproc-per-node 8 -m puna pretrain llama2_7b --data TOKENS --tokenizer TOKENIZER --out runs/7b
    """
    started = time.monotonic()
    path = recipe if recipe.suffix == ".toml" else builtin_recipe(str(recipe))
    settings = load_recipe(path, PretrainingRecipe, set_ or ())
    settings = settings.model_copy(update={"machine": on_machine(settings.machine, device, threads)})
    given = {
        "data": data,
        "tokenizer": tokenizer,
        "out": out,
        "seed": seed,
        "accepts_changes": accept_changes,
    }
    given["hooks"] = _hooks(settings.evaluation_hooks, data, tokenizer, seed)
    if is_torchrun():
        settings = _as_one_of_many(settings)
        settings.machine.apply()
        with preemptible(), torchrun(settings.parallel, settings.machine.torch_device) as ranks:
            manifest = _pretrain(settings, ranks, given)
    else:
        settings.machine.apply()
        settings.parallel.layout(1)
        with preemptible():
            manifest = _pretrain(settings, SINGLE, given)
    if manifest is not None:
        text = f"Model: {out}\nTry it: puna generate {out} --prompt TEXT"
        show_artifact(out, manifest, text, started=started, as_json=as_json)


def _hooks(config: TextHookConfig | None, data: Path, tokenizer: Path, seed: int) -> list[TextSuite]:
    """The suites that the recipe asks for.

    Raises:
        ConfigError: under torchrun, where no process holds the whole model.
    """
    if config is None:
        return []
    if is_torchrun():
        raise ConfigError(
            where="evaluation_hooks",
            expected="a training on one process",
            got="torchrun",
            fix="Leave the section out, and measure the finished model.",
        )
    bos_id = Tokenizer.load(tokenizer).bos_id
    return [
        TextSuite(data=data, bos_id=bos_id, seed=seed, every_steps=config.every_steps, config=config.text)
    ]


def _as_one_of_many(settings: PretrainingRecipe) -> PretrainingRecipe:
    """The settings of a process that torchrun started: one thread where none is named, and a GPU of its own."""
    machine = settings.machine
    local = int(os.environ.get("LOCAL_RANK", "0"))
    own = f"cuda:{local}" if machine.torch_device.type == "cuda" else machine.device
    machine = machine.model_copy(update={"device": own, "threads": machine.threads or 1})
    return settings.model_copy(update={"machine": machine})


def _pretrain(settings: PretrainingRecipe, ranks: Ranks, given: dict[str, Any]) -> Manifest | None:
    reporter = Reporter() if ranks.is_writer else quiet()
    return run_together(
        pretrain,
        settings.pretraining,
        ranks=ranks,
        safeguards=settings.safeguards,
        machine=settings.machine,
        reporter=reporter,
        **given,
    )
