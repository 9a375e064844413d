"""Which blocks already hold which prompts: a tree with a block of tokens a node, and the idle blocks by last use.

A node is entered when its block is reserved and is ready once its keys are computed; who needs a node that another
sequence is computing waits for it instead of computing it twice.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from puna.model.blockwise_attention import BLOCK_TOKENS

__all__ = ["Match", "PrefixCache"]


@dataclass(slots=True, eq=False)
class _Node:
    """A block of a prompt; the path from the root spells the text before it."""

    block: int
    tokens: tuple[int, ...]
    parent: "_Node | None"
    is_ready: bool = False
    children: dict[tuple[int, ...], "_Node"] = field(default_factory=dict)


class Match(NamedTuple):
    """What of a prompt is already there."""

    blocks: list[int]
    """Whole blocks to share."""
    tail: int | None
    """A block that also holds the rest of the prompt but its last token: to be copied before it is written."""
    must_wait: bool
    """Another sequence is computing the next block of this prompt."""


class PrefixCache:
    """The tree; it knows blocks and tokens, not sequences."""

    def __init__(self, *, max_idle: int) -> None:
        self.max_idle = max_idle
        self._root = _Node(block=0, tokens=(), parent=None, is_ready=True)
        self._node_of: dict[int, _Node] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, block: int) -> bool:
        return block in self._node_of

    @property
    def n_idle(self) -> int:
        """Blocks that nobody reads, kept for whoever comes with the same prompt."""
        return len(self._idle)

    @property
    def idle_blocks(self) -> list[int]:
        """The same blocks, least recently used first."""
        return list(self._idle)

    def match(self, tokens: Sequence[int]) -> Match:
        """The longest known beginning of a prompt, short of its last token, whose state is always computed."""
        node = self._root
        blocks: list[int] = []
        for start in range(0, len(tokens), BLOCK_TOKENS):
            child = node.children.get(tuple(tokens[start : start + BLOCK_TOKENS]))
            if child is None:
                return Match(blocks, None, must_wait=False)
            if not child.is_ready:
                return Match(blocks, None, must_wait=True)
            if start + BLOCK_TOKENS >= len(tokens):
                return Match(blocks, child.block if len(tokens) - start > 1 else None, must_wait=False)
            blocks.append(child.block)
            node = child
        return Match(blocks, None, must_wait=False)

    def enter(self, tokens: Sequence[int], blocks: Sequence[int]) -> None:
        """Reserve the tree's places for a prompt that is about to be computed; known places keep their block."""
        node = self._root
        for place, start in enumerate(range(0, len(tokens), BLOCK_TOKENS)):
            key = tuple(tokens[start : start + BLOCK_TOKENS])
            child = node.children.get(key)
            if child is None:
                child = _Node(block=blocks[place], tokens=key, parent=node)
                node.children[key] = child
                self._node_of[child.block] = child
            node = child

    def mark_ready(self, blocks: Sequence[int]) -> None:
        """These blocks' keys and values are computed."""
        for block in blocks:
            if block in self._node_of:
                self._node_of[block].is_ready = True

    def use(self, block: int) -> None:
        """A sequence reads the block: it is no longer idle."""
        self._idle.pop(block, None)

    def retire(self, block: int) -> list[int]:
        """Nobody reads the block any more: keep it if it is ready; returns the blocks that are now free."""
        node = self._node_of.get(block)
        if node is None:
            return [block]
        if not node.is_ready:
            return [block, *self._forget(node, but=block)]
        self._idle[block] = None
        return self.evict() if len(self._idle) > self.max_idle else []

    def evict(self) -> list[int]:
        """Forget the block idle for longest, and all that continues it; returns the blocks that are now free."""
        oldest = next(iter(self._idle))
        return self._forget(self._node_of[oldest])

    def clear(self) -> list[int]:
        """Forget everything: the weights have changed. Returns the blocks that are now free."""
        freed = list(self._idle)
        self._root.children.clear()
        self._node_of.clear()
        self._idle.clear()
        return freed

    def _forget(self, node: _Node, but: int | None = None) -> list[int]:
        """Cut off a subtree; its blocks that are in use stay their readers' own."""
        assert node.parent is not None, "the root stays"
        del node.parent.children[node.tokens]
        freed, stack = [], [node]
        while stack:
            current = stack.pop()
            stack.extend(current.children.values())
            del self._node_of[current.block]
            if current.block in self._idle:
                del self._idle[current.block]
                if current.block != but:
                    freed.append(current.block)
        return freed
