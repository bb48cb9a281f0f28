"""Ranges of recorded numbers: beyond its range a number is in another unit, or nonsense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, listed

TURN = 2 * math.pi + 1e-3
"""A whole turn that was rounded to single precision is one."""


@dataclass(frozen=True)
class Quantity:
    """Range and units of one quantity.

    Attributes
    ----------
    unit : str
    possible : tuple of float
        Least and most; a value beyond is refused.
    usual : tuple of float
        Least and most of what is not worth a word.
    typical : tuple of float
        Least and most magnitude of nearly all values there are: what a value in another unit turns
        into.
    others : dict of str to float
        Other units, and how many of `unit` one of them is.
    """

    unit: str
    possible: tuple[float, float]
    usual: tuple[float, float]
    typical: tuple[float, float] = (0.0, math.inf)
    others: Mapping[str, float] = field(default_factory=dict)

    def guess(self, values: NDArray[np.float64]) -> str:
        """Name the unit in which all values would be typical, as the end of a sentence."""
        least, most = self.typical
        for unit, factor in self.others.items():
            magnitude = np.abs(values * factor)
            if ((magnitude >= least) & (magnitude <= most)).all():
                return f": it looks like {unit}"
        return ""


LENGTHS = {"micrometre": 1e4, "nanometre": 10.0, "metre": 1e10}
DEFOCUS = Quantity("angstrom", (-1e6, 1e6), (-1e5, 1e5), (1e2, 1e5), LENGTHS)
IN_TURN = Quantity(
    "radian", (-TURN, TURN), (-TURN, TURN), (0.0, 2 * TURN), {"degrees": math.pi / 180}
)
TURNED = Quantity("radian", (-1e4, 1e4), (-2 * TURN, 2 * TURN), IN_TURN.typical, IN_TURN.others)

QUANTITIES = {
    "defocus_u_angstrom": DEFOCUS,
    "defocus_v_angstrom": DEFOCUS,
    "defocus_angle_radian": IN_TURN,
    "phase_shift_radian": IN_TURN,
    "voltage_kilovolt": Quantity(
        "kilovolt", (10, 2000), (50, 1500), (50, 1500), {"volts": 1e-3, "megavolts": 1e3}
    ),
    "spherical_aberration_mm": Quantity(
        "mm",
        (-100, 100),
        (-0.1, 10),
        (0.5, 10),
        {"micrometre": 1e-3, "angstrom": 1e-7, "metre": 1e3},
    ),
    "amplitude_contrast": Quantity(
        "fractions of 1", (0, 1), (0, 0.5), (0.01, 0.5), {"percent": 0.01}
    ),
    "b_factor_angstrom2": Quantity("angstrom^2", (-1e3, 1e4), (0, 1e3)),
    "scale": Quantity("fractions of 1", (-1e3, 1e3), (1e-3, 10)),
    "pixel_size_angstrom": Quantity("angstrom", (1e-2, 1e3), (0.2, 50), (0.2, 20), LENGTHS),
    "origin_angstrom": Quantity("angstrom", (-1e5, 1e5), (-1e4, 1e4)),
    "angles_radian": TURNED,
    "rotation_radian": TURNED,
}
"""Quantities by the names of `OPTICS`, and others that are recorded of an image."""


@dataclass(frozen=True)
class Wording:
    """Words of messages about values.

    Attributes
    ----------
    labels : dict of str to str
        What the file calls the quantities; those that are missing keep their own names.
    in_degrees : bool
        The file has degrees for radian.
    in_rows : bool
        Values are rows of a table, not images.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    in_degrees: bool = False
    in_rows: bool = False

    def label(self, name: str) -> str:
        """Name of a quantity."""
        return self.labels.get(name, name)

    def where(self, bad: NDArray[np.int64]) -> str:
        """Name rows or images, the first few."""
        return f"row(s) {listed(bad)} (from 0)" if self.in_rows else f"image(s) {listed(bad)}"

    def in_unit_of_file(self, name: str, value: float) -> tuple[str, str]:
        """A value as the file has it, and its unit."""
        unit = QUANTITIES[name].unit
        return (
            (f"{math.degrees(value):g}", "degrees")
            if unit == "radian" and self.in_degrees
            else (f"{value:g}", unit)
        )


AS_GIVEN = Wording()


def refuse_implausible(name: str, values: NDArray[np.float64], wording: Wording = AS_GIVEN) -> None:
    """Refuse values that this quantity cannot have: not finite, absurd, or in another unit.

    Raises
    ------
    InputError
    """
    least, most = QUANTITIES[name].possible
    refuse(name, values, ~((values >= least) & (values <= most)), wording)


def refuse(
    name: str, values: NDArray[np.float64], bad: NDArray[np.bool_], wording: Wording = AS_GIVEN
) -> None:
    """Refuse the values that are bad, and say what they look like."""
    if not bad.any():
        return
    rows, value, unit, guess = _first_bad(name, values, bad, wording)
    label = wording.label(name)
    if wording.in_rows:
        what = (
            f"{label} is {value} in row {rows[0]} (from 0), which is no value in {unit}{guess}; "
            f"{len(rows)} such row(s)"
        )
    else:
        what = f"{label}={value} of {wording.where(rows)} is not a value in {unit}{guess}"
    raise InputError(what, remedy=f"Give it in {unit}." if guess else None)


def unusual(name: str, values: NDArray[np.float64], wording: Wording = AS_GIVEN) -> list[str]:
    """Say which values are possible, but so rare that a slip or another unit is likelier: one
    remark, or none."""
    least, most = QUANTITIES[name].usual
    bad = (values < least) | (values > most)
    if name == "amplitude_contrast":
        bad &= values != 1  # of images without phase contrast
    return remark(name, values, bad, wording)


def remark(
    name: str, values: NDArray[np.float64], bad: NDArray[np.bool_], wording: Wording = AS_GIVEN
) -> list[str]:
    """Say which values are suspect, and what they look like: one remark, or none if none are."""
    if not bad.any():
        return []
    rows, value, unit, guess = _first_bad(name, values, bad, wording)
    sentence = (
        f"{wording.label(name)} is {value} for {wording.where(rows)}, which is unusual for a "
        f"value in {unit}{guess}"
    )
    return [f"{sentence} ({len(rows)} of {len(values)})"]


def _first_bad(
    name: str, values: NDArray[np.float64], bad: NDArray[np.bool_], wording: Wording
) -> tuple[NDArray[np.int64], str, str, str]:
    """Rows of bad values, the first value as the file has it, its unit, and what they look like."""
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    value, unit = wording.in_unit_of_file(name, values[bad][0])
    with np.errstate(over="ignore", invalid="ignore"):
        return rows, value, unit, "" if unit == "degrees" else QUANTITIES[name].guess(values[bad])


def numbers_of(name: str, value: Any, n: int, wording: Wording = AS_GIVEN) -> NDArray[np.float64]:
    """Give one value, or one for each image, as `n` finite numbers.

    Raises
    ------
    InputError
        If that is not what it is.
    """
    label = wording.label(name)
    try:
        column = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{label}={value!r} is not a number") from None
    if column.shape not in ((), (1,), (n,)):
        raise InputError(f"{label} has shape {column.shape}, but there are {n} images")
    column = np.broadcast_to(column, n)
    if not np.isfinite(column).all():
        raise InputError(
            f"{label} is not finite for {wording.where(np.flatnonzero(~np.isfinite(column)))}"
        )
    return column
