"""The optics of particles, as far as their metadata record them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.optics import OPTICS, optics_table

ASSUMED = {"amplitude_contrast": 0.1, "phase_shift_radian": 0.0, "b_factor_angstrom2": 0.0, "scale": 1.0}
"""What is taken where the metadata do not say."""

logger = logging.getLogger("cryolike_dask")


def recorded_optics(
    source: str | Path, columns: Mapping[str, NDArray[Any] | None], labels: Mapping[str, str]
) -> NDArray[np.void]:
    """Build the optics of particles from what is recorded, and say once what is taken for the rest.

    Parameters
    ----------
    source : path
        The metadata file, for messages.
    columns : dict
        By the names of `OPTICS`; None for what is not recorded. Without astigmatism the defocus angle can be None.
    labels : dict
        What the metadata call these columns.

    Returns
    -------
    structured array, `OPTICS`, (image,)

    Raises
    ------
    InputFileError
        If a column is missing without which there is no contrast transfer, or a value is not physical.
    """
    known: dict[str, Any] = {name: values for name, values in columns.items() if values is not None}
    u, v = (known.get(f"defocus_{axis}_angstrom") for axis in "uv")
    if u is not None and v is not None and np.array_equal(u, v):
        known.setdefault("defocus_angle_radian", 0.0)
    missing = [labels[name] for name in OPTICS.names or () if name not in known and name not in ASSUMED]
    if missing or u is None:
        raise InputFileError(
            f"does not have the column(s) {', '.join(missing)}",
            source=source,
            remedy="Give a file that describes the contrast transfer of every particle.",
        )
    taken = {name: value for name, value in ASSUMED.items() if name not in known}
    if taken:
        said = ", ".join(f"{labels[name]} = {value:g}" for name, value in taken.items())
        logger.info("%s: some columns are not there; taken: %s", source, said)
    try:
        return optics_table(len(u), **{**known, **taken})
    except InputError as error:
        raise InputFileError(str(error), source=source) from None


def warn_of_ignored(source: str | Path, names: list[str]) -> None:
    """Say once which aberrations are recorded but not applied."""
    if names:
        logger.warning(
            "%s: %s are recorded, but beam tilt, higher aberrations and anisotropic magnification are not applied",
            source,
            ", ".join(names),
        )
