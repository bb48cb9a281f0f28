"""The microscope that tests take images with."""

from __future__ import annotations

from typing import Any

from cryolike_dask.geometry.optics import optics_table


def microscope(n: int, defocus: Any) -> Any:
    """Optics of images of one microscope, without astigmatism; defocus in angstrom, one or (n,)."""
    return optics_table(
        n,
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
        defocus_angle_radian=0.0,
        voltage_kilovolt=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )
