"""The optics of each image, as one table: what the contrast transfer of the microscope depends
on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.plausible import (
    AS_GIVEN,
    Wording,
    numbers_of,
    refuse,
    refuse_implausible,
    remark,
    unusual,
)

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
"""One row per image. The defocus angle runs from the x axis of the image to the axis of defocus
u."""

BOTH_DEFOCI = ("defocus_u_angstrom", "defocus_v_angstrom")
SMALL_DEFOCUS_ANGSTROM = 100.0
"""No microscope is set as finely as this: a set whose defoci are all smaller has them in another
unit."""
MOST_ASTIGMATISM = 0.9
"""Part of the larger defocus that the two may differ by: beyond it one of both is in another unit,
was not estimated, or has another sign."""
NEAR_FOCUS_ANGSTROM = 1e3
"""Below it no phase contrast is seen without a phase plate."""

PLANCK = 6.62607015e-34
ELECTRON_MASS = 9.1093837015e-31
LIGHT_SPEED = 299792458.0


def optics_table(n_images: int, **columns: Any) -> NDArray[np.void]:
    """Build the optics of `n_images` images.

    Parameters
    ----------
    n_images : int
    **columns : float or array, (image,)
        The names of `OPTICS`, each one value or one per image. `phase_shift_radian`,
        `b_factor_angstrom2` and `scale` default to 0, 0 and 1; the rest must be given. A scale of 0
        is one that was not fitted: 1.

    Returns
    -------
    structured array, `OPTICS`, (image,)

    Raises
    ------
    InputError
        If a column is missing, unknown, of another length, not finite, or can only be in another
        unit.
    """
    table = filled_optics(n_images, columns)
    refuse_other_units(table)
    return table


def filled_optics(
    n_images: int, columns: Mapping[str, object], wording: Wording = AS_GIVEN
) -> NDArray[np.void]:
    """Build optics as `optics_table` does, of images that need not be a whole set."""
    defaults = {"phase_shift_radian": 0.0, "b_factor_angstrom2": 0.0, "scale": 1.0}
    names = set(OPTICS.names or ())
    given = {**defaults, **columns}
    if set(given) != names:
        raise InputError(
            f"optics: missing {sorted(names - set(given))}, unknown {sorted(set(given) - names)}"
        )
    table = np.empty(n_images, OPTICS)
    for name, value in given.items():
        table[name] = numbers_of(name, value, n_images, wording)
        refuse_implausible(name, table[name], wording)
    table["scale"][table["scale"] == 0] = 1
    return table


def refuse_other_units(table: NDArray[np.void], wording: Wording = AS_GIVEN) -> None:
    """Refuse a set of images whose defoci are all too small to be angstrom."""
    defocus = _defocus(table)[~_in_focus_on_purpose(table)]
    if defocus.any() and defocus.max() < SMALL_DEFOCUS_ANGSTROM:
        name = max(BOTH_DEFOCI, key=lambda name: np.abs(table[name]).max())
        refuse(name, table[name], table[name] != 0, wording)


def remarks_on(table: NDArray[np.void], wording: Wording = AS_GIVEN) -> list[str]:
    """Say what is odd about the optics of a set of images, each kind once, with how many are so."""
    odd = [line for name in OPTICS.names or () for line in unusual(name, table[name], wording)]
    kinds = (_small_defocus, _no_defocus, _defoci_apart, _odd_throughout)
    return odd + [line for kind in kinds for line in kind(table, wording)]


def _small_defocus(table: NDArray[np.void], wording: Wording) -> list[str]:
    defocus, on_purpose = _defocus(table), _in_focus_on_purpose(table)
    throughout = defocus.max(initial=0) < (
        SMALL_DEFOCUS_ANGSTROM if on_purpose.any() else NEAR_FOCUS_ANGSTROM
    )
    small = (defocus > 0) & (throughout | (defocus < SMALL_DEFOCUS_ANGSTROM) & ~on_purpose)
    return remark("defocus_u_angstrom", table["defocus_u_angstrom"], small, wording)


def _no_defocus(table: NDArray[np.void], wording: Wording) -> list[str]:
    unknown = np.flatnonzero((_defocus(table) == 0) & ~_in_focus_on_purpose(table))
    if not len(unknown):
        return []
    which = "all" if len(unknown) == len(table) else f"{wording.where(unknown)}, {len(unknown)} of"
    both = " and ".join(wording.label(name) for name in BOTH_DEFOCI)
    return [
        f"{both} are 0 for {which} {len(table)} images: their contrast transfer seems not to have "
        f"been estimated"
    ]


def _defoci_apart(table: NDArray[np.void], wording: Wording) -> list[str]:
    defocus, (u, v) = _defocus(table), (table[name] for name in BOTH_DEFOCI)
    apart = np.flatnonzero(
        (defocus >= NEAR_FOCUS_ANGSTROM) & (np.abs(u - v) > MOST_ASTIGMATISM * defocus)
    )
    if not len(apart):
        return []
    both = " and ".join(wording.label(name) for name in BOTH_DEFOCI)
    values = f"{u[apart[0]]:g} and {v[apart[0]]:g} angstrom"
    return [
        f"{both} are far apart ({values}) for {wording.where(apart)}, {len(apart)} of {len(table)}"
    ]


def _odd_throughout(table: NDArray[np.void], wording: Wording) -> list[str]:
    """Values that one microscope or image may have, but hardly all of them."""
    cs, shift = np.abs(table["spherical_aberration_mm"]), np.abs(table["phase_shift_radian"])
    in_metre = (cs > 1.1e-3) & (cs < 4.5e-3)
    remarks = remark("spherical_aberration_mm", cs, in_metre, wording) if in_metre.all() else []
    if wording.in_degrees and shift.any() and shift.max() <= math.radians(math.pi):
        label, most = wording.label("phase_shift_radian"), math.degrees(shift.max())
        remarks.append(
            f"{label} is at most {most:g} degrees for all {len(table)} images: it looks like radian"
        )
    if len(table) and (table["defocus_u_angstrom"] + table["defocus_v_angstrom"] < 0).all():
        remarks.append(
            f"defocus is negative for all {len(table)} images (overfocus): here underfocus counts "
            f"as positive"
        )
    return remarks


def _defocus(table: NDArray[np.void]) -> NDArray[np.float64]:
    """The larger magnitude of both defoci, (image,)."""
    larger: NDArray[np.float64] = np.maximum(*(np.abs(table[name]) for name in BOTH_DEFOCI))
    return larger


def _in_focus_on_purpose(table: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether an image in focus has contrast: by a phase plate, or by amplitude alone."""
    by_plate: NDArray[np.bool_] = np.abs(np.sin(table["phase_shift_radian"])) > 0.5
    by_amplitude: NDArray[np.bool_] = table["amplitude_contrast"] == 1
    return by_plate | by_amplitude


def electron_wavelength_angstrom(
    voltage_kilovolt: Any, elementary_charge: float = 1.602176634e-19
) -> Any:
    """Relativistic wavelength of the electron, angstrom, elementwise."""
    energy = elementary_charge * 1e3 * voltage_kilovolt
    momentum = (2 * ELECTRON_MASS * energy) ** 0.5
    relativistic = (1 + energy / (2 * ELECTRON_MASS * LIGHT_SPEED**2)) ** 0.5
    return PLANCK / momentum / relativistic * 1e10


def transposed_defocus_angle(angle_radian: Any) -> Any:
    """The defocus angle after x and y change places."""
    return math.pi / 2 - angle_radian


def optics_in_words(optics: NDArray[np.void]) -> dict[str, str]:
    """Defocus and voltage of images, as tables show them."""
    defocus = (optics["defocus_u_angstrom"] + optics["defocus_v_angstrom"]) / 2e4
    return {
        "defocus": _spread(defocus, "micrometre"),
        "voltage": _spread(optics["voltage_kilovolt"], "kV"),
    }


def _spread(values: NDArray[np.float64], unit: str) -> str:
    """One number, or from the least to the largest."""
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"
