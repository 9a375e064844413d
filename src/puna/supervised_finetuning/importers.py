"""Instruction data in the formats people have, as dialogs to fine-tune on (§3.1 bootstraps from public data)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.conversations import (
    ImportAccount,
    Unusable,
    chat_messages,
    instruction_prompt,
    require_turns,
    sample_rows,
)
from puna.core.errors import DataError
from puna.core.inputs import InputSource, licence_line, read_rows, require, resolve_path
from puna.core.records import Dialog, Guideline, Message, write_records
from puna.core.splits import is_held_out
from puna.core.stage import Metrics, stage

__all__ = ["DialogImportConfig", "DialogSourceConfig", "import_dialogs", "read_dialog"]

ANSWER_COLUMNS = ("output", "response", "completion")


class DialogSourceConfig(InputSource):
    """One file of instructions or conversations."""

    name: str
    """What reports call it."""
    reader: Literal["alpaca", "sharegpt", "openai_messages"]
    """alpaca: instruction, input or context, output or response; the others: lists of turns."""
    path: str
    """A .json or .jsonl file, perhaps .gz; may start with ${PUNA_DATA}."""
    guideline: Guideline = "helpfulness"
    """What its answers show; noted in every dialog."""
    max_rows: int | None = Field(default=None, ge=1)
    """A seeded sample of at most so many rows; None takes all."""

    def input_path(self) -> Path:
        """The file.

        Raises:
            DataError: it is missing.
        """
        return require(resolve_path(self.path), f"the file of source {self.name}")


class DialogImportConfig(Settings):
    """Which files become dialogs."""

    sources: tuple[DialogSourceConfig, ...]
    """Read in this order."""
    held_out_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Share of first prompts whose dialogs go to held_out.jsonl; our choice."""
    max_chars: int | None = Field(default=None, ge=1)
    """Longer dialogs are dropped, so that a small context is not filled with cut answers; None keeps all."""


def read_dialog(row: Mapping[str, Any], reader: str) -> tuple[Message, ...]:
    """The messages of one row, ending with an answer.

    Raises:
        Unusable: the row has no prompt, no answer, unfilled placeholders, or turns out of order.
    """
    if reader == "alpaca":
        answer = next((row[column] for column in ANSWER_COLUMNS if row.get(column)), "")
        if not isinstance(answer, str) or not answer.strip():
            raise Unusable("empty_answer")
        if "{{" in answer:
            raise Unusable("template_placeholder")
        prompt = Message(role="user", content=instruction_prompt(row))
        return prompt, Message(role="assistant", content=answer.strip())
    messages = chat_messages(row.get("conversations" if reader == "sharegpt" else "messages"))
    if reader == "sharegpt" and isinstance(row.get("system"), str) and row["system"].strip():
        messages = (Message(role="system", content=row["system"].strip()), *messages)
    require_turns(messages, last="assistant")
    return messages


@stage("dialogs")
def import_dialogs(config: DialogImportConfig, context: StageContext) -> Metrics:
    """Turn instruction files into dialogs.jsonl and held_out.jsonl; the metrics account for every row.

    Raises:
        DataError: a file is missing, a line is broken, or no row is usable.
    """
    dialogs: list[Dialog] = []
    accounts: dict[str, Any] = {}
    seen: set[tuple[Message, ...]] = set()
    for source in config.sources:
        path = source.input_path()
        account = ImportAccount(licence_line(path))
        rows = sample_rows(list(read_rows(path)), source.max_rows, seed=context.seed, source=source.name)

        def use(number: int, row: dict[str, Any], source: DialogSourceConfig = source) -> Dialog:
            messages = read_dialog(row, source.reader)
            if messages in seen:
                raise Unusable("duplicate")
            if config.max_chars is not None and sum(len(m.content) for m in messages) > config.max_chars:
                raise Unusable("too_long")
            seen.add(messages)
            return Dialog(
                id=f"{source.name}/{number}",
                messages=messages,
                guideline=source.guideline,
                meta={"source": source.name},
            )

        dialogs += account.take(rows, use)
        accounts[source.name] = account.as_metrics()
        context.reporter.log(f"{source.name}: {account.n_kept} of {account.n_rows} rows kept")
    if not dialogs:
        fix = "Check the reader of each source."
        raise DataError(where="sources", expected="at least one dialog", got=f"none: {accounts}", fix=fix)
    held_out = [dialog for dialog in dialogs if _is_held_out(dialog, config, context.seed)]
    train = [dialog for dialog in dialogs if not _is_held_out(dialog, config, context.seed)]
    return {
        "n_dialogs": write_records(context.folder / "dialogs.jsonl", train),
        "n_held_out": write_records(context.folder / "held_out.jsonl", held_out),
        "sources": accounts,
    }


def _is_held_out(dialog: Dialog, config: DialogImportConfig, seed: int) -> bool:
    """By the first user turn, so that one prompt is never on both sides."""
    prompt = next(message.content for message in dialog.messages if message.role == "user")
    return is_held_out(prompt, config.held_out_fraction, seed=seed)
