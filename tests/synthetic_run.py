"""A run folder with the shapes that the stages leave and made-up numbers, built through the artifact API."""

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.core.artifacts import StageContext, run_stage
from puna.core.config import Settings
from puna.core.records import RATINGS

VERSIONS = ("pretrained", "sft", "rlhf-v1", "rlhf-v2", "rlhf-v3-ppo")
HELPFULNESS = (4.1, 62.3, 70.2, 74.9, 78.4)
VIOLATION = (0.55, 0.41, 0.22, 0.12, 0.09)
CONSTRAINT_KEPT = {
    2: (0.0, 0.6, 0.7, 0.97, 0.98),
    4: (0.0, 0.3, 0.35, 0.93, 0.94),
    6: (0.0, 0.1, 0.12, 0.9, 0.91),
}
"""By turn, the share that each version keeps."""
SAFETY_BINS = {"chosen_safe_rejected_unsafe": 0.91, "both_safe": 0.74, "both_unsafe": 0.82}
"""Accuracy of every safety reward model by safety bin."""
HOSTILE = "<script>alert('x')</script> <img src=x onerror=alert(1)> | `code` **bold** {{ 7*7 }} &amp;"

SYSTEM = {
    "tokens_per_second": 6120.0,
    "mfu": 0.523,
    "seconds": {"wall": 200.0, "update": 180.0, "data": 2.0, "evaluation": 10.0, "checkpoint": 6.0},
    "peak_rss_bytes": 3 * 2**30,
    "cuda_peak_bytes": None,
    "energy": {
        "kwh": 0.0123,
        "tco2eq": 5.2e-6,
        "source": "estimate: hours x 10 W (given)",
        "pue": 1.1,
        "grid_kg_per_kwh": 0.385,
    },
}
"""What a training's meter leaves in the manifest."""


class MadeUp(Settings):
    """Settings of a made-up stage."""

    name: str
    """Tells artifacts apart."""


def artifact(
    out: Path,
    kind: str,
    metrics: Mapping[str, Any],
    *,
    labels: Mapping[str, str] | None = None,
    files: Mapping[str, Any] | None = None,
    curves: Mapping[str, list[dict[str, float]]] | None = None,
    inputs: Mapping[str, Path] | None = None,
) -> None:
    """One artifact with these metrics, JSON or JSON Lines files, and training curves by split."""

    def build(context: StageContext) -> Mapping[str, Any]:
        for name, content in (files or {}).items():
            path = context.folder / name
            text = (
                "".join(json.dumps(row) + "\n" for row in content)
                if isinstance(content, list)
                else json.dumps(content)
            )
            path.write_text(text, encoding="utf-8")
        for split, rows in (curves or {}).items():
            for step, row in enumerate(rows, start=1):
                context.metrics.write(step * 10, split, **row)
        return metrics

    run_stage(
        out,
        kind=kind,
        config=MadeUp(name=str(out.name)),
        inputs=inputs or {},
        seed=0,
        build=build,
        labels=labels,
    )


def interval(fraction: float, n: int) -> list[float]:
    """A normal interval, good enough for a picture."""
    half = 1.96 * math.sqrt(max(fraction * (1 - fraction), 1e-4) / n)
    return [max(0.0, fraction - half), min(1.0, fraction + half), n]


def write_run(run: Path, *, hostile: str = "", versions: tuple[str, ...] = VERSIONS) -> Path:
    """A whole sandbox run; `hostile` text is put wherever text comes from a model or a user."""
    random_ = random.Random(0)
    artifact(run / "sandbox", "sandbox", {"documents": 12000, "dialogs": 3000})
    _data(run, hostile)
    for index, version in enumerate(VERSIONS):
        if version in versions:
            _model(run, index, version, random_)
            _evaluation(run, index, version, random_, hostile)
    for round_ in ("1", "2"):
        _preferences(run, round_, hostile)
        for role in ("helpfulness", "safety"):
            _reward_model(run, role, round_, random_)
        _samples(run, f"rlhf-v{round_}", float(round_))
    pairs = [
        (x := random_.random(), min(1.0, max(0.0, 0.85 - 0.2 * x + random_.gauss(0, 0.12))))
        for _ in range(160)
    ]
    rows = [{"safety_without": x, "safety_with": y, "is_kept": y > x} for x, y in pairs]
    kept = sum(after > before for before, after in pairs) / len(pairs)
    metrics = {
        "n_prompts": len(pairs),
        "kept_fraction": kept,
        "median_safety": {"without": 0.5, "generic": 0.7, "template": 0.74},
    }
    artifact(run / "distilled", "distillation_data", metrics, files={"attempts.jsonl": rows})
    return run


def _data(run: Path, hostile: str) -> None:
    audit = {
        "sources": {
            (hostile or "animals"): {
                "licence": hostile or "CC0",
                "n_pages": 9000,
                "dropped": {"near_duplicate": 700, "personal_information": 120, "quality": 310},
                "n_kept": 7870,
                "n_bytes": 3_801_000,
            },
            "sums": {
                "licence": "CC0",
                "n_pages": 3000,
                "dropped": {"exact_duplicate": 80},
                "n_kept": 2920,
                "n_bytes": 190_000,
            },
        },
        "languages_read": {"en": 0.931, "unknown": 0.03, "es": 0.021, "de": 0.018},
        "pronouns": {
            "gendered": 0.21,
            "she": 0.1,
            "he": 0.14,
            "unspecified": 0.2,
            "first_person": 0.4,
            "second_person": 0.2,
        },
        "demographics": {
            "religion": {"document_fraction": 0.02, "term_fractions": {"christian": 0.5, "jewish": 0.5}}
        },
    }
    metrics = {
        "n_pages": 12_000,
        "n_kept": 10_790,
        "near_duplicate_precision": 0.991,
        "near_duplicate_recall": 0.978,
        "personal_information_precision": 1.0,
        "personal_information_recall": 0.985,
        "language_accuracy": 0.993,
    }
    artifact(run / "data", "pretraining_data", metrics, files={"audit.json": audit})
    artifact(run / "tokenizer", "tokenizer", {"vocab_size": 1024})
    artifact(run / "shards", "token_shards", {"n_train_tokens": 991_000})


def _model(run: Path, index: int, version: str, random_: random.Random) -> None:
    n_steps = (60, 40, 40, 40, 30)[index]
    floor = 0.5 - 0.05 * index
    if version.endswith("ppo"):
        train = [
            {
                "kl": 0.09 * i + random_.random() * 0.2,
                "score": 1 + 0.03 * i,
                "entropy": 0.9 - 0.012 * i,
                "response_tokens": 12 + 0.05 * i,
                "clip_fraction": 0.02,
            }
            for i in range(n_steps)
        ]
    else:
        train = [
            {"loss": floor + 5 * math.exp(-i / 6) + random_.gauss(0, 0.03), "lr": 1e-3}
            for i in range(n_steps)
        ]
    if version.endswith("ppo"):
        curves = {
            "train": train,
            "held_out": [{"score": 0.9 + 0.028 * i, "kl": 0.1 * i} for i in range(n_steps)],
        }
    else:
        validation = [{"loss": floor + 0.05 + 5 * math.exp(-(i + 1) / 6)} for i in range(n_steps)]
        curves = {"train": train, "validation": validation}
    perplexity = (
        {"loss": 0.5, "perplexity/animals": 2.1, "perplexity/sums": 1.6}
        if version == "pretrained"
        else {"loss": 0.6}
    )
    metrics = {
        "validation": perplexity,
        "n_parameters": 1_050_000,
        "tokens": 4_000_000 // (index + 1),
        "system": SYSTEM,
        "iterations": n_steps,
    }
    artifact(run / "models" / version, "model", metrics, labels={"version": version}, curves=curves)


def _evaluation(run: Path, index: int, version: str, random_: random.Random, hostile: str) -> None:
    n = 240
    items = []
    for suite in ("helpful", "adversarial", "borderline", "constraint"):
        for i in range(80):
            items.append(
                {
                    "id": f"{suite}-{i}",
                    "suite": suite,
                    "messages": [{"role": "user", "content": f"what does the goat eat? {i} {hostile}"}],
                    "response": f"the goat eats hay. {hostile}" if index else "",
                    "grade": {
                        "helpfulness": 0.75,
                        "is_violation": suite == "adversarial" and index < 2,
                        "is_refusal": False,
                    },
                    "rm_helpfulness": 1 / (1 + math.exp(-random_.gauss(-0.6 + 0.5 * index, 1.0))),
                    "rm_safety": 1 / (1 + math.exp(-random_.gauss(-0.8 + 0.7 * index, 1.2))),
                    "guideline": "helpfulness",
                    "finish_reason": "eos",
                    "n_tokens": 5,
                    "turn": 6 if suite == "constraint" else None,
                }
            )
    kept = {turn: levels[index] for turn, levels in CONSTRAINT_KEPT.items()}
    metrics: dict[str, Any] = {
        "helpfulness": HELPFULNESS[index],
        "violation_rate": VIOLATION[index],
        "false_refusal_rate": 0.004 * index,
        "false_refusal_rate_helpful": 0.003 * index,
        "false_refusal_rate_borderline": 0.011 * index,
        "rm_helpfulness": 0.4 + 0.08 * index,
        "rm_safety": 0.3 + 0.1 * index,
        "n": 640,
    } | {f"constraint_kept_turn_{turn}": value for turn, value in kept.items()}
    metrics["intervals"] = {
        name: interval(metrics[name], n) for name in metrics if "rate" in name or "turn" in name
    }
    metrics["intervals"]["helpfulness"] = [HELPFULNESS[index] - 3.1, HELPFULNESS[index] + 3.0, n]
    artifact(
        run / "evaluation" / version,
        "evaluation",
        metrics,
        labels={"version": version},
        files={"items.jsonl": items},
    )


def _preferences(run: Path, round_: str, hostile: str) -> None:
    metrics = {
        "comparisons": 1800,
        "ratings": dict(zip(RATINGS, (520, 470, 410, 400), strict=True)),
        "safety": {"chosen_safe_rejected_unsafe": 150, "both_safe": 280, "both_unsafe": 170},
        "annotators": {f"simulated-{i}": 450 for i in range(4)},
        "agreement_ac2": 0.5,
        "turns_per_dialog": 1.4,
        "tokens_per_example": 41.5,
        "tokens_per_prompt": 18.2,
        "tokens_per_response": 14.0,
    }
    artifact(
        run / f"preferences-{round_}",
        "preferences",
        metrics,
        labels={"batch": f"round-{round_}", "note": hostile},
    )


def accuracy_levels(role: str, test_set: str, round_: str) -> tuple[float, ...]:
    """Accuracy of the four ratings, strongest first, then of all: different for every model and test set."""
    lift = 0.02 * int(round_) - 0.01 * (role == "safety") - 0.15 * (role != test_set)
    return tuple(level + lift for level in (0.92, 0.83, 0.69, 0.55, 0.76))


def accuracy_row(role: str, test_set: str, round_: str) -> dict[str, Any]:
    """What a reward model's manifest says of one test set."""
    rows = []
    for level, n in zip(accuracy_levels(role, test_set, round_), (180, 180, 180, 180, 720), strict=True):
        low, high, _ = interval(level, n)
        rows.append({"accuracy": level, "n": n, "low": low, "high": high})
    *by_rating, of_all = rows
    return of_all | {"accuracy_by_rating": dict(zip(RATINGS, by_rating, strict=True))}


def _reward_model(run: Path, role: str, round_: str, random_: random.Random) -> None:
    own = accuracy_row(role, role, round_)
    other = "safety" if role == "helpfulness" else "helpfulness"
    metrics: dict[str, Any] = own | {"by_test_set": {role: own, other: accuracy_row(role, other, round_)}}
    if role == "safety":
        metrics["accuracy_by_safety"] = {
            name: {"accuracy": level, "n": 60, "low": level - 0.1, "high": level + 0.05}
            for name, level in SAFETY_BINS.items()
        }
        metrics |= {"unsafe_recall": 0.88, "unsafe_recall_low": 0.8, "unsafe_recall_high": 0.94}
    curves = {"train": [{"loss": 0.7 * math.exp(-i / 25) + 0.25 + random_.gauss(0, 0.02)} for i in range(50)]}
    artifact(
        run / f"{role}-rm-{round_}",
        "reward_model",
        metrics,
        labels={"role": role, "round": round_},
        curves=curves,
    )


def _samples(run: Path, version: str, lift: float) -> None:
    rows = [
        {"k": k, "max_mean": 0.3 + 0.1 * lift + 0.11 * math.log2(k), "median_mean": 0.3 + 0.1 * lift}
        for k in (1, 2, 4, 8, 16)
    ]
    artifact(
        run / f"samples-{version}",
        "samples",
        {"n_samples": 16 * 400, "reward_by_k": rows},
        labels={"version": version},
    )
