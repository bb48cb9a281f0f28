"""The part of band and box that the noise of a group of images fills, looked at in some stacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.compute.stream import computed, task
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.particles.band import band_limit_of
from cryolike_dask.particles.freedom import copied_lines, share_of_box
from cryolike_dask.particles.noise import RingPower
from cryolike_dask.particles.variance import N_READ, variance_map
from cryolike_dask.stacks import ImageStack

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
    rows: NDArray[np.int64],
    looked_at: RingPower,
    grid: PolarGrid,
    client: Client | None,
) -> Extent:
    """Band and box by the power of rings and the variance of pixels of a group."""
    limit, of_band = band_limit_of(
        grid.spatial_frequencies, looked_at.power[rows].mean(axis=0), grid
    )
    starts = np.cumsum([0, *(len(stack) for stack in stacks)])
    of_stack = np.searchsorted(starts, rows, side="right") - 1
    parts = [
        stacks[i][rows[of_stack == i] - starts[i]]
        for i in spread(np.unique(of_stack).tolist(), MOST_STACKS)
    ]
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


def spread(items: Sequence[Any], n: int) -> list[Any]:
    """At most `n` of the items, evenly spread."""
    at = np.linspace(0, max(0, len(items) - 1), min(n, len(items))).round().astype(int)
    return [items[i] for i in np.unique(at)]
