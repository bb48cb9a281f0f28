"""Images that stay on a GPU for the blocks that follow: the same under other templates. To read and
send a thousand takes as long as a third of the search of a block of theirs (estimated).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from dask.base import tokenize

from cryolike_dask.compute.device import free_memory
from cryolike_dask.io.sources import InMemory, innermost
from cryolike_dask.likelihoods.comparison import Comparison, Rows

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.direct import WhitenedImages

MOST_BYTES, PART_OF_MEMORY = 2**31, 0.125
"""That images are kept in, and of what is free: six thousand of 132 pixels."""

_kept = OrderedDict[str, "WhitenedImages"]()


def key_of(rows: Rows, comparison: Comparison) -> str | None:
    """What says which images these are, filtered and divided by the noise how; None where to say it
    would take as long as to read them."""
    if isinstance(innermost(comparison.images), InMemory):
        return None
    key: str = tokenize(
        rows.tobytes(),
        comparison.images,
        comparison.grid,
        comparison.conventions,
        comparison.whitening,
        comparison.precision,
        comparison.device,
    )
    return key


def kept(key: str | None, read: Callable[[], WhitenedImages]) -> WhitenedImages:
    """Images that are kept, or else read, and kept if there is room."""
    if key is None:
        return read()
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    images = read()
    room = min(MOST_BYTES, int(PART_OF_MEMORY * free_memory("cuda")))
    while _kept and sum(map(_bytes_of, _kept.values())) + _bytes_of(images) > room:
        _kept.popitem(last=False)
    if _bytes_of(images) <= room:
        _kept[key] = images
    return images


def forget() -> None:
    """Keep none: memory did not suffice, or they may not be what they should be."""
    _kept.clear()


def _bytes_of(images: WhitenedImages) -> int:
    return images.values.nbytes + images.contrast.nbytes
