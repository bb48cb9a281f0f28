"""Small results made by hand, as `open_results` gives them."""

from __future__ import annotations

import csv
import json
from itertools import count

import numpy as np
import xarray as xr

from cryolike_dask.compute.block_reports import BLOCK_COLUMNS
from cryolike_dask.geometry.displacements import DisplacementSearch

SEARCH = DisplacementSearch(4.0, 4, 3)
REAL = {
    "cross_correlation": (0.05, 0.6),
    "log_likelihood_integrated": (-1010, -1000),
    "log_likelihood_optimal": (-1010, -1000),
    "correlation_error_bound": (0, 1e-6),
    "optimal_azimuth": (0, 2 * np.pi),
    "optimal_polar": (0.1, 3),
}
N_INPLANES = 24


def make_results(rng, structures=("closed", "open"), n_images=40, n_per_stack=15, **attrs):
    """Random results in memory, whose displacements and rotations are of a search."""
    shape, dims = (len(structures), n_images), ("structure", "image")
    grid = SEARCH.grid(1.5)
    chosen = rng.integers(len(grid), size=shape)
    data = {name: (dims, rng.uniform(*limits, shape)) for name, limits in REAL.items()}
    data["optimal_displacement_x"] = dims, grid.x_angstrom[chosen]
    data["optimal_displacement_y"] = dims, grid.y_angstrom[chosen]
    data["optimal_inplane_rotation"] = (
        dims,
        2 * np.pi / N_INPLANES * rng.integers(N_INPLANES, size=shape),
    )
    data["optimal_template"] = dims, rng.integers(7, size=shape)
    every = np.arange(n_images)
    coords = {
        "structure": np.array(structures, object),
        "image": every,
        "stack": ("image", every // n_per_stack),
        "image_in_stack": ("image", every % n_per_stack),
    }
    said = {
        "conventions": "standard",
        "precision": "single",
        "version": "0.1.0",
        "device": "auto",
        "frame": "xy",
        "template_conventions": "standard",
        "template_source": "atoms",
        "displacements_x_angstrom": grid.x_angstrom.tolist(),
        "displacements_y_angstrom": grid.y_angstrom.tolist(),
        "n_pixels": 12,
        "pixel_size_angstrom": 1.5,
        "radius_max": 3.0,
        "n_inplanes": N_INPLANES,
        "folder": "",
        "folder_templates": "",
        "folder_particles": "",
    }
    return xr.Dataset(data, coords=coords, attrs={**said, **attrs})


def without(results, missing):
    """The same, without some results, bool (structure, image)."""
    gone = xr.DataArray(missing, dims=("structure", "image"))
    masked = results.map(
        lambda values: values.where(~gone, -1 if values.dtype.kind == "i" else np.nan)
    )
    return masked.assign_attrs(results.attrs)


def with_truth(results, rng, pose_error_radian=0.1):
    """The same, with a true structure, and recorded directions near those of the first
    structure."""
    names = results.structure.values[
        rng.integers(results.sizes["structure"], size=results.sizes["image"])
    ]
    first = results.isel(structure=0)
    return results.assign_coords(
        true_structure=("image", names),
        recorded_rot=("image", first.optimal_azimuth.values),
        recorded_tilt=("image", first.optimal_polar.values + pose_error_radian),
    )


def write_blocks(path, seconds, device="cpu"):
    """A table of blocks, as runs write it."""
    time = (f"2026-01-01T00:00:{i:02d}.000+00:00" for i in count())
    with open(path, "w", newline="") as file:
        rows = csv.DictWriter(file, BLOCK_COLUMNS, restval="0")
        rows.writeheader()
        rows.writerows(
            {"time": next(time), "name": 'a,"b"', "device": device, "seconds": s} for s in seconds
        )


def rewritten(folder, **settings):
    """The results of a folder as if they were computed with other settings; None: without."""
    for path in folder.glob("template*/done/*.json"):
        record = json.loads(path.read_text())
        changed = {**record["settings"], **settings}
        record["settings"] = {name: value for name, value in changed.items() if value is not None}
        path.write_text(json.dumps(record))


def named(results, file="/data/run/a.mrcs", first=0):
    """The same, of images of a file."""
    n = results.sizes["image"]
    return results.assign_coords(
        image_file=("image", np.array([file] * n, object)),
        image_index=("image", first + np.arange(n)),
    )
