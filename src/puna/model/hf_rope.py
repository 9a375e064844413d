"""Rotary settings of config.json: `rope_scaling` with `rope_theta`, and transformers 5's `rope_parameters`."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from puna.core.errors import CheckpointError
from puna.model.config import ModelConfig
from puna.model.rope_scaling import RopeScaling

__all__ = ["rope_from_hf", "rope_to_hf"]

DEFAULT_THETA = 10_000.0
"""What transformers takes where a file has no rope_theta."""

ORIGINAL = "original_max_position_embeddings"
_SCALING: TypeAdapter[RopeScaling] = TypeAdapter(RopeScaling)
_KINDS = ("linear", "llama3", "yarn")
_ADVICE = {
    "ntk": "Fixed NTK scaling is written as a larger rope_theta.",
    "dynamic": (
        "Dynamic NTK scaling turns every key anew as the text grows. To use the model within its trained context "
        "only, remove rope_scaling; for longer texts choose a model with linear, llama3 or yarn scaling."
    ),
}
"""What to do about a kind that is known and not read."""


def rope_from_hf(values: dict[str, Any], *, n_positions: int, where: Path) -> tuple[Any, RopeScaling | None]:
    """rope_theta (unchecked) and the scaling, if there is one, read as transformers reads them.

    Args:
        n_positions: max_position_embeddings, the trained context where the scaling names none.
    Raises:
        CheckpointError: the scaling is of an unknown kind, or lacks a value, or has one too many.
    """
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise _broken(where, "rope_scaling as an object", repr(rope))
    found = {key: value for key, value in rope.items() if value is not None and key != "finetuned"}
    theta = found.pop("rope_theta", values.get("rope_theta"))
    theta = DEFAULT_THETA if theta is None else theta
    old_kind = found.pop("type", "default")
    kind = found.pop("rope_type", old_kind)
    share = found.pop("partial_rotary_factor", 1.0)
    if share != 1.0:
        raise _broken(where, "rotary positions on whole heads", f"partial_rotary_factor {share!r}")
    if kind == "default":
        return theta, None
    if kind not in _KINDS:
        fix = _ADVICE.get(kind) if isinstance(kind, str) else None
        raise _broken(where, f"rope_type default, {', '.join(_KINDS)}", f"rope_type {kind!r}", fix)
    trained = found.pop(ORIGINAL, n_positions)
    if kind in ("llama3", "yarn"):
        trained = values.get(ORIGINAL) or trained
    if kind != "linear":
        found["original_max_seq_len"] = trained
    if kind == "yarn" and "factor" not in found and isinstance(trained, int) and trained > 0:
        found["factor"] = n_positions / trained
    try:
        return theta, _SCALING.validate_python({"rope_type": kind, **found}, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][-1]).replace("original_max_seq_len", ORIGINAL)
        raise _broken(where, f"{kind} RoPE scaling", f"{key}: {first['msg']}") from None


def rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    """rope_theta, rope_scaling and rope_parameters: the old form and that of transformers 5."""
    theta, scaling = config.rope_theta, config.rope_scaling
    if scaling is None:
        new: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
        return {"rope_theta": theta, "rope_parameters": new, "rope_scaling": None}
    values = scaling.model_dump(exclude_none=True)
    kind, trained = values.pop("rope_type"), values.pop("original_max_seq_len", None)
    if kind in ("llama3", "yarn"):
        values[ORIGINAL] = trained
    name = "rope_type" if kind in ("llama3", "yarn") else "type"  # the older kinds, for older readers
    return {
        "rope_theta": theta,
        "rope_parameters": {"rope_type": kind, "rope_theta": theta, **values},
        "rope_scaling": {name: kind, **values},
    }


def _broken(where: Path, expected: str, got: str, fix: str | None = None) -> CheckpointError:
    fix = fix or "Correct the file or choose another model."
    return CheckpointError(where=str(where), expected=expected, got=got, fix=fix)
