from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from puna.core.errors import ShapeError
from puna.inference.engine import Completion, Engine, TextTokenizer
from puna.inference.logprobs import token_logprobs
from puna.inference.sampling import SamplingConfig
from puna.model.checkpoint import load_model, save_model
from puna.model.config import ModelConfig, preset
from puna.model.transformer import Transformer

GREEDY = SamplingConfig(temperature=0, max_new_tokens=20)
SAMPLED = SamplingConfig(temperature=0.8, top_p=0.9, max_new_tokens=20)
PROMPTS = [[1, 5, 9], [1, 7], [1, 5, 9], [1, 30, 31, 32, 33, 34], [1], [1, 5, 9]]


@pytest.fixture(scope="module")
def engine(model: Transformer, tokenizer: TextTokenizer) -> Engine:
    return Engine(model, tokenizer)


def one_at_a_time(model: Transformer, prompt: Sequence[int], n_tokens: int) -> list[int]:
    """Greedy decoding as plainly as it can be written."""
    tokens = list(prompt)
    while len(tokens) - len(prompt) < n_tokens and (len(tokens) == len(prompt) or tokens[-1] != 2):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_is_the_likeliest_token_each_time(engine: Engine, model: Transformer) -> None:
    completions = engine.generate(PROMPTS, GREEDY, seeds=range(6))
    assert [c.token_ids for c in completions] == [one_at_a_time(model, p, 20) for p in PROMPTS]


@settings(max_examples=5)
@given(st.sampled_from([(4, 4), (4, 2), (4, 1)]), st.booleans(), st.integers(0, 99))
def test_greedy_is_that_of_transformers(
    tmp_path_factory: pytest.TempPathFactory,
    tokenizer: TextTokenizer,
    heads: tuple[int, int],
    tie_embeddings: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=heads[0],
            num_key_value_heads=heads[1],
            vocab_size=40,
            initializer_range=0.2,
            tie_word_embeddings=tie_embeddings,
            max_position_embeddings=64,
        )
    )
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    ours = Engine(load_model(folder, device="cpu"), tokenizer).generate(PROMPTS, GREEDY, seeds=range(6))
    for prompt, completion in zip(PROMPTS, ours, strict=True):
        ids = theirs.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=20, eos_token_id=2, pad_token_id=0
        )
        assert completion.token_ids == ids[0, len(prompt) :].tolist()


def test_transformers_generates_the_same_from_our_folder(
    engine: Engine, model: Transformer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ours")
    save_model(model, folder)
    theirs = LlamaForCausalLM.from_pretrained(folder)
    for prompt, completion in zip(PROMPTS, engine.generate(PROMPTS, GREEDY, seeds=range(6)), strict=True):
        ids = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=20, max_length=None)
        assert completion.token_ids == ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize(
    "sampling", [GREEDY, SAMPLED, SamplingConfig(temperature=1.3, top_p=1, max_new_tokens=30)]
)
def test_recorded_logprobs_are_those_of_the_untempered_model(
    engine: Engine, model: Transformer, sampling: SamplingConfig
) -> None:
    for prompt, completion in zip(PROMPTS, engine.generate(PROMPTS, sampling, seeds=range(6)), strict=True):
        row = torch.tensor([[*prompt, *completion.token_ids]])
        expected = token_logprobs(model, row)[0, len(prompt) - 1 :]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=0)


@settings(max_examples=6)
@given(
    st.lists(st.lists(st.integers(0, 39), min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(1, 5),
    st.integers(0, 2**63 - 1),
)
def test_a_sample_does_not_depend_on_its_batch(
    model: Transformer, tokenizer: TextTokenizer, prompts: list[list[int]], max_batch_size: int, seed: int
) -> None:
    seeds = [(seed + i) % 2**63 for i in range(len(prompts))]
    together = Engine(model, tokenizer, max_batch_size=max_batch_size).generate(prompts, SAMPLED, seeds=seeds)
    for prompt, own_seed, completion in zip(prompts, seeds, together, strict=True):
        alone = Engine(model, tokenizer).generate([prompt], SAMPLED, seeds=[own_seed])[0]
        assert completion.token_ids == alone.token_ids


def test_samples_of_one_prompt_differ_by_seed_only(engine: Engine) -> None:
    seeds = [0, 1, 2, 0, 1, 2]
    ids = [tuple(c.token_ids) for c in engine.generate([[1, 5]] * 6, SAMPLED, seeds=seeds)]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3


def test_rows_end_at_eos_or_at_the_limit(engine: Engine) -> None:
    completions = engine.generate(PROMPTS * 20, SAMPLED, seeds=range(120))
    assert {c.finish_reason for c in completions} == {"eos", "length"}
    for completion in completions:
        assert len(completion.logprobs) == len(completion.token_ids) <= 20
        assert 2 not in completion.token_ids[:-1]
        assert (completion.token_ids[-1] == 2) == (completion.finish_reason == "eos")
        assert completion.finish_reason == "eos" or len(completion.token_ids) == 20


def test_the_context_ends_a_row_without_touching_its_neighbours(engine: Engine, model: Transformer) -> None:
    prompts = [[1] + [7] * 60, [1, 9], [1] + [8] * 62]
    sampling = SamplingConfig(temperature=0, max_new_tokens=30)
    completions = engine.generate(prompts, sampling, seeds=range(3))
    limits = [3, 30, 1]
    assert [c.token_ids for c in completions] == [
        one_at_a_time(model, prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)
    ]


@pytest.mark.parametrize("length", [0, 64, 100])
def test_prompts_that_do_not_fit_are_refused(engine: Engine, length: int) -> None:
    with pytest.raises(ShapeError, match="prompt 1: expected 1 to 63 tokens"):
        engine.generate([[1], [1] * length], GREEDY, seeds=[0, 1])


def test_every_prompt_needs_a_seed(engine: Engine) -> None:
    with pytest.raises(ShapeError, match="expected 2 seeds, got 1"):
        engine.generate([[1], [1]], GREEDY, seeds=[0])
    assert engine.generate([], GREEDY, seeds=[]) == []


def test_text_has_no_eos_and_no_outer_spaces(engine: Engine) -> None:
    assert engine.text(Completion([0, 5, 0, 6, 0, 2], [0.0] * 6, "eos")) == "5, 6,"
    assert engine.text(Completion([0, 5, 2, 6], [0.0] * 4, "length")) == "5,2,6,"


def test_bfloat16_models_of_the_real_vocabulary_generate(tokenizer: TextTokenizer) -> None:
    """The 7b's shape but for width and depth, in the dtype it is served in."""
    sizes = {"dim": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "hidden_dim": 96}
    config = ModelConfig.model_validate(preset("7b").model_dump() | sizes)
    engine = Engine(Transformer(config).to(torch.bfloat16), tokenizer)
    completions = engine.generate([[1, 31_999], [1]], SamplingConfig(max_new_tokens=4), seeds=[0, 1])
    assert all(0 <= i < 32_000 for c in completions for i in c.token_ids)


@pytest.mark.gpu
def test_a_gpu_agrees_with_the_cpu(model: Transformer, tiny: ModelConfig, tokenizer: TextTokenizer) -> None:
    """CPU twin: test_greedy_is_the_likeliest_token_each_time."""
    on_gpu = Transformer(tiny).cuda()
    on_gpu.load_state_dict(model.state_dict())
    ours = Engine(on_gpu, tokenizer).generate(PROMPTS, SAMPLED, seeds=range(6))
    expected = Engine(model, tokenizer).generate(PROMPTS, SAMPLED, seeds=range(6))
    assert [c.token_ids for c in ours] == [c.token_ids for c in expected]
