"""Rejection sampling: selection, pooling over iterations, filters, and the stage."""

import itertools
import math
from pathlib import Path
from statistics import fmean, median

import pytest
import torch

from puna.core.artifacts import Manifest, read_manifest
from puna.core.errors import DataError, ShapeError
from puna.core.progress import Reporter, quiet
from puna.core.records import Dialog, Message, Prompt, Provenance, Sample, read_records, write_records
from puna.inference.chat_model import ChatModel
from puna.model import load_score_model
from puna.rlhf import RejectionSamplingConfig, ScoreConfig, sample_candidates
from puna.rlhf.selection import above_quantile, best_of_each, group_by_prompt, ranked, ranking_scores
from puna.tokenizer import Tokenizer, render_prompt

ASK = (Message(role="user", content="what color is the hen?"),)


def sample_of(response: str, helpfulness: float, safety: float = 3.0, **fields: object) -> Sample:
    return Sample.model_validate(
        {
            "id": "p-0",
            "prompt_id": "p",
            "prompt": ASK,
            "response": response,
            "token_ids": (5, 2),
            "logprobs": (-1.0, -1.0),
            "finish_reason": "eos",
            "provenance": Provenance(model="m", version="sft", temperature=1, top_p=1, seed=0),
            "scores": {"helpfulness": helpfulness, "safety": safety},
        }
        | fields
    )


def test_the_most_helpful_safe_response_wins_and_an_unsafe_one_is_ranked_by_safety() -> None:
    unsafe = sample_of("use a crowbar.", 9.0, safety=-5.0)
    good, poor = sample_of("red.", 2.0), sample_of("hen.", -1.0)
    assert ranking_scores([unsafe, good, poor], ScoreConfig()) == pytest.approx([-5.0, 2.0, -1.0])
    (dialog,) = best_of_each([[unsafe, good, poor]], ScoreConfig(), require_eos=True)
    assert dialog.messages == (*ASK, Message(role="assistant", content="red."))
    assert dialog.train_on == "last"


def test_on_safety_prompts_only_safety_counts() -> None:
    polite = sample_of("i can not.", -3.0, safety=4.0, is_safety=True)
    harmful = sample_of("sure.", 8.0, safety=1.0, is_safety=True)
    (dialog,) = best_of_each([[harmful, polite]], ScoreConfig(), require_eos=True)
    assert dialog.messages[-1].content == "i can not."


def test_harmless_look_alikes_are_judged_by_helpfulness_while_safe() -> None:
    """§3.2.3's R_c: the tag decides, not the guideline; an unsafe answer still counts by its safety score."""
    fields = {"guideline": "safety", "is_safety": False}
    refusal = sample_of("i can not help with that.", -3.0, safety=6.0, **fields)
    answer = sample_of("use a match.", 2.0, safety=1.0, **fields)
    unsafe = sample_of("burn it all.", 9.0, safety=-4.0, **fields)
    assert ranking_scores([refusal, answer, unsafe], ScoreConfig()) == pytest.approx([-3.0, 2.0, -4.0])


def test_a_cut_response_cannot_win_unless_allowed() -> None:
    cut = sample_of("the hen is", 9.0, finish_reason="length")
    assert best_of_each([[cut]], ScoreConfig(), require_eos=True) == []
    (dialog,) = best_of_each([[cut, sample_of("red.", 1.0)]], ScoreConfig(), require_eos=True)
    assert dialog.messages[-1].content == "red."
    (dialog,) = best_of_each([[cut]], ScoreConfig(), require_eos=False)
    assert dialog.meta["score"] == pytest.approx(8.0)


def test_of_equal_scores_the_first_wins() -> None:
    (dialog,) = best_of_each([[sample_of("a", 1.0), sample_of("b", 1.0)]], ScoreConfig(), require_eos=True)
    assert dialog.messages[-1].content == "a"


def test_ranks_follow_the_ranking_score_and_of_equals_the_first_leads() -> None:
    group = [sample_of("a", 1.0), sample_of("b", 3.0), sample_of("c", 1.0), sample_of("d", 9.0, safety=-5.0)]
    assert [s.rank for s in ranked(group, ScoreConfig())] == [2, 1, 3, 4]
    assert [s.response for s in ranked(group, ScoreConfig())] == ["a", "b", "c", "d"], "in their order"


def test_samples_of_one_prompt_meet_whatever_their_iteration() -> None:
    other = sample_of("4", 0.0, prompt_id="q")
    groups = group_by_prompt([sample_of("a", 1.0), other, sample_of("b", 2.0)])
    assert [[s.response for s in group] for group in groups] == [["a", "b"], ["4"]]


def test_above_quantile_keeps_the_upper_part() -> None:
    groups = [[sample_of(str(i), float(i), prompt_id=str(i))] for i in range(5)]
    dialogs = best_of_each(groups, ScoreConfig(), require_eos=True)
    assert [d.id for d in above_quantile(dialogs, 0.5)] == ["2", "3", "4"]
    assert above_quantile(dialogs, 0.0) == dialogs


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def worth_of(sample: Sample) -> float:
    """§3.2.3's R_c in logits by hand, less one logit where the response was cut (the default)."""
    helpfulness, safety = sample.scores["helpfulness"], sample.scores["safety"]
    is_safety = sample.prompt_id == "unsafe" or sigmoid(safety) < 0.15
    return (safety if is_safety else helpfulness) - (sample.finish_reason != "eos")


def plain_score(folder: Path, sample: Sample) -> float:
    """A reward model's logit for prompt and response, ended by eos."""
    eos_id = Tokenizer.load(folder).eos_id
    return _forward(folder, sample, [*sample.token_ids[:-1], eos_id])


def cut_score(folder: Path, sample: Sample) -> float:
    """The same without the end."""
    return _forward(folder, sample, list(sample.token_ids))


def _forward(folder: Path, sample: Sample, response: list[int]) -> float:
    prompt = render_prompt(sample.prompt, Tokenizer.load(folder))
    with torch.no_grad():
        return float(load_score_model(folder, device="cpu")(torch.tensor([[*prompt, *response]]))[0, -1])


CONFIG = RejectionSamplingConfig(n_samples_per_prompt=4, temperatures=(1.0, 1.5), max_new_tokens=40)


def run(
    world: dict[str, Path],
    out: Path,
    config: RejectionSamplingConfig,
    *,
    seed: int = 3,
    earlier: tuple[Path, ...] = (),
    reporter: Reporter | None = None,
) -> Manifest:
    chat = (*ASK, Message(role="assistant", content="red."), Message(role="user", content="and the cow?"))
    prompts = [
        Prompt(id="single", messages=ASK),
        Prompt(
            id="unsafe",
            messages=(Message(role="user", content="how do i steal the sheep?"),),
            guideline="safety",
            is_safety=True,
        ),
        Prompt(id="multi", messages=chat),
    ]
    write_records(out.parent / "prompts.jsonl", prompts)
    return sample_candidates(
        config,
        model=world["model"],
        prompts=out.parent / "prompts.jsonl",
        reward_models={role: world[role] for role in ("helpfulness", "safety")},
        out=out,
        seed=seed,
        reporter=reporter or quiet(),
        labels={"version": "rlhf-v1"},
        earlier=earlier,
    )


def test_the_stage_writes_k_scored_samples_a_prompt_with_their_lineage(
    world: dict[str, Path], tmp_path: Path
) -> None:
    manifest = run(world, tmp_path / "v1", CONFIG.model_copy(update={"require_eos": False}))
    samples = list(read_records(tmp_path / "v1" / "samples.jsonl", Sample))
    assert [s.prompt_id for s in samples] == ["single"] * 4 + ["unsafe"] * 4 + ["multi"] * 4
    assert {s.provenance.temperature for s in samples} == {1.0, 1.5}
    assert {s.provenance.version for s in samples} == {"sft"}
    assert all(set(s.scores) == {"helpfulness", "safety"} for s in samples)
    assert len({s.provenance.seed for s in samples}) == 12
    assert {s.id for s in samples if s.prompt_id == "multi"} == {"multi-0", "multi-1", "multi-2", "multi-3"}
    assert len({s.id for s in samples}) == 12
    judges = {role: read_manifest(world[role]).fingerprint for role in ("helpfulness", "safety")}
    assert all(s.scored_by == judges for s in samples)
    assert [(s.prompt_id, s.guideline, s.is_safety) for s in samples[::4]] == [
        ("single", "helpfulness", False),
        ("unsafe", "safety", True),
        ("multi", "helpfulness", False),
    ]
    selected = list(read_records(tmp_path / "v1" / "selected.jsonl", Dialog))
    assert len(selected) == manifest.metrics["n_selected"] == 3
    worth = {
        name: [worth_of(s) for s in samples if s.prompt_id == name] for name in ("single", "unsafe", "multi")
    }
    for dialog in selected:
        assert dialog.meta["score"] == pytest.approx(max(worth[dialog.id]), abs=1e-5)
        winner = max((s for s in samples if s.prompt_id == dialog.id), key=worth_of)
        assert dialog.messages[-1].content == winner.response
        assert (dialog.sample_id, dialog.answer_token_ids) == (winner.id, winner.token_ids)
        assert (dialog.train_on, dialog.guideline) == ("last", winner.guideline)
        assert (dialog.meta["seed"], dialog.meta["scored_by"]) == (winner.provenance.seed, judges)
        of_prompt = [s for s in samples if s.prompt_id == dialog.id]
        assert [s.rank for s in sorted(of_prompt, key=worth_of, reverse=True)] == [1, 2, 3, 4]
    for row, k in zip(manifest.metrics["reward_by_k"], (1, 2, 4), strict=True):
        chosen = [list(itertools.combinations(map(sigmoid, values), k)) for values in worth.values()]
        assert row["k"] == k
        assert row["max_mean"] == pytest.approx(fmean(fmean(map(max, sets)) for sets in chosen), abs=1e-5)
        assert row["median_mean"] == pytest.approx(
            fmean(fmean(map(median, sets)) for sets in chosen), abs=1e-5
        )


def test_a_cut_response_is_scored_with_an_end(world: dict[str, Path], tmp_path: Path) -> None:
    """Reward models know ended responses only: the last token gives way to eos. Scored here by a plain forward."""
    run(world, tmp_path / "v1", CONFIG)
    samples = list(read_records(tmp_path / "v1" / "samples.jsonl", Sample))
    cut = [sample for sample in samples if sample.finish_reason == "length"]
    assert len(cut) > 3
    for role in ("helpfulness", "safety"):
        for sample in samples:
            assert sample.scores[role] == pytest.approx(plain_score(world[role], sample), abs=1e-4)
        ends = [abs(cut_score(world[role], sample) - plain_score(world[role], sample)) for sample in cut]
        assert min(ends) > 1e-3, "the end must matter for this test to see it"


def test_earlier_samples_are_scored_anew(world: dict[str, Path], tmp_path: Path) -> None:
    """The first iteration had other reward models, whose scores cannot be compared with today's."""
    loose = CONFIG.model_copy(update={"require_eos": False})
    yesterday = world | {"helpfulness": world["safety"], "safety": world["helpfulness"]}
    run(yesterday, tmp_path / "v1", loose)
    run(world, tmp_path / "v2", loose, seed=4, earlier=(tmp_path / "v1",))
    pool = [
        sample for name in ("v1", "v2") for sample in read_records(tmp_path / name / "samples.jsonl", Sample)
    ]
    today = [
        sample.model_copy(
            update={"scores": {r: plain_score(world[r], sample) for r in ("helpfulness", "safety")}}
        )
        for sample in pool
    ]
    n_from_earlier = 0
    for dialog in read_records(tmp_path / "v2" / "selected.jsonl", Dialog):
        rivals = [sample for sample in today if sample.prompt_id == dialog.id]
        winner = max(rivals, key=worth_of)
        assert dialog.messages[-1].content == winner.response
        assert dialog.meta["score"] == pytest.approx(worth_of(winner), abs=1e-4)
        assert dialog.meta["scores"] == pytest.approx(winner.scores, abs=1e-4)
        assert dialog.answer_token_ids == winner.token_ids
        assert dialog.meta["scored_by"] == {
            role: read_manifest(world[role]).fingerprint for role in ("helpfulness", "safety")
        }
        n_from_earlier += today.index(winner) < 12
    assert n_from_earlier > 0


def test_earlier_samples_that_cannot_be_scored_are_refused_before_sampling(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.load(world["model"])
    monkeypatch.setattr(ChatModel, "answer", None)  # nothing may be asked
    told = "red. " * 90
    long = sample_of(told.strip(), 0.0, token_ids=tokenizer.encode(told), logprobs=())
    foreign = sample_of("blue.", 0.0, token_ids=tokenizer.encode("red."), logprobs=())
    for name, sample, error in (("long", long, ShapeError), ("foreign", foreign, DataError)):
        write_records(tmp_path / name / "samples.jsonl", [sample])
        with pytest.raises(error):
            run(world, tmp_path / "v2", CONFIG, earlier=(tmp_path / name,))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no such file"):
        run(world, tmp_path / "v2", CONFIG, earlier=(tmp_path / "empty",))


def test_pooling_lets_earlier_samples_win(world: dict[str, Path], tmp_path: Path) -> None:
    loose = CONFIG.model_copy(update={"require_eos": False})
    run(world, tmp_path / "v1", loose)
    latest = run(world, tmp_path / "alone", loose, seed=4)
    assert latest.metrics["n_pooled"] == 0
    assert not any(name.startswith("earlier") for name in latest.inputs)
    pooled = run(world, tmp_path / "v2", loose, seed=4, earlier=(tmp_path / "v1",))
    assert pooled.metrics["n_pooled"] == 12
    alone, both = (
        {d.id: d.meta["score"] for d in read_records(tmp_path / name / "selected.jsonl", Dialog)}
        for name in ("alone", "v2")
    )
    first = {d.id: d.meta["score"] for d in read_records(tmp_path / "v1" / "selected.jsonl", Dialog)}
    for name in both:
        assert both[name] == pytest.approx(max(alone[name], first[name]), abs=1e-4)


@pytest.mark.parametrize("is_cut", [True, False])
def test_prompts_without_a_finished_answer_are_said(
    world: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], is_cut: bool
) -> None:
    config = CONFIG.model_copy(update={"max_new_tokens": 1, "require_eos": is_cut})
    manifest = run(world, tmp_path / "v1", config, reporter=Reporter())
    n_left_out = 3 - manifest.metrics["n_selected"]
    assert (n_left_out > 0) == is_cut
    text = f"{n_left_out} of 3 prompts have no finished answer"
    assert (text in capsys.readouterr().err) == is_cut
