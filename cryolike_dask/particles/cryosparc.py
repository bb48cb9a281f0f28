"""Particles described by cryoSPARC: `.cs` files, the passthrough files that complete them, and
job folders."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.geometry.optics import OPTICS
from cryolike_dask.geometry.plausible import Wording
from cryolike_dask.io.mrc import open_mrc_stack
from cryolike_dask.particles.cs_columns import (
    Columns,
    FloatArray,
    completed_columns,
    cs_files,
    file_names,
    has_columns,
    numbers_in,
    read_columns,
    text_in,
    unless_zero,
    whole_numbers_in,
)
from cryolike_dask.particles.locate import ImagePlaces, locate_images
from cryolike_dask.particles.recorded import check_recorded, recorded_optics, warn_of_ignored
from cryolike_dask.particles.table import ParticleTable

LABELS = {
    "defocus_u_angstrom": "ctf/df1_A",
    "defocus_v_angstrom": "ctf/df2_A",
    "defocus_angle_radian": "ctf/df_angle_rad",
    "phase_shift_radian": "ctf/phase_shift_rad",
    "voltage_kilovolt": "ctf/accel_kv",
    "spherical_aberration_mm": "ctf/cs_mm",
    "amplitude_contrast": "ctf/amp_contrast",
    "b_factor_angstrom2": "ctf/bfactor",
    "scale": "ctf/scale",
}
OTHERS = {
    "pixel_size_angstrom": "blob/psize_A",
    "origin_angstrom": "alignments3D/shift",
    "rotation_radian": "alignments3D/pose",
}
WORDING = Wording({**LABELS, **OTHERS}, in_rows=True)
CTF = ("ctf/accel_kv", "ctf/cs_mm", "ctf/df1_A", "ctf/df2_A", "ctf/df_angle_rad")
BLOB = ("blob/path", "blob/idx")
MICROGRAPH = "location/micrograph_path"
NOT_APPLIED = ("ctf/shift_A", "ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A", "ctf/anisomag")
"""Zero where there is nothing to apply."""

MADE_IMAGES = ("restack/batch_*_restacked.mrc", "downsample/*.mrc")
"""Files of jobs whose `.cs` files do not name the images."""

logger = logging.getLogger("cryolike_dask")


def read_cryosparc(
    path: str | Path, folder: str | Path | None = None, passthrough: str | Path | None = None
) -> ParticleTable:
    """Read what a `.cs` file, or a job of cryoSPARC, says of its particles.

    Parameters
    ----------
    path : path
        A `.cs` file, or the folder of a job.
    folder : path, optional
        The project folder, where the names of image files start; None: looked for upwards from the
        `.cs` file.
    passthrough : path, optional
        The `.cs` file that has what the first one lacks, joined by `uid`. None: looked for beside
        it if it is needed.

    Returns
    -------
    ParticleTable
        In the order of the `.cs` file that was given, or that was found to name the images.

    Raises
    ------
    InputFileError
        If a file is damaged, columns are nowhere to be found, the two files do not describe the
        same particles, or image files are not there.
    """
    path = Path(path)
    if not path.is_dir():
        columns = completed_columns(path, passthrough, (*BLOB, *CTF))
        names = [name.removeprefix(">") for name in text_in(path, columns, "blob/path").tolist()]
        position = np.asarray(whole_numbers_in(path, columns, "blob/idx"))
        return _table(path, columns, locate_images(names, position, path, folder))
    named = [
        file
        for file in cs_files(path)
        if "passthrough" not in file.name and has_columns(file, BLOB)
    ]
    if len(named) == 1:
        return read_cryosparc(named[0], folder, passthrough)
    if named:
        raise InputFileError(
            f"has {len(named)} .cs files that name images: {file_names(named)}",
            source=path,
            remedy="Give one of them.",
        )
    return _job_that_names_no_images(path, passthrough)


def read_cryosparc_optics(path: str | Path) -> NDArray[np.void]:
    """Read the optics alone of a `.cs` file, or of the passthrough file beside it; errors as of
    `read_cryosparc`."""
    path = Path(path)
    return _optics(path, completed_columns(path, None, CTF))


def relion_angles(rotation_vectors: NDArray[Any]) -> FloatArray:
    """Give the rot, tilt and psi of RELION for cryoSPARC's poses.

    Parameters
    ----------
    rotation_vectors : (image, 3)
        Axis times angle, radian. The rotation turns the axes of the image into those of the
        structure.

    Returns
    -------
    (image, 3) float64
        Radian; tilt in [0, pi]. Where tilt is 0 or pi, rot is 0 and psi the whole turn.
    """
    from scipy.spatial.transform import Rotation

    # Rz(rot) Ry(tilt) Rz(psi)
    axes = Rotation.from_rotvec(np.asarray(rotation_vectors, np.float64)).as_matrix()
    sine = np.hypot(axes[:, 0, 2], axes[:, 1, 2])
    tilt = np.arctan2(sine, axes[:, 2, 2])
    rot = np.arctan2(axes[:, 1, 2], axes[:, 0, 2])
    psi = np.arctan2(axes[:, 2, 1], -axes[:, 2, 0])
    along = sine < 1e-7  # rot and psi turn about one axis
    turn = np.arctan2(axes[:, 1, 0], axes[:, 1, 1])
    return np.stack([np.where(along, 0.0, rot), tilt, np.where(along, turn, psi)], axis=1)


def _job_that_names_no_images(job: Path, passthrough: str | Path | None) -> ParticleTable:
    """A restack or downsample job: image k of its stacks, taken in the order of their numbers,
    is particle k."""
    seen = cs_files(job) if passthrough is None else [Path(passthrough)]
    described = [file for file in seen if has_columns(file, CTF)]
    images = next(
        (stacks for stacks in (_by_number(job.glob(pattern)) for pattern in MADE_IMAGES) if stacks),
        [],
    )
    if len(described) != 1 or not images:
        raise InputFileError(
            f"no .cs file names the images; {len(described)} of {file_names(seen)} describe the "
            f"contrast transfer, and {len(images)} stacks are in restack/ or downsample/",
            source=job,
            remedy="Give the .cs file of the particles.",
        )
    columns = read_columns(described[0])
    n = len(columns[CTF[0]])
    counts = [open_mrc_stack(image).shape[0] for image in images]
    if sum(counts) != n:
        raise InputFileError(
            f"describes {n} particles, but the {len(images)} stacks of {images[0].parent} hold "
            f"{sum(counts)}",
            source=described[0],
            remedy="Give the .cs file of the particles.",
        )
    logger.info(
        "%s: no file names the images; taken in order: %s to %s",
        job,
        images[0].name,
        images[-1].name,
    )
    places = ImagePlaces(
        files=tuple(str(image.absolute()) for image in images),
        number=np.repeat(np.arange(len(images)), counts),
        position=np.concatenate([np.arange(count) for count in counts]),
    )
    return _table(described[0], columns, places)


def _optics(path: Path, columns: Columns) -> NDArray[np.void]:
    return recorded_optics(
        path,
        {name: numbers_in(path, columns, LABELS[name]) for name in OPTICS.names or ()},
        WORDING,
    )


def _table(path: Path, columns: Columns, places: ImagePlaces) -> ParticleTable:
    n = len(places.number)
    if n == 0:
        raise InputFileError("has no particles", source=path)
    warn_of_ignored(path, [name for name in NOT_APPLIED if name in columns and columns[name].any()])
    pixel_size = _pixel_size(path, columns, "blob/psize_A")
    shape = unless_zero(whole_numbers_in(path, columns, "blob/shape", 2))
    split = whole_numbers_in(path, columns, "alignments3D/split")
    pose = numbers_in(path, columns, "alignments3D/pose", 3)
    origin = _origin(path, columns, pixel_size)
    recorded = {
        "pixel_size_angstrom": pixel_size,
        "origin_angstrom": origin,
        "rotation_radian": pose,
    }
    check_recorded(path, recorded, WORDING)
    return ParticleTable(
        optics=_optics(path, columns),
        image_files=places.files,
        file_number=places.number,
        image_index=places.position,
        sign=_sign(path, columns, n),
        metadata_files=(str(path.absolute()),),
        metadata_number=np.zeros(n, np.int64),
        metadata_row=np.arange(n),
        pixel_size_angstrom=pixel_size,
        box_size_pixels=None if shape is None else shape[:, 0],
        angles_radian=None if pose is None else relion_angles(pose),
        origin_angstrom=origin,
        random_subset=None if split is None else split + 1,
        micrograph=np.char.lstrip(text_in(path, columns, MICROGRAPH), ">")
        if MICROGRAPH in columns
        else None,
        optics_group=whole_numbers_in(path, columns, "ctf/exp_group_id"),
    )


def _sign(path: Path, columns: Columns, n: int) -> FloatArray:
    sign = numbers_in(path, columns, "blob/sign")
    if sign is None:
        return np.ones(n)
    wrong = np.flatnonzero(~np.isin(sign, (-1, 0, 1)))
    if len(wrong):
        raise InputFileError(
            f"blob/sign is {sign[wrong[0]]:g} in row {wrong[0]} (from 0), not 1 or -1", source=path
        )
    return np.where(sign == 0, 1.0, sign)


def _origin(path: Path, columns: Columns, pixel_size: FloatArray | None) -> FloatArray | None:
    shift = numbers_in(path, columns, "alignments3D/shift", 2)
    own_pixel_size = _pixel_size(path, columns, "alignments3D/psize_A")
    unit = pixel_size if own_pixel_size is None else own_pixel_size
    if shift is None or unit is None:
        if shift is not None:
            logger.info(
                "%s: alignments3D/shift is left out, because no pixel size is recorded", path
            )
        return None
    with np.errstate(over="ignore"):
        origin: FloatArray = shift * unit[:, None]
    return origin


def _pixel_size(path: Path, columns: Columns, name: str) -> FloatArray | None:
    values = numbers_in(path, columns, name)
    if values is not None and (values < 0).any():
        row = np.flatnonzero(values < 0)[0]
        raise InputFileError(
            f"{name} is {values[row]:g} in row {row} (from 0), no pixel size", source=path
        )
    return unless_zero(values)


def _by_number(paths: Any) -> list[Path]:
    """Batch 10 comes after batch 9."""
    return sorted(
        paths, key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.name)
    )
