"""llama.cpp's names of the tensors of a Llama, from the gguf package."""

from gguf import MODEL_ARCH, get_tensor_name_map

from puna.conversion.source import shapes
from puna.model.config import ModelConfig

__all__ = ["gguf_names"]


def gguf_names(config: ModelConfig) -> dict[str, str]:
    """llama.cpp's name of every tensor, by Hugging Face's, in the order of `shapes`."""
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.n_layers)
    return {name: names.get_name(name, try_suffixes=(".weight",)) or name for name in shapes(config)}
