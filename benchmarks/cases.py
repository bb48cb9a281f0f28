"""What the speed benchmark compares: five cases, and particles and templates in memory for each
of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.optics import OPTICS, electron_wavelength_angstrom
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.likelihoods.kernels.contrast_transfer import contrast_transfer
from cryolike_dask.likelihoods.kernels.translation import translation_factors
from cryolike_dask.particles.transform import pixels_to_fourier
from cryolike_dask.simulation.particle_set import draw_optics
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.projection import project

PIXEL_SIZE = 1.35
"""Angstrom."""
N_ATOMS, ATOM_RADIUS = 400, 1.0
"""Gaussians, and their standard deviation in angstrom."""
REACH = 0.7
"""Of the farthest atom, half boxes."""


@dataclass(frozen=True)
class Case:
    """Boxes, grids and a search. At resolution factor 1 the band ends at the Nyquist frequency."""

    name: str
    n_pixels: int
    n_inplanes: int
    resolution_factor: float
    search: DisplacementSearch

    @property
    def parameters(self) -> ImageParameters:
        """The grid of images and templates, in single precision."""
        radius_max = self.resolution_factor * self.n_pixels / 4
        return ImageParameters(
            self.n_pixels, PIXEL_SIZE, radius_max, self.n_inplanes, precision="single"
        )


CASES = (
    Case("small", 64, 128, 1.0, DisplacementSearch(4, 9, 9)),
    Case("wide search", 64, 128, 1.0, DisplacementSearch(16, 33, 33)),
    Case("standard", 132, 256, 1.0, DisplacementSearch(8, 16, 16)),
    Case("half resolution", 224, 256, 0.5, DisplacementSearch(8, 16, 16)),
    Case("large", 256, 512, 1.0, DisplacementSearch(10, 21, 21)),
)
STANDARD = CASES[2]


@dataclass(frozen=True, eq=False)
class Truth:
    """The pose that each image was made with: positions in the stack of templates, the search
    and the rotations."""

    template: NDArray[np.int64]
    displacement: NDArray[np.int64]
    rotation: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Operands:
    """A comparison as tensors, in single precision.

    Attributes
    ----------
    images : complex, (image, shell, angle)
    contrast : real, (image, shell, angle)
    templates : complex, (template, shell, angle)
    translation : complex, (displacement, shell, angle)
    weights : real, (shell, angle)
    mask : complex, (shell, angle)
    """

    images: Tensor
    contrast: Tensor
    templates: Tensor
    translation: Tensor
    weights: Tensor
    mask: Tensor


def make_inputs(
    case: Case,
    n_images: int,
    n_templates: int,
    *,
    signal: float,
    isotropic: bool = False,
    seed: int = 0,
) -> tuple[ImageStack, TemplateStack, Truth]:
    """Make templates with the search of the case, and images of them at random poses of the grid,
    in white noise.

    Parameters
    ----------
    case : Case
    n_images, n_templates : int
    signal : float
        Root of the power of the particle over that of the noise, in the band; 0: noise alone. The
        correlation with the true pose is signal / sqrt(1 + signal^2) on average.
    isotropic : bool
        No astigmatism.
    seed : int
        Same seed, same inputs.
    """
    rng = np.random.default_rng(seed)
    parameters, grid = case.parameters, case.parameters.grid
    viewing = _some_views(parameters.viewing_angles(), n_templates, rng)
    values = project(_atoms(grid, rng), grid, viewing, precision="single")
    templates = case.search(TemplateStack.from_array(values, parameters, viewing))
    optics = draw_optics(n_images, rng)
    if isotropic:
        optics["defocus_v_angstrom"] = optics["defocus_u_angstrom"]
    truth = Truth(
        rng.integers(n_templates, size=n_images),
        rng.integers(len(templates.displacements), size=n_images),
        rng.integers(grid.n_inplanes, size=n_images),
    )
    noise = rng.standard_normal((n_images, grid.n_pixels, grid.n_pixels), np.float32)
    images = _without_offset(pixels_to_fourier(noise, grid), grid)
    if signal > 0:
        images += np.float32(signal) * _without_offset(
            _particles(values, truth, templates, optics), grid
        )
        images = _without_offset(images, grid)
    return ImageStack.from_array(images, parameters, optics), templates, truth


def operands(images: ImageStack, templates: TemplateStack) -> Operands:
    """Read two stacks into tensors, under the conventions `standard`."""
    grid = templates.grid
    return Operands(
        images=torch.from_numpy(images.source.take(np.arange(len(images)))),
        contrast=contrast_of(images.optics, grid),
        templates=torch.from_numpy(templates.source.take(np.arange(len(templates)))),
        translation=translation_of(templates, np.arange(len(templates.displacements))),
        weights=torch.from_numpy(grid.weights).float()[:, None].expand(grid.shape).contiguous(),
        mask=torch.from_numpy(grid.mask(exact=True)).to(torch.complex64),
    )


def contrast_of(optics: NDArray[np.void], grid: PolarGrid) -> Tensor:
    """Contrast transfer of each image, float32, (image, shell, angle)."""
    columns = {name: torch.from_numpy(optics[name].copy()) for name in OPTICS.names or ()}
    wavelength = electron_wavelength_angstrom(columns["voltage_kilovolt"])
    frequencies, angles = torch.from_numpy(grid.spatial_frequencies), torch.from_numpy(grid.angles)
    parts = [
        contrast_transfer(
            {k: v[i : i + 16] for k, v in columns.items()},
            wavelength[i : i + 16],
            frequencies,
            angles,
        )
        for i in range(0, len(optics), 16)
    ]
    return torch.cat([part.float() for part in parts])


def translation_of(templates: TemplateStack, rows: NDArray[np.int64]) -> Tensor:
    """Phase factors of some displacements of the search, complex64, (displacement, shell,
    angle)."""
    kx, ky = (torch.from_numpy(k) for k in templates.grid.points())
    shifts = torch.from_numpy(
        2 * templates.displacements.table()[:, rows] / templates.grid.box_size_angstrom
    )
    return torch.cat(
        [translation_factors(*some, kx, ky).to(torch.complex64) for some in shifts.split(16, dim=1)]
    )


def _atoms(grid: PolarGrid, rng: np.random.Generator) -> Atoms:
    """Atoms that fill a ball."""
    directions = rng.standard_normal((N_ATOMS, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    positions = directions * rng.random((N_ATOMS, 1)) ** (1 / 3)
    positions -= positions.mean(axis=0)
    positions *= REACH * grid.box_size_angstrom / 2 / np.linalg.norm(positions, axis=1).max()
    return Atoms(positions, rng.uniform(6, 16, N_ATOMS), np.full(N_ATOMS, ATOM_RADIUS))


def _some_views(viewing: ViewingAngles, n: int, rng: np.random.Generator) -> ViewingAngles:
    """Directions drawn evenly over the sphere, in the order of the grid."""
    rows = rng.choice(len(viewing), n, replace=False, p=viewing.weight / viewing.weight.sum())
    return viewing.take(np.sort(rows))


def _particles(
    values: NDArray[Any], truth: Truth, templates: TemplateStack, optics: NDArray[np.void]
) -> NDArray[Any]:
    """Particles without noise: displaced, turned, filtered. Complex64, (image, shell, angle)."""
    particles = np.empty((len(optics), *templates.grid.shape), np.complex64)
    for i, (s, d, w) in enumerate(
        zip(truth.template, truth.displacement, truth.rotation, strict=True)
    ):
        moved = values[s] * translation_of(templates, np.array([d]))[0].numpy()
        particles[i] = (
            np.roll(moved, -w, axis=-1) * contrast_of(optics[i : i + 1], templates.grid)[0].numpy()
        )
    return particles


def _without_offset(values: NDArray[Any], grid: PolarGrid) -> NDArray[Any]:
    """Project a constant out of each image and bring its power to 1. Complex64, (image, shell,
    angle)."""
    mask = grid.mask(exact=True)
    offset = grid.integrate((mask.conj() * values).real) / grid.integrate(np.abs(mask) ** 2)
    values = values - (offset[:, None, None] * mask).astype(values.dtype)
    power = grid.integrate(np.abs(values) ** 2)
    return values / np.sqrt(power)[:, None, None].astype(np.float32)
