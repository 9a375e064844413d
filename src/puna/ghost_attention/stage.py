"""Build the Ghost Attention set (§3.3): sample with the instruction everywhere, train with it at the start."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from puna.core.artifacts import StageContext
from puna.core.config import Settings
from puna.core.errors import ConfigError, DataError
from puna.core.records import Dialog, Prompt, read_records, write_records
from puna.core.seeding import derive_seed, rng
from puna.core.stage import Metrics, stage
from puna.ghost_attention.dialogs import (
    Scenario,
    draw_depths,
    read_scenario,
    sampling_messages,
    training_dialog,
)
from puna.inference import SamplingConfig
from puna.inference.chat_model import Answer, ChatModel
from puna.inference.reward_models import RewardModels

__all__ = ["GattConfig", "build_gatt_data"]


class GattConfig(Settings):
    """How GAtt dialogs are sampled and written."""

    sampling: SamplingConfig = SamplingConfig()
    """Of every assistant turn; the paper says akin to rejection sampling."""
    n_candidates: int = Field(default=1, ge=1)
    """Answers sampled a turn, of which the reward model's favourite is kept; 1 needs no reward model. Our choice."""
    judged_on: Literal["dialog", "last_turn"] = "dialog"
    """What the reward model reads before a candidate: all turns so far, or the last question, which carries the
    instruction too. The latter for reward models that were trained on single turns. Our choice."""
    place: Literal["first_user_turn", "system"] = "first_user_turn"
    """Where the training dialog holds the instruction: before the first question, or as the system message."""
    short_fraction: float = Field(default=0.5, ge=0, le=1)
    """Share of training dialogs whose instruction is the shortened one: half (§3.3)."""
    cuts_per_dialog: int | None = Field(default=1, ge=1)
    """Training dialogs made of each sampled one, at different depths; None makes one at every depth. Our choice."""


@stage("gatt_data")
def build_gatt_data(
    config: GattConfig,
    context: StageContext,
    *,
    model: Path,
    dialogs: Path,
    reward_model: Path | None = None,
) -> Metrics:
    """Sample dialogs that keep an instruction and write them as fine-tuning data (§3.3).

    Writes dialogs.jsonl: Dialog records with train_on = "last".

    Args:
        model: The latest RLHF model (in the paper V3).
        dialogs: .jsonl file of Prompt with meta instruction, short_instruction and turns.
        reward_model: The helpfulness reward model, for n_candidates above 1.
    """
    if config.n_candidates > 1 and reward_model is None:
        raise ConfigError(
            where="n_candidates",
            expected="a reward model to choose between candidates",
            got=f"n_candidates = {config.n_candidates} and none",
            fix="Pass reward_model, or set n_candidates = 1.",
        )
    scenarios = [read_scenario(prompt, where=str(dialogs)) for prompt in read_records(dialogs, Prompt)]
    if not scenarios:
        raise DataError(where=str(dialogs), expected="dialogs", got="none", fix="Check the path.")
    sampler = _Sampler(config, model, reward_model if config.n_candidates > 1 else None, context)
    sampler.check_room(scenarios)
    answers = sampler.answer_all(scenarios)
    written = _training_dialogs(config, scenarios, answers, context.seed)
    write_records(context.folder / "dialogs.jsonl", written)
    return _metrics(scenarios, answers, written)


class _Sampler:
    """Answers all dialogs together, one turn of each at a time."""

    def __init__(
        self, config: GattConfig, model: Path, reward_model: Path | None, context: StageContext
    ) -> None:
        self._config, self._context = config, context
        self._chat = ChatModel.load(model, device=context.device)
        self._rewards: RewardModels | None = None
        if reward_model is not None:
            folders = {"helpfulness": reward_model}
            self._rewards = RewardModels.load(folders, self._chat.tokenizer, device=context.device)

    def check_room(self, scenarios: Sequence[Scenario]) -> None:
        """Refuse a reward model that could not read what it will judge.

        Raises:
            ShapeError: raised before anything is sampled.
        """
        if self._rewards is None:
            return
        longest = self._chat.max_seq_len
        if self._config.judged_on == "last_turn":
            questions = [self._last_turn(s, turn) for s in scenarios for turn in range(len(s.turns))]
            n_tokens = max(map(len, questions), default=0) + self._config.sampling.max_new_tokens
            longest = min(longest, n_tokens)
        self._rewards.check_room(longest)

    def answer_all(self, scenarios: Sequence[Scenario]) -> list[list[Answer]]:
        """Each dialog's answers; it ends early where an answer was cut by length or the context is full."""
        answers: list[list[Answer]] = [[] for _ in scenarios]
        open_rows = list(range(len(scenarios)))
        turn = 0
        while open_rows:
            prompts = {
                row: self._chat.render(sampling_messages(scenarios[row], _texts(answers[row])))
                for row in open_rows
            }
            asked = [row for row in open_rows if len(prompts[row]) <= self._chat.room(self._config.sampling)]
            judged_after = None
            if self._rewards and self._config.judged_on == "last_turn":
                judged_after = [self._last_turn(scenarios[row], turn) for row in asked]
            given = self._answer(
                [scenarios[row].id for row in asked],
                [prompts[row] for row in asked],
                turn,
                judged_after=judged_after,
            )
            for row, answer in zip(asked, given, strict=True):
                if answer is not None:
                    answers[row].append(answer)
            turn += 1
            open_rows = [row for row in asked if turn == len(answers[row]) < len(scenarios[row].turns)]
        return answers

    def _last_turn(self, scenario: Scenario, turn: int) -> list[int]:
        """One turn's question with the instruction, as if nothing had been said before."""
        alone = scenario._replace(turns=scenario.turns[turn : turn + 1])
        return self._chat.render(sampling_messages(alone, []))

    def _answer(
        self,
        names: Sequence[str],
        prompts: Sequence[list[int]],
        turn: int,
        *,
        judged_after: Sequence[list[int]] | None = None,
    ) -> list[Answer | None]:
        """One finished answer a prompt: the only one, or the reward model's favourite; None where there is none.

        Args:
            judged_after: What the reward model reads before each answer; None takes the prompts.
        """
        k = self._config.n_candidates
        repeated = [prompt for prompt in prompts for _ in range(k)]
        seeds = [derive_seed(self._context.seed, "gatt", name, turn, j) for name in names for j in range(k)]
        sampled = self._chat.answer(repeated, self._config.sampling, seeds=seeds)
        scores = self._scores([prompt for prompt in judged_after or prompts for _ in range(k)], sampled)
        chosen: list[Answer | None] = []
        for first in range(0, len(repeated), k):
            finished = [i for i in range(first, first + k) if sampled[i].is_finished]
            best = max(finished, key=scores.__getitem__, default=None)
            chosen.append(None if best is None else sampled[best])
        return chosen

    def _scores(self, prompts: Sequence[list[int]], answers: Sequence[Answer]) -> list[float]:
        if self._rewards is None:
            return [0.0] * len(answers)
        return self._rewards.score_answers(answers, prompts=prompts)["helpfulness"]


def _texts(answers: Sequence[Answer]) -> list[str]:
    return [answer.text for answer in answers]


def _training_dialogs(
    config: GattConfig, scenarios: Sequence[Scenario], answers: Sequence[Sequence[Answer]], seed: int
) -> list[Dialog]:
    """Cut each sampled dialog at its drawn depths; the draws depend on the dialog's name alone."""
    written = []
    for scenario, given in zip(scenarios, answers, strict=True):
        random_ = rng(seed, "gatt", scenario.id)
        for depth in draw_depths(len(given), config.cuts_per_dialog, random_):
            is_short = random_.random() < config.short_fraction
            dialog = training_dialog(
                scenario,
                _texts(given[:depth]),
                place=config.place,
                is_short=is_short,
                last_token_ids=given[depth - 1].completion.token_ids,
            )
            written.append(dialog)
    return written


def _metrics(
    scenarios: Sequence[Scenario], answers: Sequence[Sequence[Answer]], written: Sequence[Dialog]
) -> dict[str, Any]:
    depths = [dialog.meta["n_turns"] for dialog in written]
    return {
        "n_sampled": len(scenarios),
        "n_complete": sum(len(a) == len(s.turns) for s, a in zip(scenarios, answers, strict=True)),
        "n_dialogs": len(written),
        "n_short": sum(dialog.meta["is_short"] for dialog in written),
        "n_by_turns": {str(depth): depths.count(depth) for depth in sorted(set(depths))},
    }
