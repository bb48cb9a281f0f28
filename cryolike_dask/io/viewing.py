"""A user's own list of viewing directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.identity import reading

MOST_BYTES = 2**26
"""A million directions, with a weight each."""


def read_viewing_angles(path: str | Path) -> ViewingAngles:
    """Read viewing directions from a text file, one per line; `#` begins a comment.

    Parameters
    ----------
    path : path
        Columns: azimuth (RELION's rot) and polar angle (tilt) in degrees, and a weight; without one
        all weigh alike.

    Returns
    -------
    ViewingAngles
        Weights sum to 4 pi.

    Raises
    ------
    InputFileError
        If the file is missing or is not such a table.
    """
    with reading(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InputFileError(f"has more than {MOST_BYTES} bytes: too many directions", source=path)
    try:
        lines = [
            line
            for line in content.decode("utf-8-sig").splitlines()
            if line.partition("#")[0].strip()
        ]
        table = np.loadtxt(lines, ndmin=2) if lines else np.empty((0, 0))
    except ValueError as error:
        raise InputFileError(
            f"is not a table of numbers ({str(error)[:200]})", source=path
        ) from error
    if table.shape[0] == 0 or table.shape[1] not in (2, 3):
        raise InputFileError(
            f"has {table.shape[0]} lines of {table.shape[1]} columns",
            source=path,
            remedy="Write azimuth, polar angle (degrees) and, if wanted, a weight on each line.",
        )
    weight = table[:, 2] if table.shape[1] == 3 else np.ones(len(table))
    if not (weight > 0).all():
        raise InputFileError(
            f"has a weight of {weight.min():g}", source=path, remedy="Weights are positive."
        )
    try:
        azimuth, polar = np.radians(table[:, 0]), np.radians(table[:, 1])
        return ViewingAngles(azimuth, polar, 4 * np.pi * weight / weight.sum())
    except InputError as error:
        raise InputFileError(str(error), source=path) from error
