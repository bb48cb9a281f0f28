"""What must hold of values on a device, and the way back of results: the program waits once for
both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryolike_dask.errors import CryolikeError

Refusal = Callable[[NDArray[np.bool_]], CryolikeError]


@dataclass(frozen=True)
class Checks:
    """Values that may be bad, and the errors that say so.

    A look at a value waits until a GPU has done all that it was told before. So there it is looked
    at when results are read, in the order in which values were given; on a CPU at once.

    Attributes
    ----------
    at_once : bool
    """

    at_once: bool
    _held: list[tuple[Tensor, Refusal]] = field(default_factory=list)

    def refuse(self, bad: Tensor, error: Refusal) -> None:
        """Raise an error, made of which are bad, if any is: bool, (x,)."""
        if self.at_once:
            _look(bad.numpy(), error)
        else:
            self._held.append((bad, error))

    def forget(self) -> None:
        """Look at nothing that was given so far: all of it is to be computed anew."""
        self._held.clear()

    def read(self, *values: Tensor) -> list[NDArray[Any]]:
        """Copy values to the host, all at once.

        Raises
        ------
        CryolikeError
            What `refuse` was given first of what is bad.
        """
        held = self._held[:]
        self._held.clear()
        found = on_host([*values, *(bad for bad, _ in held)])
        for bad, (_, error) in zip(found[len(values) :], held, strict=True):
            _look(bad, error)
        return found[: len(values)]


def on_host(values: list[Tensor]) -> list[NDArray[Any]]:
    """Copy tensors to the host in one transfer."""
    if not values or values[0].is_cpu:
        return [value.numpy() for value in values]
    # the widest first, so that all numbers are where their type may be
    order = sorted(range(len(values)), key=lambda i: -values[i].element_size())
    parts = [values[i].contiguous().flatten().view(torch.uint8) for i in order]
    together = torch.cat(parts).cpu().numpy()
    starts = accumulate((len(part) for part in parts), initial=0)
    found: list[NDArray[Any]] = [together] * len(values)
    for i, start, part in zip(order, starts, parts, strict=False):
        dtype = torch.empty(0, dtype=values[i].dtype).numpy().dtype
        found[i] = together[start : start + len(part)].view(dtype).reshape(values[i].shape)
    return found


def _look(bad: NDArray[np.bool_], error: Refusal) -> None:
    if bad.any():
        raise error(bad)
