"""Where each byte of a checkpoint goes: what a format must say so that its files can be written tensor by tensor."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from puna.conversion.stream import TensorInfo

__all__ = ["Layout", "Part"]


class Part(NamedTuple):
    """Numbers to write as they lie in memory, at one place."""

    file: str
    offset: int
    values: Tensor


class Layout(ABC):
    """The files of one checkpoint, planned before anything is written."""

    tensors: Mapping[str, TensorInfo]
    """Every tensor with its shape and the number format it is written in."""

    @abstractmethod
    def begin(self, folder: Path) -> None:
        """Make the weight files at their full size, with everything but the tensors."""

    @abstractmethod
    def place(self, name: str, first_row: int, rows: Tensor) -> Iterator[Part]:
        """Where these rows of a tensor go, in the written format already."""

    def rows_together(self, name: str) -> int:
        """Rows that `place` needs in one block."""
        return 1

    @abstractmethod
    def finish(self, folder: Path) -> None:
        """Write what follows from the tensors, and the files beside the weights."""
