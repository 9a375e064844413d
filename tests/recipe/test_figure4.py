"""The wiring of Figure 4 with recorded stages: their order, what each is given, and where a run stops.

Nothing is trained. That every input was made by an earlier stage is what the figure's arrows say.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from puna.core.artifacts import run_lock
from puna.core.config import load_recipe
from puna.core.errors import ConfigError, RunLockedError
from puna.core.progress import quiet
from puna.recipe import figure4
from puna.recipe.figure4 import STAGES, raise_llama
from puna.recipe.settings import Figure4Recipe

ROOT = Path(__file__).parents[2]
RECIPES = {
    "sandbox": ROOT / "recipes" / "sandbox_cpu.toml",
    "real": ROOT / "tests" / "end_to_end" / "real.toml",
}
FUNCTIONS = (
    "write_sandbox",
    "build_corpus",
    "import_dialogs",
    "import_preferences",
    "build_prompt_sets",
    "build_tokenizer",
    "tokenize",
    "pretrain",
    "finetune",
    "collect_preferences",
    "train_reward_model",
    "distill",
    "sample_candidates",
    "build_gatt_data",
    "train_ppo",
    "evaluate_version",
    "score_shift",
)
"""Every stage that figure4 calls, save the report, which is given the run itself."""


@dataclass(frozen=True)
class Called:
    """One call of a stage."""

    function: str
    out: str
    config: Any
    given: dict[str, Any]

    def inputs(self) -> list[Path]:
        """Every path the stage was told to read."""
        return [path for name, value in self.given.items() if name != "out" for path in paths(value)]


@dataclass
class Recorder:
    """Stands in for the stages."""

    run: Path
    calls: list[Called] = field(default_factory=list)

    def stage(self, name: str) -> Any:
        def record(config: Any, **given: Any) -> None:
            self.calls.append(Called(name, given["out"].relative_to(self.run).as_posix(), config, given))

        return record

    def report(self, run: Path, out: Path, **given: Any) -> None:
        assert run == self.run
        self.calls.append(Called("build_report", out.relative_to(run).as_posix(), None, {"out": out}))

    @property
    def outs(self) -> list[str]:
        return [call.out for call in self.calls]

    def made(self, out: str) -> Called:
        return next(call for call in self.calls if call.out == out)


def paths(value: Any) -> Iterator[Path]:
    """Every path inside nested arguments."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from paths(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from paths(inner)


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(tmp_path / "run")
    for name in FUNCTIONS:
        monkeypatch.setattr(figure4, name, recorder.stage(name))
    monkeypatch.setattr(figure4, "build_report", recorder.report)
    return recorder


def raise_recorded(recorder: Recorder, name: str, *overrides: str, until: str | None = None) -> Recorder:
    recipe = load_recipe(RECIPES[name], Figure4Recipe, overrides)
    raise_llama(recipe, out=recorder.run, seed=3, reporter=quiet(), until=until)
    return recorder


@pytest.mark.parametrize("name", RECIPES)
def test_every_input_was_made_before_it_is_read(recorder: Recorder, name: str) -> None:
    raise_recorded(recorder, name)
    for index, call in enumerate(recorder.calls):
        made = [recorder.run / earlier.out for earlier in recorder.calls[:index]]
        for path in call.inputs():
            assert any(path == out or out in path.parents for out in made), (call.function, call.out, path)


@pytest.mark.parametrize("name", RECIPES)
def test_every_artifact_is_made_once_and_is_used(recorder: Recorder, name: str) -> None:
    raise_recorded(recorder, name)
    assert len(set(recorder.outs)) == len(recorder.outs)
    read = {path for call in recorder.calls for path in call.inputs()}
    ends = {"build_report", "evaluate_version", "score_shift"}
    for call in recorder.calls:
        out = recorder.run / call.out
        assert call.function in ends or any(out == path or out in path.parents for path in read), call.out


def test_the_sandbox_run_reads_like_the_figure(recorder: Recorder) -> None:
    models = [call.out for call in raise_recorded(recorder, "sandbox").calls if "version" in labels(call)]
    assert models == [
        *("sft", "sft-variant", "samples/v1", "rlhf-v1", "samples/v2", "rlhf-v2", "samples/v3", "rlhf-v3"),
        *("evaluation/sft", "evaluation/pretrained", "evaluation/rlhf-v1", "evaluation/rlhf-v2"),
        *("evaluation/rlhf-v3", "rlhf-v3-gatt", "rlhf-v3-ppo"),
        *("evaluation/rlhf-v3-gatt", "evaluation/rlhf-v3-ppo"),
    ]
    assert recorder.outs[:4] == ["sandbox", "data", "tokenizer", "tokens"]
    assert recorder.outs[-1] == "report"


def labels(call: Called) -> dict[str, str]:
    return call.given.get("labels") or {}


def test_preferences_are_collected_with_the_latest_model(recorder: Recorder) -> None:
    """Each batch compares the model of the round with the one before it (§3.2.1), on prompts of its own."""
    raise_recorded(recorder, "sandbox")
    variants = {
        call.out: [path.name for path in call.given["models"]]
        for call in recorder.calls
        if call.function == "collect_preferences"
    }
    assert variants == {
        "preferences/batch-1": ["sft", "sft-variant"],
        "preferences/batch-2": ["rlhf-v1", "sft"],
        "preferences/batch-3": ["rlhf-v2", "rlhf-v1"],
    }
    prompts = [call.given["prompts"].stem for call in recorder.calls if call.out in variants]
    assert prompts == ["round-1", "round-2", "round-3"]


def test_reward_models_see_every_batch_so_far(recorder: Recorder) -> None:
    """And the open preference data, which stands for the public sets of §3.2.1."""
    raise_recorded(recorder, "sandbox")
    for k in (1, 2, 3):
        for role in ("helpfulness", "safety"):
            call = recorder.made(f"reward/{role}-{k}")
            batches = [f"batch-{j}" for j in range(1, k + 1)]
            assert [path.name for path in call.given["comparisons"]] == [*batches, "open_comparisons.jsonl"]
            assert call.given["chat_model"].name == ("sft", "rlhf-v1", "rlhf-v2")[k - 1]
            assert labels(call) == {"role": role, "round": str(k)}


def test_real_preferences_train_reward_models_once(recorder: Recorder) -> None:
    raise_recorded(recorder, "real")
    assert [out for out in recorder.outs if out.startswith("reward/")] == [
        "reward/helpfulness-1",
        "reward/safety-1",
    ]
    assert not any(call.function in ("write_sandbox", "collect_preferences") for call in recorder.calls)
    assert all(call.given["grader"] is None for call in recorder.calls if call.function == "evaluate_version")


def test_ppo_starts_from_rejection_sampling_and_stops_on_other_prompts(recorder: Recorder) -> None:
    ppo = raise_recorded(recorder, "sandbox").made("rlhf-v3-ppo").given
    assert ppo["policy"].name == "rlhf-v3-gatt"
    assert recorder.made("rlhf-v3-gatt").given["base_model"].name == "rlhf-v3"
    assert {path.name for path in ppo["reward_models"].values()} == {"helpfulness-3", "safety-3"}
    assert ppo["held_out_prompts"].stem == "early_stopping"


@pytest.mark.parametrize(("start", "base"), [("base", "pretrained"), ("sft", "sft")])
def test_versions_restart_from_the_base_model(recorder: Recorder, start: str, base: str) -> None:
    raise_recorded(recorder, "sandbox", f"rlhf_starts_from={start}")
    bases = [recorder.made(version).given["base_model"].name for version in ("rlhf-v1", "rlhf-v2", "rlhf-v3")]
    assert bases == [base] * 3


def test_held_out_prompts_are_only_for_measuring(recorder: Recorder) -> None:
    raise_recorded(recorder, "sandbox")
    readers = {call.function for call in recorder.calls for path in call.inputs() if path.stem == "held_out"}
    assert readers == {"evaluate_version", "score_shift"}


def test_stages_get_seeds_of_their_own(recorder: Recorder) -> None:
    """Two stages of one kind never draw the same noise; evaluations do, so that versions can be compared."""
    raise_recorded(recorder, "sandbox")
    for function in ("collect_preferences", "sample_candidates", "train_reward_model", "finetune"):
        seeds = [call.given["seed"] for call in recorder.calls if call.function == function]
        assert len(set(seeds)) == len(seeds)
    assert len({call.given["seed"] for call in recorder.calls if call.function == "evaluate_version"}) == 1


def test_without_a_variant_the_first_round_samples_one_model(recorder: Recorder) -> None:
    recipe = load_recipe(RECIPES["sandbox"], Figure4Recipe).model_copy(update={"sft_variant": None})
    raise_llama(recipe, out=recorder.run, seed=0, reporter=quiet())
    assert [path.name for path in recorder.made("preferences/batch-1").given["models"]] == ["sft"]
    assert "sft-variant" not in recorder.outs


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("data", "data"),
        ("tokenizer", "tokens"),
        ("pretraining", "pretrained"),
        ("sft", "sft-variant"),
        ("rlhf-v1", "rlhf-v1"),
        ("rlhf-v2", "rlhf-v2"),
        ("rlhf-v3", "rlhf-v3"),
        ("ghost-attention", "rlhf-v3-gatt"),
        ("ppo", "rlhf-v3-ppo"),
        ("evaluation", "safety/score_shift"),
        ("report", "report"),
    ],
)
def test_until_stops_after_the_stage(recorder: Recorder, until: str, last: str) -> None:
    assert raise_recorded(recorder, "sandbox", until=until).outs[-1] == last


def test_until_knows_every_stage_and_no_other(recorder: Recorder) -> None:
    whole = raise_recorded(recorder, "sandbox").outs
    recorder.calls.clear()
    assert raise_recorded(recorder, "sandbox", until=STAGES[-1]).outs == whole
    recorder.calls.clear()
    with pytest.raises(ConfigError, match="one of data, tokenizer, pretraining"):
        raise_recorded(recorder, "sandbox", until="sftt")
    assert recorder.calls == []


def test_a_run_folder_has_one_writer(recorder: Recorder) -> None:
    with run_lock(recorder.run), pytest.raises(RunLockedError):
        raise_recorded(recorder, "sandbox")
    assert recorder.calls == []
    raise_recorded(recorder, "sandbox", until="data")
