"""`puna generate` and `puna chat`: text from a model folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from puna.cli.generation_options import (
    CompileOption,
    DtypeOption,
    QuantizeOption,
    load_engine,
    takes_sampling,
)
from puna.cli.options import DeviceOption, JsonOption, SeedOption, ThreadsOption, on_machine, show
from puna.core.errors import ConfigError
from puna.core.machine import Machine
from puna.core.records import Message, Prompt, read_records
from puna.core.seeding import derive_seed
from puna.inference.engine import Engine
from puna.inference.request import Completion, Request
from puna.inference.sampling import SamplingConfig
from puna.tokenizer.dialog_tokens import Refusal, render_prompt
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["register"]

ModelArgument = Annotated[Path, typer.Argument(help="A model folder.")]
REFUSALS = {"special_tags": "special tags are not allowed in the prompt"}
"""Reason code to words."""


def register(app: typer.Typer) -> None:
    """Add the commands of this group."""
    app.command()(generate)
    app.command()(chat)


@takes_sampling(max_new_tokens=128, temperature=0.0, top_p=1.0)
def generate(
    model: ModelArgument,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be repeated.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSON Lines of prompts with messages.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Wrap each prompt in the chat format.")] = False,
    n: Annotated[int, typer.Option("--n", min=1, help="Samples a prompt.")] = 1,
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = "none",
    compiles: CompileOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    *,
    sampling: SamplingConfig,
) -> None:
    """Continue texts, or answer chat prompts.

    Example: puna generate runs/quickstart/rlhf-v3-ppo --chat --prompt "what does the goat eat?"
    """
    machine = on_machine(Machine(), device, threads)
    machine.apply()
    if bool(prompt) == (prompts is not None):
        raise ConfigError(
            where="puna generate", expected="either --prompt or --prompts", got="both" if prompt else "neither",
            fix='Give the text with --prompt "..." or a file with --prompts FILE.jsonl.',
        )  # fmt: skip
    engine, tokenizer = load_engine(
        model, device=machine.torch_device, dtype=dtype, quantize=quantize, compiles=compiles
    )
    dialogs = (
        [record.messages for record in read_records(prompts, Prompt)]
        if prompts
        else [(Message(role="user", content=text),) for text in prompt or ()]
    )
    is_chat = chat or prompts is not None
    refusals = [tokenizer.chat.refusal(messages) if is_chat else None for messages in dialogs]
    asked = [index for index in range(len(dialogs) * n) if refusals[index // n] is None]
    tokens = [_tokens(dialogs[index // n], tokenizer, is_chat=is_chat) for index in asked]
    seeds = [derive_seed(seed, index) for index in asked]
    completions = iter(engine.generate(tokens, sampling, seeds=seeds) if tokens else [])
    samples = []
    for index in range(len(dialogs) * n):
        messages, refusal = dialogs[index // n], refusals[index // n]
        shown = tokenizer.chat.prompt_text(messages) if is_chat else messages[-1].content
        if refusal is None:
            samples.append(_sample(shown, engine, next(completions)))
        else:
            samples.append(_refused(shown, refusal, as_json=as_json))
    show({"samples": samples}, "\n".join(sample["text"] for sample in samples), as_json=as_json)


def _tokens(messages: Sequence[Message], tokenizer: Tokenizer, *, is_chat: bool) -> list[int]:
    return render_prompt(messages, tokenizer) if is_chat else tokenizer.encode(messages[-1].content, bos=True)


def _sample(prompt: str, engine: Engine, completion: Completion) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "text": engine.text(completion),
        "token_ids": list(completion.token_ids),
        "logprobs": [round(value, 6) for value in completion.logprobs],
        "finish_reason": completion.finish_reason,
    }


def _refused(prompt: str, refusal: Refusal, *, as_json: bool) -> dict[str, Any]:
    """A sample without an answer, with the reason as a code."""
    if not as_json:
        sys.stderr.write(f"(no answer: {REFUSALS[refusal.reason]})\n")
    return {"prompt": prompt, "text": "", "token_ids": [], "logprobs": [], "finish_reason": refusal.reason}


@takes_sampling()
def chat(
    model: ModelArgument,
    system: Annotated[str, typer.Option(help="Standing instruction for the whole dialog.")] = "",
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    quantize: QuantizeOption = "none",
    compiles: CompileOption = False,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    *,
    sampling: SamplingConfig,
) -> None:
    """Talk with a model, one line per turn; an empty line or Ctrl-D ends, /new starts over.

    Example: puna chat runs/quickstart/rlhf-v3-ppo
    """
    machine = on_machine(Machine(), device, threads)
    machine.apply()
    engine, tokenizer = load_engine(
        model, device=machine.torch_device, dtype=dtype, quantize=quantize, compiles=compiles
    )
    opening = [Message(role="system", content=system)] if system else []
    history = list(opening)
    for turn in range(sys.maxsize):
        text = _read_line()
        if not text:
            return
        if text == "/new":
            history = list(opening)
            continue
        message = Message(role="user", content=text)
        if (refusal := tokenizer.chat.refusal([*opening, message])) is not None:
            typer.echo(f"({REFUSALS[refusal.reason]})")
            continue
        history.append(message)
        history = _fit(history, len(opening), engine, tokenizer, sampling.max_new_tokens)
        tokens = render_prompt(history, tokenizer)
        answer = _say(engine, tokens, sampling, derive_seed(seed, turn))
        history.append(Message(role="assistant", content=answer))


def _say(engine: Engine, tokens: list[int], sampling: SamplingConfig, seed: int) -> str:
    """Print an answer while it is drawn, and return it; spaces around it are not printed."""
    request = Request(prompt=tokens, sampling=sampling, seed=seed, wants_stream=True)
    answer, held_back = "", ""
    for event in engine.stream(request):
        held_back += event.text if answer else event.text.lstrip()
        text = held_back.rstrip()
        if text:
            typer.echo(text, nl=False)
            sys.stdout.flush()
            answer, held_back = answer + text, held_back[len(text) :]
        if event.completion is not None:
            is_cut = event.completion.finish_reason == "length"
            typer.echo(f" (cut at {sampling.max_new_tokens} tokens)" if is_cut else "")
    return answer


def _read_line() -> str:
    if sys.stdin.isatty():
        sys.stderr.write("> ")
        sys.stderr.flush()
    return sys.stdin.readline().strip()


def _fit(
    history: list[Message], n_opening: int, engine: Engine, tokenizer: Tokenizer, max_new_tokens: int
) -> list[Message]:
    """Forget the oldest turns until the dialog and an answer fit the context; says so."""
    budget = engine.model.config.max_seq_len - min(max_new_tokens, engine.model.config.max_seq_len // 4)
    while len(history) > n_opening + 1 and len(render_prompt(history, tokenizer)) > budget:
        del history[n_opening : n_opening + 2]
        sys.stderr.write("(the context is full: the oldest turn was dropped)\n")
    return history
