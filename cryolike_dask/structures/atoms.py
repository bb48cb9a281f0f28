"""Atoms, or one sphere per residue, and the transform of their projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import finufft
import numpy as np
from numpy.typing import NDArray
from scipy.special import spherical_jn

from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import InputError

FloatArray = NDArray[np.float64]
Shape = Literal["gaussian", "hard-sphere"]


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms, or one sphere per residue.

    Attributes
    ----------
    positions_angstrom : (atom, 3) float64
    electrons : (atom,) float64
        Integral of each.
    radii_angstrom : (atom,) float64
        Standard deviation of a Gaussian, radius of a hard sphere.
    shape : "gaussian" | "hard-sphere"
    """

    positions_angstrom: FloatArray
    electrons: FloatArray
    radii_angstrom: FloatArray
    shape: Shape = "gaussian"

    def __post_init__(self) -> None:
        n = len(self.electrons)
        if self.positions_angstrom.shape != (n, 3) or self.radii_angstrom.shape != (n,) or n == 0:
            raise InputError(
                f"atoms: positions {self.positions_angstrom.shape}, electrons "
                f"{self.electrons.shape}, radii {self.radii_angstrom.shape} do not belong together"
            )
        if self.shape not in ("gaussian", "hard-sphere"):
            raise InputError(f"shape={self.shape!r} is neither gaussian nor hard-sphere")
        if not np.isfinite(self.positions_angstrom).all():
            raise InputError("an atom has a position that is not finite")
        if not (np.isfinite(self.radii_angstrom).all() and (self.radii_angstrom > 0).all()):
            raise InputError("an atom has a radius that is not positive")

    def __len__(self) -> int:
        return len(self.electrons)

    @property
    def centred(self) -> FloatArray:
        """Positions about their unweighted mean, which is the origin of all poses, angstrom."""
        mean: FloatArray = self.positions_angstrom.mean(axis=0)
        return self.positions_angstrom - mean

    @property
    def reach_angstrom(self) -> float:
        """Distance of the farthest atom from the origin."""
        with np.errstate(over="ignore"):
            return float(np.linalg.norm(self.centred, axis=1).max())

    def slices(
        self,
        rotations: FloatArray,
        kx: FloatArray,
        ky: FloatArray,
        box_size_angstrom: float,
        conventions: Conventions,
        eps: float,
    ) -> NDArray[np.complex128]:
        """Transform of the projection along each direction.

        Parameters
        ----------
        rotations : (template, 3, 3)
            Columns: the axes of the image in the coordinates of the structure.
        kx, ky : (point,)
            Frequencies in the plane of the image, cycles per half box.
        box_size_angstrom : float
        conventions : Conventions
        eps : float
            Error of the non-uniform FFT and of the compressed profiles, relative to the largest
            value.

        Returns
        -------
        complex128, (template, point)

        Notes
        -----
        sum_a A_a(k) exp(-2 pi i k . u_a), u_a the projected position. The profiles A_a(k) are sums
        of few products of a factor per atom and one per frequency, so that one two-dimensional
        non-uniform FFT of type 3 per direction, whose work is that of one atom plus one point,
        stands for the sum over atoms and points.
        """
        positions = 2 * self.centred / box_size_angstrom
        per_atom, per_point = self._factors(np.hypot(kx, ky), box_size_angstrom, conventions, eps)
        s, t = (2 * np.pi * np.ascontiguousarray(k) for k in (kx, ky))
        values = np.empty((len(rotations), len(kx)), np.complex128)
        for i, rotation in enumerate(rotations):
            x, y = np.ascontiguousarray((positions @ rotation[:, :2]).T)
            waves = finufft.nufft2d3(x, y, per_atom, s, t, eps=eps, isign=-1, nthreads=1)
            values[i] = (np.atleast_2d(waves) * per_point).sum(axis=0)
        if conventions.removes_box_from_templates and self.shape == "gaussian":
            values -= (
                self._masses(box_size_angstrom, conventions).sum()
                * np.sinc(2 * kx)
                * np.sinc(2 * ky)
            )
        return values

    def _factors(
        self, k: FloatArray, box_size_angstrom: float, conventions: Conventions, eps: float
    ) -> tuple[NDArray[np.complex128], FloatArray]:
        """Factors (rank, atom) and (rank, point) whose products add up to the profile of every
        atom."""
        radii, which = np.unique(self.radii_angstrom, return_inverse=True)
        sigma = 2 * radii[:, None] / box_size_angstrom
        if self.shape == "gaussian":
            profiles = np.exp(-2 * np.pi**2 * sigma**2 * k**2)
        else:  # 3 (sin u - u cos u) / u^3, without its cancellation at small u
            u = 2 * np.pi * sigma * k
            profiles = np.where(u > 0, 3 * spherical_jn(1, u) / np.where(u > 0, u, 1), 1)
        left, strength, right = np.linalg.svd(profiles, full_matrices=False)
        # none where all radii are far too large
        rank = max(1, int((strength > eps * strength[0]).sum()))
        per_atom = (left[:, :rank] * strength[:rank])[which].T * self._masses(
            box_size_angstrom, conventions
        )
        return np.ascontiguousarray(per_atom, np.complex128), right[:rank]

    def _masses(self, box_size_angstrom: float, conventions: Conventions) -> FloatArray:
        """Factor of the profile of each atom, which is 1 at frequency 0, (atom,)."""
        sigma = 2 * self.radii_angstrom / box_size_angstrom
        if self.shape == "gaussian":
            if conventions.atoms_weigh_electrons:
                return self.electrons
            masses: FloatArray = (2 * np.pi) ** -1.5 * sigma**-3 / len(self)
            return masses
        if conventions.atoms_weigh_electrons:
            return self.electrons
        volumes: FloatArray = np.pi * sigma**3 / len(self)
        return volumes
