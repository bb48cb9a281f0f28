"""Metadata files whose text is easily spoilt, and results of their rows, made by hand."""

from __future__ import annotations

import numpy as np
import xarray as xr

from cryolike_dask.io.star import read_star, write_star
from tests.real_space import StarPoses

NAMES = ("open", 'it\'s "closed" #2')
LIKELIHOODS = ("cross_correlation", "log_likelihood_integrated", "log_likelihood_optimal")

OPTICS = {
    "rlnOpticsGroup": ["7", "2"],
    "rlnOpticsGroupName": ["second group", "first"],
    "rlnVoltage": ["300.000000", "200"],
    "rlnSphericalAberration": ["2.70", "2.7"],
    "rlnAmplitudeContrast": ["0.1", "0.07"],
    "rlnImagePixelSize": ["1.5", "1.50"],
    "rlnImageSize": ["64", "64"],
}


def particle_columns(n, file="Extract/a.mrcs"):
    """Text that a reader of numbers would change, and text that a careless writer would break."""
    return {
        "rlnCoordinateX": [f"{i}.500" for i in range(n)],
        "rlnImageName": [f"{i + 1:06d}@{file}" for i in range(n)],
        "rlnDefocusU": [f"+{15000 + i}.10" for i in range(n)],
        "rlnDefocusV": ["1.4e4"] * n,
        "rlnDefocusAngle": ["030.0"] * n,
        "rlnAngleRot": ["1.000"] * n,
        "rlnOpticsGroup": ["2" if i % 2 else "7" for i in range(n)],
        "rlnClassNumber": [str(3 + i) for i in range(n)],
        "_oddLabel#1": ["a#b", "it's", 'say "so"', "two words", "", "#"][:n],
        "rlnOriginX": ["4.25"] * n,
    }


def arrays(columns):
    return {label: np.array(values) for label, values in columns.items()}


def write_text(path, particles, optics=OPTICS):
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = (
        {"optics": arrays(optics), "particles": arrays(particles)}
        if optics
        else {"": arrays(particles)}
    )
    write_star(path, blocks)
    return path


def made(rng, files, rows=None, names=NAMES, **attributes):
    """Results as open_results gives them, of rows of metadata files."""
    rows = [np.arange(6)] * len(files) if rows is None else rows
    n, m = len(names), sum(map(len, rows))
    both = ("structure", "image")
    values = {
        name: (both, rng.uniform(0, high, (n, m)))
        for name, high in {
            **dict.fromkeys(LIKELIHOODS, 1.0),
            "optimal_azimuth": 2 * np.pi,
            "optimal_polar": np.pi,
            "optimal_inplane_rotation": 2 * np.pi,
            "optimal_displacement_x": 6.0,
            "optimal_displacement_y": 6.0,
        }.items()
    }
    values["optimal_template"] = (both, rng.integers(99, size=(n, m)))
    coords = {
        "structure": list(names),
        "image": np.arange(m),
        "image_file": ("image", np.array([""] * m, object)),
        "image_index": ("image", np.full(m, -1)),
        "metadata_file": (
            "image",
            np.repeat(np.array([str(f) for f in files], object), [len(r) for r in rows]),
        ),
        "metadata_row": ("image", np.concatenate(rows)),
    }
    said = {
        "frame": "xy",
        "template_conventions": "standard",
        "template_source": "unknown",
        "pixel_size_angstrom": 3.0,
    }
    return xr.Dataset(values, coords, {**said, **attributes})


def text_of(path, block=-1):
    return {label: values.tolist() for label, values in read_star(path)[block].columns.items()}


def expected(results, images, number):
    """Angles (degrees) and origins (angstrom) in the standard frame."""
    of = results.isel(
        image=xr.DataArray(images, dims="k"), structure=xr.DataArray(number, dims="k")
    )
    names = ("azimuth", "polar", "inplane_rotation", "displacement_x", "displacement_y")
    return StarPoses.of_template(*(of[f"optimal_{name}"].values for name in names))
