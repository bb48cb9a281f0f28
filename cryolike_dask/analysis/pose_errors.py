"""Best viewing directions against those that were recorded with the particles."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.conventions import STANDARD
from cryolike_dask.geometry.symmetry import NO_SYMMETRY, point_group

N_RANDOM = 20_000
"""Random directions that tell how far they are from each other under a symmetry."""

Floats = NDArray[np.float64]


def why_no_pose_errors(summary: xr.Dataset) -> str | None:
    """Say why directions cannot be held against the recorded ones; None if they can."""
    needed = (labels.RECORDED_ROT, labels.RECORDED_TILT)
    if not all(name in summary.coords for name in needed):
        return "no poses are recorded with the particles"
    if not all(name in summary for name in (labels.OPTIMAL_AZIMUTH, labels.OPTIMAL_POLAR)):
        return "the viewing directions of the templates are not known"
    frame = {
        name: summary.attrs.get(name) for name in ("conventions", "frame", "template_conventions")
    }
    if frame != {
        "conventions": STANDARD.name,
        "frame": "xy",
        "template_conventions": STANDARD.name,
    }:
        return (
            "recorded poses are compared only where images, templates and results follow the "
            "standard conventions"
        )
    if not np.isfinite(direction_errors_degree(summary)).any():
        return "no image with a result has a recorded pose"
    return None


def direction_errors_degree(summary: xr.Dataset) -> Floats:
    """Angle between the best viewing direction of each image and the recorded one, or the nearest
    that looks the same, degree; NaN where one is missing."""
    best = directions(summary[labels.OPTIMAL_AZIMUTH].values, summary[labels.OPTIMAL_POLAR].values)
    recorded = directions(summary[labels.RECORDED_ROT].values, summary[labels.RECORDED_TILT].values)
    return angles_degree(best, recorded, symmetry_of(summary))


def symmetry_of(results: xr.Dataset) -> str:
    """The point group of the structures of results."""
    return str(results.attrs.get("symmetry", NO_SYMMETRY))


def angles_degree(first: Floats, second: Floats, symmetry: str) -> Floats:
    """Angle between directions, (3, image), the least of all that look the same under a symmetry,
    degree."""
    chords = [
        np.linalg.norm(first - rotation @ second, axis=0)
        for rotation in point_group(symmetry).rotations
    ]
    half_chord = np.clip(np.min(chords, axis=0) / 2, 0, 1)
    return np.asarray(np.degrees(2 * np.arcsin(half_chord)))


def random_angles_degree(symmetry: str, edges: Floats) -> Floats:
    """Part of the angles between random directions that lies between each two edges, as
    `angles_degree` takes them."""
    if len(point_group(symmetry)) == 1:
        return np.asarray(-np.diff(np.cos(np.radians(edges))) / 2)
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((3, N_RANDOM)) for _ in range(2))
    drawn = angles_degree(
        first / np.linalg.norm(first, axis=0), second / np.linalg.norm(second, axis=0), symmetry
    )
    return np.asarray(np.histogram(drawn, edges)[0] / N_RANDOM)


def angles_of(vectors: Floats) -> tuple[Floats, Floats]:
    """Azimuth and polar angle of unit vectors, (3, direction), radian."""
    x, y, z = vectors
    return np.arctan2(y, x), np.arccos(np.clip(z, -1, 1))


def directions(azimuth: NDArray[np.float64], polar: NDArray[np.float64]) -> Floats:
    """Unit vectors, (3, image); angles are radian."""
    sine = np.sin(polar)
    return np.stack([np.cos(azimuth) * sine, np.sin(azimuth) * sine, np.cos(polar)])
