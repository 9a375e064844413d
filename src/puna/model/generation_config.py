"""generation_config.json: the special tokens of a model and how it is sampled by default, kept across stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from puna.core.config import Settings
from puna.core.storage import write_json
from puna.model.hf_config import GENERATION_CONFIG, broken, read_json

__all__ = ["GenerationConfig", "read_generation_config", "write_generation_config"]

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _without_ids(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _IDS}


class GenerationConfig(Settings):
    """What a text generator needs beside the weights; the defaults are Llama 2's."""

    bos_id: int | None = Field(default=1, ge=0)
    """Starts a text; None where the model has no such token."""
    eos_ids: tuple[Annotated[int, Field(ge=0)], ...] = (2,)
    """Any of them ends a text."""
    pad_id: int | None = Field(default=0, ge=0)
    """Fills rows. Llama 2's tokenizer has no padding token: 0 is its unk."""
    other: dict[str, Any] = Field(default_factory=lambda: _without_ids(GENERATION_CONFIG))
    """All other keys of the file, as they are."""

    def token_ids(self) -> dict[str, Any]:
        """bos_token_id, eos_token_id and pad_token_id in Hugging Face's form: one number where there is one."""
        eos = self.eos_ids[0] if len(self.eos_ids) == 1 else list(self.eos_ids) or None
        return dict(zip(_IDS, (self.bos_id, eos, self.pad_id), strict=True))


def read_generation_config(folder: Path) -> GenerationConfig:
    """The folder's own settings; ids that generation_config.json lacks come from config.json.

    Raises:
        CheckpointError: a file is broken, or an id is not a number.
    """
    path = folder / "generation_config.json"
    values = read_json(path) if path.is_file() else {}
    base = read_json(folder / "config.json")
    bos, eos, pad = (base.get(key) if values.get(key) is None else values[key] for key in _IDS)
    eos_ids = eos if isinstance(eos, list) else [] if eos in (None, -1) else [eos]
    try:
        # -1 is how some files spell "no such token"
        return GenerationConfig.model_validate(
            {
                "bos_id": None if bos == -1 else bos,
                "eos_ids": tuple(eos_ids),
                "pad_id": None if pad == -1 else pad,
                "other": _without_ids(values),
            },
            strict=True,
        )
    except ValidationError as error:
        raise broken(path, "token ids that are whole numbers", str(error.errors()[0]["msg"])) from None


def write_generation_config(generation: GenerationConfig, folder: Path, *, max_length: int) -> None:
    """Write generation_config.json; max_length is the context, unless the settings hold one."""
    ids = {key: value for key, value in generation.token_ids().items() if value is not None}
    content = ids | {"max_length": max_length} | generation.other
    write_json(folder / "generation_config.json", content)
