"""puna raises a Llama 2: the recipe of arXiv 2307.09288, from raw text to a measured chat model."""

__version__ = "0.1.0"
__all__ = ["__version__"]
