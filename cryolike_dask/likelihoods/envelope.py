"""What is asked of a comparison when an envelope is fitted: of which structure each image is, and
how the power of its template depends on a B-factor.

An envelope multiplies whole shells, so that sums over each shell, taken once, give the power under
any B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.setup import at_poses

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BestOfStructures:
    """The likeliest structure of each image, and its filtered template there.

    Attributes
    ----------
    structure : (image,) int64
    log_likelihood : (image,) float64
        Integrated over the poses of this structure.
    power, mask : (image, shell) float64
        Parts of Ixx and Isx at the best pose, without an added envelope.
    mask_power : (image,) float64
        Iss.
    """

    structure: NDArray[np.int64]
    log_likelihood: FloatArray
    power: FloatArray
    mask: FloatArray
    mask_power: FloatArray

    def half_log_variance(self, b_factor: float, spatial_frequencies: FloatArray) -> FloatArray:
        """(1/2) log A of each image under an envelope, (image,).

        Offset and scale are integrated out with flat priors, so that a likelihood has the factor
        A^(-1/2), A = Ixx Iss - Isx^2. It rewards whatever takes power from templates, as an
        envelope does, and is to be taken out where envelopes are compared.
        """
        envelope = np.exp(-b_factor * spatial_frequencies**2 / 4)
        variance = self.power @ envelope**2 * self.mask_power - (self.mask @ envelope) ** 2
        result: FloatArray = 0.5 * np.log(variance)
        return result


def choose_structures(
    image_rows: Rows, poses: Sequence[Rows], comparisons: Sequence[Comparison]
) -> BestOfStructures:
    """Choose the structure that each image is most likely of.

    Parameters
    ----------
    image_rows : IMAGE_ROW, (image,)
    poses : sequence of POSE, (image,)
        With each structure.
    comparisons : sequence of Comparison
        With each structure.
    """
    likelihoods = np.stack([p["log_likelihood_integrated"] for p in poses])
    best, n_shells = likelihoods.argmax(0), comparisons[0].grid.n_shells
    shells = np.empty((len(best), 2, n_shells))
    mask_power = np.empty(len(best))
    for i in np.unique(best):
        m = np.flatnonzero(best == i)
        shells[m], mask_power[m] = _shells(image_rows[m], poses[i][m], comparisons[i])
    return BestOfStructures(best, likelihoods.max(0), shells[:, 0], shells[:, 1], mask_power)


def _shells(image_rows: Rows, poses: Rows, comparison: Comparison) -> tuple[FloatArray, FloatArray]:
    """Power and offset of filtered templates at poses, without the envelopes that are added,
    (image, 2, shell); and Iss, (image,)."""
    import torch

    from cryolike_dask.likelihoods.kernels.direct import shells_at_given_poses

    whitening = comparison.whitening
    plain = replace(whitening, envelopes=np.ones_like(whitening.envelopes))
    shells = np.empty((len(image_rows), 2, comparison.grid.n_shells))
    mask_power = np.empty(len(image_rows))
    with torch.inference_mode():
        for part, images, templates, constants in at_poses(
            image_rows, poses, replace(comparison, whitening=plain)
        ):
            shells[part] = shells_at_given_poses(images, templates, constants).cpu().numpy()
            mask_power[part] = images.noise.mask_power.cpu().numpy()
    return shells, mask_power
