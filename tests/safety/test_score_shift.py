"""Figure 14's data."""

from pathlib import Path

import pytest

from puna.core.progress import quiet
from puna.core.records import Message, Prompt, read_records, write_records
from puna.inference import SamplingConfig
from puna.safety import ShiftConfig, score_shift
from puna.safety.score_shift import Shift


def test_a_model_does_not_shift_against_itself(world: dict[str, Path], tmp_path: Path) -> None:
    prompts = [
        Prompt(id=f"p{i}", messages=(Message(role="user", content=f"tell me {i}"),), domain=domain)
        for i, domain in enumerate(("safety", "helpfulness", "safety"))
    ]
    write_records(tmp_path / "prompts.jsonl", prompts)
    manifest = score_shift(
        ShiftConfig(sampling=SamplingConfig(max_new_tokens=6)),
        before=world["model"],
        after=world["model"],
        prompts=tmp_path / "prompts.jsonl",
        reward_models={role: world[role] for role in ("helpfulness", "safety")},
        out=tmp_path / "shift",
        seed=0,
        reporter=quiet(),
    )
    shifts = list(read_records(tmp_path / "shift" / "scores.jsonl", Shift))
    assert [shift.prompt_id for shift in shifts] == ["p0", "p1", "p2"]
    for shift in shifts:
        assert shift.before == pytest.approx(shift.after)
        assert all(0 < prob < 1 for prob in shift.before.values())
    assert manifest.metrics["safety"]["safety"]["n"] == 2
