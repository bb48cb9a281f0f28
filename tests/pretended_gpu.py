"""A pretended GPU: tensors that say cuda:0 and hold their values in ordinary memory.

Blocks run on it as on a GPU, and can be compared with those on a CPU. Tensors of two devices in one
operation are refused, as a GPU would refuse them, even of a single number; wherever a program waits
for its GPU, whatever it sends there, and all kernels that it would start, are counted. What cannot
be seen are faults of CUDA itself: types that an operation is not there for, sums whose order is
left to chance, memory that runs out.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import cryolike_dask

PACKAGE = f"{Path(cryolike_dask.__file__).parent}/"
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")

SAID = {
    Tensor.device.__get__: GPU,
    Tensor.is_cuda.__get__: True,
    Tensor.is_cpu.__get__: False,
}
WAITING = {
    *(Tensor.__float__, Tensor.__int__, Tensor.__bool__, Tensor.__index__, Tensor.__contains__),
    *(Tensor.item, Tensor.tolist, Tensor.nonzero, Tensor.equal, Tensor.unique),
    *(torch.nonzero, torch.argwhere, torch.equal, torch.unique, torch.allclose),
    *(torch.masked_select, Tensor.masked_select, torch.repeat_interleave),
    *(torch.linalg.solve, torch.linalg.inv, torch.linalg.cholesky, torch.linalg.eigh),
}
"""Functions whose result, or its shape, or whether there is one, the program needs to go on."""
NO_KERNEL = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh"),
    *(
        "set_",
        "alias",
        "detach",
        "resize_",
        "is_same_size",
        "_local_scalar_dense",
        "_unsafe_view",
        "_reshape_alias",
    ),
}
"""Operations that compute nothing, beside those that only look at memory another way."""
INDEXING = {Tensor.__getitem__, Tensor.__setitem__}
MOVING = {Tensor.to, Tensor.cpu, Tensor.cuda}


class OnGpu(Tensor):
    """A tensor that says that it is on a GPU."""


class Pinned(Tensor):
    """A tensor in memory that a GPU reads by itself."""


class PretendedGpu(TorchFunctionMode):
    """What torch does meanwhile, in this thread.

    Attributes
    ----------
    waits, sent, launches : Counter of str
        Lines of the package that wait for the GPU; that send it what is not in pinned memory, and
        wait until it has been sent; and that start kernels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.sent, self.launches = Counter[str](), Counter[str](), Counter[str]()
        self.computes = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, is_on_gpu = kwargs or {}, bool(args) and isinstance(args[0], OnGpu)
        if func is torch.device:
            return func(*args, **kwargs)
        if func in SAID:
            return SAID[func] if is_on_gpu else func(*args)
        if func in MOVING:
            return self._moved(func, *args, **kwargs)
        if is_on_gpu and func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("a tensor on a GPU is no array; copy it to the CPU first")
        given = list(leaves((args, kwargs)))
        self._refuse_mixed(func, given, allowed=is_on_gpu and func in (*INDEXING, Tensor.copy_))
        on_gpu = any(isinstance(one, OnGpu) for one in given)
        if on_gpu:
            self._count(func, args)
        devices = [device for device in map(device_of, given) if device is not None]
        with self._computing(on_gpu or any(device.type == "cuda" for device in devices)):
            if not devices:
                return func(*args, **kwargs)
            made = func(*in_memory(args), **in_memory(kwargs))
            return with_type(made, OnGpu if devices[0].type == "cuda" else Tensor)

    @contextmanager
    def _computing(self, on_gpu: bool) -> Iterator[None]:
        """Count what is done meanwhile as done by the GPU."""
        before, self.computes = self.computes, on_gpu
        try:
            yield
        finally:
            self.computes = before

    def _moved(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Copy to another device, or none where it is there."""
        was_there, target = isinstance(tensor, OnGpu), None
        if func is not Tensor.to:
            args, target = (), CPU if func is Tensor.cpu else GPU
        for one in leaves((args, kwargs)):
            target = device_of(one) or (one.device if isinstance(one, Tensor) else target)
        goes_there = was_there if target is None else target.type == "cuda"
        if was_there and not goes_there:
            self.waits[line()] += 1
        is_pinned = isinstance(tensor, Pinned) and kwargs.get("non_blocking")
        if goes_there and not was_there and not is_pinned:
            self.sent[line()] += 1
        if goes_there != was_there:
            kwargs["copy"] = True
        args, kwargs = in_memory(args), in_memory(kwargs)
        with self._computing(was_there and goes_there):
            moved = tensor.as_subclass(Tensor).to(*args, **kwargs)
        return moved.as_subclass(OnGpu) if goes_there else moved

    def _refuse_mixed(self, func: Any, given: list[Any], *, allowed: bool) -> None:
        tensors = [one for one in given if isinstance(one, Tensor)]
        n_on_gpu = sum(isinstance(one, OnGpu) for one in tensors)
        if 0 < n_on_gpu < len(tensors) and not allowed:
            raise RuntimeError(
                f"{line()}: {func.__name__} of tensors that are not all on the same device"
            )

    def _count(self, func: Any, args: tuple[Any, ...]) -> None:
        waits = func in WAITING or (func is torch.where and len(args) == 1)
        if func in (*INDEXING, Tensor.copy_):
            given = list(leaves(args[1:]))
            self._add(self.sent, sum(map(is_on_host, given)))
            # how many there are that a mask chooses has to be known
            waits = any(
                isinstance(one, OnGpu) and one.dtype == torch.bool for one in leaves(args[1])
            )
        self._add(self.waits, waits)

    def _add(self, to: Counter[str], n: int) -> None:
        if n:
            to[line()] += n


class Kernels(TorchDispatchMode):
    """Counts what a GPU is told to compute."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if self.gpu.computes and not func.is_view and name not in NO_KERNEL:
            self.gpu.launches[line()] += 1
        return func(*args, **(kwargs or {}))


def is_on_host(value: Any) -> bool:
    """Whether values would have to be sent to a GPU."""
    return isinstance(value, np.ndarray | Tensor) and not isinstance(value, OnGpu)


def leaves(values: Any) -> Iterator[Any]:
    """All values in tuples, lists and mappings."""
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, tuple | list):
        for value in values:
            yield from leaves(value)
    else:
        yield values


def device_of(value: Any) -> torch.device | None:
    """The device that a value names, if it does."""
    if isinstance(value, str) and value.partition(":")[0] in ("cpu", "cuda"):
        return torch.device(value)
    return value if isinstance(value, torch.device) else None


def in_memory(values: Any) -> Any:
    """The same arguments, where devices are this one."""
    if isinstance(values, dict):
        return {name: in_memory(value) for name, value in values.items()}
    if type(values) in (tuple, list):
        return type(values)(in_memory(value) for value in values)
    return values if device_of(values) is None else CPU


def with_type(values: Any, kind: type[Tensor]) -> Any:
    """Tensors that say where they are."""
    if isinstance(values, tuple | list):
        return type(values)(with_type(value, kind) for value in values)
    return values.as_subclass(kind) if isinstance(values, Tensor) else values


def line() -> str:
    """The line of the package that is run: `room/module.py:line`."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PACKAGE):
            return f"{path.removeprefix(PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside"


@contextmanager
def pretended_gpu(free: int = 8 * 2**30) -> Iterator[PretendedGpu]:
    """Let torch say that there is a GPU, of so many free bytes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("is_available", lambda: True),
            ("device_count", lambda: 1),
            ("mem_get_info", lambda *_: (free, free)),
            ("empty_cache", lambda: None),
            ("device", lambda *_: nullcontext()),
        ):
            patch.setattr(torch.cuda, name, value)
        # for threads too, which have no modes
        patch.setattr(Tensor, "pin_memory", lambda tensor: tensor.clone().as_subclass(Pinned))
        with PretendedGpu() as gpu, Kernels(gpu):
            yield gpu
