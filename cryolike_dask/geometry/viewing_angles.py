"""Viewing directions of the templates, with the quadrature weights of the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolike_dask.errors import InputError, number

FloatArray = NDArray[np.float64]

SMALLEST_DISTANCE = 0.0035
ROUNDED = 1e-12


@dataclass(frozen=True, eq=False)
class ViewingAngles:
    """One direction per template.

    Attributes
    ----------
    azimuth, polar : (template,) float64, radian
    weight : (template,) float64
        Steradian; all of them sum to 4 pi on a full grid.
    symmetry : str
        Point group of whose asymmetric unit they are; "C1": of none.
    """

    azimuth: FloatArray
    polar: FloatArray
    weight: FloatArray
    symmetry: str = "C1"

    def __post_init__(self) -> None:
        sizes = {len(self.azimuth), len(self.polar), len(self.weight)}
        if len(sizes) != 1:
            raise InputError(f"azimuth, polar and weight have different lengths: {sorted(sizes)}")
        if not (np.isfinite(self.azimuth).all() and np.isfinite(self.polar).all()):
            raise InputError("a viewing angle is not finite")
        if not (np.isfinite(np.sum(self.weight)) and (self.weight > 0).all()):
            raise InputError("a viewing weight is not positive, or their sum is not finite")

    def __len__(self) -> int:
        return len(self.weight)

    def take(self, rows: NDArray[np.int64]) -> ViewingAngles:
        """Some of the directions."""
        azimuth, polar, weight = (v[rows] for v in (self.azimuth, self.polar, self.weight))
        return replace(self, azimuth=azimuth, polar=polar, weight=weight)

    def in_single_precision(self) -> ViewingAngles:
        """The same directions with their angles rounded to float32, held in float64."""
        azimuth, polar = (
            v.astype(np.float32).astype(np.float64) for v in (self.azimuth, self.polar)
        )
        return replace(self, azimuth=azimuth, polar=polar)

    def rotations(self) -> FloatArray:
        """Rz(azimuth) Ry(polar) of each direction, (template, 3, 3)."""
        return viewing_rotation(self.azimuth, self.polar)


def viewing_rotation(azimuth: ArrayLike, polar: ArrayLike, gamma: ArrayLike = 0.0) -> FloatArray:
    """Rz(azimuth) Ry(polar) Rz(gamma): its columns are the axes of the image in the coordinates of
    the structure.

    Parameters
    ----------
    azimuth, polar, gamma : float or array, radian

    Returns
    -------
    float64, (..., 3, 3)
    """
    return _about_z(azimuth) @ _about_y(polar) @ _about_z(gamma)


def angles_of_rotation(rotations: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Azimuth, polar angle and gamma of rotations (..., 3, 3), as `viewing_rotation` takes them,
    radian; at a pole all of the turn is gamma."""
    r = rotations
    sine = np.hypot(r[..., 0, 2], r[..., 1, 2])
    polar = np.arctan2(sine, r[..., 2, 2])
    at_pole = sine < ROUNDED
    azimuth = np.where(at_pole, 0, np.arctan2(r[..., 1, 2], r[..., 0, 2]))
    gamma = np.where(
        at_pole, np.arctan2(r[..., 1, 0], r[..., 1, 1]), np.arctan2(r[..., 2, 1], -r[..., 2, 0])
    )
    return azimuth, polar, gamma % (2 * np.pi)


def viewing_grid(viewing_distance: float, n_fold: int = 1) -> ViewingAngles:
    """Lay circles of equal polar angle over the sphere, about `viewing_distance` apart.

    Parameters
    ----------
    viewing_distance : float
        Angular distance between neighbouring directions, in units where the sphere has radius 1 and
        the equator has 3 + round(2 pi / viewing_distance) directions.
    n_fold : int
        Every circle has a multiple of so many directions, as few more as that takes.

    Returns
    -------
    ViewingAngles
        Circle by circle, from the south pole up (the nodes of Gauss and Legendre in cos(polar)
        ascend).
    """
    check_viewing_distance(viewing_distance)
    density = 2 * np.pi / viewing_distance
    n_polar = 3 + math.ceil((3 + round(density)) / 2)
    cosines, polar_weights = np.polynomial.legendre.leggauss(n_polar)
    azimuth, polar, weight = [], [], []
    for cosine, polar_weight in zip(cosines, polar_weights, strict=True):
        angle = math.acos(cosine)
        n = n_fold * math.ceil((3 + round(density * math.sin(angle))) / n_fold)
        azimuth.append(2 * np.pi * np.arange(n) / n)
        polar.append(np.full(n, angle))
        weight.append(np.full(n, polar_weight * 2 * np.pi / n))
    return ViewingAngles(np.concatenate(azimuth), np.concatenate(polar), np.concatenate(weight))


def check_viewing_distance(viewing_distance: float) -> None:
    """Refuse a distance that is not positive, or gives more directions than any computer could
    use."""
    if number("viewing_distance", viewing_distance, above=0) < SMALLEST_DISTANCE:
        raise InputError(
            f"viewing_distance={viewing_distance:g} gives more than a million directions",
            remedy="view_step_degrees=4.6 gives 2370 directions, 0.6 gives 126,000.",
        )


def healpix_grid(order: int) -> ViewingAngles:
    """Give the pixel centres of a HEALPix sphere, ring by ring from the north pole, all of equal
    weight.

    Parameters
    ----------
    order : int
        12 * 4**order directions: 0 gives 12 of them 58.6 degrees apart, 3 (RELION's 7.5 degrees)
        768, 4 3072.

    Returns
    -------
    ViewingAngles

    Notes
    -----
    K. M. Gorski et al., Astrophys. J. 622, 759 (2005), equations 2 to 9.
    """
    order = number("order", order, whole=True, at_least=0)
    if order > 8:
        what = f"order={order} (--healpix-order) gives {12 * 4**order} viewing directions"
        raise InputError(what, remedy="Give 0 to 8.")
    n = 2**order
    cosines, azimuths = [], []
    for ring in range(1, 4 * n):
        to_pole = min(ring, 4 * n - ring)
        if to_pole < n:  # polar caps: rings of 4, 8, ... pixels
            cosine, n_on_ring, offset = 1 - to_pole**2 / (3 * n**2), 4 * to_pole, 0.5
        else:
            cosine = abs(4 / 3 - 2 * ring / (3 * n))
            n_on_ring = 4 * n
            offset = (ring - n + 1) % 2 / 2
        cosines.append(np.full(n_on_ring, math.copysign(cosine, 2 * n - ring)))
        azimuths.append(2 * np.pi * (np.arange(n_on_ring) + offset) / n_on_ring)
    azimuth = np.concatenate(azimuths)
    weight = np.full(len(azimuth), 4 * np.pi / len(azimuth))
    return ViewingAngles(azimuth, np.arccos(np.concatenate(cosines)), weight)


def _about_z(angle: ArrayLike) -> FloatArray:
    c, s, o = _cos_sin_zero(angle)
    return np.stack([c, -s, o, s, c, o, o, o, o + 1], axis=-1).reshape(*c.shape, 3, 3)


def _about_y(angle: ArrayLike) -> FloatArray:
    c, s, o = _cos_sin_zero(angle)
    return np.stack([c, o, s, o, o + 1, o, -s, o, c], axis=-1).reshape(*c.shape, 3, 3)


def _cos_sin_zero(angle: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    values = np.asarray(angle, np.float64)
    return np.cos(values), np.sin(values), np.zeros_like(values)
