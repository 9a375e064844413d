"""Every training task and the engine compute where their model is: on fake cuda tensors, and on "meta" with gradients.

The batches come from the CPU, as in training. What cannot run without a GPU is left to it: recorded CUDA graphs (the
same step runs unrecorded here), the compiled packed mask of flex_attention (the heads here are too narrow for it),
autocast on the fake devices, AdamW's fused step, and the clipping of all gradients in one call.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pretended_device import move, pretended_cuda, pretended_meta
from puna.core.records import Message, Prompt
from puna.inference import Completion, Engine, Request, SamplingConfig
from puna.inference.reward_models import RewardModels
from puna.model import ScoreModel
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.pretraining.config import PretrainingConfig
from puna.pretraining.task import PretrainingTask
from puna.reward_modeling.encoding import EncodedPair
from puna.reward_modeling.task import RankingTask
from puna.rlhf.experience import PPOModels, judge, learn_from
from puna.rlhf.ppo_config import PPOConfig
from puna.rlhf.ppo_update import update
from puna.rlhf.prompts import EncodedPrompt, is_safety
from puna.supervised_finetuning.task import FinetuningTask
from puna.training import LoopConfig, ShuffledOrder
from puna.training.packing import TokenizedExample, pack
from ranked_pairs import comparison

MODEL = ModelConfig(dim=16, n_layers=2, n_heads=2, n_kv_heads=1, vocab_size=50, hidden_dim=32, max_seq_len=32)


class Ids:
    """Text is of no interest here."""

    stop_ids = (2,)

    def decode(self, ids: Any) -> str:
        return " ".join(map(str, ids))


@pytest.fixture(params=["cuda", "meta"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device, for as long as a test runs."""
    on: AbstractContextManager[torch.device] = (
        pretended_cuda() if request.param == "cuda" else pretended_meta(monkeypatch)
    )
    with on as device:
        yield device


def chat_model(device: torch.device, *, seed: int = 0) -> Transformer:
    return move(Transformer(MODEL, seed=seed), device, learns=device.type == "meta")


def score_model(device: torch.device, *, seed: int = 0) -> ScoreModel:
    return move(ScoreModel(Transformer(MODEL, seed=seed)), device, learns=device.type == "meta")


def learn(task: Any, device: torch.device) -> None:
    """A micro-batch forwards, and backwards where there are gradients."""
    batch = task.micro_batches(0)[0]
    loss = task.loss(batch)
    assert loss.sum.device == device
    assert loss.n_targets > 0
    if device.type == "meta":
        loss.sum.backward()
        gradients = [weight.grad for weight in task.model.parameters()]
        assert all(gradient is not None and gradient.device == device for gradient in gradients)


@pytest.mark.parametrize("isolates", [False, True])
def test_pretraining(device: torch.device, tmp_path: Path, isolates: bool) -> None:
    (tmp_path / "shards").mkdir()
    np.arange(200, dtype="<u2").clip(max=49).tofile(tmp_path / "shards" / "train.bin")
    np.arange(60, dtype="<u2").clip(max=49).tofile(tmp_path / "shards" / "held_out.bin")
    index = {
        "dtype": "uint16",
        "train": [{"file": "train.bin", "n_tokens": 200}],
        "validation": {"books": {"file": "held_out.bin", "n_tokens": 60}},
    }
    (tmp_path / "shards" / "index.json").write_text(json.dumps(index))
    loop = LoopConfig(batch_size=2, micro_batch_size=2)
    config = PretrainingConfig(model=MODEL, seq_len=16, isolate_documents=isolates, loop=loop)
    task = PretrainingTask(chat_model(device), config, data=tmp_path, bos_id=1, seed=0)
    learn(task, device)
    with torch.no_grad():
        assert task.evaluate().keys() >= {"loss", "loss/books"}


def test_finetuning(device: torch.device) -> None:
    rows = pack([TokenizedExample([*range(1, 15)], [False] * 4 + [True] * 10)] * 4, seq_len=32)
    order = ShuffledOrder(len(rows), batch_size=2, seed=0)
    task = FinetuningTask(chat_model(device), train=rows, validation=rows, order=order, micro_batch_size=2)
    learn(task, device)
    with torch.no_grad():
        assert task.evaluate().keys() == {"loss", "perplexity"}


def test_reward_modelling(device: torch.device) -> None:
    pairs = [
        EncodedPair(comparison(n, guideline="safety"), [1, *range(5, 25), 6, 2], [1, *range(5, 25), 2])
        for n in range(4)
    ]
    task = RankingTask(
        score_model(device),
        train=pairs,
        test=pairs,
        order=ShuffledOrder(4, batch_size=4, seed=0),
        micro_batch_size=4,
        test_batch_size=4,
        margin="small",
        safety_loss_weight=1.0,
    )
    learn(task, device)
    assert task.evaluate().keys() == {"loss", "accuracy"}


def test_ppo(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses judged, values and advantages, and on "meta" the update with its gradients."""
    policy = chat_model(device)
    engine = Engine(policy, Ids(), cache_bytes=2**22)
    rewards = RewardModels({"helpfulness": score_model(device), "safety": score_model(device)}, eos_id=2)
    models = PPOModels(
        policy=policy,
        reference=chat_model(device),
        critic=score_model(device),
        reward_models=rewards,
        engine=engine,
    )
    prompts = [
        EncodedPrompt(
            Prompt(id=f"{n}", messages=[Message(role="user", content="?")], domain=domain), [1, 5 + n]
        )
        for n, domain in enumerate(("helpfulness", "safety", "helpfulness", "safety"))
    ]
    completions = [
        Completion(token_ids=[7, 8 + n, 2][: 2 + n % 2], logprobs=[-1.0] * (2 + n % 2), finish_reason=reason)
        for n, reason in enumerate(("length", "eos", "length", "eos"))
    ]
    config = PPOConfig(batch_size=4, mini_batch_size=2, micro_batch_size=2)
    judged = judge(models, prompts, completions, config.reward, n_rows=2)
    experience = learn_from(models, judged, is_safety(prompts), config)
    assert {tensor.device for tensor in (*judged[1:4], *experience[1:])} == {device}
    if device.type == "meta":
        monkeypatch.setattr("puna.rlhf.ppo_update._average_and_clip", lambda *given: 1.0)
        optimizer = torch.optim.SGD([*policy.parameters(), *models.critic.parameters()], lr=0.1)
        metrics = update(models, optimizer, experience, config, order=torch.arange(4).to(device), iteration=1)
        assert metrics.keys() >= {"policy_loss", "value_loss", "critic_grad_norm"}
        assert {weight.grad.device for weight in policy.parameters() if weight.grad is not None} == {device}


class Unrecorded:
    """A decode step as it is before it becomes a graph."""

    def __init__(self, model: Transformer, cache: Any) -> None:
        self._model, self._cache = model, cache

    def hidden(self, rows: Tensor, plan: Any) -> Tensor:
        self._cache.plan = plan
        return self._model.hidden(rows[0], positions=rows[1], cache=self._cache)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(temperature=0, max_new_tokens=4),
        SamplingConfig(max_new_tokens=4, top_k=5, repetition_penalty=1.2, presence_penalty=0.5),
    ],
    ids=["greedy", "drawn"],
)
def test_the_engine(sampling: SamplingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of several lengths, a shared one, then steps of single tokens: as on a GPU, and the CPU's tokens."""
    prompts = [[1, 5, 6, 7], [1, 5, 6, 7], [1, *range(3, 23)], [1, 9]]
    requests = [
        Request(prompt=p, sampling=sampling, seed=n, wants_echo=True, n_top_logprobs=2)
        for n, p in enumerate(prompts)
    ]
    expected = Engine(Transformer(MODEL), Ids(), cache_bytes=2**22).run(requests)
    monkeypatch.setattr("puna.inference.runner.DecodeGraphs", Unrecorded)
    with pretended_cuda() as device:
        completions = Engine(chat_model(device), Ids(), cache_bytes=2**22).run(requests)
    assert [c.token_ids for c in completions] == [c.token_ids for c in expected]
    assert [c.logprobs for c in completions] == [pytest.approx(c.logprobs, abs=1e-5) for c in expected]


class Forgetful(nn.Module):
    """A layer that mixes devices in one of the ways that a CPU never notices."""

    def __init__(self, mistake: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.mistake = mistake

    def forward(self, x: Tensor) -> Tensor:
        return self.mistake(x)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + torch.arange(x.shape[-1]),
        lambda x: x @ torch.ones(x.shape[-1], 2),
        lambda x: x.masked_fill(torch.zeros(x.shape[-1], dtype=torch.bool), 0.0),
        lambda x: x.index_select(0, torch.tensor([0])),
        lambda x: torch.cat([x, torch.zeros(1, x.shape[-1])]),
        lambda x: torch.where(torch.zeros(x.shape) > 0, x, 0.0),
        lambda x: x.gather(1, torch.zeros(x.shape[0], 1, dtype=torch.int64)),
        lambda x: x[x[:, 0] > 0] * torch.ones(x.shape[-1]),
    ],
)
def test_mixed_devices_are_noticed(device: torch.device, mistake: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(3, 4).to(device)
    with pytest.raises(RuntimeError, match=r"device|expected tensors on"):
        Forgetful(mistake)(x)
    assert Forgetful(lambda x: x[x[:, 0] > 0] * 2 + torch.tensor(1.0))(x).shape == (3, 4)
