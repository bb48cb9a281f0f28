"""Regions that hold a part of a posterior over poses, and the best of its poses that are far from
each other (numpy only)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.symmetry import point_group
from cryolike_dask.geometry.viewing_angles import ViewingAngles, viewing_rotation
from cryolike_dask.likelihoods.search.coarser import spacing_of_views

FloatArray = NDArray[np.float64]
Positions = NDArray[np.int64]

SEPARATE = 3.0
"""Spacings of views, or steps of displacements, from which on two poses are told apart."""
PLACES_IN_CELL = 4096, 4, 64
"""Places that all cells of an image have together, and a cell has at least and at most."""
GOLDEN = (math.sqrt(5) - 1) / 2
DIRECTIONS_AT_ONCE = 2**12


@dataclass(frozen=True, eq=False)
class Orientations:
    """The orientations of a search: views turned by in-plane rotations.

    Attributes
    ----------
    views : (view, 3, 3) float64
        Rz(azimuth) Ry(polar).
    cells : (view, place, 2) float64
        Directions that are nearer to a view than to all others, evenly spread: azimuth and polar
        angle from it, radian.
    angles : (rotation,) float64
    group : (n, 3, 3) float64
        Rotations after which a structure looks alike.
    spacing : float
        Radian between views, or between rotations if these are farther apart.
    """

    views: FloatArray
    cells: FloatArray
    angles: FloatArray
    group: FloatArray
    spacing: float

    @classmethod
    def of(cls, viewing: ViewingAngles, angles: FloatArray) -> Orientations:
        """Those of views that cover the sphere, or the unit of a symmetry."""
        group = point_group(viewing.symmetry).rotations
        spacing = max(spacing_of_views(viewing), 2 * np.pi / len(angles))
        views = viewing.rotations()
        return cls(views, cells_of_views(views, group), angles, group, spacing)

    def cosines(self, one: FloatArray, rotations: FloatArray) -> FloatArray:
        """Cosine of the angle of the rotation from one orientation to others, (..., 3, 3); of
        those that look alike to the nearest."""
        alike = self.group @ one
        traces = np.einsum("gij,...ij->g...", alike, rotations).max(axis=0)
        cosines: FloatArray = np.clip((traces - 1) / 2, -1, 1)
        return cosines

    def relative(self, one: FloatArray, rotations: FloatArray) -> FloatArray:
        """Rotations from one orientation to others, about its axes, (n, 3, 3); to those that look
        alike and are nearest."""
        alike = self.group @ one
        nearest = np.einsum("gij,nij->gn", alike, rotations).argmax(axis=0)
        turns: FloatArray = alike[nearest].transpose(0, 2, 1) @ rotations
        return turns

    def views_about(self, one: FloatArray, reach: float) -> tuple[Positions, FloatArray]:
        """Views whose directions lie within reach of that of an orientation, and rotations from it
        to them, (n, 3, 3)."""
        alike = self.group @ one
        cosines = self.views[:, :, 2] @ alike[:, :, 2].T
        near = np.flatnonzero(cosines.max(axis=1) >= math.cos(min(reach, math.pi)))
        nearest = alike[cosines[near].argmax(axis=1)]
        return near, nearest.transpose(0, 2, 1) @ self.views[near]

    def at(self, views: Positions, rotations: Positions) -> FloatArray:
        """Rotations of some poses, (pose, 3, 3)."""
        return self.views[views] @ viewing_rotation(0, 0, self.angles[rotations])

    def in_cells(self, views: Positions, rotations: Positions) -> FloatArray:
        """Orientations that fill the cells of some poses evenly, (pose, place, 3, 3): a pose stands
        for all that are nearer to it than to its neighbours."""
        in_all, least, most = PLACES_IN_CELL
        n = int(np.clip(in_all // max(1, len(views)), least, most))
        chosen = np.arange(n) * most // n
        about, tilt = self.cells[views][:, chosen].transpose(2, 0, 1)
        turn = ((chosen + 0.5) * GOLDEN % 1 - 0.5) * (2 * np.pi / len(self.angles))
        gamma = self.angles[rotations, None] + turn
        return self.views[views, None] @ viewing_rotation(about, tilt, gamma - about)

    def vectors(self, best: FloatArray, views: Positions, rotations: Positions) -> FloatArray:
        """Rotation vectors from an orientation to some poses, about its axes, radian, (pose, 3)."""
        from scipy.spatial.transform import Rotation

        turns = self.relative(best, self.at(views, rotations))
        vectors: FloatArray = Rotation.from_matrix(turns).as_rotvec()
        return vectors

    def spread_about(
        self, best: FloatArray, views: Positions, rotations: Positions, mass: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Angles from an orientation, radian, to all that poses stand for, and their masses."""
        cells = self.in_cells(views, rotations)
        angles = np.arccos(self.cosines(best, cells))
        n = angles.shape[1]
        return angles.ravel(), np.repeat(mass / n, n)

    def radius_about(
        self,
        best: FloatArray,
        views: Positions,
        rotations: Positions,
        mass: FloatArray,
        part: float,
    ) -> float:
        """Smallest angle about an orientation, radian, within which a part of all mass lies."""
        return quantile(*self.spread_about(best, views, rotations, mass), part)


def cells_of_views(views: FloatArray, group: FloatArray) -> FloatArray:
    """Directions that are nearer to each view than to all others, or to those that look alike:
    azimuth and polar angle from it, (view, place, 2); itself where there are none."""
    n_places = PLACES_IN_CELL[2]
    k = np.arange(len(views) * len(group) * n_places)
    z, azimuth = 1 - (2 * k + 1) / len(k), 2 * np.pi * GOLDEN * k
    directions = np.stack([*(np.sqrt(1 - z**2) * [np.cos(azimuth), np.sin(azimuth)]), z], axis=1)
    nearest, seen_there = np.empty(len(k), np.int64), np.empty((len(k), 3))
    for start in range(0, len(k), DIRECTIONS_AT_ONCE):
        part = slice(start, start + DIRECTIONS_AT_ONCE)
        alike = directions[part] @ group.transpose(0, 2, 1)
        cosines = alike @ views[:, :, 2].T
        of_turns = cosines.max(axis=2).argmax(axis=0)
        chosen = alike[of_turns, np.arange(len(of_turns))]
        nearest[part] = (chosen @ views[:, :, 2].T).argmax(axis=1)
        seen_there[part] = np.einsum("ni,nij->nj", chosen, views[nearest[part]])
    cells = np.zeros((len(views), n_places, 2))
    order = np.argsort(nearest, kind="stable")
    ends = np.searchsorted(nearest[order], np.arange(len(views) + 1))
    for view, (first, last) in enumerate(pairwise(ends)):
        if last > first:
            some = order[first + np.arange(n_places) * (last - first) // n_places]
            x, y, along = seen_there[some].T
            cells[view] = np.stack([np.arctan2(y, x), np.arctan2(np.hypot(x, y), along)], axis=1)
    return cells


def spread_evenly(n: int, width: float) -> FloatArray:
    """Spread values at nodes over a width about them, in nodes: (n, n)."""
    if width <= 1:
        return np.eye(n)
    apart = np.abs(np.arange(n)[:, None] - np.arange(n))
    covered: FloatArray = np.clip((width + 1) / 2 - apart, 0, 1) / width
    return covered


def quantile(values: FloatArray, mass: FloatArray, part: float) -> float:
    """The smallest value up to which a part of the mass lies."""
    order = np.argsort(values, kind="stable")
    held = mass[order].cumsum()
    return float(values[order[min(np.searchsorted(held, part * held[-1]), len(held) - 1)]])


def count_of_fewest(volume: FloatArray, mass: FloatArray, needed: float) -> float:
    """How much volume of the densest bins, the densest first, holds a mass; all of it where that is
    not enough. A bin gives as much of its volume as of its mass."""
    held = mass.cumsum()
    k = int(np.searchsorted(held, needed))
    if k >= len(held):
        return float(volume.sum())
    before = held[k - 1] if k else 0.0
    inside = (needed - before) / mass[k] if mass[k] > 0 else 0.0
    return float(volume[:k].sum() + inside * volume[k])


def separate(
    orientations: Orientations,
    rotations: FloatArray,
    places: FloatArray,
    values: FloatArray,
    most: int,
    step: float,
) -> Positions:
    """The best of some poses, each far from all better ones: in orientation, or in place.

    Parameters
    ----------
    orientations : Orientations
    rotations : (pose, 3, 3) float64
    places : (pose, 2) float64
        Angstrom, in the frame of the image.
    values : (pose,) float64
        Best are the largest.
    most : int
    step : float
        Angstrom between displacements.
    """
    left = np.argsort(-values, kind="stable")
    found: list[int] = []
    least = math.cos(min(SEPARATE * orientations.spacing, math.pi))
    while len(left) and len(found) < most:
        best = left[0]
        found.append(best)
        near = orientations.cosines(rotations[best], rotations[left]) >= least
        near &= np.hypot(*(places[left] - places[best]).T) <= SEPARATE * step
        near[0] = True
        left = left[~near]
    return np.array(found, np.int64)
