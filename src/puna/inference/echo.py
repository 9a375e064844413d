"""Log-probs of a prompt's own tokens, for the requests that ask for them."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from puna.inference.attention_plan import Pieces
from puna.inference.logprobs import gather_logprobs
from puna.inference.scheduler import Batch
from puna.inference.sequence import Sequence
from puna.inference.slots import SlotTable

__all__ = ["echo_prompts"]


def echo_prompts(
    running: Iterable[Sequence],
    batch: Batch,
    pieces: Pieces,
    hidden: Float[Tensor, "token dim"],
    slots: SlotTable,
    *,
    logits_of: Callable[[Tensor], Tensor],
) -> None:
    """Add the log-probs, in nats, of the prompt tokens that follow this step's ones; none is told twice."""
    asking = {sequence.slot: sequence for sequence in running if sequence.request.wants_echo}
    if not asking:
        return
    for index, slot in enumerate(batch.slots.tolist()):
        if slot not in asking:
            continue
        sequence, first = asking[slot], int(pieces.first_positions[index])
        begin = max(first, len(sequence.prompt_logprobs))
        end = min(first + int(batch.n_tokens[index]), sequence.n_prompt - 1)
        if begin < end:
            start = int(pieces.starts()[index]) - first
            logits = logits_of(hidden[start + begin : start + end])
            targets = torch.from_numpy(slots.tokens[slot, begin + 1 : end + 1]).to(hidden.device)
            sequence.prompt_logprobs.extend(gather_logprobs(logits, targets).tolist())
