"""The Fourier polar grid that images and templates are sampled on, and the transform of the box
on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import roots_jacobi

from cryolike_dask.errors import InputError, number

FloatArray = NDArray[np.float64]

MOST_PIXELS, MOST_SHELLS, MOST_POINTS = 2**15, 2**14, 2**28
"""Along a side, of a grid, and of all its shells: detectors have a third of these pixels, and
boxes a tenth."""


@dataclass(frozen=True)
class PolarGrid:
    """Rings of constant spatial frequency, each with equally spaced angles.

    Frequencies are in cycles per half box: a coordinate X = 2 r / L runs over [-1, 1) in a box of L
    angstrom.

    Attributes
    ----------
    n_pixels : int
        Pixels along a side of the image.
    pixel_size_angstrom : float
    radius_max : float
        The band limit K, cycles per half box; n_pixels / 4 is the Nyquist frequency.
    n_inplanes : int
        Angles on a ring, which are also the in-plane rotations. Even.
    dist_radii : float
        Largest mean distance between shells, cycles per half box.

    Raises
    ------
    InputError
        If a value cannot describe a grid, an odd n_inplanes among them.
    """

    n_pixels: int
    pixel_size_angstrom: float
    radius_max: float
    n_inplanes: int
    dist_radii: float = 0.25

    def __post_init__(self) -> None:
        number("n_pixels", self.n_pixels, whole=True, at_least=1)
        if number("n_inplanes", self.n_inplanes, whole=True) < 2 or self.n_inplanes % 2:
            raise InputError(
                f"n_inplanes={self.n_inplanes} is not a positive even number",
                remedy="Take an even number of in-plane angles: the half spectrum of a real image "
                "needs it.",
            )
        for name in ("pixel_size_angstrom", "radius_max", "dist_radii"):
            number(name, getattr(self, name), above=0)
        self._refuse_vast()

    def _refuse_vast(self) -> None:
        """Refuse what no computer could hold, before anything of it is made."""
        if self.n_pixels > MOST_PIXELS:
            raise InputError(
                f"n_pixels={self.n_pixels} is more than {MOST_PIXELS}, larger than any detector"
            )
        if self.radius_max / self.dist_radii >= MOST_SHELLS:
            raise InputError(
                f"radius_max={self.radius_max:g} by dist_radii={self.dist_radii:g} is "
                f"{MOST_SHELLS} shells or more",
                remedy="Both are in cycles per half box: n_pixels / 4 and 0.25 are usual.",
            )
        if self.n_shells * self.n_inplanes > MOST_POINTS:
            raise InputError(
                f"{self.n_shells} shells of n_inplanes={self.n_inplanes} angles are more points "
                f"than memory holds",
                remedy="n_inplanes is usually twice n_pixels.",
            )

    def in_words(self) -> dict[str, str]:
        """The box, how fine it is resolved, and the grid, as tables show them."""
        box, size = self.box_size_angstrom, self.pixel_size_angstrom
        return {
            "box": f"{self.n_pixels} pixels of {size:.4g} angstrom: {box:.4g} angstrom",
            "resolution": f"{box / (2 * self.radius_max):.3g} angstrom",
            "polar grid": f"{self.n_shells} shells x {self.n_inplanes} angles",
        }

    @property
    def box_size_angstrom(self) -> float:
        """Side L of the box."""
        return self.n_pixels * self.pixel_size_angstrom

    @property
    def n_shells(self) -> int:
        """Number of rings."""
        return 1 + math.ceil(self.radius_max / self.dist_radii)

    @property
    def shape(self) -> tuple[int, int]:
        """(shell, angle)."""
        return self.n_shells, self.n_inplanes

    @property
    def radii(self) -> FloatArray:
        """Frequency of each shell, cycles per half box, (shell,)."""
        return (_gauss_jacobi(self.n_shells)[0] + 1) * self.radius_max / 2

    @property
    def spatial_frequencies(self) -> FloatArray:
        """Frequency of each shell, 1/angstrom, (shell,)."""
        return 2 * self.radii / self.box_size_angstrom

    @property
    def angles(self) -> FloatArray:
        """Angle of each point on a ring, radian, (angle,). Also the in-plane rotations."""
        return 2 * np.pi * np.arange(self.n_inplanes) / self.n_inplanes

    @property
    def weights(self) -> FloatArray:
        """Quadrature weight of a point on each shell, cycles^2 per half box^2, (shell,). Over
        all points: pi K^2."""
        return (
            _gauss_jacobi(self.n_shells)[1]
            * (self.radius_max / 2) ** 2
            * 2
            * np.pi
            / self.n_inplanes
        )

    def points(self) -> tuple[FloatArray, FloatArray]:
        """Cartesian frequencies kx, ky of all points, cycles per half box, each (shell, angle)."""
        return self.radii[:, None] * np.cos(self.angles), self.radii[:, None] * np.sin(self.angles)

    def mask(self, *, exact: bool) -> NDArray[np.complex128]:
        """Transform of a constant image, (shell, angle).

        Parameters
        ----------
        exact : bool
            True: the sum over the pixels of the box (a real image's pixels, the centre half a pixel
            off for an even side). False: the continuous square, as in CryoLike.

        Notes
        -----
        Without the exact form a perfect image of 64 pixels scores 0.99896 instead of 1.
        """
        kx, ky = self.points()
        if not exact:
            return (4 * np.sinc(2 * kx) * np.sinc(2 * ky)).astype(np.complex128)
        off_centre = (self.n_pixels + 1) % 2 / self.n_pixels
        phase: NDArray[np.complex128] = np.exp(2j * np.pi * (kx + ky) * off_centre)
        return (
            (4 / self.n_pixels**2)
            * _dirichlet(kx, self.n_pixels)
            * _dirichlet(ky, self.n_pixels)
            * phase
        )

    def integrate(self, values: FloatArray) -> FloatArray:
        """Sum over the last two axes, (shell, angle), with the quadrature weights."""
        total: FloatArray = (values * self.weights[:, None]).sum(axis=(-2, -1))
        return total


def _gauss_jacobi(n: int) -> tuple[FloatArray, FloatArray]:
    nodes, weights = roots_jacobi(n, 0, 1)
    return nodes, weights


def _dirichlet(c: FloatArray, n: int) -> FloatArray:
    """sin(2 pi c) / sin(2 pi c / n), n where c is 0."""
    below = np.sin(2 * np.pi * c / n)
    small = np.abs(below) < 1e-12
    return np.where(small, float(n), np.sin(2 * np.pi * c) / np.where(small, 1.0, below))
