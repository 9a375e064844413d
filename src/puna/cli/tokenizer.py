"""`puna tokenizer`: encode lines, show a rendered prompt."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from puna.cli.options import JsonOption, show
from puna.core.records import Message
from puna.tokenizer.chat_format import render_prompt
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["app"]

app = typer.Typer(help="Encode text and look at tokens.", no_args_is_help=True)
TokenizerOption = Annotated[
    Path, typer.Option("--tokenizer", help="A tokenizer.model or a folder that holds one.")
]


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
    """Size, special tokens, and a chat prompt with its token boundaries.

    Example: puna tokenizer info --tokenizer runs/quickstart/tokenizer --prompt "what is 3 plus 4?"
    """
    loaded = Tokenizer.load(tokenizer)
    messages = [Message(role="system", content=system)] if system else []
    ids = render_prompt([*messages, Message(role="user", content=prompt)], loaded)
    pieces = loaded.pieces(ids)
    facts = {"vocab_size": loaded.vocab_size, "bos_id": loaded.bos_id, "eos_id": loaded.eos_id}
    text = f"{loaded.vocab_size} pieces, bos {loaded.bos_id}, eos {loaded.eos_id}\n{'|'.join(pieces)}"
    show(facts | {"ids": ids, "pieces": pieces}, text, as_json=as_json)
