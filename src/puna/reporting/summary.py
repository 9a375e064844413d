"""The numbers that `puna quickstart` prints."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from puna.reporting.run_folder import RunFolder, last_version, version_key
from puna.reporting.sections.costs import peak_rss_bytes, wall_seconds
from puna.reporting.sections.data import data_numbers
from puna.reporting.sections.reward_models import reward_model_numbers
from puna.reporting.sections.versions import TURNS

__all__ = ["quickstart_summary"]

_MEASURES = (
    "helpfulness",
    "violation_rate",
    "false_refusal_rate",
    *(f"constraint_kept_turn_{turn}" for turn in TURNS),
    "n",
)
_DATA = (
    "near_duplicate_precision",
    "near_duplicate_recall",
    "personal_information_recall",
    "language_accuracy",
)


def quickstart_summary(run: Path) -> dict[str, Any]:
    """Report, chat model, cost and measures of a run; what it does not have is null or left out of its list.

    Wall time is that in which some stage was at work; a caller that measured the whole command may replace it.
    """
    folder = RunFolder.scan(run)
    measured = data_numbers(folder)
    final = last_version(folder.models)
    return {
        "report": _report(run),
        "chat_model": str(folder.models[final].path) if final else None,
        "wall_seconds": round(wall_seconds(folder), 3),
        "peak_rss_bytes": peak_rss_bytes(folder),
        "versions": [
            {"version": version} | {name: folder.evaluations[version].metrics.get(name) for name in _MEASURES}
            for version in _last_of_each_number(folder.evaluations)
        ],
        "reward_models": _latest(reward_model_numbers(folder)),
        "data": {name: measured.get(name) for name in _DATA},
    }


def _last_of_each_number(versions: Iterable[str]) -> list[str]:
    """Of versions with one number, such as rlhf-v3 and rlhf-v3-ppo, the last: the others are steps on the way to it."""
    return list({version_key(version)[0]: version for version in sorted(versions, key=version_key)}.values())


def _latest(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last round of each role, which trained and judged the final model; the report has every round."""
    return list({model["role"]: model for model in models}.values())


def _report(run: Path) -> str | None:
    pages = sorted(path for path in run.glob("*/index.html") if not path.parent.name.startswith("."))
    return str(pages[0]) if pages else None
