"""Particles described by RELION: STAR files with an optics table (3.1 and later) or without (3.0
and older)."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.geometry.plausible import Wording
from cryolike_dask.io.mrc import MrcStack, open_mrc_stack
from cryolike_dask.particles.image_names import split_names
from cryolike_dask.particles.locate import ImagePlaces, distinct, locate_images
from cryolike_dask.particles.recorded import check_recorded, named, recorded_optics, warn_of_ignored
from cryolike_dask.particles.star_columns import StarColumns, open_columns
from cryolike_dask.particles.table import ParticleTable

FloatArray = NDArray[np.float64]

LABELS = {
    "defocus_u_angstrom": "rlnDefocusU",
    "defocus_v_angstrom": "rlnDefocusV",
    "defocus_angle_radian": "rlnDefocusAngle",
    "phase_shift_radian": "rlnPhaseShift",
    "voltage_kilovolt": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "b_factor_angstrom2": "rlnCtfBfactor",
    "scale": "rlnCtfScalefactor",
}
WORDING = Wording(LABELS, in_degrees=True, in_rows=True)
ALREADY_CORRECTED = ("rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped")
NOT_APPLIED = {
    "rlnBeamTiltX": 0.0,
    "rlnBeamTiltY": 0.0,
    "rlnOddZernike": 0.0,
    "rlnEvenZernike": 0.0,
    "rlnMagMat00": 1.0,
    "rlnMagMat01": 0.0,
    "rlnMagMat10": 0.0,
    "rlnMagMat11": 1.0,
}
"""Columns that are not applied, and the value at which there is nothing to apply."""

TRUE_STRUCTURE = "cryolikeStructure"
"""Column that `simulate_particles` writes: the name of the structure that a particle shows."""

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ENOUGH = 10
"""Particles that do not all happen to lie alike."""
SAME_PIXEL_SIZE = 1e-3
"""Relative. Two sources of the pixel size that are further apart contradict each other."""

IN_ORDER = "or, if row k is image k, a copy of this file without the column rlnImageName"

logger = logging.getLogger("cryolike_dask")


def read_relion(
    path: str | Path, folder: str | Path | None = None, images: str | Path | None = None
) -> ParticleTable:
    """Read what a STAR file says of its particles.

    Parameters
    ----------
    path : path
    folder : path, optional
        Where the names of image files start; None: looked for upwards from the STAR file.
    images : path, optional
        The MRC stack of these particles, wherever `rlnImageName` says that it is: row by row the
        image of the number there; without `rlnImageName`, image k is that of row k, and there are
        as many images as rows.

    Returns
    -------
    ParticleTable

    Raises
    ------
    InputFileError
        If the file is damaged, has no particles, lacks a column or has one that contradicts
        another, describes particles that are not plain two-dimensional images, or names image files
        that are not there.
    """
    columns = open_columns(path, need_names=images is None)
    _refuse_unusable(columns)
    optics = optics_of(columns)
    pixel_size = pixel_size_of(columns)
    origin = _origin(columns, pixel_size)
    _check(columns, "origin_angstrom", "rlnOriginX or rlnOriginY", origin)
    where = (
        _named_images(columns, folder)
        if images is None
        else _given_images(columns, open_mrc_stack(images))
    )
    warn_of_ignored(
        path, [label for label, neutral in NOT_APPLIED.items() if columns.differs(label, neutral)]
    )
    n = len(columns)
    return ParticleTable(
        optics=optics,
        image_files=where.files,
        file_number=where.number,
        image_index=where.position,
        sign=np.ones(n),
        metadata_files=(str(columns.path.absolute()),),
        metadata_number=np.zeros(n, np.int64),
        metadata_row=np.arange(n),
        pixel_size_angstrom=pixel_size,
        box_size_pixels=columns.integer("rlnImageSize"),
        angles_radian=_angles(columns),
        origin_angstrom=origin,
        random_subset=columns.integer("rlnRandomSubset"),
        micrograph=columns.particles.get("rlnMicrographName"),
        optics_group=columns.integer("rlnOpticsGroup"),
        true_structure=columns.particles.get(TRUE_STRUCTURE),
    )


def optics_of(columns: StarColumns) -> NDArray[np.void]:
    """Give the optics of the particles; parameters and errors as in `recorded_optics`."""
    return recorded_optics(
        columns.path, {name: columns.number(label) for name, label in LABELS.items()}, WORDING
    )


def _refuse_unusable(columns: StarColumns) -> None:
    for label in ALREADY_CORRECTED:
        flags = columns.number(label)
        if flags is not None and flags.any():
            raise InputFileError(
                f"{label} is 1 for {np.count_nonzero(flags)} image(s): the likelihood needs images "
                f"as they were taken",
                source=columns.path,
                remedy="Extract the particles again without it.",
            )
    dimensions = columns.number("rlnImageDimensionality")
    if dimensions is not None and (dimensions != 2).any():
        raise InputFileError(
            f"rlnImageDimensionality is {dimensions[dimensions != 2][0]:g}: subtomograms are no "
            f"images",
            source=columns.path,
            remedy="Give particles from single images.",
        )


def pixel_size_of(columns: StarColumns) -> FloatArray | None:
    """Pixel size of the stored images, angstrom; a magnification is the micrograph's, and counts if
    nothing else is known."""
    image, plain = columns.number("rlnImagePixelSize"), columns.number("rlnPixelSize")
    detector = columns.number("rlnDetectorPixelSize")
    magnification = columns.number("rlnMagnification")
    sources = {"rlnImagePixelSize": image, "rlnPixelSize": plain}
    if image is None and detector is not None and magnification is not None:
        with np.errstate(over="ignore"):
            by_lens = 1e4 * detector / np.where(magnification, magnification, np.inf)
        sources["rlnDetectorPixelSize / rlnMagnification"] = by_lens
    known = {label: values for label, values in sources.items() if values is not None}
    if not known:
        return None
    for label, values in known.items():
        _check(columns, "pixel_size_angstrom", label, values)
    (label, pixel_size), *others = known.items()
    for other, values in others:
        differ = np.flatnonzero(abs(values - pixel_size) > SAME_PIXEL_SIZE * pixel_size)
        if len(differ):
            row = differ[0]
            raise InputFileError(
                f"{label} gives {pixel_size[row]:.6g} angstrom in row {row}, but {other} "
                f"{values[row]:.6g}",
                source=columns.path,
                remedy="Remove the column that is wrong.",
            )
    return pixel_size


def _check(columns: StarColumns, quantity: str, label: str, values: FloatArray | None) -> None:
    check_recorded(columns.path, {quantity: values}, replace(WORDING, labels={quantity: label}))


def _angles(columns: StarColumns) -> FloatArray | None:
    for label in ANGLES:
        _check(columns, "angles_radian", label, columns.number(label))
    angles = columns.together(*ANGLES)
    if (
        angles is not None
        and len(angles) >= ENOUGH
        and angles.any()
        and np.abs(angles).max() < np.radians(2 * np.pi)
    ):
        logger.warning(
            "%s: no angle of %d rows is above 6.3 degrees: they look like radian",
            columns.path,
            len(angles),
        )
    return angles


def _origin(columns: StarColumns, pixel_size: FloatArray | None) -> FloatArray | None:
    origin = columns.together("rlnOriginXAngst", "rlnOriginYAngst")
    in_pixels = columns.together("rlnOriginX", "rlnOriginY")
    if origin is not None or in_pixels is None:
        return origin
    if pixel_size is None:
        logger.info(
            "%s: rlnOriginX and rlnOriginY are left out, because no pixel size is recorded",
            columns.path,
        )
        return None
    with np.errstate(over="ignore"):
        return in_pixels * pixel_size[:, None]


def _named_images(columns: StarColumns, folder: str | Path | None) -> ImagePlaces:
    """The images that `rlnImageName` names."""
    with named(columns.path):
        names, index = split_names(columns.particles["rlnImageName"])
    return locate_images(names, index, columns.path, folder)


def _given_images(columns: StarColumns, stack: MrcStack) -> ImagePlaces:
    """The images of a file that is given: those of the numbers in `rlnImageName`, or if it names
    none, in order."""
    n, n_held = len(columns), stack.shape[0]
    names = columns.particles.get("rlnImageName")
    if names is None:
        index = np.arange(n)
        if n_held != n:
            raise InputFileError(
                f"describes {n} particles, but {stack.path} holds {n_held} images",
                source=columns.path,
                remedy="Give the stack that belongs to this file.",
            )
        logger.info(
            "%s: names no images; its %d rows are taken for those of %s, in order",
            columns.path,
            n,
            stack.path,
        )
    else:
        index = _numbers_within(columns, names, stack)
        logger.info(
            "%s: images are those of %s, by the numbers in rlnImageName", columns.path, stack.path
        )
    return ImagePlaces((stack.path,), np.zeros(n, np.int64), index)


def _numbers_within(
    columns: StarColumns, names: NDArray[np.str_], stack: MrcStack
) -> NDArray[np.int64]:
    """The numbers in `rlnImageName`, if they can be those of one file that is given."""
    n, n_held = len(columns), stack.shape[0]
    with named(columns.path):
        files, index = split_names(names)
    used, _ = distinct([os.path.normpath(file) for file in files])
    if len(used) > 1:
        raise InputFileError(
            f"names images of {len(used)} files ({', '.join(used[:3])}{', ...' * (len(used) > 3)}) "
            f"in {n} rows, but one file of {n_held} images is given ({stack.path}): which of them "
            f"each row is cannot be told",
            source=columns.path,
            remedy=f"Give the STAR file that was written with the stack, {IN_ORDER}.",
        )
    beyond = np.flatnonzero(index >= n_held)
    if len(beyond):
        raise InputFileError(
            f"row {beyond[0]} (from 0) is image {index[beyond[0]] + 1} of {used[0]}, but "
            f"{stack.path}, which is given, holds {n_held}; {len(beyond)} of {n} rows are beyond "
            "it",
            source=columns.path,
            remedy=f"Give the stack that belongs to this file, {IN_ORDER}.",
        )
    return index
