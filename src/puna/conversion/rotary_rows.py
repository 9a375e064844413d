"""The order of rows in wq and wk: Hugging Face's and puna's, or Meta's, llama2.c's and llama.cpp's.

Source: the rotary code of Meta's model.py. Meta turns neighbouring rows of a head together, Hugging Face row i with
row i + head_dim / 2: the same rotation after a permutation of the rows.
"""

from jaxtyping import Shaped
from torch import Tensor

__all__ = ["interleave", "is_rotated", "separate"]


def is_rotated(name: str) -> bool:
    """Whether rotary embedding meets the rows of this tensor, by Hugging Face's name."""
    return name.endswith((".q_proj.weight", ".k_proj.weight"))


def interleave(rows: Shaped[Tensor, "row dim"], *, head_dim: int) -> Shaped[Tensor, "row dim"]:
    """Whole heads from Hugging Face's order of rows to Meta's: row i and row i + head_dim / 2 become neighbours."""
    heads = rows.view(-1, 2, head_dim // 2, rows.shape[1])
    return heads.transpose(1, 2).reshape(rows.shape)


def separate(rows: Shaped[Tensor, "row dim"], *, head_dim: int) -> Shaped[Tensor, "row dim"]:
    """Whole heads from Meta's order of rows to Hugging Face's; undoes `interleave`."""
    heads = rows.view(-1, head_dim // 2, 2, rows.shape[1])
    return heads.transpose(1, 2).reshape(rows.shape)
