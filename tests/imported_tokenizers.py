"""Tokenizers of other families as model folders, small and trained here, and chat templates in their styles."""

import json
from collections.abc import Sequence
from pathlib import Path

from sentencepiece import SentencePieceTrainer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CONTROLS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>",
            "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|endoftext|>"]  # fmt: skip
CHATML = """{% for m in messages %}{% if loop.first and m.role != 'system' %}
<|im_start|>system
You help.<|im_end|>
{% endif %}
{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA_3 = (
    "{% set loop_messages = messages %}{{ bos_token }}{% for turn in loop_messages %}"
    "{{ '<|start_header_id|>' + turn['role'] + '<|end_header_id|>\\n\\n' + turn['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
LLAMA_2 = """{%- if messages[0]['role'] == 'system' %}
    {%- set opening = '<<SYS>>\\n' ~ messages[0]['content'] ~ '\\n<</SYS>>\\n\\n' %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set opening = '' %}
    {%- set rest = messages %}
{%- endif %}
{%- for turn in rest %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('The turns do not alternate.') }}
    {%- endif %}
    {%- if turn['role'] == 'user' %}
        {{- bos_token ~ '[INST] ' ~ ((opening if loop.index0 == 0 else '') ~ turn['content']).strip() ~ ' [/INST]' }}
    {%- else %}
        {{- ' ' ~ turn['content'].strip() ~ ' ' ~ eos_token }}
    {%- endif %}
{%- endfor %}
"""
ZEPHYR = """{% for turn in messages %}
{% if turn.role in ['user', 'system', 'assistant'] %}
{{ '<|' + turn.role + '|>\\n' + turn.content + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""
MISTRAL = (
    "{{ bos_token }}{% for turn in messages %}{% if turn['role'] == 'user' %}"
    "{{ '[INST] ' + turn['content'] + ' [/INST]' }}{% elif turn['role'] == 'assistant' %}"
    "{{ turn['content'] + eos_token }}{% else %}{{ raise_exception('Only users and assistants talk here.') }}"
    "{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "llama_3": LLAMA_3, "llama_2": LLAMA_2, "zephyr": ZEPHYR, "mistral": MISTRAL}


def byte_level_bpe(texts: Sequence[str]) -> Tokenizer:
    """As GPT-2 and its heirs have it: bytes, single digits, line ends apart from words."""
    found = Tokenizer(models.BPE())
    words = Regex(r"\s*[\r\n]+| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=CONTROLS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found.train_from_iterator(texts, trainer)
    return found


def metaspace_unigram(texts: Sequence[str]) -> Tokenizer:
    """As T5 and XLM-R have it, with byte fallback and NFKC; its vocabulary holds the control tokens."""
    found = Tokenizer(models.Unigram())
    found.normalizer = normalizers.NFKC()
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    found.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=CONTROLS, unk_token="<unk>", show_progress=False
    )
    found.train_from_iterator(texts, trainer)
    return found


def write_model_folder(
    folder: Path, tokenizer: Tokenizer, *, template: str | None = None, **config: object
) -> Path:
    """tokenizer.json with tokenizer_config.json beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROLS])
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
               "unk_token": "<unk>", "clean_up_tokenization_spaces": False, **config}  # fmt: skip
    if template is not None:
        content["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def put_unigram_model(folder: Path) -> None:
    """In place of the folder's tokenizer a SentencePiece one of which no exact tokenizer.json can be made."""
    (folder / "tokenizer.json").unlink()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["the llama eats the grass"] * 20),
        model_prefix=str(folder / "tokenizer"),
        model_type="unigram",
        vocab_size=290,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
