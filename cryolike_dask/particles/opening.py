"""Opening particle sets: metadata and image files into a lazy image stack."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import ConventionsName, conventions_named
from cryolike_dask.errors import InputError, InputFileError, listed, number
from cryolike_dask.geometry.known_poses import recorded_poses
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.mrc import MrcStack, open_mrc_stack
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.stacks import groups_of
from cryolike_dask.labels import Downsampling
from cryolike_dask.particles.checking import check_sizes, matched, warn_of_repeated
from cryolike_dask.particles.cryosparc import read_cryosparc, read_cryosparc_optics
from cryolike_dask.particles.images import ParticleImages, Preparation, contrast_with_rim
from cryolike_dask.particles.microscopes import groups_kept_apart
from cryolike_dask.particles.relion import optics_of, read_relion
from cryolike_dask.particles.star_columns import open_columns
from cryolike_dask.particles.table import ParticleTable, concatenate
from cryolike_dask.stacks import ImageStack

logger = logging.getLogger("cryolike_dask")

COMMON_SEARCH_PIXELS = 8.0
"""Largest displacement of the default search."""
N_LOOKED_AT = 64
"""Images whose contrast is looked at when a set is opened."""

PathOrPaths = str | Path | Sequence[str | Path]


def open_particles(
    metadata: PathOrPaths,
    params_input: str | Path | ImageParameters,
    *,
    images: PathOrPaths | None = None,
    folder: str | Path | None = None,
    passthrough: str | Path | None = None,
    pixel_size_angstrom: float | None = None,
    downsample: Downsampling = "fourier",
    invert_contrast: bool = False,
    background_radius_pixels: float | None = None,
    recenter: bool = False,
    batch_size: int = 1024,
    n_images_per_batch: int | None = None,
    conventions: ConventionsName = "standard",
) -> ImageStack:
    """Open a RELION or cryoSPARC particle set as images that are read and transformed on the
    workers when needed.

    Metadata, the headers of the image files, and the pixels of up to 64 images (is the contrast
    inverted?) are read.

    Parameters
    ----------
    metadata : path or several
        STAR files (RELION 3.1 and later, 3.0 and older), `.cs` files, or folders of cryoSPARC jobs.
        Several are taken one after the other; the order of rows is kept.
    params_input : path or ImageParameters
        `parameters.npz`, or its content. Images of more pixels over the same box are brought to its
        pixels.
    images : path or several, optional
        One MRC file for each STAR file, wherever its `rlnImageName` says that images are: each row
        is the image of the number there, or without that column image k is row k.
    folder : path, optional
        Where the names of image files start; default: found upwards from the metadata.
    passthrough : path, optional
        cryoSPARC's passthrough file; default: found beside the `.cs` file.
    pixel_size_angstrom : float, optional
        Of the stored images, where neither metadata nor headers say it.
    downsample : "fourier" | "mean" | "max"
        How images are brought to fewer pixels: by cropping their Fourier transform, or by blocks.
    invert_contrast : bool
        Particles are dark on light.
    background_radius_pixels : float, optional
        Subtract the mean of the pixels beyond this radius and divide by their standard deviation;
        pixels of the grid.
    recenter : bool
        Move every image by its recorded origin, so that the search needs to cover less.
    batch_size : int
        Images per chunk, which is a stack of a run and a task.
    n_images_per_batch : int, optional
        Images per tile inside a task. Changes no result beyond rounding.
    conventions : "standard" | "cryolike"
        "cryolike" makes the stacks that CryoLike makes, x and y exchanged.

    Returns
    -------
    ImageStack
        `source.table` says where each image comes from.

    Raises
    ------
    InputError, InputFileError, GridMismatchError
        If files are missing (all of them are named), damaged, or do not fit the parameters.
    """
    parameters, values = read_parameters(params_input), conventions_named(conventions)
    batch_size = number("batch_size", batch_size, whole=True, at_least=1)
    if background_radius_pixels is not None:
        background_radius_pixels = number(
            "background_radius_pixels", background_radius_pixels, above=0
        )
    table = read_particles(metadata, images=images, folder=folder, passthrough=passthrough)
    files = tuple(open_mrc_stack(path) for path in table.image_files)
    _say_what_is_odd(files)
    table = matched(table, files)
    warn_of_repeated(table)
    check_sizes(table, files, parameters, pixel_size_angstrom, downsample)
    if recenter and table.origin_angstrom is None:
        raise InputError("recenter=True, but the metadata have no origins", remedy="Leave it out.")
    preparation = Preparation(
        downsample=downsample,
        invert_contrast=bool(invert_contrast),
        background_radius_pixels=background_radius_pixels,
        recenter=bool(recenter),
        transposed=not values.corrects_transposed_stacks,
    )
    precision = "double" if parameters.precision == "double" else "single"
    source = ParticleImages(table, files, parameters.grid, preparation, precision)
    _warn_of_offsets(table, parameters, recenter)
    _warn_of_contrast(source)
    stack = ImageStack(
        source=source,
        grid=parameters.grid,
        optics=table.optics,
        frame="transposed" if preparation.transposed else "xy",
        stack=np.arange(len(table)) // batch_size,
        image_in_stack=np.arange(len(table)) % batch_size,
        chunks=(len(table),),
        n_per_batch=n_images_per_batch,
        groups=groups_of(len(table), table.micrograph, table.optics_group),
        poses=recorded_poses(
            len(table), table.angles_radian, table.origin_angstrom, recentered=bool(recenter)
        ),
    )
    n, size = files[0].shape[-1], parameters.grid.box_size_angstrom / files[0].shape[-1]
    logger.info("%s: %d pixels of %.4g angstrom", table.described(), n, size)
    return stack.chunk(batch_size)


def read_particles(
    metadata: PathOrPaths,
    *,
    images: PathOrPaths | None = None,
    folder: str | Path | None = None,
    passthrough: str | Path | None = None,
) -> ParticleTable:
    """Read what metadata files say of their particles, each by its kind; parameters are those of
    `open_particles`."""
    paths = _paths(metadata, "metadata")
    paired: list[Path | None] = (
        [None] * len(paths) if images is None else list(_paths(images, "images"))
    )
    if len(paired) != len(paths):
        raise InputError(f"{len(paths)} metadata file(s), but {len(paired)} image file(s)")
    tables = []
    for path, image_file in zip(paths, paired, strict=True):
        if path.is_dir() or path.suffix.lower() == ".cs":
            if image_file is not None:
                raise InputFileError(
                    "names its image files itself", source=path, remedy="Leave images out."
                )
            tables.append(read_cryosparc(path, folder, passthrough))
        else:
            tables.append(read_relion(path, folder, image_file))
    table = concatenate(groups_kept_apart(tables)) if len(tables) > 1 else tables[0]
    if not len(table):
        raise InputFileError("lists no particles", source=paths[0])
    return table


def read_optics(path: str | Path) -> NDArray[np.void]:
    """Read the optics of a particle set alone; its image files need not be there.

    Returns
    -------
    structured array, `OPTICS`, (image,)
    """
    if Path(path).suffix.lower() == ".cs":
        return read_cryosparc_optics(path)
    return optics_of(open_columns(path, need_names=False))


def _paths(given: Any, name: str) -> list[Path]:
    listed = [given] if isinstance(given, (str, Path)) else given
    if (
        not isinstance(listed, Sequence)
        or not listed
        or not all(isinstance(p, (str, Path)) for p in listed)
    ):
        raise InputError(f"{name}={given!r} is not a path, or several")
    return [Path(p) for p in listed]


def _say_what_is_odd(files: tuple[MrcStack, ...]) -> None:
    """Log each kind of oddity of image files once, with the first file that has it."""
    notes: dict[str, list[str]] = {}
    for file in files:
        for note in file.notes:
            notes.setdefault(note, []).append(file.path)
    for note, paths in notes.items():
        logger.info(
            "%s: %s%s",
            paths[0],
            note,
            f" ({len(paths)} files of this kind)" if len(paths) > 1 else "",
        )


def _warn_of_offsets(table: ParticleTable, parameters: ImageParameters, recenter: bool) -> None:
    if table.origin_angstrom is None:
        return
    outside = np.flatnonzero(
        (np.abs(table.origin_angstrom) > parameters.grid.box_size_angstrom / 2).any(axis=1)
    )
    if len(outside):
        logger.warning(
            "%d of %d particles are recorded more than half of the box off its middle, row(s) %s "
            "(from 0) of %s",
            len(outside),
            len(table),
            listed(table.metadata_row[outside]),
            table.metadata_files[table.metadata_number[outside[0]]],
        )
    if recenter:
        return
    limit = COMMON_SEARCH_PIXELS * parameters.pixel_size_angstrom
    fraction = float((np.abs(table.origin_angstrom) > limit).any(axis=1).mean())
    if fraction > 0:
        logger.warning(
            "%.1f%% of the particles are recorded more than %g pixels (%.3g angstrom) off the "
            "middle, beyond a common search; recenter=True (--recenter) moves them there",
            100 * fraction,
            COMMON_SEARCH_PIXELS,
            limit,
        )


def _warn_of_contrast(source: ParticleImages) -> None:
    n = min(len(source.table), N_LOOKED_AT)
    rows = np.linspace(0, len(source.table) - 1, n).round().astype(np.int64)
    plain = replace(source, preparation=replace(source.preparation, background_radius_pixels=None))
    contrast = contrast_with_rim(plain.pixels(rows))
    if n > 1 and contrast.mean() < -3 * contrast.std(ddof=1) / np.sqrt(n):
        logger.warning(
            "%.0f%% of %d particles looked at are darker in the middle than at the rim: dark on "
            "light? invert_contrast=True (--invert-contrast) turns them over",
            100 * (contrast < 0).mean(),
            n,
        )
