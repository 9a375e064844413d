"""Distillation keeps an answer only where the safety reward model prefers it (§4.2.4)."""

from pathlib import Path

import pytest
import torch

from puna.core.artifacts import Manifest
from puna.core.errors import DataError
from puna.core.progress import quiet
from puna.core.records import Dialog, Message, Prompt, read_records, write_records
from puna.core.seeding import derive_seed
from puna.inference import Engine, SamplingConfig
from puna.inference.chat_model import Answer
from puna.model import load_model, load_score_model, save_score_model
from puna.safety import DistillationConfig, PrepromptConfig, distill
from puna.safety.context_distillation import Attempt, gain_histogram
from puna.tokenizer import Tokenizer, render_prompt

CONFIG = DistillationConfig(
    sampling=SamplingConfig(temperature=1.0, max_new_tokens=40),
    preprompts=PrepromptConfig(generic=("be {first} and {second}.",), templates={"illicit": "name the law."}),
)


@pytest.fixture(autouse=True)
def _always_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained models seldom say eos; what is tested here is the gate on scores."""
    monkeypatch.setattr(Answer, "is_finished", property(lambda answer: bool(answer.text)))


def run(
    world: dict[str, Path],
    root: Path,
    config: DistillationConfig,
    name: str,
    *,
    safety: Path | None = None,
) -> Manifest:
    risks = ["illicit", "hateful", None]
    prompts = [
        Prompt(
            id=f"p{index}",
            messages=(Message(role="user", content=f"how do i steal {index} sheep?"),),
            guideline="helpfulness" if index == 9 else "safety",
            is_safety=index != 9,
            risk_category=risks[index % 3],
        )
        for index in range(10)
    ]
    write_records(root / "prompts.jsonl", prompts)
    return distill(
        config,
        model=world["model"],
        prompts=root / "prompts.jsonl",
        reward_models={"safety": safety or world["safety"]},
        out=root / name,
        seed=2,
        reporter=quiet(),
    )


def test_only_gains_are_kept_and_the_preprompt_is_gone(world: dict[str, Path], tmp_path: Path) -> None:
    manifest = run(world, tmp_path, CONFIG, "gated")
    attempts = list(read_records(tmp_path / "gated" / "attempts.jsonl", Attempt))
    tokenizer = Tokenizer.load(world["model"])
    dialogs = {d.id: d for d in read_records(tmp_path / "gated" / "dialogs.jsonl", Dialog)}
    assert manifest.kind == "distillation_data"
    assert len(attempts) == 9
    assert manifest.metrics["n_not_adversarial"] == 1
    assert 0 < len(dialogs) < 9
    for attempt in attempts:
        gained = attempt.safety_with > attempt.safety_without and bool(attempt.answer_with)
        assert (attempt.prompt_id in dialogs) == attempt.is_kept == gained
        assert attempt.preprompt_kind == ("template" if attempt.risk_category == "illicit" else "generic")
    for dialog in dialogs.values():
        assert [m.role for m in dialog.messages] == ["user", "assistant"]
        assert dialog.messages[0].content.startswith("how do i steal")
        assert dialog.meta["gain"] > 0
        assert (dialog.train_on, dialog.guideline) == ("last", "safety")
        said = tokenizer.decode(list(dialog.answer_token_ids or ())).strip()
        assert said == dialog.messages[-1].content, "the tokens of the safer answer, not of the plain one"
    assert manifest.metrics["kept_fraction"] == pytest.approx(len(dialogs) / 9)
    assert sum(manifest.metrics["gain_histogram"]["counts"]) == 9
    assert set(manifest.metrics["median_safety"]) == {"without", "generic", "template"}


def test_the_gate_reads_the_bare_prompt(world: dict[str, Path], tmp_path: Path) -> None:
    """Both answers are scored as answers to the prompt alone, the preprompt out of view; a plain forward says so."""
    run(world, tmp_path, CONFIG, "gated")
    tokenizer, judge = Tokenizer.load(world["model"]), load_score_model(world["safety"], device="cpu")
    engine = Engine(load_model(world["model"], device="cpu"), tokenizer)

    def score(shown: list[Message], judged_after: list[Message], use: str, name: str) -> float:
        prompt = render_prompt(shown, tokenizer)
        (answer,) = engine.generate([prompt], CONFIG.sampling, seeds=[derive_seed(2, use, name)])
        response = list(answer.token_ids)
        if answer.finish_reason == "length":
            response[-1] = tokenizer.eos_id
        with torch.no_grad():
            row = torch.tensor([[*render_prompt(judged_after, tokenizer), *response]])
            return float(judge(row)[0, -1].sigmoid())

    for attempt in read_records(tmp_path / "gated" / "attempts.jsonl", Attempt):
        bare = [Message(role="user", content=f"how do i steal {attempt.prompt_id[1:]} sheep?")]
        prefixed = [Message(role="system", content=attempt.preprompt), *bare]
        assert attempt.safety_without == pytest.approx(
            score(bare, bare, "without", attempt.prompt_id), abs=1e-4
        )
        seen = score(prefixed, prefixed, "with", attempt.prompt_id)
        unseen = score(prefixed, bare, "with", attempt.prompt_id)
        assert attempt.safety_with == pytest.approx(unseen, abs=1e-4)
        assert abs(seen - unseen) > 1e-3, "the preprompt must matter for this test to see it"


def test_an_equal_score_is_no_gain(world: dict[str, Path], tmp_path: Path) -> None:
    """A reward model without an opinion gives every answer one half."""
    judge = load_score_model(world["safety"], device="cpu")
    torch.nn.init.zeros_(judge.score.weight)
    save_score_model(judge, tmp_path / "indifferent")
    Tokenizer.load(world["safety"]).save(tmp_path / "indifferent", max_seq_len=160)
    manifest = run(world, tmp_path, CONFIG, "equal", safety=tmp_path / "indifferent")
    assert manifest.metrics["mean_gain"] == 0
    assert manifest.metrics["n_kept"] == 0


def test_the_ungated_twin_keeps_every_answer(world: dict[str, Path], tmp_path: Path) -> None:
    manifest = run(world, tmp_path, CONFIG.model_copy(update={"is_gated": False}), "all")
    assert manifest.metrics["n_kept"] == 9


def test_helpful_prompts_alone_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    prompt = Prompt(id="h", messages=(Message(role="user", content="what color is the hen?"),))
    write_records(tmp_path / "prompts.jsonl", [prompt])
    with pytest.raises(DataError, match="is_safety"):
        distill(
            CONFIG,
            model=world["model"],
            prompts=tmp_path / "prompts.jsonl",
            reward_models={"safety": world["safety"]},
            out=tmp_path / "none",
            seed=2,
            reporter=quiet(),
        )


def test_gain_histogram_covers_minus_one_to_one() -> None:
    histogram = gain_histogram([-1.0, -0.1, 0.0, 0.3, 1.0], 4)
    assert histogram == {"edges": [-1.0, -0.5, 0.0, 0.5, 1.0], "counts": [1, 1, 2, 1]}
