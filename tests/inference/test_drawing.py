"""A sequence's token depends on its own state, settings, text and noise only."""

import numpy as np
import pytest
import torch

from puna.inference.drawing import draw, rows_drawn
from puna.inference.request import Request
from puna.inference.sampling import NOISE_TOKENS, SamplingConfig, sample_tokens
from puna.inference.sequence import Sequence
from puna.inference.slots import SlotTable

VOCAB_SIZE = 30
GREEDY = SamplingConfig(temperature=0)
WARM = SamplingConfig(temperature=1.0, top_p=1.0)
NO_REPEATS = SamplingConfig(temperature=0, repetition_penalty=1e6)


def running(*settings: SamplingConfig, n_drawn: int = 0) -> tuple[SlotTable, list[Sequence]]:
    """Sequences in slots in reverse order, so that a slot is never mistaken for a place in the batch."""
    slots, sequences = SlotTable.empty(len(settings), 200), []
    for index, sampling in enumerate(settings):
        request = Request(prompt=[1, 2, 3], sampling=sampling, seed=index, n_top_logprobs=2)
        sequence = Sequence(
            id=index,
            request=request,
            tokens=[1, 2, 3] + [4] * n_drawn,
            n_limit=200,
            logprobs=[-1.0] * n_drawn,
        )
        slots.enter(len(settings) - 1 - index, sequence, n_computed=0, n_shared=0)
        sequences.append(sequence)
    return slots, sequences


def states(n: int) -> torch.Tensor:
    """Logits themselves: the output layer is the identity."""
    return torch.randn(n, VOCAB_SIZE, generator=torch.Generator().manual_seed(0)) * 3


def identity(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


@pytest.mark.parametrize("n_rows", [1, 2, 7])
def test_each_row_is_drawn_by_its_own_settings_and_noise(n_rows: int) -> None:
    settings = [WARM, GREEDY, WARM, GREEDY, WARM]
    slots, sequences = running(*settings)
    logits = states(5)
    tokens = draw(sequences, logits, slots, logits_of=identity, n_rows=n_rows)
    for index, (sequence, config) in enumerate(zip(sequences, settings, strict=True)):
        uniform = np.random.Generator(np.random.Philox(key=index)).random(1)
        expected = sample_tokens(logits[index][None], torch.from_numpy(uniform), config)
        assert tokens[index] == expected.item()
        token_ids, logprobs = slots.response(sequence)
        assert token_ids == [tokens[index]]
        assert logprobs == pytest.approx([logits[index].log_softmax(-1)[tokens[index]].item()], abs=1e-5)
        assert sequence.top_logprobs[0][0][0] == logits[index].argmax()


@pytest.mark.parametrize("n_drawn", [1, 63, 64, 65, 127, 128])
def test_the_noise_is_that_of_the_token_s_number(n_drawn: int) -> None:
    """Also for a sequence that enters in the middle of its response."""
    slots, sequences = running(WARM, n_drawn=n_drawn)
    noise = np.random.Generator(np.random.Philox(key=0)).random(n_drawn + NOISE_TOKENS + 2)
    for uniform in noise[n_drawn:]:
        assert slots.next_noise(np.array([0])).tolist() == [uniform]
        draw(sequences, states(1), slots, logits_of=identity, n_rows=1)


def test_penalties_see_the_sequence_s_own_text_only() -> None:
    slots, sequences = running(NO_REPEATS, NO_REPEATS)
    logits = torch.zeros(2, VOCAB_SIZE)
    logits[:, 3], logits[:, 7], logits[1, 9] = 5.0, 4.0, 4.5  # 3 is in both prompts
    assert draw(sequences, logits, slots, logits_of=identity, n_rows=2).tolist() == [7, 9]
    assert draw(sequences, logits, slots, logits_of=identity, n_rows=2).tolist()[1] == 7


def test_a_large_vocabulary_holds_fewer_rows_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert rows_drawn(cpu, vocab_size=32_000, max_batch_size=256) * 32_000 <= 2**22
    assert rows_drawn(cpu, vocab_size=2**30, max_batch_size=256) > 0
    assert rows_drawn(torch.device("cuda"), vocab_size=2**30, max_batch_size=256) == 256
