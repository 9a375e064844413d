"""Fill fixed-length rows with whole examples that cannot see each other (§3.1: packing of prompts and answers)."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from puna.core.errors import ShapeError

__all__ = ["PackedRows", "TokenizedExample", "pack"]

PADDING_DOCUMENT_ID = -1


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """A tokenized text and, token by token, whether it is to be learned."""

    token_ids: Sequence[int]
    loss_mask: Sequence[bool]

    @property
    def n_positions(self) -> int:
        """Positions it takes in a row: the last token is only a target, never an input."""
        return len(self.token_ids) - 1


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows ready to train on; position i predicts targets[i] from the tokens of its own document up to i."""

    tokens: Int64[Tensor, "rows seq"]
    targets: Int64[Tensor, "rows seq"]
    target_mask: Bool[Tensor, "rows seq"]
    """True where the target is learned; never on padding."""
    positions: Int64[Tensor, "rows seq"]
    """Restart at 0 with each document."""
    document_ids: Int64[Tensor, "rows seq"]
    """Which document of its row a position belongs to, from 0; -1 is padding."""

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def select(self, rows: Sequence[int]) -> "PackedRows":
        """The named rows, in the order given, as copies."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        return PackedRows(
            self.tokens[index],
            self.targets[index],
            self.target_mask[index],
            self.positions[index],
            self.document_ids[index],
        )

    def to(self, device: torch.device) -> "PackedRows":
        """The same rows on another device."""
        return PackedRows(
            self.tokens.to(device),
            self.targets.to(device),
            self.target_mask.to(device),
            self.positions.to(device),
            self.document_ids.to(device),
        )

    def rounded_up(self, multiple: int) -> "PackedRows":
        """As many rows as the next multiple holds; the new ones are padding alone."""
        n_new = -len(self) % multiple

        def more(values: Tensor, padding: int) -> Tensor:
            return torch.cat((values, values.new_full((n_new, values.shape[1]), padding)))

        return PackedRows(
            more(self.tokens, 0),
            more(self.targets, 0),
            more(self.target_mask, 0),
            more(self.positions, 0),
            more(self.document_ids, PADDING_DOCUMENT_ID),
        )

    @property
    def padding_fraction(self) -> float:
        """Share of positions that hold no example."""
        return (self.document_ids == PADDING_DOCUMENT_ID).float().mean().item()


def pack(
    examples: Sequence[TokenizedExample], *, seq_len: int, overlong: Literal["error", "truncate"] = "error"
) -> PackedRows:
    """Put each example, whole, in the fullest row that still has room: best fit, longest first.

    Source: Llama 2 §3.1 concatenates samples to fill the sequence and does not say whether they attend to
    one another; here they do not (our choice). The result depends on the examples and their order only.

    Args:
        seq_len: Positions per row; an example of n tokens takes n - 1.
        overlong: What to do with an example of more than seq_len + 1 tokens.
    Raises:
        ShapeError: an example does not fit and overlong is "error", or it has fewer than two tokens.
    """
    fitted = [_fitted(example, index, seq_len, overlong) for index, example in enumerate(examples)]
    return _fill(_best_fit([example.n_positions for example in fitted], seq_len), fitted, seq_len)


def _fitted(example: TokenizedExample, index: int, seq_len: int, overlong: str) -> TokenizedExample:
    if example.n_positions < 1 or len(example.loss_mask) != len(example.token_ids):
        raise ShapeError(
            where=f"example {index}",
            expected="two tokens or more and a loss mask of the same length",
            got=f"{len(example.token_ids)} tokens, {len(example.loss_mask)} mask values",
            fix="Drop it or tokenize it again.",
        )
    if example.n_positions <= seq_len:
        return example
    if overlong == "error":
        raise ShapeError(
            where=f"example {index}",
            expected=f"at most {seq_len + 1} tokens",
            got=f"{len(example.token_ids)} tokens",
            fix="Raise seq_len, drop the example or allow truncation.",
        )
    return TokenizedExample(example.token_ids[: seq_len + 1], example.loss_mask[: seq_len + 1])


def _best_fit(lengths: Sequence[int], seq_len: int) -> list[list[int]]:
    """Assign example indices to rows; ties go to the earlier example and the older row."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free positions, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect_left(room, (lengths[index], -1))
        if at < len(room):
            free, row = room.pop(at)
        else:
            free, row = seq_len, len(rows)
            rows.append([])
        rows[row].append(index)
        if free > lengths[index]:
            insort(room, (free - lengths[index], row))
    return rows


def _fill(rows: Sequence[Sequence[int]], examples: Sequence[TokenizedExample], seq_len: int) -> PackedRows:
    def padded(values: list[list[int]], padding: int) -> Tensor:
        full = [row + [padding] * (seq_len - len(row)) for row in values]
        return torch.tensor(full, dtype=torch.int64).view(-1, seq_len)

    def joined(part: slice, attribute: str) -> list[list[int]]:
        return [[v for i in row for v in list(getattr(examples[i], attribute))[part]] for row in rows]

    lengths = [[examples[i].n_positions for i in row] for row in rows]
    return PackedRows(
        tokens=padded(joined(slice(None, -1), "token_ids"), 0),
        targets=padded(joined(slice(1, None), "token_ids"), 0),
        target_mask=padded(joined(slice(1, None), "loss_mask"), 0).bool(),
        positions=padded([[p for n in row for p in range(n)] for row in lengths], 0),
        document_ids=padded(
            [[d for d, n in enumerate(row) for _ in range(n)] for row in lengths], PADDING_DOCUMENT_ID
        ),
    )
