"""The arithmetic, in torch, on any device, in single or double precision.

Index letters of every kernel: m image, s template, d displacement, w in-plane rotation, n shell, j
angle on a ring, q angular frequency. Nothing here knows of files, Dask or conventions by name:
kernels are given values.
"""

from cryolike_dask.likelihoods.kernels.contrast_transfer import contrast_transfer
from cryolike_dask.likelihoods.kernels.cross_correlation import compute_cross_correlation
from cryolike_dask.likelihoods.kernels.fourier_bessel import (
    half_spectrum,
    rotations_from_half_spectrum,
)
from cryolike_dask.likelihoods.kernels.log_likelihood import (
    integrate_log_likelihood,
    log_likelihood_of_poses,
)
from cryolike_dask.likelihoods.kernels.translation import translation_factors

__all__ = [
    "compute_cross_correlation",
    "contrast_transfer",
    "half_spectrum",
    "integrate_log_likelihood",
    "log_likelihood_of_poses",
    "rotations_from_half_spectrum",
    "translation_factors",
]
