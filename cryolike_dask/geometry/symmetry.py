"""Point groups in RELION's orientations, and the views of an asymmetric unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.viewing_angles import ViewingAngles, viewing_grid

FloatArray = NDArray[np.float64]

NO_SYMMETRY = "C1"
HIGHEST_ORDER = 99
GOLDEN = (1 + np.sqrt(5)) / 2
AXES = {
    "T": ((3, (0, 0, 1)), (2, (0, np.sqrt(2), 1))),
    "O": ((4, (0, 0, 1)), (3, (1, 1, 1))),
    "I1": ((2, (0, 0, 1)), (5, (0, 1, GOLDEN))),
    "I2": ((2, (0, 0, 1)), (5, (1, 0, GOLDEN))),
    "I3": ((5, (0, 0, 1)), (2, (-1, 0, GOLDEN))),
    "I4": ((5, (0, 0, 1)), (2, (1, 0, GOLDEN))),
}
"""Orders and directions of two axes that make each cubic or icosahedral group: from the table of
symmetries in RELION's reference ("Conventions"); where the two-fold of T lies, and which way it is
tilted, from RELION's own operators (`relion_refine --sym T --print_symmetry_ops`)."""
ORIENTATIONS = {
    "C": "the axis on z",
    "D": "the main axis on z, a two-fold on x",
    "T": "a three-fold axis on z, a two-fold on (0, 0.816, 0.577)",
    "O": "the four-fold axes on x, y and z",
    "I1": "two-fold axes on x, y and z, the five-folds next to z in the plane of y and z",
    "I2": "two-fold axes on x, y and z, the five-folds next to z in the plane of x and z",
    "I3": "a five-fold axis on z, one of those next to it at negative x and y = 0",
    "I4": "a five-fold axis on z, one of those next to it at positive x and y = 0",
}
AS_RELION = {"I": "I2"}
"""What RELION takes for the name."""

REFERENCE = np.array([3.0, 1.0, 2.0]) / np.sqrt(14)
"""In the middle of the unit: on no axis, and away from z, where circles of views are denser."""
SAME = 1e-7
"""Radian; directions nearer to each other are one."""
TIE = 1e-10
"""Of cosines."""
WIDTH, RIDGES = 2.0, (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
MOST_FITTED = 5000


@dataclass(frozen=True, eq=False)
class PointGroup:
    """Rotations that leave a structure as it is.

    Attributes
    ----------
    name : str
        "C4", "D7", "T", "O", "I2": as RELION has them.
    generators : (generator, 3, 3) float64
        Of which all others are products.
    rotations : (rotation, 3, 3) float64
        The identity first. They turn positions in the file of the structure.
    """

    name: str
    generators: FloatArray
    rotations: FloatArray

    def __len__(self) -> int:
        return len(self.rotations)

    @property
    def orientation(self) -> str:
        """Where the axes lie, in words."""
        return ORIENTATIONS.get(self.name) or ORIENTATIONS[self.name[0]]

    def images(self, directions: FloatArray) -> FloatArray:
        """Turn directions, (direction, 3), by each rotation: (direction, rotation, 3)."""
        turned: FloatArray = np.einsum("gij,nj->ngi", self.rotations, directions)
        return turned


@lru_cache(maxsize=64)
def point_group(name: str) -> PointGroup:
    """Make a point group by its name: C1 to C99, D2 to D99, T, O, I (RELION's I2), I1 to I4.

    Raises
    ------
    InputError
        If there is none of this name.
    """
    known = AS_RELION.get(str(name).strip().upper(), str(name).strip().upper())
    found = re.fullmatch(r"([CD])([1-9]\d*)", known)
    axes: tuple[tuple[int, tuple[float, float, float]], ...]
    if known in AXES:
        axes = AXES[known]
    elif found and (found[1] == "D") < int(found[2]) <= HIGHEST_ORDER:
        axes = ((int(found[2]), (0, 0, 1)), (2, (1, 0, 0)))[: 1 + (found[1] == "D")]
    else:
        raise InputError(
            f"symmetry={name!r} is no point group that is known",
            remedy=f"Give C1 to C{HIGHEST_ORDER}, D2 to D{HIGHEST_ORDER}, T, O, or I1 to I4 (I is "
            f"I2), in RELION's orientations.",
        )
    generators = np.stack([_about(np.array(axis), order) for order, axis in axes])
    return PointGroup(known, generators, _products(generators))


def asymmetric_unit(viewing: ViewingAngles, symmetry: str) -> ViewingAngles:
    """Keep, of a grid of views over the sphere, one of all that are alike under a symmetry.

    Parameters
    ----------
    viewing : ViewingAngles
        Over the whole sphere, evenly, such as `healpix_grid` gives.
    symmetry : str
        Such as "C4", "D7", "T", "O", "I1": RELION's names and orientations.

    Returns
    -------
    ViewingAngles
        Directions that none of their turned images beats in being near to one that is in the middle
        of the unit; of those on its border that are alike, the first. Weights are in steradian and
        add up to 4 pi over the number of rotations.

    Raises
    ------
    InputError
        If the symmetry is not known, or the grid has no view in the unit.

    Notes
    -----
    Where the grid has the symmetry itself, a weight is the sum over the views that a view stands
    for. Otherwise the unit cuts through it, and weights are those that integrate best what is as
    smooth as a peak of twice the distance of views, and has the symmetry.
    """
    group = point_group(symmetry)
    if group.name == viewing.symmetry or len(group) == 1:
        return viewing
    if viewing.symmetry != NO_SYMMETRY:
        raise InputError(
            f"views of the asymmetric unit of {viewing.symmetry} cannot be those of {group.name}",
            remedy="Give views of the whole sphere.",
        )
    directions = viewing.rotations()[:, :, 2]
    rows = np.flatnonzero(_in_unit(directions, group))
    rows = rows[_first_of_each_orbit(directions[rows], group)]
    if not len(rows):
        raise InputError(
            f"{len(viewing)} views of the sphere are too few for {group.name}: none of them is in "
            f"its asymmetric unit",
            remedy="Give a smaller view_step_degrees, or a higher order of HEALPix.",
        )
    weight = _weights(viewing, directions, rows, group)
    return ViewingAngles(viewing.azimuth[rows], viewing.polar[rows], weight, group.name)


@lru_cache(maxsize=8)
def unit_grid(viewing_distance: float, symmetry: str) -> ViewingAngles:
    """Views of the asymmetric unit of a symmetry, about `viewing_distance` apart (radian).

    The circles of `viewing_grid` have as many directions as their symmetry about z asks for, up to
    one more in the unit. Not to be written to.
    """
    name = point_group(symmetry).name
    n_fold = int(name[1:]) if name[0] in "CD" else 1
    return asymmetric_unit(viewing_grid(viewing_distance, n_fold), name)


def _about(axis: FloatArray, order: int) -> FloatArray:
    """Rotation about an axis by a full turn over its order."""
    x, y, z = axis / np.linalg.norm(axis)
    across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = 2 * np.pi / order
    turn: FloatArray = np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) * across @ across
    return turn


def _products(generators: FloatArray) -> FloatArray:
    """All products of rotations, each once, the identity first."""
    found = [np.eye(3)]
    for rotation in found:  # which grows meanwhile
        for generator in generators:
            product = generator @ rotation
            if np.abs(np.stack(found) - product).max(axis=(1, 2)).min() > SAME:
                found.append(product)
    return np.stack(found)


def _in_unit(directions: FloatArray, group: PointGroup) -> NDArray[np.bool_]:
    """Whether a direction is as near to the middle of the unit as any of its images."""
    towards = REFERENCE @ group.rotations
    nearest: FloatArray = reduce(np.maximum, (directions @ image for image in towards))
    return np.asarray(directions @ REFERENCE >= nearest - TIE)


def _first_of_each_orbit(directions: FloatArray, group: PointGroup) -> NDArray[np.bool_]:
    """Whether no direction before is one of its images."""
    if not len(directions):
        return np.zeros(0, np.bool_)
    tree = KDTree(group.images(directions).reshape(-1, 3))
    first = [min(near) // len(group) for near in tree.query_ball_point(directions, SAME)]
    return np.asarray(np.array(first) == np.arange(len(directions)))


def _weights(
    viewing: ViewingAngles, directions: FloatArray, rows: NDArray[np.int64], group: PointGroup
) -> FloatArray:
    """Weights of the views that are kept, steradian."""
    kept = directions[rows]
    distance, image = KDTree(group.images(kept).reshape(-1, 3)).query(directions)
    if distance.max() < SAME:
        weights = np.bincount(image // len(group), viewing.weight, len(rows)).astype(np.float64)
    elif len(rows) <= MOST_FITTED:
        weights = _fitted_weights(kept, group)
    else:
        raise InputError(
            f"{len(rows)} views in the asymmetric unit of {group.name} are more than {MOST_FITTED}",
            remedy="Give a larger view_step_degrees, or a lower order of HEALPix.",
        )
    return np.asarray(weights * (4 * np.pi / len(group) / weights.sum()))


def _fitted_weights(directions: FloatArray, group: PointGroup) -> FloatArray:
    """Weights that integrate best, over the sphere, what adds up from peaks at any place and its
    images; (direction,), in any unit.

    Notes
    -----
    Peaks are exp(c (cos(angle) - 1)), c of a standard deviation of `WIDTH` distances of views. With
    K(i, j) the sum of the peak at j and its images at i, the error of weights w, over all functions
    that are made of such peaks, is smallest where K w is the integral of a peak, the same for all.
    A little is added to the diagonal of K, as little as leaves all weights positive.
    """
    n = len(directions)
    sharpness = n * len(group) / (4 * np.pi * WIDTH**2)
    cosines = (directions @ (directions @ rotation).T for rotation in group.rotations)
    kernel = sum((np.exp(sharpness * (cosine - 1)) for cosine in cosines), np.zeros((n, n)))
    weights = np.ones(n)
    for ridge in RIDGES:
        lifted = kernel + ridge * kernel.diagonal().mean() * np.eye(n)
        weights = np.linalg.solve(lifted, np.ones(n))
        if weights.min() > 0.1 * weights.mean():
            break
    return np.asarray(np.maximum(weights, 0.1 * weights.mean()))
