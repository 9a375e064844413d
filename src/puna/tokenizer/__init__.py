"""Text to token ids and back, and dialogs to token ids with their loss mask (Llama 2 §2.2, §3.1)."""

from puna.tokenizer.chat_format import prompt_text
from puna.tokenizer.dialog_tokens import RenderedDialog, TurnSpan, loss_mask, render_dialog, render_prompt
from puna.tokenizer.preview import preview
from puna.tokenizer.tokenizer import Tokenizer
from puna.tokenizer.train import TokenizerConfig, build_tokenizer, train_tokenizer

__all__ = [
    "RenderedDialog",
    "Tokenizer",
    "TokenizerConfig",
    "TurnSpan",
    "build_tokenizer",
    "loss_mask",
    "preview",
    "prompt_text",
    "render_dialog",
    "render_prompt",
    "train_tokenizer",
]
