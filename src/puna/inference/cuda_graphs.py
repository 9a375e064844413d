"""Decode steps on CUDA as recorded graphs: one launch a step instead of hundreds, at a few sizes.

A graph replays fixed shapes, so a step is filled up to the next bucket of rows and of blocks a row.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from puna.inference.paged_cache import AttentionPlan, Gathered, PagedCache
from puna.model.transformer import Transformer

__all__ = ["DecodeGraphs", "decode_bucket"]

ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256)
"""Our choice: at most half of a step is filling."""


def decode_bucket(n_tokens: int, n_places: int) -> tuple[int, int]:
    """Rows and blocks a row of the smallest recorded step that holds so many; beyond the last, multiples of 64."""
    rows = next((size for size in ROW_BUCKETS if size >= n_tokens), -(-n_tokens // 64) * 64)
    return rows, 1 << (n_places - 1).bit_length()


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph with the tensors it reads and writes."""

    graph: torch.cuda.CUDAGraph
    rows: Int[Tensor, "two token 1"]
    plan: AttentionPlan
    hidden: Float[Tensor, "token 1 dim"]


class DecodeGraphs:
    """Graphs of one model and cache, recorded when a size first comes."""

    def __init__(self, model: Transformer, cache: PagedCache) -> None:
        self._model, self._cache = model, cache
        self._recorded: dict[tuple[int, ...], _Recorded] = {}
        self._memory = torch.cuda.graph_pool_handle()
        """One pool for all sizes: graphs replay one after the other, and a step's states are used before the next."""

    def hidden(self, rows: Int[Tensor, "two token 1"], plan: AttentionPlan) -> Float[Tensor, "token 1 dim"]:
        """States of a step of single tokens: their ids and positions, by the plan."""
        assert isinstance(plan.singles, Gathered), "a decode step has single tokens only"
        assert not plan.spans, "a decode step has single tokens only"
        size = tuple(plan.singles.tables.shape)
        if size not in self._recorded:
            self._recorded[size] = self._record(rows.clone(), plan)
            return self._recorded[size].hidden
        recorded = self._recorded[size]
        recorded.rows.copy_(rows)
        recorded.plan.key_rows.copy_(plan.key_rows)
        assert isinstance(recorded.plan.singles, Gathered)
        recorded.plan.singles.tables.copy_(plan.singles.tables)
        recorded.plan.singles.mask.copy_(plan.singles.mask)
        recorded.graph.replay()
        return recorded.hidden

    def _record(self, rows: Tensor, plan: AttentionPlan) -> _Recorded:
        self._cache.plan = plan
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries set themselves up outside of the recording
                self._model.hidden(rows[0], positions=rows[1], cache=self._cache)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            hidden = self._model.hidden(rows[0], positions=rows[1], cache=self._cache)
        graph.replay()
        return _Recorded(graph, rows, plan, hidden)
