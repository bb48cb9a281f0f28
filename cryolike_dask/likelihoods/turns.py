"""One block at a time on a device, and what is done where its memory does not suffice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cryolike_dask.compute.device import resolve_device
from cryolike_dask.compute.gpu import float32_products, is_out_of_memory, noticing_failure
from cryolike_dask.errors import CannotFitError
from cryolike_dask.likelihoods.comparison import Comparison
from cryolike_dask.likelihoods.tiles import OF_LESS_MEMORY, smaller_tile

Made = TypeVar("Made")
Size = TypeVar("Size")

TURN = threading.Lock()
"""One block at a time in a process, so that a device never runs two."""


@contextmanager
def turn(comparison: Comparison) -> Iterator[None]:
    """Have the device for oneself, without gradients, and with products as precise as numbers."""
    import torch

    kind = resolve_device(comparison.device).type
    with TURN, noticing_failure(kind), torch.inference_mode(), float32_products(kind):
        yield


def with_less(
    compute: Callable[[Size], Made], size: Size, less: Callable[[Size, str], Size]
) -> Made:
    """Compute with so much at once; on running out of memory, again with less, and with nothing
    kept from before. `less` is given the size that did not fit, and what was said of it, and raises
    an error where there is no less."""
    import torch

    while True:
        try:
            return compute(size)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)
        # what the error holds is let go of by now
        size = less(size, reason)
        torch.cuda.empty_cache()


def opened(open_it: Callable[[], Made]) -> Made:
    """Open a block; on running out of memory once more.

    Raises
    ------
    CannotFitError
        If that does not help: what all tiles share is not made smaller by smaller tiles.
    """

    def once_more(n_times_left: int, reason: str) -> int:
        if n_times_left == 0:
            raise CannotFitError(
                f"what all poses share does not fit into the memory of the device ({reason})",
                remedy=OF_LESS_MEMORY,
            )
        return n_times_left - 1

    return with_less(lambda _: open_it(), 1, once_more)


def fewer_images(n_images: int, reason: str) -> int:
    """Half of the images, where one did not fit alone."""
    return smaller_tile((n_images, 1), reason)[0]
