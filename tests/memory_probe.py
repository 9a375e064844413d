"""What a training step of the real model holds in memory: bytes kept for the backward pass, and the peak of all.

The peak is the allocator's own account (torch.profiler's memory events), so it holds every temporary, also those
inside an operation, and none of what the operating system or the libraries keep for themselves.
"""

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

__all__ = ["held_bytes", "peak_bytes", "saved_bytes"]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def saved_bytes(run: Callable[[], Any], *, apart_from: Iterable[Tensor] = ()) -> int:
    """Bytes of the distinct storages that autograd keeps while `run` makes a graph, which must still be alive.

    Args:
        apart_from: Not counted: parameters, and what the blocks share.
    """
    known = {_storage(tensor) for tensor in apart_from}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in known:
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    assert result is not None
    return sum(kept.values())


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most bytes that tensors held during `run`, over what they held before."""
    return max(_timeline(run))


def held_bytes(run: Callable[[], Any]) -> int:
    """Bytes that the result of `run`, and what hangs on it, holds at the end."""
    return _timeline(run)[-1]


def _timeline(run: Callable[[], Any]) -> list[int]:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    del result
    return list(accumulate((e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())), initial=0))
