"""The quickstart's JSON has the fixed keys, in the order of training."""

import json
from pathlib import Path

from puna.reporting import quickstart_summary
from puna.reporting.run_folder import last_version, version_key
from synthetic_run import HELPFULNESS, VERSIONS, VIOLATION, artifact, write_run


def test_summary_has_every_promised_key(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "report").mkdir()
    (run / "report" / "index.html").write_text("")
    summary = json.loads(json.dumps(quickstart_summary(run)))
    assert list(summary) == [
        "report", "chat_model", "wall_seconds", "peak_rss_bytes", "versions", "reward_models", "data",
    ]  # fmt: skip
    assert summary["report"] == str(run / "report" / "index.html")
    assert summary["chat_model"] == str(run / "models" / "rlhf-v3-ppo")
    assert [row["version"] for row in summary["versions"]] == list(VERSIONS)
    assert [row["helpfulness"] for row in summary["versions"]] == list(HELPFULNESS)
    assert [row["violation_rate"] for row in summary["versions"]] == list(VIOLATION)
    measures = {"helpfulness", "violation_rate", "false_refusal_rate", "n"}
    measures |= {f"constraint_kept_turn_{turn}" for turn in (2, 4, 6)}
    assert all(set(row) == {"version", *measures} for row in summary["versions"])
    assert [(rm["role"], rm["round"]) for rm in summary["reward_models"]] == [
        ("helpfulness", "2"), ("safety", "2"),
    ]  # fmt: skip
    assert all(
        set(rm) == {"role", "round", "accuracy", "accuracy_by_rating"} for rm in summary["reward_models"]
    )
    assert summary["data"] == {
        "near_duplicate_precision": 0.991,
        "near_duplicate_recall": 0.978,
        "personal_information_recall": 0.985,
        "language_accuracy": 0.993,
    }


def test_what_a_run_lacks_is_null(tmp_path: Path) -> None:
    artifact(tmp_path / "sandbox", "sandbox", {})
    summary = quickstart_summary(tmp_path)
    assert summary["report"] is None
    assert summary["chat_model"] is None
    assert set(summary["data"].values()) == {None}


def test_versions_sort_in_training_order() -> None:
    shuffled = ["rlhf-v10", "rlhf-v3-ppo", "sft", "rlhf-v2", "other", "rlhf-v3", "pretrained", "rlhf-v1"]
    assert sorted(shuffled, key=version_key) == [
        "pretrained", "sft", "rlhf-v1", "rlhf-v2", "rlhf-v3", "rlhf-v3-ppo", "rlhf-v10", "other",
    ]  # fmt: skip


def test_last_version_is_never_a_side_model() -> None:
    assert last_version(["zz-ablation", "sft", "rlhf-v1"]) == "rlhf-v1"
    assert last_version(["mine"]) == "mine"
    assert last_version([]) is None
