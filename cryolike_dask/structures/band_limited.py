"""Atoms as a density on a grid of voxels, whose transform is theirs up to a frequency and fades
beyond it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.special import i0

from cryolike_dask.compute.gpu import sent
from cryolike_dask.conventions import Conventions
from cryolike_dask.fourier.gridded import CHUNK_BYTES
from cryolike_dask.fourier.window import Window
from cryolike_dask.structures.atoms import Atoms

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float64]

FADED = 2.0
"""Where the transform has faded, of the frequency up to which it is right."""


@dataclass(frozen=True)
class Voxels:
    """A cube of voxels for the density of atoms.

    Attributes
    ----------
    n : int
        Along a side; the origin is voxel n // 2.
    step : float
        Half boxes.
    highest : float
        Frequency up to which the transform is that of the atoms, cycles per half box.
    """

    n: int
    step: float
    highest: float

    @classmethod
    def of(cls, atoms: Atoms, box_size_angstrom: float, highest: float, eps: float) -> Voxels:
        """So many that atoms, and what is seen around them, fit in."""
        step = 1 / (2 * FADED * highest)
        window = Window.of(eps, FADED).width * step / 2
        seen = _seen(2 * atoms.radius_angstrom(eps) / box_size_angstrom, highest, atoms, eps)
        reach = 2 * atoms.reach_angstrom / box_size_angstrom + seen + window
        # what cannot be held is refused by its size
        n = int(min(2 * reach / step, 2.0**20))
        return cls(2 * int(next_fast_len(n // 2 + 1)), step, highest)

    def frequencies(self) -> FloatArray:
        """By the square of their distance from the origin, in cells: cycles per half box."""
        return np.sqrt(np.arange((self.n // 2) ** 2 + 1)) / (self.n * self.step)


def band_limited(
    atoms: Atoms,
    voxels: Voxels,
    box_size_angstrom: float,
    conventions: Conventions,
    eps: float,
    real: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """The density of atoms on voxels, whose sums over them are the slices of `Atoms.slices`, but
    for a box that is removed.

    Returns
    -------
    Tensor, real, (z, y, x)

    Notes
    -----
    Each of the few products that stand for the profiles of all atoms is spread by a window, and its
    transform multiplied by its profile, by what the window did to it, and by a step that is smooth,
    so that nothing of it is far from the atoms.
    """
    import torch

    n, window = voxels.n, Window.of(eps, FADED)
    frequencies = voxels.frequencies()
    per_atom, profiles = atoms.factors(frequencies, box_size_angstrom, conventions, eps)
    profiles = profiles * _step(frequencies / voxels.highest - 1, eps)
    at = 2 * atoms.centred / (box_size_angstrom * voxels.step) + n // 2
    places = sent(at[:, ::-1].copy(), device)  # z, y, x
    cells, half = torch.arange(n, device=device), n // 2 + 1
    square = (cells - n * (cells >= half)).square().to(torch.int32)
    distance = square[:, None, None] + square[:, None] + square[:half]
    distance.clamp_(max=profiles.shape[1] - 1)
    undone = sent(1 / window.transform(np.asarray(np.fft.fftfreq(n), np.float64)), device).to(real)
    total = torch.zeros((n, n, half), dtype=real.to_complex(), device=device)
    for weights, profile in zip(per_atom.real, profiles, strict=True):
        strength = sent(np.ascontiguousarray(weights), device).to(real)
        waves = torch.fft.rfftn(_spread(places, strength, n, window))
        waves *= sent(profile, device).to(real)[distance]
        total += waves
    total *= undone[:, None, None] * undone[:, None] * undone[:half]
    values: torch.Tensor = torch.fft.irfftn(total, s=(n, n, n))
    return values


def _spread(places: torch.Tensor, strength: torch.Tensor, n: int, window: Window) -> torch.Tensor:
    """Sum windows about places, (place, 3) in cells, in a periodic cube of n cells."""
    import torch

    device, real = places.device, strength.dtype
    steps = torch.arange(window.width, device=device)
    cube = torch.zeros(n**3, dtype=real, device=device)
    bytes_of_place = window.width**3 * (8 + 2 * strength.element_size())
    together = max(1, CHUNK_BYTES[device.type] // bytes_of_place)
    for start in range(0, len(places), together):
        part = slice(start, start + together)
        first, taps = window.taps(places[part], real)
        z, y, x = ((first[:, i, None] + steps) % n for i in range(3))
        cells = (z[:, :, None] * n + y[:, None])[..., None] * n + x[:, None, None]
        values = taps[:, 0, :, None, None] * taps[:, 1, None, :, None] * taps[:, 2, None, None]
        # its sums are in an order that is not left to chance, on GPUs too
        cube.index_put_(
            (cells.flatten(),), (values * strength[part, None, None, None]).flatten(), True
        )
    return cube.view(n, n, n)


def _seen(radius: float, highest: float, atoms: Atoms, eps: float) -> float:
    """Distance from an atom of this radius at which so little is seen, with what fading does to
    it."""
    fading = _steepness(eps) / (np.pi * (FADED - 1) * highest)
    if atoms.shape == "hard-sphere":
        return radius + fading
    # either takes a part of what there is to decay: a Gaussian, and a window's transform
    part = np.linspace(0, 1, 101)
    return float((radius * np.sqrt(1 - part) + fading * np.sqrt(part * (2 - part))).max())


def _steepness(eps: float) -> float:
    return -math.log(eps) + 2


def _step(beyond: FloatArray, eps: float) -> FloatArray:
    """1 below 0, 0 above `FADED` - 1, and between them the integral of a window of Kaiser and
    Bessel, whose transform is the narrowest."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    to = np.clip(2 * beyond / (FADED - 1) - 1, -1, 1)[:, None]

    def up_to(end: FloatArray) -> FloatArray:
        at = -1 + (end + 1) * (nodes + 1) / 2
        window = i0(_steepness(eps) * np.sqrt(np.clip(1 - at**2, 0, None)))
        total: FloatArray = ((end + 1) / 2 * weights * window).sum(axis=1)
        return total

    return 1 - up_to(to) / up_to(np.ones((1, 1)))
