"""The GAtt data stage on tiny models."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from puna.core.artifacts import Manifest
from puna.core.errors import ConfigError, ShapeError
from puna.core.progress import quiet
from puna.core.records import Dialog, Message, Prompt, read_records, write_records
from puna.core.seeding import derive_seed
from puna.ghost_attention import GattConfig, build_gatt_data
from puna.inference import Completion, Engine, SamplingConfig, score_sequences
from puna.inference.chat_model import ChatModel
from puna.model import ScoreModel, load_model, load_score_model
from puna.tokenizer import Tokenizer, render_prompt
from tiny_chat_models import save_reward_model

TURNS = ["what color is the hen?", "and the cow?", "how many legs?"]
CONFIG = GattConfig(sampling=SamplingConfig(temperature=1.0, max_new_tokens=8), cuts_per_dialog=None)


def run(
    world: dict[str, Path], root: Path, config: GattConfig, name: str, *, judged: bool = False
) -> Manifest:
    prompts = [
        Prompt(
            id=f"d{index}",
            messages=(Message(role="user", content=TURNS[0]),),
            meta={"instruction": "say moo.", "short_instruction": "moo.", "turns": TURNS[: index % 3 + 1]},
        )
        for index in range(12)
    ]
    write_records(root / "scenarios.jsonl", prompts)
    return build_gatt_data(
        config,
        model=world["model"],
        dialogs=root / "scenarios.jsonl",
        out=root / name,
        seed=5,
        reporter=quiet(),
        reward_model=world["helpfulness"] if judged else None,
    )


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sampled response ends by eos, as a trained model's do."""
    generate = Engine.generate

    def ended(self: Engine, *args: object, **kwargs: object) -> list[Completion]:
        done = generate(self, *args, **kwargs)  # type: ignore[arg-type]
        eos = self.tokenizer.eos_id
        letters = self.tokenizer.encode("moo")  # type: ignore[attr-defined]
        return [
            Completion([*letters, *c.token_ids[:3], eos], [-1.0] * (len(letters) + 4), "eos") for c in done
        ]

    monkeypatch.setattr(Engine, "generate", ended)


@pytest.mark.usefixtures("talkative")
def test_dialogs_of_every_depth_train_on_their_last_answer(world: dict[str, Path], tmp_path: Path) -> None:
    manifest = run(world, tmp_path, CONFIG, "gatt")
    dialogs = list(read_records(tmp_path / "gatt" / "dialogs.jsonl", Dialog))
    tokenizer = Tokenizer.load(world["model"])
    assert manifest.kind == "gatt_data"
    assert manifest.metrics["n_by_turns"] == {"1": 12, "2": 8, "3": 4}
    assert len(dialogs) == manifest.metrics["n_dialogs"] == 24
    for dialog in dialogs:
        text = "moo." if dialog.meta["is_short"] else "say moo."
        users = [m.content for m in dialog.messages if m.role == "user"]
        assert users[0] == f"{text} {TURNS[0]}"
        assert users[1:] == TURNS[1 : len(users)]
        assert dialog.train_on == "last"
        assert dialog.answer_token_ids is not None
        assert dialog.answer_token_ids[-1] == tokenizer.eos_id
        assert tokenizer.decode(dialog.answer_token_ids).strip() == dialog.messages[-1].content
    assert 0 < manifest.metrics["n_short"] < 24


@pytest.mark.usefixtures("talkative")
def test_the_same_seed_gives_the_same_file(world: dict[str, Path], tmp_path: Path) -> None:
    one, two = (run(world, tmp_path, CONFIG, name) for name in ("one", "two"))
    assert one.files["dialogs.jsonl"] == two.files["dialogs.jsonl"]


@pytest.mark.usefixtures("talkative")
def test_of_several_candidates_the_reward_model_chooses(world: dict[str, Path], tmp_path: Path) -> None:
    """Every first answer is the one of four, sampled again here, that a plain forward scores highest."""
    chosen = run(world, tmp_path, CONFIG.model_copy(update={"n_candidates": 4}), "chosen", judged=True)
    assert chosen.metrics["n_dialogs"] == 24
    tokenizer, judge = Tokenizer.load(world["model"]), load_score_model(world["helpfulness"], device="cpu")
    engine = Engine(load_model(world["model"], device="cpu"), tokenizer)
    prompt = render_prompt([Message(role="user", content=f"say moo. {TURNS[0]}")], tokenizer)
    dialogs = {d.id: d for d in read_records(tmp_path / "chosen" / "dialogs.jsonl", Dialog)}
    places = set()
    for index in range(12):
        seeds = [derive_seed(5, "gatt", f"d{index}", 0, j) for j in range(4)]
        candidates = engine.generate([prompt] * 4, CONFIG.sampling, seeds=seeds)
        with torch.no_grad():
            scores = [float(judge(torch.tensor([[*prompt, *c.token_ids]]))[0, -1]) for c in candidates]
        best = max(range(4), key=scores.__getitem__)
        assert dialogs[f"d{index}-turn-1"].messages[1].content == engine.text(candidates[best])
        assert dialogs[f"d{index}-turn-1"].answer_token_ids == tuple(candidates[best].token_ids)
        places.add(best)
    assert len(places) > 2, "the favourite must not always stand in one place"


@pytest.mark.usefixtures("talkative")
def test_judged_on_the_last_turn_the_reward_model_reads_no_other(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []

    def recorded(model: ScoreModel, sequences: Sequence[list[int]], **options: int) -> list[float]:
        read.extend(sequences)
        return score_sequences(model, sequences, **options)

    monkeypatch.setattr("puna.inference.reward_models.score_sequences", recorded)
    tokenizer = Tokenizer.load(world["model"])
    questions = [
        render_prompt([Message(role="user", content=f"say moo. {turn}")], tokenizer) for turn in TURNS
    ]
    n_by_reach = {}
    for judged_on in ("dialog", "last_turn"):
        read.clear()
        config = CONFIG.model_copy(update={"n_candidates": 4, "judged_on": judged_on})
        run(world, tmp_path, config, judged_on, judged=True)
        n_by_reach[judged_on] = [
            sum(row[: len(question)] == question for row in read) for question in questions
        ]
    assert n_by_reach == {"dialog": [96, 0, 0], "last_turn": [48, 32, 16]}


def test_a_dialog_ends_where_an_answer_was_cut(world: dict[str, Path], tmp_path: Path) -> None:
    """The untrained model hardly ever says eos within one token, so no dialog gets an answer."""
    config = CONFIG.model_copy(update={"sampling": SamplingConfig(temperature=0, max_new_tokens=1)})
    manifest = run(world, tmp_path, config, "cut")
    assert manifest.metrics["n_dialogs"] == manifest.metrics["n_complete"] == 0


def test_a_reward_model_too_short_for_the_questions_is_refused_before_sampling(
    world: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatModel, "answer", None)  # nothing may be asked
    short = save_reward_model(tmp_path / "short", Tokenizer.load(world["model"]), seed=4, max_seq_len=16)
    for judged_on in ("dialog", "last_turn"):
        config = CONFIG.model_copy(update={"n_candidates": 2, "judged_on": judged_on})
        with pytest.raises(ShapeError, match="a context of at least"):
            run(world | {"helpfulness": short}, tmp_path, config, judged_on, judged=True)


def test_candidates_without_a_reward_model_are_refused(world: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_candidates"):
        run(world, tmp_path, CONFIG.model_copy(update={"n_candidates": 2}), "no")
