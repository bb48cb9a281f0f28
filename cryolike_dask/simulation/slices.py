"""Central slices of a structure in any direction, by its templates: projected again where the
structure is at hand, and otherwise made of templates in files.

Two central slices cross in a line, on which they are the same. A slice in a new direction crosses
each template, and so is known at two angles of each of its rings for each of them; a trigonometric
polynomial through these gives the rest of the ring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.stacks import TemplateStack
from cryolike_dask.structures.sources import Projections

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
Slices = Callable[[ViewingAngles], ComplexArray]
"""Slices in some directions as Fourier series along their rings: (view, shell, mode), in the order
of `numpy.fft.fftfreq`."""

MOST_TEMPLATES = 1024
"""Templates that slices are made of: each ring is known at twice as many angles."""
N_TRIED = 8
"""Templates that are made of all others, to see whether these belong together."""
ALIKE = 0.99
"""Correlation of each of these with what it should be."""
PARALLEL = 1e-6
"""Sine of the angle between two views that are one."""
RIDGE = 1e-6
"""Part of the samples' weight that draws modes towards 0: those between which samples do not
tell."""
LOWEST_SHELLS = 4
"""Shells by which it is known what a slice is at frequency 0."""
MORE_MODES = 6
"""Modes that a ring of radius k has beyond 2 pi k, which are those of a structure as wide as the
box."""


@dataclass(frozen=True, eq=False)
class _Between:
    """Slices made of some templates, which are read when slices are wanted: of many structures no
    more than one is held at a time."""

    templates: TemplateStack
    chosen: NDArray[np.int64]

    def __call__(self, views: ViewingAngles) -> ComplexArray:
        own = self.templates.viewing.take(self.chosen)
        return _crossing(self.series(), own, views, self.templates.grid)

    def series(self) -> ComplexArray:
        """The templates, as bright as they are beside each other."""
        series = _series(self.templates.source.take(self.chosen))
        series /= _at_zero(series, self.templates.grid)[:, None, None]
        return series


def slices_between(templates: TemplateStack, rng: np.random.Generator) -> Slices | None:
    """Give slices of a structure between its views; None if its templates do not tell what is
    there: too few, or of views that are not described as ours are."""
    source = templates.source
    if isinstance(source, Projections):
        return lambda views: _series(replace(source, viewing=views).take(np.arange(len(views))))
    n = len(templates)
    chosen = np.sort(rng.permutation(n)[:MOST_TEMPLATES])
    between = _Between(templates, chosen)
    series, views = between.series(), templates.viewing.take(chosen)
    tried = rng.permutation(len(chosen))[:N_TRIED]
    others = np.setdiff1d(np.arange(len(chosen)), tried)
    if len(others) < templates.grid.n_inplanes / 2:
        return None
    again = _crossing(series[others], views.take(others), views.take(tried), templates.grid)
    weights = templates.grid.weights[:, None]
    product, one, other = (
        (weights * values).sum(axis=(1, 2))
        for values in (
            (again * series[tried].conj()).real,
            np.abs(again) ** 2,
            np.abs(series[tried]) ** 2,
        )
    )
    if (product < ALIKE * np.sqrt(one * other)).any():
        return None
    return between


def slices_at(templates: TemplateStack, rows: NDArray[np.int64]) -> ComplexArray:
    """Some templates themselves as Fourier series along their rings, (view, shell, mode)."""
    return _series(templates.source.take(rows))


def _series(values: NDArray[np.complexfloating]) -> ComplexArray:
    series: ComplexArray = np.fft.fft(values.astype(np.complex128), axis=-1) / values.shape[-1]
    return series


def _at_zero(series: ComplexArray, grid: PolarGrid) -> FloatArray:
    """What each slice is at frequency 0, which all slices share, and templates, each of power 1,
    do not: a polynomial through the means of the lowest rings."""
    lowest = slice(0, LOWEST_SHELLS)
    powers = np.vander(grid.radii[lowest] ** 2, LOWEST_SHELLS, increasing=True)
    at_zero: FloatArray = np.linalg.solve(powers, series[:, lowest, 0].real.T)[0]
    return at_zero


def _crossing(
    series: ComplexArray, views: ViewingAngles, new: ViewingAngles, grid: PolarGrid
) -> ComplexArray:
    """Slices in new directions, made of those in others."""
    n = grid.n_inplanes
    modes = np.fft.fftfreq(n, 1 / n).astype(np.float64)
    made = np.zeros((len(new), *series.shape[1:]), np.complex128)
    axes = views.rotations()
    limits = np.minimum(np.ceil(2 * np.pi * grid.radii) + MORE_MODES, n // 2 - 1)
    for i, frame in enumerate(new.rotations()):
        lines = np.cross(frame[:, 2], axes[:, :, 2])
        at_new = np.arctan2(lines @ frame[:, 1], lines @ frame[:, 0])
        at_old = np.arctan2(
            np.einsum("vi,vi->v", lines, axes[:, :, 1]), np.einsum("vi,vi->v", lines, axes[:, :, 0])
        )
        waves = np.exp(1j * modes * at_old[:, None])
        # of all views, and then of those that cross: a part of the series would be a copy
        values = np.einsum("vsm,vm->vs", series, waves)
        crossing = np.linalg.norm(lines, axis=1) > PARALLEL
        at_new, values = at_new[crossing], values[crossing]
        # half a turn on, a slice is its own conjugate
        angles = np.concatenate([at_new, at_new + np.pi])
        values = np.concatenate([values, values.conj()])
        made[i] = _through(angles, values, modes, limits)
    return made


def _through(
    angles: FloatArray, values: ComplexArray, modes: FloatArray, limits: FloatArray
) -> ComplexArray:
    """Fourier series through values at given angles, (angle, shell): as few modes in each shell as
    it can have."""
    series = np.zeros((values.shape[1], len(modes)), np.complex128)
    waves = np.exp(1j * modes * angles[:, None])
    matrix, right = waves.conj().T @ waves, waves.conj().T @ values
    for limit in np.unique(limits):
        shells, kept = limits == limit, np.flatnonzero(np.abs(modes) <= limit)
        of_limit = matrix[np.ix_(kept, kept)] + RIDGE * len(angles) * np.eye(len(kept))
        series[np.ix_(shells, kept)] = np.linalg.solve(of_limit, right[np.ix_(kept, shells)]).T
    return series
