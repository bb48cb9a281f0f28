"""The displacements that results were searched at, as short attributes, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NAMES = ("displacements_x_angstrom", "displacements_y_angstrom")
COUNT = "n_displacements"


def attributes_of_displacements(x: Floats, y: Floats) -> dict[str, Any]:
    """What a Dataset says of them: the values along each axis, where every pair of these was tried,
    x fastest, and (0, 0) after them where they are one less; otherwise pair by pair."""
    for n in (len(x), len(x) - 1):
        axes = (np.unique(x[:n]).tolist(), np.unique(y[:n]).tolist())
        said = {**dict(zip(NAMES, axes, strict=True)), COUNT: len(x)}
        if np.array_equal(_tried(said), [x, y]):
            return said
    return {NAMES[0]: x.tolist(), NAMES[1]: y.tolist(), COUNT: len(x)}


def displacements_tried(results: xr.Dataset) -> list[Floats]:
    """Displacements along x and along y that were tried, angstrom, pair by pair; empty where it is
    not known."""
    return _tried(results.attrs)


def _tried(said: Mapping[str, Any]) -> list[Floats]:
    x, y = (np.atleast_1d(np.asarray(said.get(name, ()), np.float64)) for name in NAMES)
    n_more = said.get(COUNT, len(x)) - len(x) * len(y)
    if n_more not in (0, 1):
        return [x, y]
    return [np.append(axis.ravel(), np.zeros(n_more)) for axis in np.meshgrid(x, y)]
