"""Densities of atoms in space, sampled and integrated by sums, and their transforms from the
definition.

Nothing of the package is used here. Positions are x, y, z; maps are [z, y, x], their origin at
voxel n // 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

from tests.real_space import about_y, about_z

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Density:
    """Spheres in space: what `Atoms` of the package describes.

    Attributes
    ----------
    positions_angstrom : (atom, 3)
    electrons, radii_angstrom : (atom,)
    shape : "gaussian" | "hard-sphere"
    """

    positions_angstrom: FloatArray
    electrons: FloatArray
    radii_angstrom: FloatArray
    shape: str = "gaussian"


def random_density(
    rng: np.random.Generator,
    n_atoms: int,
    extent_angstrom: float,
    shape: str = "gaussian",
    n_radii: int = 5,
) -> Density:
    """Draw atoms in a cube about the origin, their mean there, of a few distinct radii and
    different electrons."""
    positions = rng.uniform(-extent_angstrom, extent_angstrom, (n_atoms, 3))
    radii = rng.uniform(2.2, 3.5, n_radii)[rng.integers(n_radii, size=n_atoms)]
    return Density(positions - positions.mean(axis=0), rng.uniform(30, 100, n_atoms), radii, shape)


def image_axes(azimuth: Any, polar: Any) -> FloatArray:
    """Rz(azimuth) Ry(polar), radian: its columns are the axes x, y of an image and the beam,
    (direction, 3, 3)."""
    return about_z(np.degrees(azimuth)) @ about_y(np.degrees(polar))


def transform(
    density: Density,
    axes: FloatArray,
    kx: FloatArray,
    ky: FloatArray,
    box: float,
    *,
    cryolike: bool = False,
) -> NDArray[np.complex128]:
    """Sum over the atoms, one by one, of profile and wave: (direction, *shape of kx), k in cycles
    per half box.

    cryolike: the masses of that program, and its box subtracted from Gaussians.
    """
    k = np.hypot(kx, ky)
    centred = density.positions_angstrom - density.positions_angstrom.mean(axis=0)
    n = len(centred)
    values = np.zeros((len(axes), *k.shape), np.complex128)
    mass = 0.0
    for position, electrons, radius in zip(
        centred, density.electrons, density.radii_angstrom, strict=True
    ):
        sigma = 2 * radius / box
        if density.shape == "gaussian":
            weight = (2 * np.pi) ** -1.5 * sigma**-3 / n if cryolike else electrons
            profile = weight * np.exp(-2 * np.pi**2 * sigma**2 * k**2)
        else:
            weight = (
                3 / (8 * np.pi**2 * n) if cryolike else 3 * electrons / (8 * np.pi**3 * sigma**3)
            )
            profile = weight * _sphere(2 * np.pi * k * sigma) * (2 * np.pi * sigma) ** 3
        mass += weight
        for i, (along_x, along_y, _) in enumerate(np.swapaxes(axes, 1, 2)):
            x, y = 2 * (along_x @ position) / box, 2 * (along_y @ position) / box
            values[i] += profile * np.exp(-2j * np.pi * (kx * x + ky * y))
    if cryolike and density.shape == "gaussian":
        values -= mass * np.sinc(2 * kx) * np.sinc(2 * ky)
    return values


def _sphere(u: FloatArray) -> FloatArray:
    """(sin u - u cos u) / u^3, by its series where the difference cancels."""
    series = 1 / 3 - u**2 / 30 + u**4 / 840 - u**6 / 45360
    large = np.where(u < 0.1, 1.0, u)
    return np.where(u < 0.1, series, (np.sin(large) - large * np.cos(large)) / large**3)


def line_integrals(
    density: Density, axes: FloatArray, extent_angstrom: float, step_angstrom: float
) -> tuple[FloatArray, FloatArray]:
    """Project along the beam by a sum over points of a cubic lattice in the frame of one image.

    Returns
    -------
    axis : (n,)
        Coordinates of rows and columns, angstrom.
    projection : (row, column)
        Density integrated over the beam and over each cell.
    """
    n = round(extent_angstrom / step_angstrom)
    axis = (np.arange(-n, n) + 0.5) * step_angstrom
    projection = np.zeros((2 * n, 2 * n))
    centred = (density.positions_angstrom - density.positions_angstrom.mean(axis=0)) @ axes
    for position, electrons, radius in zip(
        centred, density.electrons, density.radii_angstrom, strict=True
    ):
        reach = 10 * radius if density.shape == "gaussian" else radius
        parts = [np.flatnonzero(np.abs(axis - c) <= reach) for c in position]
        x, y, z = (axis[part] - c for part, c in zip(parts, position, strict=True))
        squared = x**2 + y[:, None] ** 2 + z[:, None, None] ** 2  # beam, row, column
        if density.shape == "gaussian":
            values = np.exp(-squared / (2 * radius**2)) / (2 * np.pi * radius**2) ** 1.5
        else:
            values = (squared <= radius**2) / (4 / 3 * np.pi * radius**3)
        projection[np.ix_(parts[1], parts[0])] += electrons * values.sum(axis=0) * step_angstrom**3
    return axis, projection


def transform_of_image(
    axis: FloatArray, image: FloatArray, kx: FloatArray, ky: FloatArray, box: float
) -> Any:
    """Sum of pixels and waves, k in cycles per half box."""
    waves_x, waves_y = (
        np.exp(-4j * np.pi / box * np.multiply.outer(k.ravel(), axis)) for k in (kx, ky)
    )
    return ((waves_y @ image) * waves_x).sum(axis=1).reshape(kx.shape)


def voxels(
    density: Density, n: tuple[int, int, int], voxel_angstrom: tuple[float, float, float]
) -> FloatArray:
    """Sample the density of Gaussians at the centres of voxels; n and voxel_angstrom along x, y,
    z. [z, y, x]."""
    values = np.zeros(n[::-1])
    x, y, z = ((np.arange(m) - m // 2) * step for m, step in zip(n, voxel_angstrom, strict=True))
    for (px, py, pz), electrons, radius in zip(
        density.positions_angstrom, density.electrons, density.radii_angstrom, strict=True
    ):
        squared = (x - px) ** 2 + (y[:, None] - py) ** 2 + (z[:, None, None] - pz) ** 2
        values += electrons * np.exp(-squared / (2 * radius**2)) / (2 * np.pi * radius**2) ** 1.5
    return values


def leucines(positions_angstrom: FloatArray) -> Density:
    """Spheres as they stand for residues; positions of three decimals, as in a PDB file."""
    n = len(positions_angstrom)
    return Density(np.round(positions_angstrom, 3), np.full(n, 62.0), np.full(n, 3.1))


def write_pdb(path: Path, density: Density) -> Path:
    """Write positions as the C-alpha atoms of a chain of leucines."""
    lines = [
        f"ATOM  {i:5d}  CA  LEU A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C  "
        for i, (x, y, z) in enumerate(density.positions_angstrom, start=1)
    ]
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def write_map(
    path: Path,
    density: Density,
    n: tuple[int, int, int],
    voxel_angstrom: tuple[float, float, float],
) -> Path:
    """Write Gaussians as a map whose voxel n // 2 is at the mean of their positions."""
    positions = density.positions_angstrom - density.positions_angstrom.mean(axis=0)
    centred = Density(positions, density.electrons, density.radii_angstrom)
    with mrcfile.new(path) as mrc:
        mrc.set_data(voxels(centred, n, voxel_angstrom).astype(np.float32))
        mrc.voxel_size = voxel_angstrom
    return path
