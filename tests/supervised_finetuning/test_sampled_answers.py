"""Fine-tuning learns the tokens that were sampled and scored, whatever encoding their text again would give."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from imported_tokenizers import CHATML, byte_level_bpe, write_model_folder
from puna.core.errors import DataError
from puna.core.records import (
    Dialog,
    FinishReason,
    Message,
    Prompt,
    Provenance,
    Sample,
    read_records,
    write_records,
)
from puna.rlhf import RejectionSamplingConfig, ScoreConfig, sample_candidates
from puna.rlhf.selection import best_of_each
from puna.supervised_finetuning.dialogs import load_examples, tokenize_dialog
from puna.tokenizer.dialog_tokens import render_dialog, render_prompt
from puna.tokenizer.tokenizer import Tokenizer
from puna.training.packing import TokenizedExample, pack
from tiny_chat_models import save_world

ASK = (Message(role="user", content="What do 4 goats eat?"),)
CHAT = (
    *ASK,
    Message(role="assistant", content="4 goats eat hay."),
    Message(role="user", content="And hens?"),
)
REASONS: tuple[FinishReason, ...] = get_args(FinishReason)


def sample_of(
    token_ids: Sequence[int], tokenizer: Tokenizer, reason: FinishReason, *, prompt: Sequence[Message] = ASK
) -> Sample:
    ids = [*token_ids, tokenizer.eos_id] if reason == "eos" else [*token_ids]
    return Sample(
        id="p-0",
        prompt_id="p",
        prompt=tuple(prompt),
        response=tokenizer.decode(ids).strip(),
        token_ids=tuple(ids),
        logprobs=(-1.0,) * len(ids),
        finish_reason=reason,
        provenance=Provenance(model="m", version="sft", temperature=1, top_p=1, seed=0),
        scores={"helpfulness": 1.0, "safety": 3.0},
    )


def selected(sample: Sample) -> Dialog:
    (dialog,) = best_of_each([[sample]], ScoreConfig(), require_eos=False)
    return dialog


def targets(example: TokenizedExample) -> list[int]:
    """What a row of this example alone trains."""
    rows = pack([example], seq_len=len(example.token_ids))
    return rows.targets[rows.target_mask].tolist()


@given(
    token_ids=st.lists(st.integers(3, 309), min_size=1, max_size=20),
    reason=st.sampled_from(REASONS),
    prompt=st.sampled_from([ASK, CHAT]),
)
def test_the_targets_are_the_sampled_tokens(
    tokenizer: Tokenizer, token_ids: list[int], reason: FinishReason, prompt: tuple[Message, ...]
) -> None:
    """With the end of turn where the response has none: cut by length or its caller, or ended by a stop string."""
    sample = sample_of(token_ids, tokenizer, reason, prompt=prompt)
    if not sample.response:
        return
    example = tokenize_dialog(selected(sample), tokenizer)
    end = [] if reason == "eos" else [tokenizer.eos_id]
    assert targets(example) == [*sample.token_ids, *end]
    asked = render_prompt(prompt, tokenizer)
    assert list(example.token_ids) == [*asked, *sample.token_ids, *end], "after the prompt that was answered"


def test_a_response_sampled_letter_by_letter_stays_so(tokenizer: Tokenizer) -> None:
    """Encoding its text again would train other tokens, which nobody sampled or scored."""
    letters = [token for letter in "hay." for token in tokenizer.encode(letter)[-1:]]
    dialog = selected(sample_of(letters, tokenizer, "eos"))
    again = dialog.model_copy(update={"answer_token_ids": None})
    assert targets(tokenize_dialog(dialog, tokenizer)) == [*letters, tokenizer.eos_id]
    assert targets(tokenize_dialog(again, tokenizer)) != [*letters, tokenizer.eos_id]


def test_a_stop_string_is_learned_with_an_end_after_it(tokenizer: Tokenizer) -> None:
    """The text of such a response ends before the stop string, its tokens after it."""
    token_ids = tokenizer.encode("4 goats eat hay. hens")
    sample = sample_of(token_ids, tokenizer, "stop").model_copy(update={"response": "4 goats eat hay."})
    assert targets(tokenize_dialog(selected(sample), tokenizer)) == [*token_ids, tokenizer.eos_id]


def test_earlier_answers_are_learned_where_all_are(tokenizer: Tokenizer) -> None:
    last = selected(sample_of(tokenizer.encode("oats"), tokenizer, "eos", prompt=CHAT))
    earlier = targets(tokenize_dialog(Dialog(id="e", messages=CHAT[:2]), tokenizer))
    all_ = last.model_copy(update={"train_on": "all"})
    assert targets(tokenize_dialog(last, tokenizer)) == list(last.answer_token_ids or ())
    assert targets(tokenize_dialog(all_, tokenizer)) == [*earlier, *(last.answer_token_ids or ())]


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Its template ends answers with <|im_end|>, while eos is another token."""
    folder = tmp_path_factory.mktemp("chatml")
    return Tokenizer.load(
        write_model_folder(folder, byte_level_bpe(["the goat eats hay. "] * 9), template=CHATML)
    )


@pytest.mark.parametrize("reason", ["length", "cancelled", "stop"])
def test_a_cut_response_ends_with_the_templates_own_end_of_turn(
    chatml: Tokenizer, reason: FinishReason
) -> None:
    end = render_dialog((*ASK, Message(role="assistant", content="hay")), chatml).token_ids[-1]
    assert end != chatml.eos_id
    token_ids = chatml.encode("the goat eats")
    example = tokenize_dialog(selected(sample_of(token_ids, chatml, reason)), chatml)
    assert targets(example) == [*token_ids, end]


def test_a_sampled_end_is_not_doubled(chatml: Tokenizer) -> None:
    """Generation stops at the end of turn and at eos alike, and whichever was sampled is the end."""
    token_ids = chatml.encode("the goat eats hay.")
    for stop_id in chatml.stop_ids:
        sample = sample_of([*token_ids, stop_id], chatml, "length").model_copy(
            update={"finish_reason": "eos"}
        )
        assert targets(tokenize_dialog(selected(sample), chatml)) == [*token_ids, stop_id]


def test_tokens_that_do_not_say_the_text_are_refused(tokenizer: Tokenizer) -> None:
    """Another tokenizer sampled them, or a person corrected the text and left the tokens."""
    dialog = selected(sample_of(tokenizer.encode("hay"), tokenizer, "eos"))
    corrected = (*ASK, Message(role="assistant", content="oats"))
    with pytest.raises(DataError, match="dialog p, answer_token_ids: expected token ids that say 'oats'"):
        tokenize_dialog(dialog.model_copy(update={"messages": corrected}), tokenizer)
    foreign = dialog.model_copy(update={"answer_token_ids": (5, tokenizer.vocab_size)})
    with pytest.raises(DataError, match="outside its vocabulary"):
        tokenize_dialog(foreign, tokenizer)


def test_sampled_tokens_need_an_answer() -> None:
    with pytest.raises(ValidationError, match="an assistant message at the end"):
        Dialog(id="x", messages=ASK, answer_token_ids=(5, 2))


def test_every_dialog_that_rejection_sampling_selects_trains_what_was_scored(tmp_path: Path) -> None:
    """From the sampling model through both files to the rows of fine-tuning."""
    world = save_world(tmp_path / "world")
    tokenizer = Tokenizer.load(world["model"])
    asked = [(Message(role="user", content=f"hen {i}?"),) for i in range(8)]
    prompts = [Prompt(id=f"p{i}", messages=messages) for i, messages in enumerate(asked)]
    write_records(tmp_path / "prompts.jsonl", prompts)
    config = RejectionSamplingConfig(
        n_samples_per_prompt=3, temperatures=(1.0,), max_new_tokens=12, require_eos=False
    )
    sample_candidates(
        config,
        model=world["model"],
        prompts=tmp_path / "prompts.jsonl",
        reward_models={role: world[role] for role in ("helpfulness", "safety")},
        out=tmp_path / "samples",
        seed=1,
    )
    samples = {s.id: s for s in read_records(tmp_path / "samples" / "samples.jsonl", Sample)}
    dialogs = list(read_records(tmp_path / "samples" / "selected.jsonl", Dialog))
    examples = load_examples(
        [tmp_path / "samples"], tokenizer, seq_len=128, repeats=(), validation_fraction=0.0, seed=0
    )
    assert len(dialogs) == len(examples.train) == 8
    n_reencoded_otherwise = 0
    for dialog, example in zip(dialogs, examples.train, strict=True):
        chosen = samples[dialog.sample_id or ""]
        end = [] if chosen.finish_reason == "eos" else [tokenizer.eos_id]
        assert targets(example) == [*chosen.token_ids, *end]
        again = tokenize_dialog(dialog.model_copy(update={"answer_token_ids": None}), tokenizer)
        n_reencoded_otherwise += targets(again) != targets(example)
    assert n_reencoded_otherwise > 0, "the two ways must differ for this test to see it"
