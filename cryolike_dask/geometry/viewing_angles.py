"""Viewing directions of the templates, with the quadrature weights of the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, number

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ViewingAngles:
    """One direction per template.

    Attributes
    ----------
    azimuth, polar : (template,) float64, radian
    weight : (template,) float64
        Steradian; all of them sum to 4 pi on a full grid.
    """

    azimuth: FloatArray
    polar: FloatArray
    weight: FloatArray

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


def viewing_grid(viewing_distance: float) -> ViewingAngles:
    """Lay circles of equal polar angle over the sphere, about `viewing_distance` apart.

    Parameters
    ----------
    viewing_distance : float
        Angular distance between neighbouring directions, in units where the sphere has radius 1 and
        the equator has 3 + round(2 pi / viewing_distance) directions.

    Returns
    -------
    ViewingAngles
        Circle by circle, from the south pole up (the nodes of Gauss and Legendre in cos(polar) ascend).
    """
    number("viewing_distance", viewing_distance, above=0)
    density = 2 * np.pi / viewing_distance
    n_polar = 3 + math.ceil((3 + round(density)) / 2)
    cosines, polar_weights = np.polynomial.legendre.leggauss(n_polar)
    azimuth, polar, weight = [], [], []
    for cosine, polar_weight in zip(cosines, polar_weights, strict=True):
        angle = math.acos(cosine)
        n = 3 + round(density * math.sin(angle))
        azimuth.append(2 * np.pi * np.arange(n) / n)
        polar.append(np.full(n, angle))
        weight.append(np.full(n, polar_weight * 2 * np.pi / n))
    return ViewingAngles(np.concatenate(azimuth), np.concatenate(polar), np.concatenate(weight))
