"""A request on its way. While it runs its numbers are in its slot (slots.py), while it waits they are here."""

from dataclasses import dataclass, field

from puna.inference.request import Request, TopLogprobs
from puna.inference.stop import StreamedText

__all__ = ["Sequence"]


@dataclass(slots=True, eq=False)
class Sequence:
    """One request's state. `SlotTable.enter` and `SlotTable.leave` alone move numbers between it and its slot."""

    id: int
    request: Request
    tokens: list[int]
    """Prompt, then what was sampled, while it waits."""
    n_limit: int
    """Tokens at which it ends by length."""
    slot: int = -1
    blocks: list[int] = field(default_factory=list)
    n_ready: int = 0
    """Blocks of the prompt already offered to others."""
    logprobs: list[float] = field(default_factory=list)
    """Of the sampled tokens, while it waits."""
    top_logprobs: list[TopLogprobs] = field(default_factory=list)
    prompt_logprobs: list[float] = field(default_factory=list)
    text: StreamedText | None = None

    @property
    def n_prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt)

    @property
    def is_running(self) -> bool:
        """Whether it holds a slot."""
        return self.slot >= 0
