"""Best viewing directions against those that were recorded with the particles."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.conventions import STANDARD
from cryolike_dask.geometry.symmetry import NO_SYMMETRY, point_group

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
    best = _directions(summary[labels.OPTIMAL_AZIMUTH].values, summary[labels.OPTIMAL_POLAR].values)
    recorded = _directions(
        summary[labels.RECORDED_ROT].values, summary[labels.RECORDED_TILT].values
    )
    group = point_group(summary.attrs.get("symmetry", NO_SYMMETRY))
    chords = [np.linalg.norm(best - rotation @ recorded, axis=0) for rotation in group.rotations]
    half_chord = np.clip(np.min(chords, axis=0) / 2, 0, 1)
    return np.asarray(np.degrees(2 * np.arcsin(half_chord)))


def _directions(azimuth: NDArray[np.float64], polar: NDArray[np.float64]) -> Floats:
    sine = np.sin(polar)
    return np.stack([np.cos(azimuth) * sine, np.sin(azimuth) * sine, np.cos(polar)])
