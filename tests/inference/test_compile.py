"""The compiled engine draws what the plain one draws."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from puna.inference import Engine, SamplingConfig
from puna.model import ModelConfig, Transformer

torch.set_num_threads(1)
config = ModelConfig(
    dim=64, n_layers=3, n_heads=4, n_kv_heads=2, vocab_size=97, hidden_dim=96, max_seq_len=256
)
model = Transformer(config, seed=1).requires_grad_(False)

class Ids:
    stop_ids = (2,)
    def decode(self, ids):
        return ""

prompts = [[3 + (7 * i + j) % 90 for j in range(n)] for i, n in enumerate((1, 5, 70, 130))]
sampling = SamplingConfig(temperature=0, max_new_tokens=12)
plain, compiled = (
    Engine(model, Ids(), compiles=compiles).generate(prompts, sampling, seeds=range(4))
    for compiles in (False, True)
)
for one, other in zip(plain, compiled, strict=True):
    assert one.token_ids == other.token_ids
    torch.testing.assert_close(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-4, rtol=0)
counters = torch._dynamo.utils.counters
assert counters["stats"]["unique_graphs"] <= 8, counters["stats"]  # two functions, not two a layer and a size
assert counters["stats"]["unique_graphs"] >= 2, counters["stats"]
assert not counters["graph_break"], counters["graph_break"]
print("same")
"""


@pytest.mark.slow
def test_the_same_tokens_and_nearly_the_same_log_probs() -> None:
    """In a process of its own: the shape checks of the tests are not compiled."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "same\n"
