"""Fourier series over the angle of each ring, of which a real image needs one half.

The transform F of a real image obeys F(k, theta + pi) = conj F(k, theta), so its series obeys
a_{-q} = (-1)^q conj(a_q): q = 0 .. W/2 is all there is.
"""

from __future__ import annotations

import torch
from torch import Tensor


def half_spectrum(rings: Tensor) -> Tensor:
    """Expand rings in angular frequency.

    Parameters
    ----------
    rings : Tensor, real or complex, (..., angle)

    Returns
    -------
    Tensor, complex, (..., W/2 + 1)
        Orthonormal coefficients of q = 0 .. W/2.
    """
    transform = torch.fft.fft if rings.is_complex() else torch.fft.rfft
    spectrum: Tensor = transform(rings, norm="ortho")
    return spectrum[..., : rings.shape[-1] // 2 + 1]


def rotations_from_half_spectrum(products: Tensor, n_inplanes: int) -> Tensor:
    """Sum products of spectra into a correlation over in-plane rotations.

    Parameters
    ----------
    products : Tensor, complex, (..., W/2 + 1)
        conj(a_q) b_q, summed over shells.
    n_inplanes : int
        W.

    Returns
    -------
    Tensor, real, (..., rotation)
        sum_j conj(a)(theta_j) b(theta_j + theta_w).
    """
    rotations: Tensor = torch.fft.irfft(products, n=n_inplanes, norm="forward")
    return rotations
