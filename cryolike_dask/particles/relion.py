"""Particles described by RELION: STAR files with an optics table (3.1 and later) or without (3.0 and older)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.mrc import open_mrc_stack
from cryolike_dask.particles.locate import ImagePlaces, locate_images
from cryolike_dask.particles.recorded import recorded_optics, warn_of_ignored
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

SAME_PIXEL_SIZE = 1e-3
"""Relative. Two sources of the pixel size that are further apart contradict each other."""

logger = logging.getLogger("cryolike_dask")


def read_relion(path: str | Path, folder: str | Path | None = None, images: str | Path | None = None) -> ParticleTable:
    """Read what a STAR file says of its particles.

    Parameters
    ----------
    path : path
    folder : path, optional
        Where the names of image files start; None: looked for upwards from the STAR file.
    images : path, optional
        One MRC stack whose image k is described by row k; `rlnImageName` is then not used.

    Returns
    -------
    ParticleTable

    Raises
    ------
    InputFileError
        If the file is damaged, has no particles, lacks a column or has one that contradicts another, describes
        particles that are not plain two-dimensional images, or names image files that are not there.
    """
    columns = open_columns(path, need_names=images is None)
    _refuse_unusable(columns)
    optics = recorded_optics(path, {name: columns.number(label) for name, label in LABELS.items()}, LABELS)
    pixel_size = pixel_size_of(columns)
    where = _named_images(columns, folder) if images is None else _paired_images(columns, images)
    warn_of_ignored(path, [label for label, neutral in NOT_APPLIED.items() if columns.differs(label, neutral)])
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
        angles_radian=columns.together("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"),
        origin_angstrom=_origin(columns, pixel_size),
        random_subset=columns.integer("rlnRandomSubset"),
        micrograph=columns.particles.get("rlnMicrographName"),
        optics_group=columns.integer("rlnOpticsGroup"),
        true_structure=columns.particles.get(TRUE_STRUCTURE),
    )


def _refuse_unusable(columns: StarColumns) -> None:
    for label in ALREADY_CORRECTED:
        flags = columns.number(label)
        if flags is not None and flags.any():
            raise InputFileError(
                f"{label} is 1 for {np.count_nonzero(flags)} image(s): the likelihood needs images as they were taken",
                source=columns.path,
                remedy="Extract the particles again without it.",
            )
    dimensions = columns.number("rlnImageDimensionality")
    if dimensions is not None and (dimensions != 2).any():
        raise InputFileError(
            f"rlnImageDimensionality is {dimensions[dimensions != 2][0]:g}: subtomograms are no images",
            source=columns.path,
            remedy="Give particles from single images.",
        )


def pixel_size_of(columns: StarColumns) -> FloatArray | None:
    """Of the stored images, angstrom; a magnification is the micrograph's, and counts if nothing else is known."""
    image, plain = columns.number("rlnImagePixelSize"), columns.number("rlnPixelSize")
    detector, magnification = columns.number("rlnDetectorPixelSize"), columns.number("rlnMagnification")
    sources = {"rlnImagePixelSize": image, "rlnPixelSize": plain}
    if image is None and detector is not None and magnification is not None:
        sources["rlnDetectorPixelSize / rlnMagnification"] = (
            1e4 * detector / np.where(magnification, magnification, np.inf)
        )
    known = {label: values for label, values in sources.items() if values is not None}
    if not known:
        return None
    (label, pixel_size), *others = known.items()
    if (pixel_size <= 0).any():
        row = np.flatnonzero(pixel_size <= 0)[0]
        raise InputFileError(f"{label} is {pixel_size[row]:g} in row {row}, no pixel size", source=columns.path)
    for other, values in others:
        differ = np.flatnonzero(abs(values - pixel_size) > SAME_PIXEL_SIZE * pixel_size)
        if len(differ):
            row = differ[0]
            raise InputFileError(
                f"{label} gives {pixel_size[row]:.6g} angstrom in row {row}, but {other} {values[row]:.6g}",
                source=columns.path,
                remedy="Remove the column that is wrong.",
            )
    return pixel_size


def _origin(columns: StarColumns, pixel_size: FloatArray | None) -> FloatArray | None:
    origin = columns.together("rlnOriginXAngst", "rlnOriginYAngst")
    in_pixels = columns.together("rlnOriginX", "rlnOriginY")
    if origin is not None or in_pixels is None:
        return origin
    if pixel_size is None:
        logger.info("%s: rlnOriginX and rlnOriginY are left out, because no pixel size is recorded", columns.path)
        return None
    return in_pixels * pixel_size[:, None]


def _named_images(columns: StarColumns, folder: str | Path | None) -> ImagePlaces:
    """Split `000001@file`, counted from 1; a file alone means its only image."""
    parts = [name.partition("@") for name in columns.particles["rlnImageName"].tolist()]
    counted = np.array([at == "@" and number.isdecimal() for number, at, _ in parts])
    names = [part[2] if c else "".join(part) for part, c in zip(parts, counted, strict=True)]
    index = np.array([int(part[0]) - 1 if c else 0 for part, c in zip(parts, counted, strict=True)], np.int64)
    if (index < 0).any():
        row = np.flatnonzero(index < 0)[0]
        raise InputFileError(
            f"rlnImageName is {''.join(parts[row])!r} in row {row} (from 0), but images are counted from 1",
            source=columns.path,
        )
    return locate_images(names, index, columns.path, folder)


def _paired_images(columns: StarColumns, images: str | Path) -> ImagePlaces:
    stack = open_mrc_stack(images)
    n = len(columns)
    if stack.shape[0] != n:
        raise InputFileError(
            f"describes {n} particles, but {images} holds {stack.shape[0]} images",
            source=columns.path,
            remedy="Give the stack that belongs to this file.",
        )
    return ImagePlaces((stack.path,), np.zeros(n, np.int64), np.arange(n))
