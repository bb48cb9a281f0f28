"""A set of a few particles, described in every format that is read: the same values, wherever
they stand."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np

import cryolike_dask as cld
from cryolike_dask.io.stacks import OPTICS_KEYS, write_image_stack
from cryolike_dask.io.star import write_star
from cryolike_dask.particles.cryosparc import LABELS as CS_LABELS
from cryolike_dask.particles.relion import LABELS as STAR_LABELS

N = 16
PARAMETERS = cld.ImageParameters(N, 3.0)
OPTICS = {
    "defocus_u_angstrom": 15000.0,
    "defocus_v_angstrom": 14000.0,
    "defocus_angle_radian": 0.5,
    "phase_shift_radian": 0.0,
    "voltage_kilovolt": 300.0,
    "spherical_aberration_mm": 2.7,
    "amplitude_contrast": 0.1,
    "b_factor_angstrom2": 0.0,
    "scale": 1.0,
}


def pictures(n: int, rng) -> np.ndarray:
    """Bright particles in noise."""
    axis = np.arange(N) - N // 2
    blob = np.exp(-(np.hypot(axis, axis[:, None]) ** 2) / 10)
    return (10 * blob + rng.standard_normal((n, N, N))).astype(np.float32)


def write_mrcs(path: Path, pixels, voxel: float = 0.0) -> Path:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.asarray(pixels, np.float32))
        file.set_image_stack()
        file.voxel_size = voxel
    return path


def star(path: Path, n: int = 4, names=None, **columns) -> Path:
    """Optics by the names of `OPTICS`, in radian; columns of RELION's by their own names; None
    leaves one out."""
    optics = {label: columns.pop(name, OPTICS[name]) for name, label in STAR_LABELS.items()}
    for name in ("defocus_angle_radian", "phase_shift_radian"):
        label = STAR_LABELS[name]
        optics[label] = None if optics[label] is None else np.degrees(optics[label])
    given = {
        "rlnImageName": names or [f"{i + 1}@a.mrcs" for i in range(n)],
        "rlnPixelSize": 3.0,
        **optics,
        **columns,
    }
    table = {label: np.resize(values, n) for label, values in given.items() if values is not None}
    write_star(path, {"particles": table})
    return path


def cs(path: Path, n: int = 4, **columns) -> Path:
    """The same as a `.cs` file; its own columns with `__` for the slash."""
    own = {name.replace("__", "/"): columns.pop(name) for name in list(columns) if "__" in name}
    given = {
        "uid": np.arange(n, dtype="u8"),
        "blob/path": np.array([b"a.mrcs"] * n),
        "blob/idx": np.arange(n, dtype="u4"),
        "blob/psize_A": np.full(n, 3, "f4"),
    }
    given |= {
        CS_LABELS[name]: np.resize(columns.get(name, value), n).astype("f8")
        for name, value in OPTICS.items()
    }
    given |= {name: np.asarray(value) for name, value in own.items()}
    rows = np.zeros(n, [(name, values.dtype, values.shape[1:]) for name, values in given.items()])
    for name, values in given.items():
        rows[name] = values
    with open(path, "wb") as file:
        np.save(file, rows)
    return path


def npz(folder: Path, rng, n: int = 4, **columns) -> cld.LikelihoodFiles:
    """The same as an image stack."""
    files = cld.configure_likelihood_files(None, folder, folder)
    shape = (n, *PARAMETERS.grid.shape)
    table = np.zeros(n, cld.optics_table(1, **OPTICS).dtype)
    for name, value in {**OPTICS, **columns}.items():
        table[name] = value
    files.image_stack(0)[0].parent.mkdir(parents=True)
    write_image_stack(
        files.image_stack(0)[0], rng.standard_normal(shape).astype(np.complex64), table, PARAMETERS
    )
    return files


NPZ_LABELS = {name: key for key, name in OPTICS_KEYS.items()} | {
    "b_factor_angstrom2": "ctfBfactor",
    "scale": "ctfScalefactor",
}
