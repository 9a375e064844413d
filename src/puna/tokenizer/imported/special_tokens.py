"""Which ids begin, end and stand for the unknown, read from the files beside a tokenizer, in transformers' order."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.core.errors import CheckpointError
from puna.tokenizer.backend import Backend

__all__ = ["SideFiles", "SpecialTokens", "read_side_files", "special_tokens"]

USUAL_BOS = ("<s>", "<|begin_of_text|>", "<|startoftext|>", "<bos>", "[BOS]")
USUAL_EOS = ("</s>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "[EOS]")
USUAL_UNK = ("<unk>", "<|unk|>", "[UNK]")
"""Names to try where no file says: a tokenizer.json alone names no roles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialTokens:
    """Ids of the tokens with a role; None where a tokenizer has none."""

    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    stop_ids: tuple[int, ...]
    """Every id that ends an answer, the eos id first: generation_config.json may list several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SideFiles:
    """The JSON files of a model folder that speak about its tokens; empty where there is none."""

    tokenizer_config: Mapping[str, Any]
    special_tokens_map: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    config: Mapping[str, Any]
    chat_template: str | None
    """The model's own template, from tokenizer_config.json, chat_template.jinja or chat_template.json."""
    sentencepiece_model: bytes | None
    """The content of tokenizer.model, kept for a tokenizer that is read from tokenizer.json."""

    def piece(self, role: str) -> str | None:
        """The token of a role such as "eos_token", as a string or an object with its content."""
        for file in (self.tokenizer_config, self.special_tokens_map):
            value = file.get(role)
            value = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(value, str) and value:
                return value
        return None

    def ids(self, role: str) -> list[int]:
        """The ids of a role such as "eos_token_id" in generation_config.json, then config.json: one or several."""
        found: list[int] = []
        for file in (self.generation_config, self.config):
            value = file.get(role)
            values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            found += [number for number in values if isinstance(number, int) and number not in found]
        return found


def read_side_files(folder: Path) -> SideFiles:
    """Read what is there.

    Raises:
        CheckpointError: a file is not a JSON object.
    """
    tokenizer_config = _read(folder / "tokenizer_config.json")
    model = folder / "tokenizer.model"
    return SideFiles(
        tokenizer_config=tokenizer_config,
        special_tokens_map=_read(folder / "special_tokens_map.json"),
        generation_config=_read(folder / "generation_config.json"),
        config=_read(folder / "config.json"),
        chat_template=_chat_template(folder, tokenizer_config),
        sentencepiece_model=model.read_bytes() if model.is_file() else None,
    )


def special_tokens(files: SideFiles, backend: Backend, *, defaults: Mapping[str, int]) -> SpecialTokens:
    """Roles by what the files name, then by what the model file says, then by usual names.

    Args:
        defaults: What the tokenizer's own file says: "bos", "eos" and "unk" to an id, -1 for none.
    """

    def role_id(role: str, usual: Sequence[str]) -> int | None:
        named = files.piece(f"{role}_token")
        candidates = [backend.piece_id(named)] if named else []
        candidates += [defaults.get(role, -1), *files.ids(f"{role}_token_id")]
        candidates += [backend.piece_id(piece) for piece in usual]
        good = [i for i in candidates if i is not None and 0 <= i < backend.vocab_size]
        return good[0] if good else None

    eos_id = role_id("eos", USUAL_EOS)
    stops = ([] if eos_id is None else [eos_id]) + files.ids("eos_token_id")
    return SpecialTokens(
        bos_id=role_id("bos", USUAL_BOS),
        eos_id=eos_id,
        unk_id=role_id("unk", USUAL_UNK),
        stop_ids=tuple(dict.fromkeys(i for i in stops if 0 <= i < backend.vocab_size)),
    )


def _chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """chat_template.jinja goes before chat_template.json, and both before tokenizer_config.json."""
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        try:
            return jinja.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise _not_json(jinja, str(error)) from None
    value = _read(folder / "chat_template.json").get("chat_template") or tokenizer_config.get("chat_template")
    if isinstance(value, str):
        return value
    if isinstance(value, list):  # several by name, of which "default" is for plain chat
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, Mapping)}
        template = named.get("default")
        return template if isinstance(template, str) else None
    return None


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _not_json(path, str(error)) from None
    if not isinstance(content, dict):
        raise _not_json(path, type(content).__name__)
    return content


def _not_json(path: Path, got: str) -> CheckpointError:
    return CheckpointError(where=str(path), expected="a JSON object", got=got, fix="Restore the file.")
