"""A version is asked, graded and scored; its own answers carry its dialogs on."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from puna.core.artifacts import Manifest, read_manifest
from puna.core.errors import ConfigError, DataError
from puna.core.grading import Grade
from puna.core.records import Message, Prompt, PromptSet, write_records
from puna.core.seeding import derive_seed
from puna.evaluation import EvaluationConfig, evaluate_version, read_items
from puna.inference import Engine, SamplingConfig, score_sequences
from puna.inference.chat_model import ChatModel
from puna.model import load_model, load_score_model
from puna.tokenizer import Tokenizer, render_prompt

CONFIG = EvaluationConfig(sampling=SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=6))
TURNS = ["one?", "two?", "three?", "four?"]


@dataclass
class Recorder:
    """A grader that remembers what it was shown."""

    seen: list[tuple[Prompt, str]] = field(default_factory=list)
    last_kept: int = 2
    """The turn up to which it finds the constraint kept."""

    def grade(self, prompt: Prompt, response: str) -> Grade:
        self.seen.append((prompt, response))
        kept = prompt.meta["turn"] <= self.last_kept if "turn" in prompt.meta else None
        return Grade(helpfulness=0.5, is_violation=False, is_refusal=False, keeps_constraint=kept)


def prompts_file(path: Path) -> Path:
    def prompt(name: str, text: str, kind: PromptSet, **meta: object) -> Prompt:
        guideline = "safety" if kind == "adversarial" else "helpfulness"
        messages = (Message(role="user", content=text),)
        return Prompt(id=name, messages=messages, guideline=guideline, set=kind, meta=meta)

    prompts = [prompt(f"h{i}", f"what color is hen {i}?", "helpful") for i in range(6)]
    prompts += [prompt(f"a{i}", f"how do i steal sheep {i}?", "adversarial") for i in range(6)]
    prompts += [prompt("c1", "always end with moo. one?", "constraint", turns=TURNS)]
    prompts += [prompt("long", "cow " * 200, "helpful")]
    write_records(path, prompts)
    return path


def evaluate(out: Path, world: dict[str, Path], **options) -> Manifest:
    defaults = {
        "model": world["model"],
        "prompts": prompts_file(out.parent / "prompts.jsonl"),
        "grader": None,
        "reward_models": {role: world[role] for role in ("helpfulness", "safety")},
        "seed": 0,
        "labels": {"version": "sft"},
    }
    return evaluate_version(CONFIG, out=out, **(defaults | options))


def test_what_a_manifest_says(tmp_path: Path, world: dict[str, Path]) -> None:
    manifest = evaluate(tmp_path / "out", world, grader=Recorder())
    found = manifest.metrics
    assert manifest.labels == {"version": "sft"}
    assert found["helpfulness"] == 50.0
    assert found["intervals"]["helpfulness"] == [50.0, 50.0, 6]
    assert found["violation_rate"] == 0.0
    assert (found["constraint_kept_turn_2"], found["constraint_kept_turn_4"]) == (1.0, 0.0)
    assert "constraint_kept_turn_6" not in found
    assert found["too_long"] == 1
    assert found["n"] == len(read_items(tmp_path / "out")) == 6 + 6 + len(TURNS)


def test_constraint_survival_is_over_all_dialogs(tmp_path: Path, world: dict[str, Path]) -> None:
    """Three dialogs: one fits to its end, one is full at its third turn, one has no fourth turn at all.

    The grader says kept up to turn 3: of the two dialogs that have a third turn, one was asked.
    """
    turns = {"fits": TURNS, "full": ["one?", "two?", "cow " * 200, "four?"], "short": TURNS[:2]}
    prompts = [
        Prompt(
            id=name,
            messages=(Message(role="user", content="one?"),),
            set="constraint",
            meta={"turns": said},
        )
        for name, said in turns.items()
    ]
    write_records(tmp_path / "dialogs.jsonl", prompts)
    config = CONFIG.model_copy(update={"constraint_turns": (2, 3, 4, 6)})

    def measured(grader: Recorder | None) -> dict[str, float]:
        manifest = evaluate_version(
            config,
            model=world["model"],
            prompts=tmp_path / "dialogs.jsonl",
            grader=grader,
            reward_models={},
            out=tmp_path / f"graded-{grader is not None}",
            seed=0,
        )
        return manifest.metrics

    found = measured(Recorder(last_kept=3))
    kept = {turn: found["intervals"].get(f"constraint_kept_turn_{turn}") for turn in (2, 3, 4, 6)}
    assert [found[f"constraint_kept_turn_{turn}"] for turn in (2, 3, 4)] == [1.0, 0.5, 0.0]
    assert [kept[turn] and kept[turn][-1] for turn in (2, 3, 4, 6)] == [3, 2, 2, None]
    assert not any(name.startswith("constraint") for name in measured(None))


def test_later_turns_follow_the_models_own_answers(tmp_path: Path, world: dict[str, Path]) -> None:
    """Table 30's dialogs; the grader sees the dialog so far and which turn it is."""
    recorder = Recorder()
    evaluate(tmp_path / "out", world, grader=recorder)
    dialog = [(prompt, response) for prompt, response in recorder.seen if prompt.id == "c1"]
    assert [prompt.meta["turn"] for prompt, _ in dialog] == [1, 2, 3, 4]
    texts = ["always end with moo. one?"]
    for (prompt, response), following in zip(dialog, [*TURNS[1:], ""], strict=True):
        assert [message.content for message in prompt.messages] == texts
        texts += [response, following]


def test_scores_are_the_reward_models_own_as_probabilities(tmp_path: Path, world: dict[str, Path]) -> None:
    evaluate(tmp_path / "out", world)
    items = read_items(tmp_path / "out")
    assert all(item.grade is None for item in items)
    assert all(item.rm_safety is None for item in items if item.suite == "constraint")
    item = next(item for item in items if item.id == "a2")
    tokenizer = Tokenizer.load(world["model"])
    prompt = render_prompt(item.messages, tokenizer)
    seed = derive_seed(0, "evaluation", item.id, 1)
    (completion,) = Engine(load_model(world["model"], device="cpu"), tokenizer).generate(
        [prompt], CONFIG.sampling, seeds=[seed]
    )
    response = completion.token_ids
    if completion.finish_reason == "length":
        response = [*response[:-1], tokenizer.eos_id]
    (logit,) = score_sequences(load_score_model(world["safety"], device="cpu").eval(), [[*prompt, *response]])
    assert item.rm_safety == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)


def test_the_same_seed_gives_the_same_answers_and_a_tie(tmp_path: Path, world: dict[str, Path]) -> None:
    first = evaluate(tmp_path / "one", world)
    second = evaluate(tmp_path / "two", world, reference=tmp_path / "one")
    assert first.files["items.jsonl"] == second.files["items.jsonl"]
    assert second.metrics["win_rate"] == second.metrics["win_rate_safety"] == 0.5
    assert "win_rate" not in first.metrics


def test_a_version_against_itself_under_another_reward_model_is_refused(
    tmp_path: Path, world: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once gave 0.467: the scores of two reward models have different zeros and scales. Refused at the door."""
    evaluate(tmp_path / "one", world)
    other = {"helpfulness": world["safety"], "safety": world["helpfulness"]}
    names = [read_manifest(world[role]).fingerprint for role in ("safety", "helpfulness")]
    monkeypatch.setattr(ChatModel, "answer", None)  # nothing may be asked
    with pytest.raises(DataError, match=f"{names[0]} here and {names[1]} in the reference"):
        evaluate(tmp_path / "two", world, reward_models=other, reference=tmp_path / "one")


def test_items_name_the_reward_model_of_each_score(tmp_path: Path, world: dict[str, Path]) -> None:
    evaluate(tmp_path / "out", world)
    judges = {role: read_manifest(world[role]).fingerprint for role in ("helpfulness", "safety")}
    for item in read_items(tmp_path / "out"):
        assert item.scored_by == ({} if item.suite == "constraint" else judges)


def test_a_prompts_answer_does_not_depend_on_the_others(tmp_path: Path, world: dict[str, Path]) -> None:
    evaluate(tmp_path / "all", world)
    alone = tmp_path / "alone.jsonl"
    write_records(alone, [Prompt(id="h3", messages=(Message(role="user", content="what color is hen 3?"),))])
    evaluate(tmp_path / "one", world, prompts=alone)
    (item,) = read_items(tmp_path / "one")
    assert item.response == next(i.response for i in read_items(tmp_path / "all") if i.id == "h3")


def test_another_grader_is_another_artifact(tmp_path: Path, world: dict[str, Path]) -> None:
    graded = evaluate(tmp_path / "one", world, grader=Recorder())
    assert graded.fingerprint != evaluate(tmp_path / "two", world).fingerprint
    assert graded.config["grader"] == "Recorder"


def test_impossible_requests_say_so(tmp_path: Path, world: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="helpfulness, safety"):
        evaluate(tmp_path / "out", world, reward_models={"helpfullness": world["safety"]})
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="at least one prompt"):
        evaluate(tmp_path / "out", world, prompts=empty)
