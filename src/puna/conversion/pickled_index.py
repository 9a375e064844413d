"""The list of tensors inside a torch .pth file, read from its pickle without unpickling.

A pickle is a program. This interprets the dozen instructions with which torch writes a dictionary of tensors, as
names, sizes and places only; any other instruction, and any function but the four that rebuild tensors, is refused.
So nothing in the file can run, stricter than torch.load(weights_only=True), and nothing is allocated for a tensor.
"""

import math
import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from puna.core.errors import CheckpointError
from puna.model.hf_config import broken

__all__ = ["MAX_PICKLE_BYTES", "StoredTensor", "read_index"]

MAX_PICKLE_BYTES = 2 * 2**20
"""About 20 times the index of a 70B shard; bounds the memory that reading one can take."""

_STORAGES = {
    "torch FloatStorage": torch.float32,
    "torch BFloat16Storage": torch.bfloat16,
    "torch HalfStorage": torch.float16,
}
_DICT, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
_MARK = object()


class StoredTensor(NamedTuple):
    """One tensor of the index: a dense, row-major part of one record of the archive."""

    record: str
    """Name of the record under data/."""
    dtype: torch.dtype
    offset: int
    """Elements before it in the record."""
    shape: tuple[int, ...]
    record_size: int
    """Elements that the index says the record has."""


class _Global(NamedTuple):
    name: str


class _Storage(NamedTuple):
    dtype: torch.dtype
    record: str
    size: int


def read_index(data: bytes, *, where: Path) -> dict[str, StoredTensor]:
    """Every tensor of a state dictionary.

    Raises:
        CheckpointError: the pickle is damaged, or does anything but list dense tensors by name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # pickletools decodes old text instructions before they are refused
            found = _run(data, where)
    except CheckpointError:
        raise
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise broken(where, "a whole index of tensors", f"{type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        raise broken(where, "a dictionary of tensors", type(found).__name__)
    for name, value in found.items():
        if not isinstance(value, StoredTensor):
            raise broken(where, f"a tensor under the name {name[:80]!r}", type(value).__name__)
    return found


def _run(data: bytes, where: Path) -> Any:
    """The pickle machine: a stack, a memo, and the instructions below."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                stack.append(_MARK)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(_top(stack, size))]
            case "TUPLE":
                stack.append(tuple(_since_mark(stack)))
            case "SETITEM":
                _set_items(stack, [stack.pop(-2), stack.pop()])
            case "SETITEMS":
                items = _since_mark(stack)
                _set_items(stack, items)
            case "GLOBAL":
                stack.append(_Global(argument))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), where))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments, where))
            case "BUILD":
                stack.pop()  # the attributes of a state dictionary, such as version numbers
            case "STOP":
                (result,) = stack
                return result
            case other:
                raise broken(where, "a plain dictionary of tensors", f"the pickle instruction {other}")
    raise ValueError("it has no end")


def _top(stack: list[Any], size: int) -> list[Any]:
    if len(stack) < size or any(value is _MARK for value in stack[-size:]):
        raise ValueError("the stack is too short")
    return stack[-size:]


def _since_mark(stack: list[Any]) -> list[Any]:
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is _MARK:
            items = stack[index + 1 :]
            del stack[index:]
            return items
    raise ValueError("no mark")


def _set_items(stack: list[Any], items: list[Any]) -> None:
    """Names are strings: nothing else is hashed, since nested tuples could take forever."""
    target = stack[-1]
    if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
        raise ValueError("entries that are no names and values")
    target.update(zip(items[::2], items[1::2], strict=True))


def _storage(identity: Any, where: Path) -> _Storage:
    kind, storage, record, _, size = identity
    if kind != "storage" or not isinstance(storage, _Global) or not isinstance(record, str):
        raise ValueError("a reference to something else than a storage")
    if storage.name not in _STORAGES:
        raise broken(where, "weights in float32, bfloat16 or float16", storage.name)
    if not _is_count(size):
        raise ValueError("a storage of no known size")
    return _Storage(_STORAGES[storage.name], record, size)


def _call(function: Any, arguments: Any, where: Path) -> Any:
    name = function.name if isinstance(function, _Global) else type(function).__name__
    known: dict[str, Callable[..., Any]] = {_DICT: dict, _TENSOR: _tensor, _PARAMETER: lambda data, *_: data}
    if name not in known or (name == _DICT and arguments != ()):
        raise broken(where, "a plain dictionary of tensors", f"a call of {name[:80]}")
    return known[name](*arguments)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    if (
        not isinstance(storage, _Storage)
        or not isinstance(shape, tuple)
        or not all(map(_is_count, (offset, *shape)))
    ):
        raise ValueError("a tensor of no known size")
    if not isinstance(strides, tuple) or len(strides) != len(shape):
        raise ValueError("a tensor of unknown strides")
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            raise ValueError("a tensor that is not stored row by row")
        step *= max(1, size)
    if offset + math.prod(shape) > storage.size:
        raise ValueError(f"a tensor of shape {shape} beyond its storage of {storage.size}")
    return StoredTensor(storage.record, storage.dtype, offset, shape, storage.size)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48
