"""Lines of JSON that earlier versions wrote, as today's records have them.

Each function takes the fields of one record and returns them under today's names. Today's fields pass unchanged. A
field that no version had is left in, so that the record refuses it.
"""

from collections.abc import Mapping
from typing import Any

from puna.core.safety_bins import LABELS_OF_BIN

__all__ = ["migrate_comparison", "migrate_dialog", "migrate_prompt", "migrate_sample", "renamed_domain"]

GUIDELINES = ("helpfulness", "safety")
SETS = ("helpful", "adversarial", "borderline", "constraint")
OPEN_BATCHES = ("open", "imported")
"""Batches of pairs that were not annotated for this model: the sandbox's open data and imported files."""


def renamed_domain(fields: Any) -> Any:
    """`domain` is now `guideline`."""
    if not isinstance(fields, Mapping) or "domain" not in fields or "guideline" in fields:
        return fields
    return {("guideline" if name == "domain" else name): value for name, value in fields.items()}


def migrate_prompt(fields: Any) -> Any:
    """`domain` was the guideline and is_safety(p) in one; set, risk category and attack vector stood in meta."""
    if not isinstance(fields, Mapping):
        return fields
    migrated = _from_meta(_tagged(fields), "set", accepted=SETS)
    if "domain" in fields and migrated.get("set") == "borderline" and "is_safety" not in fields:
        migrated["is_safety"] = False  # written to be harmless (§4.2.3): no unsafe answer is likely
    for name in ("risk_category", "attack_vector"):
        if isinstance(_meta(migrated).get(name), str):
            migrated = _from_meta(migrated, name)
    return migrated


def migrate_comparison(fields: Any) -> Any:
    """`domain` is the guideline; the batch told open data, and the bin alone told which side is safe."""
    if not isinstance(fields, Mapping):
        return fields
    migrated = dict(renamed_domain(fields))
    if "domain" in fields and fields.get("batch") in OPEN_BATCHES:
        migrated.setdefault("origin", "open")
    labels = LABELS_OF_BIN.get(migrated.get("safety"))  # type: ignore[arg-type]
    for side, is_safe in zip(("chosen", "rejected"), labels or (), strict=False):
        given = migrated.get(side)
        if isinstance(given, Mapping) and "is_safe" not in given:
            migrated[side] = {**given, "is_safe": is_safe}
    return migrated


def migrate_sample(fields: Any) -> Any:
    """Samples had no id, and a list of versions trained on them that nothing filled.

    Every sample of a file has a seed of its own, so the id is the prompt's with the seed.
    """
    if not isinstance(fields, Mapping):
        return fields
    migrated = _tagged(fields)
    if "id" not in migrated:
        migrated.pop("trained", None)
        provenance = migrated.get("provenance")
        if isinstance(provenance, Mapping) and {"prompt_id"} <= migrated.keys():
            migrated["id"] = f"{migrated['prompt_id']}-seed-{provenance.get('seed')}"
    return migrated


def migrate_dialog(fields: Any) -> Any:
    """What is trained on, and the guideline of an imported dialog, stood in meta."""
    if not isinstance(fields, Mapping):
        return fields
    migrated = _from_meta(fields, "train_on")
    return _from_meta(migrated, "domain", to="guideline", accepted=GUIDELINES)


def _tagged(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Domain safety meant both: the safety guideline, and likely to draw an unsafe answer."""
    migrated = dict(renamed_domain(fields))
    if "domain" in fields and "domain" not in migrated:
        migrated.setdefault("is_safety", fields["domain"] == "safety")
    return migrated


def _meta(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = fields.get("meta")
    return meta if isinstance(meta, Mapping) else {}


def _from_meta(
    fields: Mapping[str, Any], name: str, *, to: str | None = None, accepted: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """A key of meta as a field, unless the field is given or the value is not one of those accepted."""
    meta, field = _meta(fields), to or name
    if field in fields or name not in meta or (accepted is not None and meta[name] not in accepted):
        return dict(fields)
    return {**fields, field: meta[name], "meta": {key: meta[key] for key in meta if key != name}}
