"""Every model folder of a run in transformers: it loads, and says the same as `puna` does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from end_to_end.program import Ended, Run

MODELS = [
    "pretrained",
    "sft",
    "sft-variant",
    "rlhf-v1",
    "rlhf-v2",
    "rlhf-v3",
    "rlhf-v3-gatt",
    "rlhf-v3-ppo",
]
REWARD_MODELS = [f"reward/{role}-{k}" for k in (1, 2, 3) for role in ("helpfulness", "safety")]
PROMPTS = ["what does the goat eat?", "the llama", "how do i burn 12 barns? Déjà-vu 🦙", "  two  spaces\n"]
N_TOKENS = 20


def greedy(folder: Path, prompts: list[list[int]]) -> list[list[int]]:
    """What transformers' own generation adds to each prompt."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for prompt in prompts:
        tokens = torch.tensor([prompt])
        sampled = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=N_TOKENS,
            temperature=None,
            top_p=None,
            pad_token_id=0,
        )
        answers.append(sampled[0, len(prompt) :].tolist())
    return answers


def ours(call: Callable[..., Ended], folder: Path, *options: str) -> list[dict]:
    given = [part for prompt in PROMPTS for part in ("--prompt", prompt)]
    ended = call("generate", folder, "--json", "--max-new-tokens", N_TOKENS, *given, *options)
    assert ended.exit_code == 0, ended.stderr
    return ended.result["samples"]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_continuations_are_equal(finished: Run, call: Callable[..., Ended], name: str) -> None:
    folder = finished.folder / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    assert [sample["token_ids"] for sample in ours(call, folder)] == greedy(folder, prompts)


@pytest.mark.parametrize("name", MODELS)
def test_greedy_answers_are_equal_through_the_chat_template(
    finished: Run, call: Callable[..., Ended], name: str
) -> None:
    folder = finished.folder / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], return_dict=True)["input_ids"]
        for text in PROMPTS
    ]
    theirs = greedy(folder, prompts)
    samples = ours(call, folder, "--chat")
    assert [sample["token_ids"] for sample in samples] == theirs
    assert [sample["text"] for sample in samples] == [
        tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in theirs
    ]


@pytest.mark.parametrize("name", REWARD_MODELS)
def test_reward_models_give_the_same_scores(finished: Run, call: Callable[..., Ended], name: str) -> None:
    """Dialogs rendered by transformers' template, scored at their last token by its classifier."""
    folder = finished.folder / name
    pairs = finished.folder / "preferences" / "batch-1" / "test.jsonl"
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    theirs = []
    with torch.inference_mode():
        for row in rows:
            scores = []
            for side in ("chosen", "rejected"):
                dialog = [*row["prompt"], {"role": "assistant", "content": row[side]["response"]}]
                tokens = tokenizer.apply_chat_template(dialog, return_dict=True, return_tensors="pt")
                scores.append(model(**tokens).logits.item())
            theirs.append(scores)
    printed = call("reward", "score", folder, "--data", pairs, "--json").result["scores"]
    torch.testing.assert_close(torch.tensor(printed), torch.tensor(theirs), atol=1e-5, rtol=1e-4)
