"""Asks a version every prompt, single turns in one batch, dialogs turn by turn with its own earlier answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from puna.core.artifacts import StageContext
from puna.core.items import Item
from puna.core.records import Message, Prompt
from puna.core.seeding import derive_seed
from puna.evaluation.config import EvaluationConfig
from puna.evaluation.items import suite_of
from puna.inference import Completion, Engine
from puna.model import load_model
from puna.tokenizer import Tokenizer, render_prompt

__all__ = ["Answer", "Respondent"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked, as a grader must see it, what came, and the tokens of both for the reward models."""

    prompt: Prompt
    item: Item
    token_ids: list[int]
    """Prompt and response."""


class Respondent:
    """A version of the model that answers prompts."""

    def __init__(self, model: Path, config: EvaluationConfig, context: StageContext) -> None:
        self.tokenizer = Tokenizer.load(model)
        loaded = load_model(model).eval()
        self._engine = Engine(loaded, self.tokenizer, max_batch_size=config.max_batch_size)
        self._max_prompt_tokens = loaded.config.max_seq_len - config.sampling.max_new_tokens
        self._config = config
        self._context = context
        self.n_too_long = 0
        """Prompts, and later turns of dialogs, that left no room for a whole answer and were not asked."""

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answer every prompt that fits; of a constraint dialog every turn that does."""
        single = [prompt for prompt in prompts if suite_of(prompt) != "constraint"]
        dialogs = [prompt for prompt in prompts if suite_of(prompt) == "constraint"]
        return self._ask(single) + self._converse(dialogs)

    def _converse(self, dialogs: Sequence[Prompt]) -> list[Answer]:
        """Talk through all dialogs side by side, one batch a turn; meta['turns'] holds what the user says.

        Source: Llama 2 §3.3 and Table 30: is the first turn's instruction still kept turns later?
        """
        answers: list[Answer] = []
        asked = [_with_turn(dialog, dialog.messages, 1) for dialog in dialogs]
        while asked:
            replies = self._ask(asked)
            answers += replies
            asked = [
                _with_turn(reply.prompt, _continued(reply), turn + 1)
                for reply in replies
                if (turn := reply.prompt.meta["turn"]) < len(reply.prompt.meta["turns"])
            ]
        return answers

    def _ask(self, prompts: Sequence[Prompt]) -> list[Answer]:
        rendered = [(prompt, render_prompt(prompt.messages, self.tokenizer)) for prompt in prompts]
        fitting = [(prompt, ids) for prompt, ids in rendered if len(ids) <= self._max_prompt_tokens]
        self.n_too_long += len(rendered) - len(fitting)
        if not fitting:
            return []
        # Seeds name the prompt, not the version: versions answer with the same noise and differ less by luck.
        seeds = [
            derive_seed(self._context.seed, "evaluation", prompt.id, prompt.meta.get("turn", 1))
            for prompt, _ in fitting
        ]
        token_ids = [ids for _, ids in fitting]
        completions = self._engine.generate(
            token_ids, self._config.sampling, seeds=seeds, reporter=self._context.reporter
        )
        return [
            Answer(prompt, self._item(prompt, completion), ids + list(completion.token_ids))
            for (prompt, ids), completion in zip(fitting, completions, strict=True)
        ]

    def _item(self, prompt: Prompt, completion: Completion) -> Item:
        turn = prompt.meta.get("turn")
        return Item(
            id=prompt.id if turn is None else f"{prompt.id}-turn-{turn}",
            suite=suite_of(prompt),
            domain=prompt.domain,
            messages=prompt.messages,
            response=self._engine.text(completion),
            finish_reason=completion.finish_reason,
            n_tokens=len(completion.token_ids),
            turn=turn,
        )


def _with_turn(dialog: Prompt, messages: Sequence[Message], turn: int) -> Prompt:
    return dialog.model_copy(update={"messages": tuple(messages), "meta": dialog.meta | {"turn": turn}})


def _continued(reply: Answer) -> tuple[Message, ...]:
    """The dialog with the model's own answer and the user's next turn."""
    said = Message(role="assistant", content=reply.item.response)
    text = reply.prompt.meta["turns"][reply.prompt.meta["turn"]]
    return (*reply.prompt.messages, said, Message(role="user", content=text))
