"""SentencePiece, our word cache and the converted tokenizer.json give the same ids over real and hard texts."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer as FastTokenizer

from puna.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from real_lines import adversarial_texts, real_lines

MODELS = {"llama2": "llama2/tokenizer.model", "mistral_v1": "mistral_v1/tokenizer.model.v1"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.text("ab ▁\n\t.7é", max_size=40)


class Three:
    """One SentencePiece model, encoded by three programs."""

    def __init__(self, model_file: Path, folder: Path) -> None:
        self.processor = SentencePieceProcessor(model_file=str(model_file))
        self.ours = Tokenizer.load(model_file)
        self.ours.save(folder, max_seq_len=64)
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        content["added_tokens"] = []  # elsewhere a typed "</s>" becomes the token, by that software's design
        self.converted = FastTokenizer.from_str(json.dumps(content))

    def n_differences(self, texts: Sequence[str]) -> int:
        """Texts for which one of the three differs, or that do not come back (U+2581 comes back as a space)."""
        count = 0
        for start in range(0, len(texts), 5000):
            part = list(texts[start : start + 5000])
            expected = self.processor.encode(part)
            ours = self.ours.encode_batch(part)
            theirs = [row.ids for row in self.converted.encode_batch_fast(part, add_special_tokens=False)]
            back = [self.ours.decode(ids) for ids in ours]
            rows = zip(part, expected, ours, theirs, back, strict=True)
            count += sum(not (e == o == t and text.replace("▁", " ") == b) for text, e, o, t, b in rows)
        return count


@pytest.fixture(scope="module")
def own(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Three:
    return Three(model_file, tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module", params=[*MODELS, "trained_here"])
def real(request: pytest.FixtureRequest, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Three:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "trained_here":
        path = folder / "own.model"
        train_tokenizer(real_lines(real_data, 20_000), path, TokenizerConfig(vocab_size=4000))
        return Three(path, folder)
    path = real_data / "tokenizers" / MODELS[request.param]
    if not path.is_file():
        pytest.skip(f"no {path}")
    return Three(path, folder)


@given(text=TEXT)
def test_any_text(own: Three, text: str) -> None:
    assert own.ours.encode(text) == own.processor.encode(text)
    assert own.n_differences([text]) == 0


def test_adversarial_texts(own: Three) -> None:
    assert own.n_differences(adversarial_texts()) == 0


def test_every_code_point_comes_back_but_one(own: Three) -> None:
    """Alone and between letters (of the higher planes, samples); U+2581 is SentencePiece's own sign for a space."""
    code_points = [0x2581, 0, 0x20, *range(0x3000), *range(0x3000, 0xD800, 97), *range(0xE000, 0x110000, 997)]
    characters = [chr(code) for code in code_points]
    for texts in (characters, [f"a{character}b" for character in characters]):
        back = [own.ours.decode(ids) for ids in own.ours.encode_batch(texts)]
        assert {text for text, again in zip(texts, back, strict=True) if text != again} <= {"▁", "a▁b"}
        assert own.ours.decode(own.ours.encode("▁")) == " "


@pytest.mark.real
def test_adversarial_texts_of_released_models(real: Three) -> None:
    assert real.n_differences(adversarial_texts()) == 0


@pytest.mark.real
def test_pieces_in_any_order(real: Three) -> None:
    source = random.Random(0)
    ids = range(259, real.ours.vocab_size)
    texts = ["".join(real.ours.pieces(source.choices(ids, k=8))).replace("▁", " ") for _ in range(1500)]
    units = [" ", "a", "-", "ab", "aab", "  a", "in", "\n", "th", "0"]
    assert real.n_differences(texts + [unit * count for unit in units for count in range(1, 80, 3)]) == 0


@pytest.mark.real
def test_5_000_real_lines(real: Three, real_data: Path) -> None:
    lines = real_lines(real_data, 5000)
    assert len(set(lines)) > 2500
    assert real.n_differences(lines) == 0


@pytest.mark.slow
@pytest.mark.real
def test_100_000_real_lines(real: Three, real_data: Path) -> None:
    lines = real_lines(real_data, 100_000)
    assert len(lines) == 100_000
    assert real.n_differences(lines) == 0
