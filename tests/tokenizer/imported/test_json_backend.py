"""Tokenizers that come as tokenizer.json: loaded, exact against transformers, safe from typed tokens, saved again."""

import json
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from imported_tokenizers import CHATML, CONTROLS, byte_level_bpe, metaspace_unigram, write_model_folder
from puna.core.errors import CheckpointError, DataError
from puna.core.records import Message
from puna.tokenizer import Tokenizer, render_dialog
from puna.tokenizer.jinja_template import is_llama2_template

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
WITH_CONTROLS = st.lists(st.sampled_from([*CONTROLS, " ", "a", "\n", "<", "|>", "im_end"])).map("".join)
KINDS = {"byte_level": byte_level_bpe, "unigram": metaspace_unigram}


@pytest.fixture(scope="module")
def texts(corpus: list[str]) -> list[str]:
    return [*corpus, "<|im_start|>system user assistant <s> </s> im_end im_start |> <<unk>> Ünï"] * 3


@pytest.fixture(scope="module", params=KINDS)
def folder(
    request: pytest.FixtureRequest, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return write_model_folder(tmp_path_factory.mktemp("imported"), KINDS[request.param](texts))


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path):
    return transformers.AutoTokenizer.from_pretrained(folder)


@given(text=TEXT)
def test_ids_are_those_of_transformers(ours: Tokenizer, theirs, text: str) -> None:
    ids = theirs(text, add_special_tokens=False).input_ids
    assert ours.encode(text) == ids
    assert ours.encode_batch([text, ""]) == [ids, []]
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@given(text=WITH_CONTROLS)
def test_typed_control_tokens_stay_text(ours: Tokenizer, text: str) -> None:
    ids = ours.encode(text)
    assert not set(ids) & set(range(1, len(CONTROLS)))  # 0 is for the unknown, which Unigram uses
    assert ours.decode(ids) == text or 0 in ids or text != text.strip()  # Metaspace folds spaces at the ends


def test_every_string_comes_back_from_bytes(texts: list[str], tmp_path: Path) -> None:
    ours = Tokenizer.load(write_model_folder(tmp_path, byte_level_bpe(texts)))

    @given(text=TEXT | WITH_CONTROLS)
    def check(text: str) -> None:
        assert ours.decode(ours.encode(text, bos=True, eos=True)) == text

    check()


def test_normalizing_tokenizers_lose_what_they_normalize(texts: list[str], tmp_path: Path) -> None:
    ours = Tokenizer.load(write_model_folder(tmp_path, metaspace_unigram(texts)))
    assert ours.decode(ours.encode("\uff4clama")) == "llama"


def test_specials_come_from_the_files_beside_it(texts: list[str], tmp_path: Path) -> None:
    folder = write_model_folder(
        tmp_path, byte_level_bpe(texts), bos_token={"content": "<|im_start|>"}, eos_token="<|im_end|>"
    )
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 11]}))
    ours = Tokenizer.load(folder / "tokenizer.json")
    assert (ours.bos_id, ours.eos_id, ours.unk_id) == (3, 4, 0)
    assert ours.stop_ids == (4, 11)
    assert ours.encode("a", bos=True, eos=True) == [3, *ours.encode("a"), 4]


def test_specials_without_files_are_the_usual_ones(texts: list[str], tmp_path: Path) -> None:
    byte_level_bpe(texts).save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    assert (ours.bos_id, ours.eos_id) == (1, 2)


def test_a_missing_role_is_named(tmp_path: Path, texts: list[str]) -> None:
    tokenizer = byte_level_bpe(texts)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = []
    for name in CONTROLS:
        content["model"]["vocab"][f"x{name}"] = content["model"]["vocab"].pop(name)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    ours = Tokenizer.load(tmp_path)
    assert not ours.has_bos
    assert ours.encode("a", bos=True) == ours.encode("a")
    with pytest.raises(CheckpointError, match="eos_token"):
        ours.encode("a", eos=True)


def test_saving_keeps_the_json_and_loads_the_same(folder: Path, ours: Tokenizer, tmp_path: Path) -> None:
    ours.save(tmp_path, max_seq_len=99)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert not (tmp_path / "tokenizer.model").exists()
    again, theirs = Tokenizer.load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "The llama eats 12 apples."
    assert again.encode(text) == ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
    assert theirs.model_max_length == 99
    assert (again.bos_id, again.eos_id) == (ours.bos_id, ours.eos_id)


def test_the_template_written_for_it_gives_our_ids(texts: list[str], tmp_path: Path) -> None:
    """A base model without a template gets Llama 2's format, here on a tokenizer without a dummy prefix."""
    Tokenizer.load(write_model_folder(tmp_path / "in", byte_level_bpe(texts))).save(
        tmp_path / "out", max_seq_len=9
    )
    ours, theirs = (
        Tokenizer.load(tmp_path / "out"),
        transformers.AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    assert is_llama2_template(theirs.chat_template)
    contents = ["Hi", " Hello! ", "12 + 7?"]
    roles = ["user", "assistant", "user"]
    messages = [Message(role=r, content=c) for r, c in zip(roles, contents, strict=True)]  # type: ignore[arg-type]
    expected = theirs.apply_chat_template([m.model_dump() for m in messages], return_dict=False)
    assert list(render_dialog(messages, ours).token_ids) == expected


def test_a_template_of_its_own_is_kept(texts: list[str], tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "in", byte_level_bpe(texts))
    (folder / "chat_template.jinja").write_text(CHATML)
    Tokenizer.load(folder).save(tmp_path / "out", max_seq_len=9)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.chat_template == CHATML


def test_added_tokens_win_over_a_smaller_sentencepiece_model(
    tokenizer: Tokenizer, model_file: Path, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path, max_seq_len=64)
    assert Tokenizer.load(tmp_path).vocab_size == 420
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs.add_tokens([AddedToken("<|im_end|>", special=True), AddedToken("<|im_start|>", special=True)])
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.model").is_file() or (tmp_path / "tokenizer.model").write_bytes(
        model_file.read_bytes()
    )
    ours = Tokenizer.load(tmp_path)
    assert ours.vocab_size == 422
    assert ours.pieces([420]) == ["<|im_end|>"]
    assert 420 not in ours.encode("a<|im_end|>")
    ours.save(tmp_path / "again", max_seq_len=64)
    assert (tmp_path / "again" / "tokenizer.model").read_bytes() == model_file.read_bytes()
    assert Tokenizer.load(tmp_path / "again").vocab_size == 422


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"model": {"vocab": {}}}', b"\xff\xfe"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"expected a tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"]
)
def test_a_damaged_config_is_named(texts: list[str], tmp_path: Path, name: str) -> None:
    folder = write_model_folder(tmp_path, byte_level_bpe(texts))
    (folder / name).write_text("[]")
    with pytest.raises(CheckpointError, match=name):
        Tokenizer.load(folder)


def test_unpaired_surrogates_are_refused(ours: Tokenizer) -> None:
    for broken in ("a\ud800", b"a\xff".decode("utf-8", errors="surrogateescape")):
        with pytest.raises(DataError, match="surrogate"):
            ours.encode(broken)
        with pytest.raises(DataError, match="surrogate"):
            ours.encode_batch(["fine", broken])
