"""Bytes that a training step keeps for its backward pass, from the sizes alone; closed forms that the tests count.

The residual stream is float32, products are made in the compute dtype ("low"). Blocks are the plain ones or those of
`training/speed/handwritten/`. Compiled blocks keep less: the compiler makes again what is cheap.
"""

from dataclasses import dataclass

from puna.core.machine import Checkpointing
from puna.model.config import ModelConfig
from puna.training.speed.handwritten.causal_attention import KEPT_MAX_SEQ, QUERY_BLOCK

__all__ = [
    "StepShape",
    "block_bytes",
    "block_workspace_bytes",
    "kept_block_bytes",
    "loss_workspace_bytes",
    "weight_copy_bytes",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """A micro-batch on one process, and how its blocks are computed."""

    batch: int
    """Rows."""
    seq: int
    """Tokens of a row."""
    low: int = 2
    """Bytes of a number in products: 2 under bfloat16 autocast, 4 in float32."""
    is_by_hand: bool = False
    """Blocks of `training/speed/handwritten/`, not the plain ones."""
    is_fused: bool = True
    """Attention by a fused kernel, which keeps no probabilities; False is the products of a CPU."""
    tp: int = 1
    """Tensor-parallel processes, which share heads and inner widths but not the residual stream."""

    @property
    def n_tokens(self) -> int:
        """Positions of the micro-batch."""
        return self.batch * self.seq


def block_bytes(config: ModelConfig, shape: StepShape) -> int:
    """Kept by one block, without the copies of its weights."""
    per_token = _by_hand_per_token(config, shape) if shape.is_by_hand else _plain_per_token(config, shape)
    return shape.n_tokens * per_token + _attention_bytes(config, shape)


def kept_block_bytes(config: ModelConfig, shape: StepShape, checkpointing: Checkpointing) -> int:
    """Kept by one block from its forward to its backward pass."""
    entry = shape.n_tokens * 4 * config.dim
    if checkpointing == "full":
        return entry
    if checkpointing == "selective":
        return entry + _products_bytes(config, shape)
    return block_bytes(config, shape)


def weight_copy_bytes(config: ModelConfig, shape: StepShape) -> int:
    """One block's matrices in the compute dtype, which autocast or the blocks by hand make of float32 weights."""
    if shape.low == 4:
        return 0
    matrices = 2 * config.dim * (config.q_dim + config.kv_dim) + 3 * config.dim * config.hidden_dim
    return shape.low * matrices // shape.tp


def block_workspace_bytes(config: ModelConfig, shape: StepShape) -> int:
    """What comes and goes while a block runs backwards: most in its feed-forward half."""
    dim, hidden, low = config.dim, config.hidden_dim // shape.tp, shape.low
    of_matrix = 4 * dim * hidden
    if not shape.is_by_hand:
        return shape.n_tokens * (4 * 4 * dim + low * dim + 4 * low * hidden) + 2 * of_matrix
    through_norm = shape.n_tokens * ((4 + 2 * low + 12) * dim + 4 * low * hidden) + of_matrix
    of_weights = shape.n_tokens * ((8 + 2 * low) * dim + 4 * low * hidden) + 5 * of_matrix
    return max(through_norm, of_weights)


def loss_workspace_bytes(config: ModelConfig, shape: StepShape, *, rows: int) -> int:
    """Logits of one chunk of positions in float32, their gradient in the compute dtype, and the matrix's part of it."""
    low = shape.low
    n_logits = min(rows, shape.n_tokens) * config.vocab_size // shape.tp
    return (4 + (low if low < 4 else 0)) * n_logits + low * config.vocab_size * config.dim // shape.tp


def _by_hand_per_token(config: ModelConfig, shape: StepShape) -> int:
    low, dim = shape.low, config.dim
    q, kv, hidden = (width // shape.tp for width in (config.q_dim, config.kv_dim, config.hidden_dim))
    units = 2 * (low * dim + 4)  # of both norms, and what they were divided by
    heads = low * (q + 2 * kv)  # queries, keys, values
    written = low * q  # the heads' output, which wo reads
    return units + heads + written + 2 * low * hidden  # gate and value


def _plain_per_token(config: ModelConfig, shape: StepShape) -> int:
    low, dim = shape.low, config.dim
    q, kv, hidden = (width // shape.tp for width in (config.q_dim, config.kv_dim, config.hidden_dim))
    norms = 2 * (4 * dim + 4 + 4 * dim)  # the stream, what it is divided by, the quotient
    read = 2 * 4 * dim if low == 4 else 5 * low * dim  # autocast casts once a matrix: wq, wk, wv, w1, w3
    heads = low * (q + 2 * kv) + low * q
    return norms + read + heads + 4 * low * hidden  # w1 x, its silu, w3 x, their product


def _products_bytes(config: ModelConfig, shape: StepShape) -> int:
    """What wq, wk, wv, wo, w1, w2 and w3 give, and a fused kernel's output."""
    q, kv, hidden = (width // shape.tp for width in (config.q_dim, config.kv_dim, config.hidden_dim))
    per_token = shape.low * (q + 2 * kv + 2 * config.dim + 2 * hidden)
    if shape.is_fused:
        per_token += shape.low * q + 4 * config.n_heads // shape.tp
    return shape.n_tokens * per_token


def _attention_bytes(config: ModelConfig, shape: StepShape) -> int:
    """What the kernel keeps beside queries, keys, values and output."""
    heads = config.n_heads // shape.tp
    if shape.is_fused:
        return 4 * heads * shape.n_tokens  # log of the softmax's sum
    if not shape.is_by_hand:
        return 4 * heads * shape.n_tokens * shape.seq  # float32 probabilities of all pairs
    if shape.seq > KEPT_MAX_SEQ:
        return 0
    lasts = [min(first + QUERY_BLOCK, shape.seq) for first in range(0, shape.seq, QUERY_BLOCK)]
    pairs = sum((last - index * QUERY_BLOCK) * last for index, last in enumerate(lasts))
    copies_queries = config.n_heads > config.n_kv_heads and shape.seq > QUERY_BLOCK
    queries = shape.n_tokens * config.q_dim // shape.tp if copies_queries else 0
    return shape.low * (heads * shape.batch * pairs + queries)  # probabilities, without those of later blocks
