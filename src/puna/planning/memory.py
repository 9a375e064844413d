"""Memory of one GPU during a training step, by part, at the moment when it is highest.

Activations are there before the first gradient, gradients after the last activation: adding up all parts plans too
much. So the step is looked at in the moments that can be the highest: at the loss, in the backward pass of the head,
of the last and of the first block, of the embeddings. Between the two blocks memory changes evenly.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from puna.model.accounting import n_parameters
from puna.model.config import ModelConfig
from puna.planning.activation_memory import (
    Checkpointing,
    StepShape,
    block_bytes,
    block_workspace_bytes,
    kept_block_bytes,
    loss_workspace_bytes,
    weight_copy_bytes,
)
from puna.planning.layouts import PlannedLayout

__all__ = ["PARTS", "MemoryPlan", "Moment", "StepPlan", "allowance_bytes", "memory_plan"]

Moment = Literal[
    "loss", "head backward", "last block backward", "first block backward", "embeddings backward"
]

PARTS = {
    "weights": "float32 weights",
    "weight_copies": "weights in the compute dtype",
    "gradients": "float32 gradients",
    "moments": "AdamW's two moments, float32",
    "activations": "kept for the backward pass",
    "loss": "gradients of the head, logits of one chunk",
    "workspace": "of the block that is running backwards",
    "unsharded": "gathered blocks and head (FSDP)",
    "communication": "buffers of gathers and reductions",
    "allowance": "driver, libraries, fragmentation",
}
"""The parts of a plan, in order."""

GIB = 2**30
CONTEXT_BYTES = GIB
"""Driver context and libraries of a GPU. Our choice, on the high side of what nvidia-smi shows for an idle process."""
COLLECTIVES_BYTES = GIB
"""Buffers of the communication library where there are several GPUs. Our choice."""
FRAGMENTATION = 0.05
"""Share of what comes and goes that the allocator cannot use again. Our choice."""

_STATIC = {"weights", "moments", "gradients"}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """What decides a step's memory beside model and GPUs."""

    shape: StepShape
    checkpointing: Checkpointing = "none"
    n_micro_batches: int = 1
    """Forward and backward passes of one process before the update."""
    reduces_always: bool = False
    """Reduce gradients after each micro-batch: several GPUs then never hold a whole model's gradients."""
    logits_rows: int = 2048
    """Positions whose logits exist at once."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The highest moment and its parts."""

    moment: Moment
    parts: dict[str, int]

    @property
    def n_bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


def memory_plan(config: ModelConfig, layout: PlannedLayout, step: StepPlan) -> MemoryPlan:
    """Bytes of tensors on one GPU at the highest moment; the allowance is the caller's to add."""
    step = replace(step, shape=replace(step.shape, tp=layout.tp))
    moments = [_at(config, layout, step, moment) for moment in get_args(Moment)]
    return max(moments, key=lambda plan: plan.n_bytes)


def allowance_bytes(plan: MemoryPlan, *, n_gpus: int) -> int:
    """What tensors do not take but the GPU needs."""
    changing = sum(value for part, value in plan.parts.items() if part not in _STATIC)
    return CONTEXT_BYTES + (COLLECTIVES_BYTES if n_gpus > 1 else 0) + int(FRAGMENTATION * changing)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Parameters on one tensor-parallel GPU, before FSDP cuts them."""

    block: int
    table: int
    """The embeddings, or the head."""
    total: int

    @classmethod
    def of(cls, config: ModelConfig, tp: int) -> "_Sizes":
        matrices = 2 * config.dim * (config.q_dim + config.kv_dim) + 3 * config.dim * config.hidden_dim
        vectors = config.n_layers * 2 * config.dim + config.dim
        whole = n_parameters(config)
        return cls(
            block=matrices // tp + 2 * config.dim,
            table=config.vocab_size * config.dim // tp,
            total=(whole - vectors) // tp + vectors,
        )


def _at(config: ModelConfig, layout: PlannedLayout, step: StepPlan, moment: Moment) -> MemoryPlan:
    sizes = _Sizes.of(config, layout.tp)
    parts = {
        "weights": 4 * sizes.total // layout.dp_shard,
        "weight_copies": _weight_copies(config, layout, step, moment),
        "gradients": _gradients(config, layout, step, moment, sizes),
        "moments": 8 * sizes.total // layout.dp_shard,
        "activations": _activations(config, step, moment),
        "loss": _loss(config, layout, step, moment, sizes),
        "workspace": _workspace(config, step, moment, sizes),
        "unsharded": _unsharded(layout, step, moment, sizes),
        "communication": _communication(layout, step, moment, sizes),
    }
    return MemoryPlan(moment, parts)


def _n_kept_blocks(config: ModelConfig, moment: Moment) -> int:
    if moment == "embeddings backward":
        return 0
    return 1 if moment == "first block backward" else config.n_layers


def _weight_copies(config: ModelConfig, layout: PlannedLayout, step: StepPlan, moment: Moment) -> int:
    """On one GPU every block keeps the copies that its products used; FSDP gathers the compute dtype instead."""
    if layout.n_shares > 1:
        return 0
    one = weight_copy_bytes(config, step.shape)
    if step.checkpointing == "none":
        return one * _n_kept_blocks(config, moment)
    autocast_keeps = moment == "loss" and not step.shape.is_by_hand
    return one * (config.n_layers if autocast_keeps else "block" in moment)


def _gradients(
    config: ModelConfig, layout: PlannedLayout, step: StepPlan, moment: Moment, sizes: _Sizes
) -> int:
    """Whole ones wait for the last micro-batch's reduction, unless every micro-batch reduces."""
    if step.n_micro_batches > 1:
        is_whole = layout.n_shares > 1 and not step.reduces_always
        return 4 * sizes.total // (1 if is_whole else layout.dp_shard)
    has_head = 0 if config.tie_embeddings and moment != "last block backward" else sizes.table
    made = {
        "loss": 0,
        "head backward": 0,
        "last block backward": has_head,
        "first block backward": sizes.total - sizes.block - (0 if config.tie_embeddings else sizes.table),
        "embeddings backward": sizes.total,
    }
    return 4 * made[moment] // layout.dp_shard


def _activations(config: ModelConfig, step: StepPlan, moment: Moment) -> int:
    n_blocks = _n_kept_blocks(config, moment)
    kept = n_blocks * kept_block_bytes(config, step.shape, step.checkpointing)
    if "block" in moment and step.checkpointing != "none":
        again = (
            kept_block_bytes(config, step.shape, step.checkpointing) - step.shape.n_tokens * 4 * config.dim
        )
        kept += max(0, block_bytes(config, step.shape) - again)
    stream = 4 * step.shape.n_tokens * config.dim
    norm = step.shape.n_tokens * (8 * config.dim + 4)
    return kept + {"loss": norm, "head backward": norm}.get(moment, stream)


def _workspace(config: ModelConfig, step: StepPlan, moment: Moment, sizes: _Sizes) -> int:
    """The embeddings' gradient is made whole and then added to what is there already."""
    if "block" in moment:
        return block_workspace_bytes(config, step.shape)
    adds = moment == "embeddings backward" and (step.n_micro_batches > 1 or config.tie_embeddings)
    return 4 * sizes.table if adds else 0


def _loss(config: ModelConfig, layout: PlannedLayout, step: StepPlan, moment: Moment, sizes: _Sizes) -> int:
    """The loss makes its gradients forwards; backwards they are scaled into new tensors."""
    shape, is_shared = step.shape, layout.n_shares > 1
    of_table = (shape.low if is_shared else 4) * sizes.table
    stream = shape.n_tokens * config.dim
    if moment == "loss":
        columns = shape.low * sizes.table if shape.low < 4 and not is_shared else 0
        narrow = shape.low * stream if shape.low < 4 else 0
        gradients = shape.low * stream + of_table
        chunk = loss_workspace_bytes(config, shape, rows=step.logits_rows)
        return 4 * stream + narrow + columns + gradients + chunk
    if moment == "head backward":
        return (shape.low + (8 if shape.low < 4 else 4)) * stream + 2 * of_table
    return 0


def _unsharded(layout: PlannedLayout, step: StepPlan, moment: Moment, sizes: _Sizes) -> int:
    """The head stays gathered; of the blocks, the one that runs and the one that comes next."""
    if layout.n_shares == 1:
        return 0
    low = step.shape.low
    blocks = {"loss": 1, "head backward": 1, "last block backward": 2, "first block backward": 1}.get(
        moment, 0
    )
    embeddings = 4 * sizes.table if moment in ("first block backward", "embeddings backward") else 0
    return low * (blocks * sizes.block + sizes.table) + embeddings


def _communication(layout: PlannedLayout, step: StepPlan, moment: Moment, sizes: _Sizes) -> int:
    """A gathered block arrives in one buffer; its gradient leaves in the compute dtype and in float32."""
    if layout.n_shares == 1:
        return 0
    stream = 2 * step.shape.low * step.shape.n_tokens if layout.tp > 1 else 0
    if moment == "head backward":
        return stream + 4 * sizes.table
    if moment == "embeddings backward":
        return stream + 8 * sizes.table
    return stream + ((2 * step.shape.low + 4) * sizes.block if "block" in moment else 0)
