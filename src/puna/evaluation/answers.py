"""Asks a version every prompt: single turns in one batch, dialogs turn by turn with its own earlier answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from puna.core.artifacts import StageContext
from puna.core.items import Item
from puna.core.records import Message, Prompt
from puna.core.seeding import derive_seed
from puna.evaluation.config import EvaluationConfig
from puna.evaluation.items import suite_of
from puna.inference.chat_model import Answer, ChatModel

__all__ = ["Answered", "Respondent"]


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt as a grader must see it, what is written down of it, and the answer's tokens for the reward models."""

    prompt: Prompt
    item: Item
    answer: Answer


class Respondent:
    """A version of the model that answers the prompts of an evaluation."""

    def __init__(self, chat: ChatModel, config: EvaluationConfig, context: StageContext) -> None:
        self._chat, self._config, self._context = chat, config, context
        self.n_too_long = 0
        """Prompts, and later turns of dialogs, that left no room for a whole answer and were not asked."""
        self.n_unasked: Counter[int] = Counter()
        """By user turn: constraint dialogs that have this turn and were full before it was asked."""

    def answer(self, prompts: Sequence[Prompt]) -> list[Answered]:
        """Answer every prompt that fits; of a constraint dialog every turn that does."""
        single = [prompt for prompt in prompts if suite_of(prompt) != "constraint"]
        dialogs = [prompt for prompt in prompts if suite_of(prompt) == "constraint"]
        return self._ask(single) + self._converse(dialogs)

    def _converse(self, dialogs: Sequence[Prompt]) -> list[Answered]:
        """Talk through all dialogs side by side, one batch a turn; meta['turns'] holds what the user says.

        Source: Llama 2 §3.3 and Table 30: is the first turn's instruction still kept turns later?
        """
        answers: list[Answered] = []
        asked = [_with_turn(dialog, dialog.messages, 1) for dialog in dialogs]
        while asked:
            replies = self._ask(asked)
            answers += replies
            self._count_unasked(asked, replies)
            asked = [
                _with_turn(reply.prompt, _continued(reply), turn + 1)
                for reply in replies
                if (turn := reply.prompt.meta["turn"]) < len(reply.prompt.meta["turns"])
            ]
        return answers

    def _count_unasked(self, asked: Sequence[Prompt], replies: Sequence[Answered]) -> None:
        """Note every turn that a dialog without a reply will not reach."""
        replied = {reply.prompt.id for reply in replies}
        for dialog in asked:
            if dialog.id not in replied:
                self.n_unasked.update(range(dialog.meta["turn"], len(dialog.meta["turns"]) + 1))

    def _ask(self, prompts: Sequence[Prompt]) -> list[Answered]:
        rendered = [(prompt, self._chat.render(prompt.messages)) for prompt in prompts]
        room = self._chat.room(self._config.sampling)
        fitting = [(prompt, ids) for prompt, ids in rendered if len(ids) <= room]
        self.n_too_long += len(rendered) - len(fitting)
        if not fitting:
            return []
        # Seeds name the prompt, not the version: versions answer with the same noise and differ less by luck.
        seeds = [
            derive_seed(self._context.seed, "evaluation", prompt.id, prompt.meta.get("turn", 1))
            for prompt, _ in fitting
        ]
        token_ids = [ids for _, ids in fitting]
        answers = self._chat.answer(
            token_ids, self._config.sampling, seeds=seeds, reporter=self._context.reporter
        )
        return [
            Answered(prompt, _item(prompt, answer), answer)
            for (prompt, _), answer in zip(fitting, answers, strict=True)
        ]


def _item(prompt: Prompt, answer: Answer) -> Item:
    turn = prompt.meta.get("turn")
    return Item(
        id=prompt.id if turn is None else f"{prompt.id}-turn-{turn}",
        suite=suite_of(prompt),
        guideline=prompt.guideline,
        messages=prompt.messages,
        response=answer.text,
        finish_reason=answer.finish_reason,
        n_tokens=len(answer.completion.token_ids),
        turn=turn,
    )


def _with_turn(dialog: Prompt, messages: Sequence[Message], turn: int) -> Prompt:
    return dialog.model_copy(update={"messages": tuple(messages), "meta": dialog.meta | {"turn": turn}})


def _continued(reply: Answered) -> tuple[Message, ...]:
    """The dialog with the model's own answer and the user's next turn."""
    said = Message(role="assistant", content=reply.item.response)
    text = reply.prompt.meta["turns"][reply.prompt.meta["turn"]]
    return (*reply.prompt.messages, said, Message(role="user", content=text))
