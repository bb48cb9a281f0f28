"""The optics of particles, as far as their metadata record them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.optics import OPTICS, filled_optics, refuse_other_units, remarks_on
from cryolike_dask.geometry.plausible import Wording, refuse_implausible, unusual

ASSUMED = {
    "amplitude_contrast": 0.1,
    "phase_shift_radian": 0.0,
    "b_factor_angstrom2": 0.0,
    "scale": 1.0,
}
"""Values that are taken where the metadata do not say."""

logger = logging.getLogger("cryolike_dask")


def recorded_optics(
    source: str | Path, columns: Mapping[str, NDArray[Any] | None], wording: Wording
) -> NDArray[np.void]:
    """Build the optics of particles from what is recorded; say once what is taken for the rest, and
    what is odd.

    Parameters
    ----------
    source : path
        The metadata file, for messages.
    columns : dict
        By the names of `OPTICS`; None for what is not recorded. Without astigmatism the defocus
        angle can be None.
    wording : Wording
        What the metadata call these columns.

    Returns
    -------
    structured array, `OPTICS`, (image,)

    Raises
    ------
    InputFileError
        If a column is missing without which there is no contrast transfer, or a value is not
        physical.
    """
    known = {name: values for name, values in columns.items() if values is not None}
    u, v = (known.get(f"defocus_{axis}_angstrom") for axis in "uv")
    if u is not None and v is not None and np.array_equal(u, v):
        known.setdefault("defocus_angle_radian", np.zeros(1))
    missing = [
        wording.label(name)
        for name in OPTICS.names or ()
        if name not in known and name not in ASSUMED
    ]
    if missing or u is None:
        raise InputFileError(
            f"does not have the column(s) {', '.join(missing)}",
            source=source,
            remedy="Give a file that describes the contrast transfer of every particle.",
        )
    taken = {name: value for name, value in ASSUMED.items() if name not in known}
    if taken:
        sentence = ", ".join(f"{wording.label(name)} = {value:g}" for name, value in taken.items())
        logger.info("%s: some columns are not there; taken: %s", source, sentence)
    with named(source):
        table = filled_optics(len(u), {**known, **taken}, wording)
        refuse_other_units(table, wording)
    n_not_fitted = np.count_nonzero(known.get("scale", 1) == 0)
    if n_not_fitted:
        sentence = (
            f"{wording.label('scale')} is 0, which is not fitted, for {n_not_fitted} of "
            f"{len(u)} images"
        )
        logger.info("%s: %s; taken: 1", source, sentence)
    _warn(source, remarks_on(table, wording))
    return table


def check_recorded(
    source: str | Path, columns: Mapping[str, NDArray[Any] | None], wording: Wording
) -> None:
    """Refuse what else is recorded of particles where it cannot be, and warn of what is odd.

    Parameters
    ----------
    source : path
    columns : dict
        By names of `QUANTITIES`; None for what is not recorded.
    wording : Wording

    Raises
    ------
    InputFileError
        If a value is absurd, or can only be in another unit.
    """
    for name, values in columns.items():
        if values is not None:
            with named(source):
                refuse_implausible(name, values, wording)
            _warn(source, unusual(name, values, wording))


@contextmanager
def named(source: str | Path) -> Iterator[None]:
    """Name the file in errors about its values."""
    try:
        yield
    except InputError as error:
        raise InputFileError(str(error), source=source) from None


def _warn(source: str | Path, remarks: list[str]) -> None:
    for remark in remarks:
        logger.warning("%s: %s", source, remark)


def warn_of_ignored(source: str | Path, names: list[str]) -> None:
    """Say once which aberrations are recorded but not applied."""
    if names:
        logger.warning(
            "%s: %s are recorded, but beam tilt, higher aberrations and anisotropic magnification "
            "are not applied",
            source,
            ", ".join(names),
        )
