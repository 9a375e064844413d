"""`puna tokenizer`: train one, encode lines, show a rendered prompt."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from puna.cli.options import JsonOption, OutOption, SeedOption, show, show_artifact
from puna.core.progress import Reporter
from puna.core.records import Message
from puna.core.validation import option_error
from puna.tokenizer import Tokenizer, TokenizerConfig, preview
from puna.tokenizer.train_files import train_on_files

__all__ = ["app"]

app = typer.Typer(help="Train a tokenizer, encode text, look at tokens.", no_args_is_help=True)
TokenizerOption = Annotated[
    Path, typer.Option("--tokenizer", help="A tokenizer.model, a tokenizer.json, or a folder that holds one.")
]


@app.command()
def train(
    data: Annotated[list[Path], typer.Option(help="A text or JSON Lines file; may be repeated.")],
    out: OutOption,
    more: Annotated[list[Path] | None, typer.Argument(help="More such files.")] = None,
    vocab_size: Annotated[int, typer.Option(help="Number of pieces.")] = 32_000,
    max_seq_len: Annotated[int, typer.Option(min=1, help="Context to record for other software.")] = 4096,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """A SentencePiece BPE tokenizer with Llama 2's settings from files of text.

    Example: puna tokenizer train --data books.txt --data pages.jsonl.zst --vocab-size 8000 --out my-tokenizer
    """
    started = time.monotonic()
    manifest = train_on_files(
        _config(vocab_size, max_seq_len),
        files=[*data, *(more or ())],
        out=out,
        seed=seed,
        reporter=Reporter(),
    )
    made = manifest.metrics
    text = f"{out}: {made['vocab_size']} pieces, {made['bytes_per_token']:.2f} bytes per token"
    show_artifact(out, manifest, text, started=started, as_json=as_json)


@app.command()
def encode(tokenizer: TokenizerOption, as_json: JsonOption = False) -> None:
    """Token ids of each line of standard input.

    Example: echo "3 plus 4 is 7." | puna tokenizer encode --tokenizer runs/quickstart/tokenizer
    """
    loaded = Tokenizer.load(tokenizer)
    ids = loaded.encode_batch([line.rstrip("\n") for line in sys.stdin])
    show({"ids": ids}, "\n".join(json.dumps(row) for row in ids), as_json=as_json)


@app.command()
def info(
    tokenizer: TokenizerOption,
    prompt: Annotated[str, typer.Option(help="A user turn to render.")] = "Hello!",
    system: Annotated[str, typer.Option(help="A system message to render with it.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Size, special tokens, and a chat prompt in the model's own format with its token boundaries.

    Example: puna tokenizer info --tokenizer runs/quickstart/tokenizer --prompt "what is 3 plus 4?"
    """
    loaded = Tokenizer.load(tokenizer)
    opening = [Message(role="system", content=system)] if system else []
    messages = [*opening, Message(role="user", content=prompt)]
    ids = loaded.chat.render_prompt(messages)
    pieces = loaded.pieces(ids)
    refusal = loaded.chat.refusal(messages)
    facts = {
        "vocab_size": loaded.vocab_size,
        "bos_id": loaded.bos_id if loaded.has_bos else None,
        "eos_id": loaded.eos_id,
        "stop_ids": list(loaded.stop_ids),
        "chat_format": loaded.chat.name,
        "refusal": refusal.reason if refusal else None,
    }
    lines = [
        f"{loaded.vocab_size} pieces, bos {facts['bos_id']}, eos {facts['eos_id']}, answers end with"
        f" {' or '.join(loaded.pieces(loaded.stop_ids))}",
        f"chat format: {loaded.chat.name}"
        + (f"; this prompt is refused: {refusal.reason}" if refusal else ""),
        f"prompt: {loaded.chat.prompt_text(messages)!r}",
        preview(messages, loaded),
    ]
    show(facts | {"ids": ids, "pieces": pieces}, "\n".join(lines), as_json=as_json)


def _config(vocab_size: int, max_seq_len: int) -> TokenizerConfig:
    try:
        return TokenizerConfig(vocab_size=vocab_size, max_seq_len=max_seq_len, learn_from_dialogs=False)
    except ValidationError as error:
        raise option_error(error) from None
