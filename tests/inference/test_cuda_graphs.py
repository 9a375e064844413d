import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.inference.cuda_graphs import decode_bucket
from puna.inference.engine import Engine, TextTokenizer
from puna.inference.sampling import SamplingConfig
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer


@given(st.integers(1, 1000), st.integers(1, 300))
def test_a_bucket_holds_the_step_and_at_most_doubles_it(n_tokens: int, n_places: int) -> None:
    rows, places = decode_bucket(n_tokens, n_places)
    assert n_tokens <= rows < 2 * n_tokens or rows == n_tokens == 1
    assert n_places <= places < 2 * n_places or places == n_places == 1
    assert decode_bucket(rows, places) == (rows, places)


def test_few_sizes_are_recorded() -> None:
    assert len({decode_bucket(n, 1)[0] for n in range(1, 257)}) == 11


@pytest.mark.gpu
@pytest.mark.parametrize("n_samples", [1, 3, 20])
def test_recorded_steps_agree_with_the_cpu(
    model: Transformer, tiny: ModelConfig, tokenizer: TextTokenizer, n_samples: int
) -> None:
    """CPU twin: test_determinism.py."""
    on_gpu = Transformer(tiny).cuda()
    on_gpu.load_state_dict(model.state_dict())
    sampling = SamplingConfig(temperature=0.8, max_new_tokens=25)
    prompts = [[1, 5 + index] for index in range(n_samples)]
    ours = Engine(on_gpu, tokenizer).generate(prompts, sampling, seeds=range(n_samples))
    expected = Engine(model, tokenizer).generate(prompts, sampling, seeds=range(n_samples))
    assert [c.token_ids for c in ours] == [c.token_ids for c in expected]
    assert torch.allclose(torch.tensor(ours[0].logprobs), torch.tensor(expected[0].logprobs), atol=1e-3)
