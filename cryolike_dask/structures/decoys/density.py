"""Density whose phases are random beyond the envelope, cut to the molecular mask, with the power
that each shell had."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import finufft
import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.volumes import Volume

FloatArray = NDArray[np.float64]

BLUR_ANGSTROM, OF_MAXIMUM = 3.0, 0.1
"""The molecular mask is where density, blurred so far, exceeds this part of its maximum: it ends
about as far outside of the atoms as the blur is wide."""
MARGIN_ANGSTROM = 10.0
"""Beyond the outermost atom, on each side."""
ROUNDS = 5
"""Times that density is cut and its power restored, which lets some of it out of the mask again."""
EPS = 1e-6
"""Error of the non-uniform FFT: decoys need not be those of another program to many digits."""


def voxels_of(atoms: Atoms, voxel_size_angstrom: float) -> int:
    """Voxels along a side that hold atoms, wherever they turn."""
    side = 2 * (atoms.reach_angstrom + MARGIN_ANGSTROM)
    return int(fft.next_fast_len(2 * int(np.ceil(side / voxel_size_angstrom / 2)), real=True))


def density_of(atoms: Atoms, n_voxels: int, voxel_size_angstrom: float) -> Volume:
    """Sample atoms on voxels, as far as these resolve them: their transform is exact up to the
    Nyquist frequency, and cut off there.

    Parameters
    ----------
    atoms : Atoms
    n_voxels : int
        Along each side.
    voxel_size_angstrom : float
    """
    n, side = n_voxels, n_voxels * voxel_size_angstrom
    along = (np.arange(n, dtype=np.int32) - n // 2) ** 2
    squares = np.add.outer(np.add.outer(along, along), along)
    k = np.sqrt(np.arange(squares.max() + 1)) / 2  # cycles per half side
    per_atom, per_point = atoms.factors(k, side, STANDARD, EPS)
    z, y, x = np.ascontiguousarray(2 * np.pi * atoms.centred.T[::-1] / side)
    modes = np.zeros((n, n, n), np.complex64)
    for strengths, profile in zip(np.atleast_2d(per_atom), per_point, strict=True):
        waves = finufft.nufft3d1(
            z, y, x, np.ascontiguousarray(strengths), (n, n, n), eps=EPS, isign=-1, nthreads=1
        )
        modes += waves * profile[squares]
    values = fft.fftshift(fft.ifftn(fft.ifftshift(modes), overwrite_x=True).real)
    return Volume(values.astype(np.float32), (voxel_size_angstrom,) * 3)


def molecular_mask(volume: Volume) -> NDArray[np.bool_]:
    """Where the molecule is, (z, y, x).

    Raises
    ------
    InputError
        If there is no density above that of the faces.
    """
    blurred = gaussian_filter(
        _above_faces(volume), [BLUR_ANGSTROM / size for size in volume.voxel_size_angstrom[::-1]]
    )
    if not blurred.max() > 0:
        raise InputError(
            "a map has no density above that of its faces, and so no envelope",
            remedy="Is its contrast inverted? Density has to be bright.",
        )
    mask: NDArray[np.bool_] = blurred > OF_MAXIMUM * blurred.max()
    return mask


def radius_of_gyration(volume: Volume, mask: NDArray[np.bool_]) -> float:
    """Of the density inside the mask, angstrom."""
    weights = _above_faces(volume)[mask]
    places = np.argwhere(mask) * np.array(volume.voxel_size_angstrom[::-1])
    middle = np.average(places, axis=0, weights=weights)
    return float(np.sqrt(np.average(((places - middle) ** 2).sum(axis=1), weights=weights)))


def phases_randomised(volume: Volume, rng: np.random.Generator) -> Volume:
    """Make a decoy of a density map.

    Beyond the spatial frequency 1 / (2 Rg) phases are those of noise; density is cut to the
    molecular mask, and each shell given the power that it had, several times.

    Parameters
    ----------
    volume : Volume
    rng : numpy.random.Generator

    Returns
    -------
    Volume
        On the same voxels.
    """
    values, mask = _above_faces(volume, keep_dark=True), molecular_mask(volume)
    shape, of_shell, frequency = values.shape, *_shells(volume)
    beyond = frequency > 1 / (2 * radius_of_gyration(volume, mask))
    original = fft.rfftn(values)
    power = _power(original, of_shell, beyond, shape)
    noise = fft.rfftn(rng.standard_normal(shape))
    made = np.where(beyond, np.abs(original) * np.exp(1j * np.angle(noise)), original)
    for _ in range(ROUNDS):
        cut = fft.rfftn(fft.irfftn(made, shape) * mask)
        left = _power(cut, of_shell, beyond, shape)
        scale = np.sqrt(np.divide(power, left, where=left > 0, out=np.zeros_like(power)))
        made = np.where(beyond, cut * scale[of_shell], original)
    return replace(volume, values=fft.irfftn(made, shape).astype(np.float32))


def _above_faces(volume: Volume, *, keep_dark: bool = False) -> NDArray[Any]:
    """Density above the mean over the six faces of the box, negative as 0 unless it is kept."""
    values = volume.values.astype(np.float64)
    faces = [np.take(values, side, axis).ravel() for axis in range(3) for side in (0, -1)]
    values -= np.concatenate(faces).mean()
    return values if keep_dark else values.clip(0, out=values)


def _shells(volume: Volume) -> tuple[NDArray[np.int64], FloatArray]:
    """The shell of each point of the half transform, as wide as the longest side tells apart, and
    its spatial frequency (1/angstrom)."""
    (nz, ny, nx), (dx, dy, dz) = volume.values.shape, volume.voxel_size_angstrom
    fz, fy, fx = fft.fftfreq(nz, dz), fft.fftfreq(ny, dy), fft.rfftfreq(nx, dx)
    frequency = np.sqrt(np.add.outer(np.add.outer(fz**2, fy**2), fx**2))
    longest = max(nz * dz, ny * dy, nx * dx)
    return np.rint(frequency * longest).astype(np.int64), frequency


def _power(
    transform: NDArray[np.complex128],
    of_shell: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    shape: tuple[int, ...],
) -> FloatArray:
    """Power of each shell over the chosen points: those of the other half count too."""
    twice = np.full(transform.shape[2], 2.0)
    twice[0] = 1.0
    if shape[2] % 2 == 0:
        twice[-1] = 1.0
    power = np.abs(transform) ** 2 * twice * chosen
    summed = np.bincount(of_shell.ravel(), power.ravel(), int(of_shell.max()) + 1)
    return summed.astype(np.float64)
