"""The formation of an image from a template, and the correlation of both: the kernels of the
likelihood for those who draw, measure or simulate a few images, on arrays of numpy.

torch is imported inside the functions: the scheduler imports this module too, and does not need
torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.gpu import sent
from cryolike_dask.conventions import Conventions
from cryolike_dask.geometry.optics import OPTICS, electron_wavelength_angstrom
from cryolike_dask.geometry.polar_grid import PolarGrid

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]


def contrast_at_points(
    optics: NDArray[np.void],
    spatial_frequencies: FloatArray,
    angles: FloatArray,
    conventions: Conventions,
) -> FloatArray:
    """Contrast transfer of images at points of Fourier space.

    Parameters
    ----------
    optics : structured array, (image,)
        With the columns of `OPTICS`.
    spatial_frequencies, angles : float64, broadcastable to (row, column)
        Frequency and angle of each point: 1/angstrom; radian.
    conventions : Conventions

    Returns
    -------
    float64, (image, row, column)
    """
    import torch

    contrast: FloatArray = contrast_on_device(
        optics, spatial_frequencies, angles, conventions, torch.device("cpu")
    ).numpy()
    return contrast


def contrast_on_device(
    optics: NDArray[np.void],
    spatial_frequencies: FloatArray,
    angles: FloatArray,
    conventions: Conventions,
    device: torch.device,
) -> torch.Tensor:
    """Contrast transfer as `contrast_at_points` gives it, computed on a device and left there."""

    from cryolike_dask.likelihoods.kernels.contrast_transfer import contrast_of_points

    columns = {name: sent(optics[name].copy(), device) for name in OPTICS.names or ()}
    return contrast_of_points(
        columns,
        electron_wavelength_angstrom(columns["voltage_kilovolt"], conventions.elementary_charge),
        sent(spatial_frequencies, device),
        sent(angles, device),
        signed_astigmatism=conventions.signed_astigmatism,
        envelope=conventions.applies_envelope,
    )


def displacement_phases(x: float, y: float, kx: FloatArray, ky: FloatArray) -> ComplexArray:
    """Factors that move the content of an image by +x, +y.

    Parameters
    ----------
    x, y : float
        In the unit of length that frequencies refer to: half boxes on a polar grid.
    kx, ky : float64, (row, column)
        Cycles per unit of length.

    Returns
    -------
    complex128, (row, column)
    """
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors

    (factors,) = translation_factors(
        torch.tensor([x], dtype=torch.float64),
        torch.tensor([y], dtype=torch.float64),
        torch.from_numpy(kx),
        torch.from_numpy(ky),
    )
    phases: ComplexArray = factors.numpy()
    return phases


def correlation(
    image: ComplexArray,
    projection: ComplexArray,
    grid: PolarGrid,
    mask: ComplexArray | None = None,
    unmoved: ComplexArray | None = None,
    rings: FloatArray | None = None,
) -> float:
    """Correlation of an image with a template in its pose, filtered.

    Parameters
    ----------
    image, projection : complex128, (shell, angle)
    grid : PolarGrid
    mask : complex128, (shell, angle), optional
        Transform of the box. With it a constant offset is projected out (zero-normalised
        correlation).
    unmoved : complex128, (shell, angle), optional
        The filtered template before it is moved, whose offset counts; default: the projection.
    rings : float64, (2, shell), optional
        Power and offset of the rings of the image, in place of sums over its values.
    """
    import torch

    from cryolike_dask.likelihoods.kernels.cross_correlation import (
        overlaps,
        plain_correlation,
        powers,
        zero_normalised_correlation,
    )

    weights = torch.from_numpy(grid.weights)[:, None]
    particle, template = torch.from_numpy(image), torch.from_numpy(projection)
    cross = overlaps(particle, template, weights)
    template_power, image_power = powers(template, weights), powers(particle, weights)
    if rings is not None:
        image_power = torch.tensor(rings[0].sum())
    if mask is None:
        return float(plain_correlation(cross, template_power, image_power))
    box = torch.from_numpy(mask)
    centred = template if unmoved is None else torch.from_numpy(unmoved)
    return float(
        zero_normalised_correlation(
            cross,
            template_power,
            image_power,
            template_mask=overlaps(box, centred, weights),
            image_mask=overlaps(box, particle, weights)
            if rings is None
            else torch.tensor(rings[1].sum()),
            mask_power=float(powers(box, weights)),
        )
    )
