"""The Llama 2 transformer, its scalar head, and its Hugging Face folders."""

from puna.model.accounting import kv_cache_bytes, n_parameters, training_flops_per_token, weight_bytes
from puna.model.checkpoint import load_model, load_score_model, save_model, save_score_model
from puna.model.config import PRESETS, ModelConfig, preset
from puna.model.heads import ScoreModel
from puna.model.kv_cache import KVCache
from puna.model.transformer import Transformer

__all__ = [
    "PRESETS",
    "KVCache",
    "ModelConfig",
    "ScoreModel",
    "Transformer",
    "kv_cache_bytes",
    "load_model",
    "load_score_model",
    "n_parameters",
    "preset",
    "save_model",
    "save_score_model",
    "training_flops_per_token",
    "weight_bytes",
]
