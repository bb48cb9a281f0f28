"""The part of band and box that the noise of a group of images fills, looked at in some stacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.compute.stream import computed, task
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.particles.band import band_limit_of
from cryolike_dask.particles.freedom import copied_lines, share_of_box
from cryolike_dask.particles.noise import RingPower
from cryolike_dask.particles.variance import N_READ, variance_map
from cryolike_dask.runs.noise_rings import MOST_OF_GROUP
from cryolike_dask.stacks import ImageStack

Rows = NDArray[np.int64]

MOST_STACKS = 4
"""Stacks of a group that are looked at more closely: what belongs to templates is made anew for
each, and pixels are read."""


@dataclass(frozen=True)
class Extent:
    """The part of band and box that the noise of a group fills.

    Attributes
    ----------
    share, band_limit, reason
        As in a `NoiseModel`.
    n_copied_lines : int
        Lines of pixels along the border that are copies.
    """

    share: float
    band_limit: float
    reason: str
    n_copied_lines: int


def extent_of(
    stacks: list[ImageStack],
    rows: Rows,
    looked_at: RingPower,
    grid: PolarGrid,
    client: Client | None,
) -> Extent:
    """Band and box by the power of rings and the variance of pixels of a group."""
    some = looked_at.power[rows[evenly_spread(len(rows), MOST_OF_GROUP)]]
    limit, of_band = band_limit_of(
        grid.spatial_frequencies, some.mean(axis=0, dtype=np.float64), grid
    )
    parts = [stacks[i][rows_there] for i, _, rows_there in some_stacks(stacks, rows)]
    tasks = [task("noise-variance-of-pixels", variance_map, part) for part in parts]
    maps = [(one, len(p)) for one, p in zip(computed(tasks, client), parts, strict=True)]
    known = [(one, n) for one, n in maps if one is not None]
    n_images = sum(min(n, N_READ) for _, n in known)
    variance = (
        np.average([one for one, _ in known], axis=0, weights=[n for _, n in known])
        if len(known) == len(maps)
        else None
    )
    share, of_box = share_of_box(variance, n_images)
    # of low-passed images neighbouring lines are alike everywhere
    n_copied = 0 if variance is None or limit < np.inf else copied_lines(variance)
    reason = of_box if limit == np.inf else f"{of_band}; {of_box}"
    return Extent(share, limit, reason, n_copied)


def some_stacks(stacks: Sequence[ImageStack], rows: Rows) -> list[tuple[int, Rows, Rows]]:
    """Some stacks, evenly spread, of those that images are of, which are counted over all stacks:
    the number of each, which of the images are there, and their positions there."""
    starts = np.cumsum([0, *(len(stack) for stack in stacks)])
    of_stack = np.searchsorted(starts, rows, side="right") - 1
    there = np.unique(of_stack)
    chosen = there[evenly_spread(len(there), MOST_STACKS)].tolist()
    members = [np.flatnonzero(of_stack == i) for i in chosen]
    return [(i, m, rows[m] - starts[i]) for i, m in zip(chosen, members, strict=True)]
