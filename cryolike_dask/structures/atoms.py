"""Atoms, or one sphere per residue, and the transform of their projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import finufft
import gemmi
import numpy as np
from numpy.typing import NDArray
from scipy.special import spherical_jn

from cryolike_dask.conventions import Conventions
from cryolike_dask.errors import InputError
from cryolike_dask.structures.scattering import (
    check_scattering,
    scattering_profiles,
    widest_b_factor,
)

FloatArray = NDArray[np.float64]
Shape = Literal["gaussian", "hard-sphere", "scattering"]

VAN_DER_WAALS = np.array([gemmi.Element(int(z)).vdw_r for z in range(119)])
"""Radii by atomic number, angstrom."""


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms, or one sphere per residue.

    Attributes
    ----------
    positions_angstrom : (atom, 3) float64
    electrons : (atom,) float64
        Integral of each. Of atoms that scatter: their atomic numbers.
    radii_angstrom : (atom,) float64
        Standard deviation of a Gaussian, radius of a hard sphere. Atoms that scatter need none.
    shape : "gaussian" | "hard-sphere" | "scattering"
    b_factors : (atom,) float64, optional
        Of atoms that scatter, angstrom^2; default: 0.
    bulk_solvent : (float, float), optional
        Of atoms that scatter: share k and B-factor of the flat solvent that they displace, which
        takes k exp(-B f^2 / 4) of their transform at the spatial frequency f.
    origin_angstrom : (3,) float64, optional
        Origin of all poses; default: the unweighted mean of the positions.
    """

    positions_angstrom: FloatArray
    electrons: FloatArray
    radii_angstrom: FloatArray
    shape: Shape = "gaussian"
    b_factors: FloatArray | None = None
    bulk_solvent: tuple[float, float] | None = None
    origin_angstrom: FloatArray | None = None

    def __post_init__(self) -> None:
        n = len(self.electrons)
        if self.positions_angstrom.shape != (n, 3) or self.radii_angstrom.shape != (n,) or n == 0:
            raise InputError(
                f"atoms: positions {self.positions_angstrom.shape}, electrons "
                f"{self.electrons.shape}, radii {self.radii_angstrom.shape} do not belong together"
            )
        if self.shape not in get_args(Shape):
            raise InputError(f"shape={self.shape!r} is not gaussian, hard-sphere or scattering")
        if not np.isfinite(self.positions_angstrom).all():
            raise InputError("an atom has a position that is not finite")
        if not (np.isfinite(self.radii_angstrom).all() and (self.radii_angstrom > 0).all()):
            raise InputError("an atom has a radius that is not positive")
        if self.shape == "scattering":
            if self.b_factors is None:
                object.__setattr__(self, "b_factors", np.zeros(n))
            check_scattering(self.electrons, self._b_factors, self.bulk_solvent)
        elif self.b_factors is not None or self.bulk_solvent is not None:
            raise InputError(
                f"B-factors or bulk solvent of atoms of shape={self.shape!r}",
                remedy='They belong to shape="scattering".',
            )

    @classmethod
    def scattering(
        cls,
        positions_angstrom: FloatArray,
        elements: NDArray[Any],
        b_factors: FloatArray | float = 0.0,
        bulk_solvent: tuple[float, float] | None = None,
    ) -> Atoms:
        """Atoms that scatter electrons by the tabulated factors of their elements, neutral.

        Parameters
        ----------
        positions_angstrom : (atom, 3)
        elements : (atom,) int
            Atomic numbers; deuterium is 1.
        b_factors : (atom,) or float
            Angstrom^2.
        bulk_solvent : (float, float), optional
            Share, and B-factor in angstrom^2, of the solvent that they displace.
        """
        numbers = np.asarray(elements, np.float64)
        known = np.clip(np.nan_to_num(numbers), 0, 118).astype(np.int64)
        return cls(
            np.asarray(positions_angstrom, np.float64),
            numbers,
            VAN_DER_WAALS[known],
            "scattering",
            np.array(np.broadcast_to(np.asarray(b_factors, np.float64), numbers.shape)),
            bulk_solvent,
        )

    def __len__(self) -> int:
        return len(self.electrons)

    @property
    def origin(self) -> FloatArray:
        """The origin of all poses, angstrom, (3,)."""
        given, mean = self.origin_angstrom, self.positions_angstrom.mean(axis=0)
        return mean if given is None else np.asarray(given, np.float64)

    @property
    def centred(self) -> FloatArray:
        """Positions about the origin of all poses, angstrom."""
        return self.positions_angstrom - self.origin

    @property
    def reach_angstrom(self) -> float:
        """Distance of the farthest atom from the origin."""
        with np.errstate(over="ignore"):
            return float(np.linalg.norm(self.centred, axis=1).max())

    def radius_angstrom(self, eps: float) -> float:
        """Distance from the middle of an atom beyond which no more than a part `eps` of what is
        highest there is seen of it."""
        if self.shape == "hard-sphere":
            return float(self.radii_angstrom.max())
        largest = float(self.radii_angstrom.max())
        if self.shape == "scattering":
            solvent = 0.0 if self.bulk_solvent is None else self.bulk_solvent[1]
            widest = widest_b_factor(self.electrons.astype(np.int64)) + self._b_factors.max()
            largest = np.sqrt(float(widest + solvent) / 8) / np.pi
        return float(largest * np.sqrt(-2 * np.log(eps)))

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
        per_atom, per_point = self.factors(np.hypot(kx, ky), box_size_angstrom, conventions, eps)
        s, t = (2 * np.pi * np.ascontiguousarray(k) for k in (kx, ky))
        values = np.empty((len(rotations), len(kx)), np.complex128)
        for i, rotation in enumerate(rotations):
            x, y = np.ascontiguousarray((positions @ rotation[:, :2]).T)
            waves = finufft.nufft2d3(x, y, per_atom, s, t, eps=eps, isign=-1, nthreads=1)
            values[i] = (np.atleast_2d(waves) * per_point).sum(axis=0)
        if conventions.removes_box_from_templates and self.shape == "gaussian":
            box = self.removed_box(box_size_angstrom, conventions)
            values -= box * np.sinc(2 * kx) * np.sinc(2 * ky)
        return values

    def removed_box(self, box_size_angstrom: float, conventions: Conventions) -> float:
        """Integral of the constant box that is subtracted from projections."""
        if not conventions.removes_box_from_templates or self.shape != "gaussian":
            return 0.0
        return float(self._masses(box_size_angstrom, conventions).sum())

    def factors(
        self, k: FloatArray, box_size_angstrom: float, conventions: Conventions, eps: float
    ) -> tuple[NDArray[np.complex128], FloatArray]:
        """Factors (rank, atom) and (rank, point) whose products add up to the profile of every
        atom."""
        if self.shape == "scattering":
            return self._scattering_factors((k / box_size_angstrom) ** 2, conventions, eps)
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

    def _scattering_factors(
        self, x: FloatArray, conventions: Conventions, eps: float
    ) -> tuple[NDArray[np.complex128], FloatArray]:
        """As `factors`; x is a quarter of the square of the spatial frequency, angstrom^-2."""
        refuse_scattering(conventions)
        elements = self.electrons.astype(np.int64)
        per_atom, per_point = scattering_profiles(elements, self._b_factors, x, eps)
        if self.bulk_solvent is not None:
            share, b_factor = self.bulk_solvent
            per_point *= 1 - share * np.exp(-b_factor * x)
        return per_atom.astype(np.complex128), per_point

    @property
    def _b_factors(self) -> FloatArray:
        return np.zeros(len(self)) if self.b_factors is None else self.b_factors

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


def refuse_scattering(conventions: Conventions) -> None:
    """Refuse atoms that scatter where conventions know none.

    Raises
    ------
    InputError
    """
    if not conventions.knows_scattering:
        raise InputError(
            f"atoms scatter, but conventions={conventions.name!r} know none that do",
            remedy="Choose atom_shape gaussian or hard-sphere; or other conventions.",
        )
