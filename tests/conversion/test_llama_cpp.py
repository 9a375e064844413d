"""llama.cpp runs what we write: the same tokens in, the same greedy tokens out, and dialogs by the template inside.

Needs the extra `llama-cpp`, which compiles for minutes: `pip install puna[llama-cpp]`.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

import gguf_files
from puna.conversion.gguf_read import GGUFSource
from puna.conversion.gguf_write import GGUFFormat, write_gguf
from puna.conversion.source import TensorSource
from puna.core.records import Message
from puna.model.checkpoint import hf_name
from puna.model.config import PRESETS
from puna.model.transformer import Transformer
from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig, train_tokenizer

llama_cpp = pytest.importorskip("llama_cpp", reason="needs the extra llama-cpp")

TEXT = [
    "The puna is the high grassland where llamas are raised, 3,400 m above the sea.",
    "Which animal eats  12 apples? The llama. [INST] Äpfel und Öl [/INST]\n\tIt's cold; they've wool.",
] * 40
N_NEW = 48


def opened(path: Path) -> Any:
    return llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, verbose=False, logits_all=False)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("spm") / "tokenizer.model"
    train_tokenizer(TEXT, path, TokenizerConfig(vocab_size=400, character_coverage=0.98))
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def source(tokenizer: Tokenizer) -> TensorSource:
    """Random weights of the nano size, large enough that the greedy choice is never a near tie."""
    config = PRESETS["nano"].model_copy(update={"vocab_size": tokenizer.vocab_size, "max_seq_len": 256})
    model = Transformer(config, seed=7)
    values = {hf_name(name): weight.detach() for name, weight in model.named_parameters()}
    memory = gguf_files.MemorySource(config, values)
    memory.tokenizer = tokenizer
    return memory


def greedy(source: TensorSource, prompt: list[int], n_new: int) -> list[int]:
    """Our model's choice, token after token."""
    model = Transformer(source.config).requires_grad_(False).eval()
    for name, weight in model.named_parameters():
        weight.copy_(source.read(hf_name(name)))
    ids = list(prompt)
    for _ in range(n_new):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_the_same_ids_and_the_same_greedy_tokens(
    tmp_path: Path, source: TensorSource, tokenizer: Tokenizer
) -> None:
    write_gguf(source, tmp_path / "model.gguf", dtype="f32")
    llama = opened(tmp_path / "model.gguf")
    for text in [*TEXT[:2], "", "  a  b ", "日本 ½ \x00", "</s> <0x0A>"]:
        wanted = tokenizer.encode(text, bos=True)
        got = llama.tokenize(text.encode(), add_bos=True, special=False)
        assert got == (wanted if text else wanted[:1]), text
    prompt = tokenizer.encode(TEXT[0][:40], bos=True)
    theirs = []
    for token in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
        theirs.append(token)
        if len(theirs) == N_NEW:
            break
    assert theirs == greedy(source, prompt, N_NEW)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_every_format_is_loaded_with_the_same_meaning(
    tmp_path: Path, source: TensorSource, tokenizer: Tokenizer, dtype: GGUFFormat
) -> None:
    """The logits after a prompt, against our own reading of the same file."""
    write_gguf(source, tmp_path / "model.gguf", dtype=dtype)
    prompt = tokenizer.encode(TEXT[1][:60], bos=True)
    llama = opened(tmp_path / "model.gguf")
    llama.eval(prompt)
    theirs = torch.tensor(llama._ctx.get_logits()[: tokenizer.vocab_size])
    back = GGUFSource(tmp_path / "model.gguf")
    model = Transformer(back.config).requires_grad_(False).eval()
    for name, weight in model.named_parameters():
        weight.copy_(back.read(hf_name(name)))
    ours = model(torch.tensor([prompt]))[0, -1]
    assert (ours - theirs).abs().max() < 0.02 * ours.std() + 0.02  # they round activations to 8 or 16 bits


def test_dialogs_are_rendered_by_the_template_inside(
    tmp_path: Path, source: TensorSource, tokenizer: Tokenizer
) -> None:
    write_gguf(source, tmp_path / "model.gguf", dtype="f32")
    llama = opened(tmp_path / "model.gguf")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Which animal?"},
        {"role": "assistant", "content": "The llama."},
        {"role": "user", "content": "Why?"},
    ]
    render = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
        template=llama.metadata["tokenizer.chat_template"], bos_token="<s>", eos_token="</s>"
    )
    text = render(messages=messages).prompt
    ids = llama.tokenize(text.encode(), add_bos=False, special=True)
    dialog = [Message.model_validate(message) for message in messages]
    assert ids == tokenizer.chat.render_prompt(dialog)
    answer = llama.create_chat_completion(messages, max_tokens=4, temperature=0.0)
    assert answer["usage"]["prompt_tokens"] == len(ids)
