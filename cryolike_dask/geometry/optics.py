"""The optics of each image, as one table: what the contrast transfer of the microscope depends on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, listed

OPTICS = np.dtype(
    [
        ("defocus_u_angstrom", "f8"),
        ("defocus_v_angstrom", "f8"),
        ("defocus_angle_radian", "f8"),
        ("phase_shift_radian", "f8"),
        ("voltage_kilovolt", "f8"),
        ("spherical_aberration_mm", "f8"),
        ("amplitude_contrast", "f8"),
        ("b_factor_angstrom2", "f8"),
        ("scale", "f8"),
    ]
)
"""One row per image. The defocus angle runs from the x axis of the image to the axis of defocus u."""

PLAUSIBLE = {
    "defocus_angle_radian": (-2 * math.pi, 2 * math.pi, "radian"),
    "phase_shift_radian": (-2 * math.pi, 2 * math.pi, "radian"),
    "voltage_kilovolt": (10, 2000, "kilovolt"),
    "spherical_aberration_mm": (-100, 100, "mm"),
    "amplitude_contrast": (0, 1, "fractions of 1"),
}
"""Least, most, unit: beyond, a value has been given in another unit (degrees, volts, angstrom, percent)."""

PLANCK = 6.62607015e-34
ELECTRON_MASS = 9.1093837015e-31
LIGHT_SPEED = 299792458.0


def optics_table(n_images: int, **columns: Any) -> NDArray[np.void]:
    """Build the optics of `n_images` images.

    Parameters
    ----------
    n_images : int
    **columns : float or array, (image,)
        The names of `OPTICS`, each one value or one per image. `phase_shift_radian`, `b_factor_angstrom2` and `scale`
        default to 0, 0 and 1; the rest must be given.

    Returns
    -------
    structured array, `OPTICS`, (image,)

    Raises
    ------
    InputError
        If a column is missing, unknown, of another length, not finite, or not physical.
    """
    defaults = {"phase_shift_radian": 0.0, "b_factor_angstrom2": 0.0, "scale": 1.0}
    names = set(OPTICS.names or ())
    given = {**defaults, **columns}
    if set(given) != names:
        raise InputError(f"optics: missing {sorted(names - set(given))}, unknown {sorted(set(given) - names)}")
    table = np.empty(n_images, OPTICS)
    for name, value in given.items():
        try:
            column = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{name}={value!r} is not a number") from None
        if column.shape not in ((), (1,), (n_images,)):
            raise InputError(f"{name} has shape {column.shape}, but there are {n_images} images")
        table[name] = column
        if not np.isfinite(table[name]).all():
            bad = np.flatnonzero(~np.isfinite(table[name]))
            raise InputError(f"{name} is not finite for image(s) {listed(bad)}")
    for name, (least, most, unit) in PLAUSIBLE.items():
        beyond = np.flatnonzero((table[name] < least) | (table[name] > most))
        if len(beyond):
            value = table[name][beyond[0]]
            raise InputError(f"{name}={value:g} of image(s) {listed(beyond)} is not a value in {unit}")
    return table


def electron_wavelength_angstrom(voltage_kilovolt: Any, elementary_charge: float = 1.602176634e-19) -> Any:
    """Relativistic wavelength of the electron, angstrom, elementwise."""
    energy = elementary_charge * 1e3 * voltage_kilovolt
    momentum = (2 * ELECTRON_MASS * energy) ** 0.5
    relativistic = (1 + energy / (2 * ELECTRON_MASS * LIGHT_SPEED**2)) ** 0.5
    return PLANCK / momentum / relativistic * 1e10


def transposed_defocus_angle(angle_radian: Any) -> Any:
    """The defocus angle after x and y change places."""
    return math.pi / 2 - angle_radian
