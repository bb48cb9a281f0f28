"""Checks that image files hold what the metadata say, on the box of the parameters."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from cryolike_dask.errors import GridMismatchError, InputFileError, listed, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.mrc import MrcStack
from cryolike_dask.particles.resample import check_downsampling
from cryolike_dask.particles.table import ParticleTable

logger = logging.getLogger("cryolike_dask")

SAME_SIZE = 1e-3
"""Relative difference up to which two sizes in angstrom are one size: files write three or four
digits."""


def matched(table: ParticleTable, files: tuple[MrcStack, ...]) -> ParticleTable:
    """Give the table, a file that is named alone being its only image; refuse images that files
    do not hold."""
    n_held = np.array([file.shape[0] for file in files])[table.file_number]
    alone = table.image_index < 0
    beyond, many = np.flatnonzero(table.image_index >= n_held), np.flatnonzero(alone & (n_held > 1))
    if len(beyond):
        row = beyond[0]
        raise InputFileError(
            f"row {table.metadata_row[row]} (from 0) is image {table.image_index[row] + 1} of "
            f"{files[table.file_number[row]].path}, which holds {n_held[row]}",
            source=table.metadata_files[table.metadata_number[row]],
            remedy="The two do not belong together.",
        )
    if len(many):
        row = many[0]
        raise InputFileError(
            f"{len(many)} row(s) name a file alone, not which of its images they are; the first, "
            f"row {table.metadata_row[row]} (from 0), names {files[table.file_number[row]].path}, "
            f"which holds {n_held[row]}",
            source=table.metadata_files[table.metadata_number[row]],
            remedy="Name images as N@FILE, N from 1; or if the rows are the images of one file in "
            "order, remove the column rlnImageName and give that file (images=, --images).",
        )
    return replace(table, image_index=np.where(alone, 0, table.image_index))


def warn_of_repeated(table: ParticleTable) -> None:
    """Say how many rows are an image that another row is, too, and whether their optics differ."""
    one_number = table.file_number * (table.image_index.max() + 1) + table.image_index
    _, first, inverse, count = np.unique(
        one_number, return_index=True, return_inverse=True, return_counts=True
    )
    rows = np.flatnonzero(count[inverse] > 1)
    if not len(rows):
        return
    differ = np.count_nonzero(table.optics != table.optics[first][inverse])
    logger.warning(
        "%s: %d of %d rows are an image that another row is too (%d such image(s); the first, "
        "image %d of %s, in row(s) %s, from 0)%s; each row counts by itself",
        table.metadata_files[table.metadata_number[rows[0]]],
        len(rows),
        len(table),
        np.count_nonzero(count > 1),
        table.image_index[rows[0]] + 1,
        table.image_files[table.file_number[rows[0]]],
        listed(table.metadata_row[one_number == one_number[rows[0]]]),
        f", {differ} of them with other optics" if differ else "",
    )


def check_sizes(
    table: ParticleTable,
    files: tuple[MrcStack, ...],
    parameters: ImageParameters,
    given: float | None,
    downsample: str,
) -> None:
    """See that all images show the box of the parameters; say once what is done to them, and
    what headers say wrong."""
    shapes = {file.shape[1:]: file.path for file in files}
    if len(shapes) > 1:
        different = "; ".join(
            f"{rows} x {columns} in {path}" for (rows, columns), path in shapes.items()
        )
        raise GridMismatchError(
            f"images of different sizes: {different}", remedy="Convert them one by one."
        )
    ((rows, n),) = shapes
    if rows != n:
        raise GridMismatchError(
            f"images of {rows} x {n} pixels are not square", source=files[0].path
        )
    if table.box_size_pixels is not None and (table.box_size_pixels != n).any():
        stated_size = table.box_size_pixels[table.box_size_pixels != n][0]
        raise GridMismatchError(
            f"says {stated_size} pixels, but {files[0].path} has {n}",
            source=table.metadata_files[0],
        )
    check_downsampling(n, parameters.n_pixels, downsample)
    _check_pixel_size(table, files, parameters, given, n)
    if n != parameters.n_pixels:
        how = {
            "fourier": "cropped in Fourier space",
            "mean": "averaged",
            "max": "reduced to the largest",
        }[downsample]
        logger.info(
            "images of %d pixels are %s to %d pixels of %.4g angstrom",
            n,
            how,
            parameters.n_pixels,
            parameters.pixel_size_angstrom,
        )


def _check_pixel_size(
    table: ParticleTable,
    files: tuple[MrcStack, ...],
    parameters: ImageParameters,
    given: float | None,
    n: int,
) -> None:
    wanted = parameters.grid.box_size_angstrom / n
    stated_sizes = table.pixel_size_angstrom
    headers = np.array([file.voxel_size_angstrom or 0.0 for file in files])[table.file_number]
    if given is not None:
        number("pixel_size_angstrom", given, above=0)
    if (
        stated_sizes is not None
        and given is not None
        and not np.allclose(stated_sizes, given, rtol=SAME_SIZE, atol=0)
    ):
        raise GridMismatchError(
            f"pixels of {stated_sizes[np.argmax(np.abs(stated_sizes - given))]:.5g} angstrom, but "
            f"pixel_size_angstrom={given:g}",
            source=table.metadata_files[0],
        )
    where, or_given = table.metadata_files[0], ""
    if stated_sizes is None and given is None:
        _say_what_is_assumed(
            table, int(np.count_nonzero(headers == 0)), wanted, n == parameters.n_pixels
        )
        if headers.any():
            stated_sizes = np.where(headers > 0, headers, wanted)
            where = files[table.file_number[np.argmax(headers > 0)]].path
            or_given = (
                "; or give that of the images, if the header is wrong (pixel_size_angstrom=, "
                "--pixel-size-angstrom)"
            )
    elif headers.any():
        known = np.full(len(table), given) if stated_sizes is None else stated_sizes
        wrong = (headers > 0) & ~np.isclose(headers, known, rtol=SAME_SIZE, atol=0)
        if wrong.any():
            row = np.flatnonzero(wrong)[0]
            logger.info(
                "%s: its header says %.4g angstrom per pixel; %s size is taken (%d image(s) of "
                "this kind)",
                files[table.file_number[row]].path,
                headers[row],
                "the given" if given is not None else "the metadata's",
                int(wrong.sum()),
            )
    sizes = (
        np.full(len(table), given if given is not None else wanted)
        if stated_sizes is None
        else stated_sizes
    )
    differing = np.flatnonzero(~np.isclose(sizes, wanted, rtol=SAME_SIZE, atol=0))
    if len(differing):
        row = differing[0]
        group = "" if table.optics_group is None else f" (optics group {table.optics_group[row]})"
        fitting = (
            f"`cryolike-dask parameters --n-pixels {n} --pixel-size-angstrom {sizes[row]:.5g}`"
        )
        raise GridMismatchError(
            f"{len(differing)} image(s){group} of {n} pixels of {sizes[row]:.5g} angstrom, but the "
            f"parameters describe a box of {parameters.n_pixels} pixels of "
            f"{parameters.pixel_size_angstrom:.5g}",
            source=where,
            remedy=f"Make parameters for this box: {fitting}, or fewer and larger "
            f"pixels{or_given}.",
        )


def _say_what_is_assumed(
    table: ParticleTable, n_unknown: int, size_angstrom: float, in_full: bool
) -> None:
    """Say what is taken for the pixels of images whose size is recorded nowhere."""
    if n_unknown:
        logger.info(
            "%s: no pixel size is recorded, there or in the headers of %s images; %.4g angstrom, "
            "%s, is taken",
            table.metadata_files[0],
            f"all {n_unknown}" if n_unknown == len(table) else f"{n_unknown} of {len(table)}",
            size_angstrom,
            "that of the parameters" if in_full else "by the box of the parameters",
        )
