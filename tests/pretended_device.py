"""A device that is not there: arithmetic that mixes it with the CPU fails, as it would on a GPU.

Tensors "on" it have no storage, as FakeTensorMode on "cuda" or torch's "meta" make them, and beside them the values
that they would hold, so that sizes and branches which depend on values come out as they would. On a CPU build of torch,
fake cuda tensors know no autograd (it aborts the process) and no indexing in C++, which is written out here.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["move", "pretended_cuda", "pretended_meta"]

aten = torch.ops.aten

CROSSES = {aten.copy_.default, aten._to_copy.default}
"""Operations that may read one device and write another."""

INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Operations whose indices may lie on the CPU."""

READS: dict[Any, Any] = {
    Tensor.item: lambda number: number,
    Tensor.__int__: int,
    Tensor.__float__: float,
    Tensor.__bool__: bool,
}
"""What makes a number of Python's of a tensor."""

COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

UNKNOWN = object()


def is_pretended(value: Any) -> bool:
    """A tensor without storage."""
    return isinstance(value, FakeTensor) or (isinstance(value, Tensor) and value.is_meta)


class _Device(TorchDispatchMode):
    """Computes shapes on the pretended device and values on the CPU."""

    def __init__(self, device: torch.device, fake: FakeTensorMode | None) -> None:
        super().__init__()
        self.device, self.fake = device, fake
        self._storages: dict[int, tuple[Any, Tensor]] = {}
        """Of "meta" tensors, with the values first held: autograd makes new tensors of them for views."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        if torch.is_inference_mode_enabled() and func.has_kernel_for_dispatch_key(COMPOSITE):
            with self:  # there it comes whole, elsewhere in its parts
                return func.decompose(*args, **kwargs)
        flat = tree_flatten((args, kwargs))[0]
        target = kwargs.get("device")
        goes_there = target is not None and torch.device(target).type == self.device.type
        if not goes_there and not any(is_pretended(value) for value in flat):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        self._check(func, flat, args)
        values = self._values(func, args, kwargs, flat)
        if func is aten._local_scalar_dense.default:
            return 1 if values is UNKNOWN else values
        if self._leaves(func, args, target):
            return torch.zeros(args[0].shape, dtype=args[0].dtype) if values is UNKNOWN else values
        if func is aten.nonzero.default or func is aten.masked_select.default or _reads_mask(func, args):
            assert isinstance(values, Tensor), "sizes that depend on values that autograd has hidden"
            return self._holding(values)
        outs = func(*self._placeholders(args), **self._placeholders(kwargs))
        return self._linked(outs, values)

    def _check(self, func: Any, flat: list[Any], args: Any) -> None:
        """Every tensor that is not a single number lies on this device."""
        if func in CROSSES:
            return
        tensors = [args[0], *args[2:3]] if func in INDEXING else flat
        strangers = [t for t in tensors if isinstance(t, Tensor) and not is_pretended(t) and t.ndim]
        if strangers:
            raise RuntimeError(f"{func}: expected tensors on {self.device}, got one on {strangers[0].device}")

    def _values(self, func: Any, args: Any, kwargs: Any, flat: list[Any]) -> Any:
        """The result on the CPU, or UNKNOWN where an operand's values are."""
        if not all(self._holds(value) for value in flat if is_pretended(value)):
            return UNKNOWN

        def on_cpu(value: Any) -> Any:
            if is_pretended(value):
                return value.held
            return torch.device("cpu") if isinstance(value, torch.device) else value

        with unset_fake_temporarily():
            return func(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))

    def _holds(self, tensor: Any) -> bool:
        """Whether the values are known; a view's are found by its storage."""
        if not hasattr(tensor, "held") and self.fake is None:
            _, base = self._storages.get(tensor.untyped_storage()._cdata, (None, None))
            if base is not None:
                tensor.held = base.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        return hasattr(tensor, "held")

    def _leaves(self, func: Any, args: Any, target: Any) -> bool:
        """The result is read by the CPU."""
        is_read = func is aten._to_copy.default and target is not None
        if is_read and torch.device(target).type == "cpu":
            return True
        return func is aten.copy_.default and not is_pretended(args[0])

    def _placeholders(self, values: Any) -> Any:
        """Numbers and indices from the CPU as FakeTensorMode takes them."""
        if self.fake is None:
            return values
        fake = self.fake
        return tree_map(
            lambda v: fake.from_tensor(v) if isinstance(v, Tensor) and not isinstance(v, FakeTensor) else v,
            values,
        )

    def _holding(self, values: Tensor) -> Tensor:
        """A tensor on the device with these values."""
        placeholder = torch.empty(values.shape, dtype=values.dtype, device=self.device)
        self._hold(placeholder, values)
        return placeholder

    def _hold(self, placeholder: Any, values: Tensor) -> None:
        placeholder.held = values
        is_alike = (placeholder.stride(), placeholder.storage_offset()) == (
            values.stride(),
            values.storage_offset(),
        )
        if self.fake is None and is_alike:
            storage = placeholder.untyped_storage()
            self._storages.setdefault(storage._cdata, (storage, values))

    def _linked(self, outs: Any, values: Any) -> Any:
        if values is not UNKNOWN:
            for out, value in zip(tree_flatten(outs)[0], tree_flatten(values)[0], strict=True):
                if is_pretended(out):
                    self._hold(out, value)
        return outs


def _reads_mask(func: Any, args: Any) -> bool:
    return func is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])


class _InPython(TorchFunctionMode):
    """What fake tensors cannot do in C++, where it asks for the device's driver: indexing, and reading numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.tensor and "device" in (kwargs or {}):
            given = dict(kwargs or {})
            device = given.pop("device")
            return torch.tensor(*args, **given).to(device)  # "meta" would not look at the numbers
        if func is Tensor.__getitem__ and any(map(is_pretended, tree_flatten(args)[0])):
            view, indices = _cut(*args)
            return view if indices is None else aten.index(view, indices)
        if func is Tensor.__setitem__ and any(map(is_pretended, tree_flatten(args)[0])):
            view, indices = _cut(*args[:2])
            value = args[2] if isinstance(args[2], Tensor) else torch.tensor(args[2], dtype=view.dtype)
            if indices is None:
                return aten.copy_(view, value)
            return aten.index_put_(view, indices, value.to(view.device) if value.ndim == 0 else value)
        if func is Tensor.nonzero and is_pretended(args[0]):
            places = aten.nonzero(args[0])
            return places.unbind(1) if (kwargs or {}).get("as_tuple") else places
        if func in READS and is_pretended(args[0]):
            return READS[func](aten._local_scalar_dense(args[0]))
        if func is Tensor.__invert__ and is_pretended(args[0]):
            return aten.bitwise_not(args[0])
        return func(*args, **(kwargs or {}))


def _cut(x: Tensor, key: Any) -> tuple[Tensor, list[Tensor | None] | None]:
    """The view that the numbers, slices and None of an index make, and the tensors that are left of it."""
    keys = list(key) if isinstance(key, tuple) else [key]
    n_taken = sum(k.ndim if isinstance(k, Tensor) and k.dtype == torch.bool else k is not None for k in keys)
    if any(k is Ellipsis for k in keys):
        at = next(i for i, k in enumerate(keys) if k is Ellipsis)
        keys[at : at + 1] = [slice(None)] * (x.ndim - n_taken + 1)
    dim, indices = 0, dict[int, Tensor]()
    for k in keys:
        if k is None:
            x, dim = x.unsqueeze(dim), dim + 1
        elif isinstance(k, slice):
            x, dim = aten.slice(x, dim, k.start, k.stop, k.step or 1), dim + 1
        elif isinstance(k, Tensor):
            indices[dim] = k
            dim += k.ndim if k.dtype == torch.bool else 1
        elif isinstance(k, list):
            indices[dim], dim = torch.tensor(k), dim + 1
        else:
            x = x.select(dim, int(k))
    return x, [indices.get(i) for i in range(max(indices) + 1)] if indices else None


@contextmanager
def pretended_cuda() -> Iterator[torch.device]:
    """A GPU of fake tensors, without gradients."""
    device, fake = torch.device("cuda", 0), FakeTensorMode(allow_non_fake_inputs=True)
    with ExitStack() as stack:
        for context in (torch.no_grad(), fake, _Device(device, fake), _InPython()):
            stack.enter_context(context)
        yield device


@contextmanager
def pretended_meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device "meta", with gradients. torch knows no autocast there: it is left out."""
    autocast, is_enabled = torch.autocast, torch.is_autocast_enabled

    def cast(kind: str, **named: Any) -> Any:
        return autocast("cpu", enabled=False) if kind == "meta" else autocast(kind, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "autocast", cast)
        patch.setattr(torch, "is_autocast_enabled", lambda kind: kind != "meta" and is_enabled(kind))
        with _Device(torch.device("meta"), None), _InPython():
            yield torch.device("meta")


def move(model: nn.Module, device: torch.device, *, learns: bool) -> Any:
    """The model's weights on the pretended device; they hold their values."""
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                moved = torch.empty(weight.shape, dtype=weight.dtype, device=device)
                moved.held = weight.detach()  # type: ignore[attr-defined]
                module._parameters[name] = moved.requires_grad_(learns)  # type: ignore[assignment]
    return model
