"""The contrast transfer of the microscope on the polar grid."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def contrast_transfer(
    optics: Mapping[str, Tensor],
    wavelength: Tensor,
    spatial_frequencies: Tensor,
    angles: Tensor,
    *,
    signed_astigmatism: bool = True,
    envelope: bool = True,
) -> Tensor:
    """Contrast transfer function of every image on a polar grid.

    Parameters
    ----------
    optics : mapping of Tensor, float64, (image,)
        The columns of `geometry.optics.OPTICS`.
    wavelength : Tensor, float64, (image,)
        Wavelength of the electrons, angstrom.
    spatial_frequencies : Tensor, float64, (shell,)
        1/angstrom.
    angles : Tensor, float64, (angle,)
        Radian.
    signed_astigmatism : bool
        Defocus is (U+V)/2 + (U-V)/2 cos 2(theta - angle); False takes the absolute value of U-V.
    envelope : bool
        Multiply by scale exp(-B f^2 / 4).

    Returns
    -------
    Tensor, float64, (image, shell, angle)

    Notes
    -----
    -sqrt(1 - a^2) sin chi + a cos chi with chi = -pi lambda f^2 dz + (pi/2) Cs lambda^3 f^4 - phase
    shift: the weak phase approximation (Rohou and Grigorieff, J. Struct. Biol. 192, 216, 2015),
    underfocus positive.
    """
    return contrast_of_points(
        optics,
        wavelength,
        spatial_frequencies[:, None],
        angles,
        signed_astigmatism=signed_astigmatism,
        envelope=envelope,
    )


def contrast_of_points(
    optics: Mapping[str, Tensor],
    wavelength: Tensor,
    spatial_frequencies: Tensor,
    angles: Tensor,
    *,
    signed_astigmatism: bool,
    envelope: bool,
) -> Tensor:
    """Contrast transfer at points whose frequencies and angles broadcast to (row, column), as
    `contrast_transfer` gives it on a polar grid: (image, row, column)."""
    column = {name: value[:, None, None] for name, value in optics.items()}
    wave = wavelength[:, None, None]
    frequency2 = spatial_frequencies**2
    mean = (column["defocus_u_angstrom"] + column["defocus_v_angstrom"]) / 2
    half_difference = (column["defocus_u_angstrom"] - column["defocus_v_angstrom"]) / 2
    if not signed_astigmatism:
        half_difference = half_difference.abs()
    defocus = mean + half_difference * torch.cos(2 * (angles - column["defocus_angle_radian"]))
    aberration = column["spherical_aberration_mm"] * 1e7
    chi = (
        -math.pi * wave * frequency2 * defocus + math.pi / 2 * aberration * wave**3 * frequency2**2
    )
    chi = chi - column["phase_shift_radian"]
    contrast = column["amplitude_contrast"]
    transfer = -torch.sqrt(1 - contrast**2) * torch.sin(chi) + contrast * torch.cos(chi)
    if envelope:
        transfer = (
            transfer * column["scale"] * torch.exp(-column["b_factor_angstrom2"] * frequency2 / 4)
        )
    return transfer
