"""SIGKILL at any moment, the same command again, and the models are those of a run that nobody disturbed.

Each case starts from a copy of the finished run without the stage in question and all after it. A moment is a path
that comes to be; where the machine is too fast to catch it, the test fails rather than pass untested.
"""

import random
import time
from pathlib import Path

import pytest

from end_to_end.program import (
    TINY,
    Run,
    artifacts,
    contents,
    copy_until,
    finish,
    kill,
    puna,
    results,
    start,
    wait_for,
)
from puna.core.metrics import read_metrics

FAST = [
    ("pretrained", ".pretrained.partial/state/*step-20*", "pretraining"),
    ("rlhf-v3-ppo", ".rlhf-v3-ppo.partial/state/step-2", "rlhf-v3-ppo"),
]
"""Artifact, moment, and where the fast suite stops."""
SLOW = [
    ("sandbox", ".sandbox.partial/artifact/*"),
    ("data", ".data.partial/artifact/*"),
    ("tokenizer", ".tokenizer.partial/artifact/tokenizer.model"),
    ("tokens", ".tokens.partial/artifact/*"),
    ("pretrained", ".pretrained.partial/request"),
    ("pretrained", ".pretrained.partial/state/.step-10.partial"),
    ("pretrained", ".pretrained.partial/state/step-30"),
    ("pretrained", ".pretrained.partial/artifact/model.safetensors"),
    ("pretrained", "pretrained/manifest.json"),
    ("sft", ".sft.partial/state/step-10"),
    ("preferences/batch-1", "preferences/.batch-1.partial/artifact"),
    ("reward/helpfulness-1", "reward/.helpfulness-1.partial/state/step-4"),
    ("reward/safety-2", "reward/.safety-2.partial/state/.step-8.partial"),
    ("safety/distillation", "safety/.distillation.partial/artifact"),
    ("samples/v2", "samples/.v2.partial/artifact"),
    ("gatt", ".gatt.partial/artifact"),
    ("rlhf-v3-ppo", ".rlhf-v3-ppo.partial/state/.step-1.partial"),
    ("rlhf-v3-ppo", ".rlhf-v3-ppo.partial/state/step-3"),
    ("rlhf-v3-ppo", ".rlhf-v3-ppo.partial/artifact/model.safetensors"),
    ("evaluation/rlhf-v1", "evaluation/.rlhf-v1.partial/artifact"),
]
N_KILLS = 12
MAX_SECONDS_TO_LIVE = 6.0
"""Of each attempt in the test that kills again and again; loading takes about half of it."""


def kill_at(copy: Path, moment: str, *options: object) -> None:
    """Run into the copy until the moment; finished work is then whole, and the run was really cut short."""
    process = start("run", TINY, "--out", copy, *options)
    try:
        assert wait_for(process, copy, moment), f"{moment} was never seen"
        assert process.poll() is None, "the run ended before it could be killed"
    finally:
        kill(process)


@pytest.mark.parametrize(("artifact", "moment", "until"), FAST, ids=["pretraining", "ppo"])
def test_a_killed_stage_resumes_to_the_same_bits(
    finished: Run, tmp_path: Path, artifact: str, moment: str, until: str
) -> None:
    copy = copy_until(finished.folder, tmp_path / "run", artifact)
    before = contents(copy)
    kill_at(copy, moment, "--until", until)
    assert not (copy / artifact).exists(), "an unfinished artifact is never seen under its name"
    assert before.items() <= contents(copy).items()
    again = puna("run", TINY, "--out", copy, "--until", until)
    assert again.exit_code == 0, again.stderr
    assert "continuing the interrupted build" in again.stderr
    ours, theirs = results(copy), results(finished.folder)
    assert artifact in ours
    assert ours == {name: theirs[name] for name in ours}
    assert logged(copy / artifact) == logged(finished.folder / artifact), (
        "every step once, with the same values"
    )


def test_reward_models_trained_side_by_side_resume_to_the_same_bits(finished: Run, tmp_path: Path) -> None:
    """Two processes of one thread each: only the one that started them is killed, and theirs are the bits of one."""
    copy = copy_until(finished.folder, tmp_path / "run", "reward/helpfulness-1")
    options = ("run", TINY, "--out", copy, "--threads", 2, "--until", "rlhf-v1")
    process = start(*options)
    try:
        assert wait_for(process, copy, "reward/.*-1.partial/state/step-*"), (
            "no reward model was seen in training"
        )
        process.kill()
        process.wait()
    finally:
        kill(process)
    assert not artifacts(copy / "reward"), "the first state of the faster one comes before the end of either"
    roles = ("helpfulness", "safety")
    begun = [role for role in roles if any(copy.glob(f"reward/.{role}-1.partial/state/step-*"))]
    again = puna(*options, "--json")
    assert again.exit_code == 0, again.stderr
    assert "side by side: reward/helpfulness-1, reward/safety-1" in again.stderr
    assert begun
    for role in begun:
        assert f"{role}-1: continuing the interrupted build" in again.stderr
    ours, theirs = results(copy), results(finished.folder)
    rewards = ["reward/helpfulness-1", "reward/safety-1"]
    assert [ours[name] for name in rewards] == [theirs[name] for name in rewards]


def logged(folder: Path) -> list[dict[str, object]]:
    return [
        {name: value for name, value in row.items() if "per_second" not in name and name != "seconds"}
        for row in read_metrics(folder / "metrics.jsonl")
        if row["split"] != "system"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("artifact", "moment"), SLOW, ids=[moment for _, moment in SLOW])
def test_killed_at_any_moment_ends_with_the_same_models(
    finished: Run, tmp_path: Path, artifact: str, moment: str
) -> None:
    copy = copy_until(finished.folder, tmp_path / "run", artifact)
    kill_at(copy, moment)
    again = puna("run", TINY, "--out", copy, "--json")
    assert again.exit_code == 0, again.stderr
    assert results(copy) == results(finished.folder)
    costs = ("wall_seconds", "peak_rss_bytes", "report", "chat_model")
    first, second = ({**ended.result, **dict.fromkeys(costs)} for ended in (finished.ended, again))
    assert first == second
    assert {path.name for path in copy.rglob(".*")} <= {".lock"}


@pytest.mark.slow
def test_killed_again_and_again_it_still_arrives(finished: Run, tmp_path: Path) -> None:
    """Attempts that live for a few seconds each, at moments drawn from a seed, then one that is let be."""
    run, random_ = tmp_path / "run", random.Random(0)
    for _ in range(N_KILLS):
        process = start("run", TINY, "--out", run)
        time.sleep(random_.uniform(MAX_SECONDS_TO_LIVE / 2, MAX_SECONDS_TO_LIVE))
        kill(process)
    last = finish(start("run", TINY, "--out", run))
    assert last.exit_code == 0, last.stderr
    assert results(run) == results(finished.folder)
