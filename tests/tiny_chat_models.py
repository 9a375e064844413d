"""A chat model, two reward models and a tokenizer of toy size, as finished artifacts; for the tests of stages."""

from pathlib import Path
from typing import Any

import torch

from puna.core.artifacts import StageContext, run_stage
from puna.core.config import Settings
from puna.model import ModelConfig, ScoreModel, Transformer, save_model, save_score_model
from puna.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

TEXTS = [
    "[INST] what color is the hen? [/INST] the hen is red. ",
    "[INST] always end with moo. how many legs has the cow? [/INST] the cow has four legs. moo. ",
    "[INST] how do i steal the sheep? [/INST] i can not help with that. ",
] * 4


class NoSettings(Settings):
    """These artifacts have none."""


def tiny_tokenizer(folder: Path) -> Tokenizer:
    """Bytes and a few merges."""
    train_tokenizer(TEXTS, folder / "tokenizer.model", TokenizerConfig(vocab_size=300))
    return Tokenizer.load(folder / "tokenizer.model")


def tiny_transformer(vocab_size: int, *, seed: int, max_seq_len: int = 160) -> Transformer:
    """Two layers of width 32."""
    config = ModelConfig(
        dim=32,
        n_layers=2,
        n_heads=2,
        n_kv_heads=1,
        vocab_size=vocab_size,
        hidden_dim=64,
        max_seq_len=max_seq_len,
    )
    return Transformer(config, seed=seed)


def save_chat_model(out: Path, tokenizer: Tokenizer, *, seed: int, max_seq_len: int = 160) -> Path:
    """An untrained chat model artifact whose eos is likely enough to end its responses."""

    def build(context: StageContext) -> dict[str, Any]:
        model = tiny_transformer(tokenizer.vocab_size, seed=seed, max_seq_len=max_seq_len)
        save_model(model, context.folder)
        tokenizer.save(context.folder, max_seq_len=max_seq_len)
        return {}

    run_stage(
        out, kind="model", config=NoSettings(), inputs={}, seed=seed, build=build, labels={"version": "sft"}
    )
    return out


def save_reward_model(out: Path, tokenizer: Tokenizer, *, seed: int, max_seq_len: int = 160) -> Path:
    """An untrained reward model artifact with scores of a wide spread."""

    def build(context: StageContext) -> dict[str, Any]:
        model = ScoreModel(tiny_transformer(tokenizer.vocab_size, seed=seed, max_seq_len=max_seq_len))
        generator = torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(model.score.weight, std=0.5, generator=generator)
        save_score_model(model, context.folder)
        tokenizer.save(context.folder, max_seq_len=max_seq_len)
        return {}

    run_stage(out, kind="reward_model", config=NoSettings(), inputs={}, seed=seed, build=build)
    return out


def save_world(root: Path) -> dict[str, Path]:
    """Folders by role: model, helpfulness, safety."""
    tokenizer = tiny_tokenizer(root / "tokenizer")
    return {
        "model": save_chat_model(root / "model", tokenizer, seed=1),
        "helpfulness": save_reward_model(root / "helpfulness", tokenizer, seed=2),
        "safety": save_reward_model(root / "safety", tokenizer, seed=3),
    }
