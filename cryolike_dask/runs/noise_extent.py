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


def extents_of(
    stacks: list[ImageStack],
    members: Sequence[tuple[str, Rows]],
    looked_at: RingPower,
    grid: PolarGrid,
    client: Client | None,
) -> dict[str, Extent]:
    """Band and box by the power of rings and the variance of pixels of each group, all images and
    then optics groups, each with the rows of its images."""
    everyone, *groups = members
    apart = bool(groups) and sum(len(rows) for _, rows in groups) == len(everyone[1])
    maps = _maps(stacks, groups if apart else members, client)
    if apart:
        # pixels that were read for groups are not read again for all images
        sizes = [len(rows) for _, rows in groups]
        parts = list(maps.values())
        known = all(part.variance is not None for part in parts)
        maps |= {everyone[0]: _mean(parts, sizes)} if known else _maps(stacks, [everyone], client)
    some = {name: rows[evenly_spread(len(rows), MOST_OF_GROUP)] for name, rows in members}
    return {name: _extent(maps[name], looked_at.power[rows], grid) for name, rows in some.items()}


@dataclass(frozen=True, eq=False)
class _Map:
    """The variance of each pixel, (row, column), None if it is not known; and of how many images
    that were looked at."""

    variance: NDArray[np.float64] | None
    n_images: int


def _maps(
    stacks: list[ImageStack], members: Sequence[tuple[str, Rows]], client: Client | None
) -> dict[str, _Map]:
    """The variance of pixels of each group, in some stacks."""
    of = [
        (name, stacks[i][there])
        for name, rows in members
        for i, _, there in some_stacks(stacks, rows)
    ]
    tasks = [task("noise-variance-of-pixels", variance_map, part) for _, part in of]
    found: dict[str, list[_Map]] = {name: [] for name, _ in members}
    sizes: dict[str, list[int]] = {name: [] for name, _ in members}
    for (name, part), variance in zip(of, computed(tasks, client), strict=True):
        found[name].append(_Map(variance, min(len(part), N_READ)))
        sizes[name].append(len(part))
    return {name: _mean(found[name], sizes[name]) for name in found}


def _mean(parts: Sequence[_Map], weights: Sequence[int]) -> _Map:
    """The mean over parts; not known unless it is of all of them."""
    known = [part.variance for part in parts if part.variance is not None]
    whole = len(known) == len(parts)
    variance = np.average(known, axis=0, weights=weights) if whole else None
    return _Map(variance, sum(part.n_images for part in parts if part.variance is not None))


def _extent(pixels: _Map, power: NDArray[np.floating], grid: PolarGrid) -> Extent:
    mean = power.mean(axis=0, dtype=np.float64)
    limit, of_band = band_limit_of(grid.spatial_frequencies, mean, grid)
    share, of_box = share_of_box(pixels.variance, pixels.n_images)
    n_copied = 0
    if pixels.variance is not None and limit == np.inf:
        # of low-passed images neighbouring lines are alike everywhere
        n_copied = copied_lines(pixels.variance)
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
