"""One block at a time on a device, and what is done where its memory does not suffice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cryolike_dask.compute.device import resolve_device
from cryolike_dask.compute.gpu import float32_products, is_out_of_memory
from cryolike_dask.errors import CannotFitError
from cryolike_dask.likelihoods.comparison import Comparison
from cryolike_dask.likelihoods.tiles import OF_LESS_MEMORY

Made = TypeVar("Made")

TURN = threading.Lock()
"""One block at a time in a process, so that a device never runs two."""


@contextmanager
def turn(comparison: Comparison) -> Iterator[None]:
    """Have the device for oneself, without gradients, and with products as precise as numbers."""
    import torch

    kind = resolve_device(comparison.device).type
    with TURN, torch.inference_mode(), float32_products(kind):
        yield


def opened(open_it: Callable[[], Made]) -> Made:
    """Open a block; on running out of memory once more, with no memory kept from before.

    Raises
    ------
    CannotFitError
        If that does not help: what all tiles share is not made smaller by smaller tiles.
    """
    try:
        return open_it()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    give_back_memory()
    try:
        return open_it()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise CannotFitError(
            f"what all poses share does not fit into the memory of the device ({error})",
            remedy=OF_LESS_MEMORY,
        ) from error


def give_back_memory() -> None:
    """Give back what torch keeps for later."""
    import torch

    torch.cuda.empty_cache()


def fewer_at_once(compute: Callable[[int], Made], n_at_once: int) -> Made:
    """Compute with so many images at once, or with half of them where memory does not suffice."""
    while True:
        try:
            return compute(n_at_once)
        except (MemoryError, RuntimeError) as error:
            if n_at_once == 1 or not is_out_of_memory(error):
                raise
        give_back_memory()
        n_at_once = (n_at_once + 1) // 2
