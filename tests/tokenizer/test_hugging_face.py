"""The folder that `Tokenizer.save` writes, seen through transformers."""

from pathlib import Path

import jinja2
import pytest
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer

from puna.core.errors import CheckpointError
from puna.core.records import Message
from puna.tokenizer import Tokenizer, render_dialog, render_prompt

CONTROLS = ("<s>", "</s>", "<unk>")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text(
    "ab 0\n[]<>/INSTSYé▁", max_size=60
)
ADVERSARIAL = ["", " ", "  ", " a", "a ", "\n\n\n", "\t x", "\0", "▁▁", "a▁b", "日本語", "🦙👩‍🌾", "e\u0301",
               "<0x0A>", "<<SYS>>\n", "[INST] [/INST]", "1234567890", "   12", "\r\n", "\u00a0", "\ufeff", "\u202e",
               "a" * 300, " " * 300, "ab" * 200, "-" * 77, "=" * 129, "\U0010ffff"]  # fmt: skip


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory):
    return load_with_transformers(tokenizer, tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def their_llama2(llama2: Tokenizer, tmp_path_factory: pytest.TempPathFactory):
    return load_with_transformers(llama2, tmp_path_factory.mktemp("saved"))


def load_with_transformers(tokenizer: Tokenizer, folder: Path):
    tokenizer.save(folder, max_seq_len=512)
    return transformers.AutoTokenizer.from_pretrained(folder)


def conversation(*contents: str, system: str | None = None) -> list[Message]:
    opening = [] if system is None else [Message(role="system", content=system)]
    roles = ("user", "assistant")
    return opening + [Message(role=roles[n % 2], content=text) for n, text in enumerate(contents)]


def their_ids(theirs, messages: list[Message]) -> list[int]:
    turns = [message.model_dump() for message in messages]
    return theirs.apply_chat_template(turns, return_dict=False)


def test_class_keeps_our_backend(theirs) -> None:
    """transformers' LlamaTokenizer would build its own and drop the normalizer."""
    assert type(theirs) is transformers.PreTrainedTokenizerFast
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id) == (1, 2, 0)
    assert theirs.pad_token is None
    assert theirs.model_max_length == 512
    assert len(theirs) == 420


def test_class_is_the_same_beside_a_llama_config(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers.LlamaConfig(vocab_size=420).save_pretrained(tmp_path)
    theirs = load_with_transformers(tokenizer, tmp_path)
    assert type(theirs) is transformers.PreTrainedTokenizerFast
    assert theirs("  two  spaces").input_ids == tokenizer.encode("  two  spaces", bos=True)


@settings(deadline=None)
@given(text=TEXT)
def test_ids_and_text_are_ours(tokenizer: Tokenizer, theirs, text: str) -> None:
    ids = tokenizer.encode(text, bos=True)
    assert theirs(text, split_special_tokens=True).input_ids == ids
    if not any(control in text for control in CONTROLS):
        assert theirs(text).input_ids == ids
    assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)


@pytest.mark.parametrize("text", ADVERSARIAL)
def test_adversarial_texts(tokenizer: Tokenizer, theirs, text: str) -> None:
    assert theirs(text).input_ids == tokenizer.encode(text, bos=True)


def test_typed_control_tokens_differ_there(tokenizer: Tokenizer, theirs) -> None:
    text = "a </s> b"
    assert 2 in theirs(text).input_ids
    assert 2 not in tokenizer.encode(text)


@settings(deadline=None)
@given(system=st.none() | TEXT, contents=st.lists(TEXT, min_size=1, max_size=5))
def test_chat_template_gives_our_ids_or_raises(
    tokenizer: Tokenizer,
    theirs,
    system: str | None,
    contents: list[str],
) -> None:
    messages = conversation(*contents, system=system)
    if any(control in message.content for control in CONTROLS for message in messages):
        with pytest.raises(jinja2.TemplateError):
            their_ids(theirs, messages)
    else:
        assert their_ids(theirs, messages) == list(render_dialog(messages, tokenizer).token_ids)


@pytest.mark.parametrize("control", CONTROLS)
def test_chat_template_lets_no_control_token_in(theirs, control: str) -> None:
    with pytest.raises(jinja2.TemplateError, match="control token"):
        their_ids(theirs, conversation("fine", f"x {control}"))


def test_chat_template_checks_roles(theirs) -> None:
    with pytest.raises(jinja2.TemplateError, match="alternate"):
        their_ids(theirs, conversation("a") * 2)


def test_files_are_deterministic(tokenizer: Tokenizer, tmp_path: Path) -> None:
    names = ["special_tokens_map.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
    for folder in ("one", "two"):
        tokenizer.save(tmp_path / folder, max_seq_len=64)
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def other_model(folder: Path, **options: object) -> Path:
    settings = {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    SentencePieceTrainer.train(
        sentence_iterator=iter(["the llama eats the \ufb01ne grass"] * 20),
        model_prefix=str(folder / "other"),
        vocab_size=290,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        **(settings | options),
    )
    return folder / "other.model"


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"normalization_rule_name": "nfkc"}, "a BPE model that changes letters"),
        ({"model_type": "unigram"}, "a unigram model"),
    ],
)
def test_what_cannot_be_converted_is_refused(tmp_path: Path, options: dict[str, object], kind: str) -> None:
    path = other_model(tmp_path, **options)
    assert Tokenizer.load(path).decode(Tokenizer.load(path).encode("the llama")) == "the llama"
    with pytest.raises(CheckpointError, match=f"{kind} that encodes differently"):
        Tokenizer.load(path).save(tmp_path / "saved", max_seq_len=64)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"add_dummy_prefix": False},
        {"bos_id": -1},
        {"split_by_whitespace": False},
        {"remove_extra_whitespaces": True},
        {"remove_extra_whitespaces": True, "add_dummy_prefix": False},
    ],
)
def test_other_models_are_converted_too(tmp_path: Path, options: dict[str, object]) -> None:
    ours = Tokenizer.load(other_model(tmp_path, **options))
    theirs = load_with_transformers(ours, tmp_path / "saved")
    for text in [*ADVERSARIAL, "the llama eats  the grass", " a\n b  ", "   "]:
        ids = ours.encode(text)
        assert theirs(text, add_special_tokens=False).input_ids == ids
        if not options.get("remove_extra_whitespaces"):
            assert ours.decode(ids) == text.replace("\u2581", " ")


@pytest.fixture(scope="module", params=[True, False], ids=["dummy prefix", "no prefix"])
def space_remover(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("spaces")
    options = {"remove_extra_whitespaces": True, "add_dummy_prefix": request.param}
    ours = Tokenizer.load(other_model(folder, **options))
    return ours, load_with_transformers(ours, folder / "saved")


@given(st.text("ab \u2581\n\t", max_size=30) | TEXT)
def test_extra_spaces_are_removed_alike(space_remover, text: str) -> None:
    ours, theirs = space_remover
    assume(not any(control in text for control in CONTROLS))
    assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text)


@pytest.mark.real
def test_llama_2_chat_template(llama2: Tokenizer, their_llama2) -> None:
    messages = conversation("  Hi\n", " Hello! 🦙 ", "2+2=?", "4", "日本 ?", system="Be brief. ")
    assert their_ids(their_llama2, messages) == render_prompt(messages, llama2)
