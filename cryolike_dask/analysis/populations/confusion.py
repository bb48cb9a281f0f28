"""What images of one structure are taken for."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.populations.likelihoods import Likelihoods
from cryolike_dask.analysis.populations.passes import Images

Floats = NDArray[np.float64]


def confusion(
    results: xr.Dataset, likelihoods: Likelihoods, shown: Floats, shares: Floats
) -> dict[str, xr.DataArray]:
    """The probability of each structure, over images that show another: expected, if the
    likelihoods are right, and found, where it is recorded what images show.

    Both weigh structures by their shares. Where they differ, likelihoods are not right, or shares
    not those of these images.

    Parameters
    ----------
    results : xarray.Dataset
    likelihoods : Likelihoods
    shown : float64 array, (image,)
        Probability that the image shows one of the structures.
    shares : float64 array, (structure,)
    """
    dims = (labels.STRUCTURE, labels.STRUCTURE_OTHER)
    joint = Images(likelihoods.relative, shown).joint(shares)
    with np.errstate(invalid="ignore"):  # of structures without a share
        expected = joint / joint.sum(axis=1, keepdims=True)
    what = "probability of the other, over images that show the one"
    found = {
        "expected_confusion": xr.DataArray(
            expected, dims=dims, attrs={"long_name": f"expected {what}"}
        )
    }
    if labels.TRUE_STRUCTURE in results.coords:
        truth = likelihoods.recorded(results, labels.TRUE_STRUCTURE).astype(str)
        rows = np.array([_mean(likelihoods, shares, truth == s) for s in likelihoods.structures])
        if not np.isnan(rows).all():
            found["found_confusion"] = xr.DataArray(
                rows, dims=dims, attrs={"long_name": f"found {what}"}
            )
    return found


def _mean(likelihoods: Likelihoods, shares: Floats, these: NDArray[np.bool_]) -> Floats:
    """Mean probability of each structure over some images; NaN without any."""
    if not these.any():
        return np.full(len(shares), np.nan)
    its = likelihoods.relative[these] * shares
    mean: Floats = (its / its.sum(axis=1, keepdims=True)).mean(axis=0)
    return mean
