"""A look at a few particles of one's own: compared with one's own structures, coarsely, in
seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
from distributed import Client

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.mrc import open_mrc_stack
from cryolike_dask.particles.opening import open_particles, read_particles
from cryolike_dask.run_likelihood import (
    configure_displacement,
    configure_likelihood_files,
    run_likelihood_optimal_pose,
)
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.opening import open_structures

MOST_PIXELS, MOST_IMAGES = 48, 128
"""Of the grid, and particles that are taken: what is done in seconds."""
VIEWING_DISTANCE = 0.3
SEARCH = configure_displacement(
    max_displacement_pixels=3.0, n_displacements_x=13, n_displacements_y=13
)


@dataclass(frozen=True, eq=False)
class OwnInputs:
    """Particles and structures of one's own, on a coarse grid."""

    parameters: ImageParameters
    images: ImageStack
    templates: list[TemplateStack]


def open_own_inputs(
    particles: Path, structures: Sequence[Path], *, invert_contrast: bool = False
) -> OwnInputs:
    """Open the first particles of a STAR or .cs file, and structures, on a grid that covers the
    box of the particles.

    Raises
    ------
    InputError, InputFileError
        If files cannot be read or do not fit, or nothing says the pixel size.
    """
    table = read_particles(particles)
    stack = open_mrc_stack(table.image_files[0])
    n_pixels = stack.shape[-1]
    size = stack.voxel_size_angstrom
    if table.pixel_size_angstrom is not None:
        size = float(table.pixel_size_angstrom[0])
    if not size:
        raise InputError(
            f"neither {particles} nor the headers of its images say the pixel size",
            remedy="Add it to the metadata (rlnImagePixelSize).",
        )
    n = min(MOST_PIXELS, n_pixels - n_pixels % 2)
    parameters = ImageParameters(
        n,
        n_pixels * size / n,
        viewing_distance=VIEWING_DISTANCE,
        precision="single",
        atom_shape="scattering",
    )
    images = open_particles(particles, parameters, invert_contrast=invert_contrast)
    return OwnInputs(parameters, images[:MOST_IMAGES], open_structures([*structures], parameters))


def run_own_inputs(
    inputs: OwnInputs, folder: Path, client: Client | None = None, *, progress: bool = True
) -> xr.Dataset:
    """Compare all images with all structures, and write the results into a folder."""
    return run_likelihood_optimal_pose(
        configure_likelihood_files(None, None, folder, i_template="all"),
        inputs.parameters,
        SEARCH,
        images=inputs.images,
        templates=inputs.templates,
        overwrite=True,
        client=client,
        progress=progress,
    )
