"""One plan: every layout and checkpointing choice with its memory, the one to take, and what the training will cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from puna.core.accelerators import ACCELERATORS, Accelerator, find_accelerator
from puna.core.energy import energy_mwh, tco2eq
from puna.model.accounting import n_parameters
from puna.planning.activation_memory import Checkpointing, StepShape
from puna.planning.layouts import PlannedLayout, layouts_for
from puna.planning.memory import MemoryPlan, StepPlan, allowance_bytes, memory_plan
from puna.planning.request import PlanRequest
from puna.planning.throughput import Throughput, throughput
from puna.training.linear_cross_entropy import CHUNK_ROWS_ELSEWHERE

__all__ = ["CHECKPOINTING", "Choice", "Plan", "make_plan"]

CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "selective", "full")
"""The least recomputation first."""

MAX_GPUS = 2**16
"""Where the search for a number of GPUs ends."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One layout with one checkpointing choice."""

    layout: PlannedLayout
    checkpointing: Checkpointing
    reduces_always: bool
    """Gradients are reduced after every micro-batch, because whole ones would not fit."""
    n_micro_batches: int
    memory: MemoryPlan
    fits: bool
    shares_batch: bool
    """The batch has a micro-batch for every data-parallel GPU."""

    @property
    def is_possible(self) -> bool:
        """It can be run."""
        return self.fits and self.shares_batch


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to a request."""

    request: PlanRequest
    gpu: Accelerator
    n_gpus: int
    parameters: int
    choices: tuple[Choice, ...]
    throughput: Throughput
    usd: float
    energy_mwh: float
    tco2eq: float
    would_fit: tuple[str, ...]
    """What to change where nothing fits."""

    @property
    def best(self) -> Choice:
        """The first that can be run; otherwise the one that comes nearest to fitting."""
        possible = [choice for choice in self.choices if choice.is_possible]
        if possible:
            return min(possible, key=_cost)
        sharing = [choice for choice in self.choices if choice.shares_batch]
        return min(sharing or self.choices, key=lambda choice: choice.memory.n_bytes)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        best, speed, request = self.best, self.throughput, self.request
        return {
            "parameters": self.parameters,
            "flops": speed.flops,
            "gpu_hours": speed.gpu_hours,
            "energy_mwh": self.energy_mwh,
            "tco2eq": self.tco2eq,
            "memory_bytes": best.memory.n_bytes,
            "fits": best.is_possible,
            "would_fit": list(self.would_fit),
            "gpu": self.gpu.name,
            "gpu_memory_bytes": self.gpu.memory_bytes,
            "gpus": self.n_gpus,
            "tokens": request.n_tokens,
            "seq_len": request.row_tokens,
            "batch_tokens": request.batch_rows * request.row_tokens,
            "micro_batch_size": request.micro_batch_size,
            "flops_per_token": speed.flops_per_token,
            "mfu": speed.mfu,
            "tokens_per_second": speed.tokens_per_second,
            "tokens_per_second_per_gpu": speed.tokens_per_second_per_gpu,
            "days": speed.days,
            "usd": self.usd,
            "watts": request.watts or self.gpu.tdp_watts,
            "pue": request.pue,
            "grid_kg_per_kwh": request.grid,
            "best": _choice_dict(best),
            "choices": [_choice_dict(choice) for choice in self.choices],
        }


def make_plan(request: PlanRequest) -> Plan:
    """Plan a training.

    Raises:
        ConfigError: the GPU is unknown, or the numbers contradict one another.
    """
    gpu = find_accelerator(request.gpu)
    n_gpus = request.n_gpus or _fewest_gpus(request, gpu)
    choices = tuple(_choices(request, gpu, n_gpus))
    speed = throughput(
        request.model,
        gpu,
        n_tokens=request.n_tokens,
        seq_len=request.row_tokens,
        n_gpus=n_gpus,
        mfu=request.mfu,
    )
    mwh = energy_mwh(speed.gpu_hours, watts=request.watts or gpu.tdp_watts, pue=request.pue)
    return Plan(
        request=request,
        gpu=gpu,
        n_gpus=n_gpus,
        parameters=n_parameters(request.model),
        choices=choices,
        throughput=speed,
        usd=speed.gpu_hours * request.usd_per_gpu_hour,
        energy_mwh=mwh,
        tco2eq=tco2eq(mwh, grid=request.grid),
        would_fit=() if any(c.is_possible for c in choices) else tuple(_would_fit(request, gpu, n_gpus)),
    )


def _cost(choice: Choice) -> tuple[Any, ...]:
    """What slows a training most comes first: tensor parallelism, recomputation, reductions, more sharding."""
    layout = choice.layout
    recomputation = CHECKPOINTING.index(choice.checkpointing)
    return layout.tp, recomputation, choice.reduces_always, layout.dp_shard


def _choices(request: PlanRequest, gpu: Accelerator, n_gpus: int) -> Iterator[Choice]:
    for layout in layouts_for(request.model, n_gpus, gpus_per_node=request.gpus_per_node, tp=request.tp):
        for checkpointing in CHECKPOINTING:
            yield _choice(request, gpu, layout, checkpointing)


def _choice(
    request: PlanRequest, gpu: Accelerator, layout: PlannedLayout, checkpointing: Checkpointing
) -> Choice:
    rows = layout.n_shares * request.micro_batch_size
    n_micro_batches = max(1, -(-request.batch_rows // rows))
    shape = StepShape(batch=request.micro_batch_size, seq=request.row_tokens, is_by_hand=layout.n_gpus == 1)
    could_reduce_always = layout.n_shares > 1 and n_micro_batches > 1
    for reduces_always in (False, True) if could_reduce_always else (False,):
        step = StepPlan(
            shape=shape,
            checkpointing=checkpointing,
            n_micro_batches=n_micro_batches,
            reduces_always=reduces_always,
            logits_rows=CHUNK_ROWS_ELSEWHERE,
        )
        tensors = memory_plan(request.model, layout, step)
        allowance = allowance_bytes(tensors, n_gpus=layout.n_gpus)
        memory = MemoryPlan(tensors.moment, tensors.parts | {"allowance": allowance})
        if memory.n_bytes <= gpu.memory_bytes:
            break
    return Choice(
        layout,
        checkpointing,
        reduces_always,
        n_micro_batches,
        memory,
        fits=memory.n_bytes <= gpu.memory_bytes,
        shares_batch=rows <= request.batch_rows,
    )


def _is_possible(request: PlanRequest, gpu: Accelerator, n_gpus: int) -> bool:
    return any(choice.is_possible for choice in _choices(request, gpu, n_gpus))


def _fewest_gpus(request: PlanRequest, gpu: Accelerator) -> int:
    """The smallest power of two that something fits on; where nothing does, one node."""
    n_gpus = request.tp or 1
    while n_gpus <= MAX_GPUS:
        if _is_possible(request, gpu, n_gpus):
            return n_gpus
        n_gpus *= 2
    return request.gpus_per_node


def _would_fit(request: PlanRequest, gpu: Accelerator, n_gpus: int) -> Iterator[str]:
    """Changes of one thing, each of which is enough."""
    more = n_gpus * 2
    while more <= MAX_GPUS:
        if _is_possible(request, gpu, more):
            yield f"{more} x {gpu.name}"
            break
        more *= 2
    others = sorted(ACCELERATORS.values(), key=lambda other: other.memory_bytes)
    larger = [other for other in others if other.memory_bytes > gpu.memory_bytes]
    name = next((other.name for other in larger if _is_possible(request, other, n_gpus)), None)
    if name:
        yield f"{n_gpus} x {name}"
    if request.micro_batch_size > 1:
        smaller = request.model_copy(update={"micro_batch_size": 1})
        if _is_possible(smaller, gpu, n_gpus):
            yield "micro_batch_size 1"
    seq_len = request.row_tokens // 2
    while seq_len >= 256:
        if _is_possible(request.model_copy(update={"seq_len": seq_len}), gpu, n_gpus):
            yield f"rows of {seq_len} tokens"
            break
        seq_len //= 2


def _choice_dict(choice: Choice) -> dict[str, Any]:
    layout = choice.layout
    return {
        "layout": layout.name,
        "dp_replicate": layout.dp_replicate,
        "dp_shard": layout.dp_shard,
        "tp": layout.tp,
        "checkpointing": choice.checkpointing,
        "reduce_every_micro_batch": choice.reduces_always,
        "micro_batches": choice.n_micro_batches,
        "memory_bytes": choice.memory.n_bytes,
        "highest_at": choice.memory.moment,
        "parts": dict(choice.memory.parts),
        "fits": choice.fits,
        "shares_batch": choice.shares_batch,
    }
