"""Results reduced to what can be looked at: the best structure of each image, its pose there, each
structure's share.

Log-likelihoods are read block by block, all structures of some images at a time; of everything else
what belongs to the winners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import refuse_mixed, without_decoys
from cryolike_dask.errors import InputError

BEST_STRUCTURE = "best_structure"
PROBABILITY = "probability"
MARGIN = "margin"
COMPARABLE = "comparable"
N_RESULTS, N_ASSIGNED, MEAN_LOG_LIKELIHOOD = "n_results", "n_assigned", "mean_log_likelihood"
NO_STRUCTURE = ""
"""The best structure of an image that has no results."""

OF_THE_WINNER = (
    labels.CROSS_CORRELATION,
    labels.OPTIMAL_TEMPLATE,
    labels.OPTIMAL_DISPLACEMENT_X,
    labels.OPTIMAL_DISPLACEMENT_Y,
    labels.OPTIMAL_INPLANE_ROTATION,
    labels.OPTIMAL_AZIMUTH,
    labels.OPTIMAL_POLAR,
    labels.LOG_LIKELIHOOD_ERROR,
    labels.N_POSES_COMPARED,
    *labels.REFINED,
)
NOT_RESULTS = "Give the Dataset that open_results gives."
BLOCK_BYTES = 2**25
"""Bytes of the log-likelihoods that are looked at together: all structures of some images."""

ATTRIBUTES = {
    BEST_STRUCTURE: {"long_name": "structure of the largest integrated log-likelihood"},
    PROBABILITY: {
        "long_name": "posterior probability of the best structure, all being equally likely before"
    },
    MARGIN: {
        "long_name": "integrated log-likelihood of the best structure less that of the second",
        "units": "nat",
    },
    COMPARABLE: {"long_name": "has results under every structure that has any"},
    N_RESULTS: {"long_name": "images with results"},
    N_ASSIGNED: {"long_name": "comparable images whose best structure this is"},
    MEAN_LOG_LIKELIHOOD: {
        "long_name": "mean over comparable images of the integrated log-likelihood less that of "
        "each image's best",
        "units": "nat",
    },
}

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def summarise_results(results: xr.Dataset, structure: str | None = None) -> xr.Dataset:
    """Find the best structure of each image, its pose there, and each structure's share of the
    images.

    Parameters
    ----------
    results : xarray.Dataset
        Dims (structure, image), or (image) of one structure; lazy or not. Missing results are NaN.
    structure : str, optional
        Look at this structure alone. Default: all but decoys.

    Returns
    -------
    xarray.Dataset
        In memory. Along `image`: best_structure ("" without results), probability, margin,
        comparable, and the winner's correlation and pose; along `structure`: n_results, n_assigned,
        mean_log_likelihood. Coordinates and attributes of the results are kept.

    Raises
    ------
    InputError
        If these are no results, or there is no such structure.
    """
    results = _by_structure(results, structure)
    names = results[labels.STRUCTURE].values.astype(object)
    shares = _shares(
        results[labels.LOG_LIKELIHOOD_INTEGRATED].transpose(labels.STRUCTURE, labels.IMAGE)
    )
    missing = shares.best < 0
    best = xr.DataArray(shares.best.clip(0), dims=labels.IMAGE)
    every = xr.DataArray(np.arange(len(missing)), dims=labels.IMAGE)
    available = [name for name in OF_THE_WINNER if name in results]
    poses = (
        results[available]
        .isel({labels.STRUCTURE: best, labels.IMAGE: every})
        .drop_vars(labels.STRUCTURE)
    )
    of_images = {
        PROBABILITY: shares.probability,
        MARGIN: shares.margin,
        COMPARABLE: shares.comparable,
    }
    of_structures = {
        N_RESULTS: shares.n_results,
        N_ASSIGNED: shares.n_assigned,
        MEAN_LOG_LIKELIHOOD: shares.mean_log_likelihood,
    }
    summary: xr.Dataset = poses.compute().assign(
        {name: (labels.IMAGE, values, ATTRIBUTES[name]) for name, values in of_images.items()}
        | {
            name: (labels.STRUCTURE, values, ATTRIBUTES[name])
            for name, values in of_structures.items()
        }
    )
    best_names = np.where(missing, NO_STRUCTURE, names[shares.best.clip(0)])
    return summary.assign_coords(
        {labels.STRUCTURE: names, BEST_STRUCTURE: (labels.IMAGE, best_names)}
    )


def summary_of(results: xr.Dataset, structure: str | None = None) -> xr.Dataset:
    """The summary of results; of a summary, itself."""
    if BEST_STRUCTURE not in results.coords:
        return summarise_results(results, structure)
    if structure is not None:
        raise InputError(
            f"structure={structure!r} of a summary", remedy="Give the results themselves."
        )
    return results


def positions_of(results: xr.Dataset, *structures: str) -> list[int]:
    """Positions of structures among those of results.

    Raises
    ------
    InputError
        If one is not there; names some that are.
    """
    names = [str(name) for name in np.atleast_1d(results[labels.STRUCTURE].values)]
    for structure in structures:
        if structure not in names:
            raise InputError(
                f"structure={structure!r} is not among the results",
                remedy=f"There are {first_names(names, 10)}.",
            )
    return [names.index(structure) for structure in structures]


def first_names(names: Sequence[str], most: int) -> str:
    """The first few of some names, for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def are_compared(summary: xr.Dataset) -> bool:
    """Whether there are images with results under several structures."""
    several = int((summary[N_RESULTS] > 0).sum()) > 1
    return several and bool(summary[COMPARABLE].any())


def _by_structure(results: xr.Dataset, structure: str | None) -> xr.Dataset:
    """Results with both dims, of one structure if asked for."""
    missing = [
        name
        for name in (labels.STRUCTURE, labels.LOG_LIKELIHOOD_INTEGRATED)
        if name not in results.variables
    ]
    if missing or labels.IMAGE not in results.dims:
        raise InputError(
            f"no results: there is no {' and no '.join(missing) or labels.IMAGE}",
            remedy=NOT_RESULTS,
        )
    if labels.STRUCTURE not in results.dims:
        results = results.expand_dims(labels.STRUCTURE)
    if structure is not None:
        results = results.isel({labels.STRUCTURE: positions_of(results, structure)})
    refuse_mixed(results)
    return results if structure is not None else without_decoys(results)


@dataclass(frozen=True, eq=False)
class _Shares:
    """Structures compared by the log-likelihoods of some images: arrays (image,), then
    (structure,)."""

    best: Integers
    probability: Floats
    margin: Floats
    comparable: NDArray[np.bool_]
    n_results: Integers
    n_assigned: Integers
    mean_log_likelihood: Floats


def _shares(log_likelihood: xr.DataArray) -> _Shares:
    """Compare structures block by block of images."""
    lazy = da.asarray(log_likelihood.data)
    lazy = lazy.rechunk({0: -1, 1: "auto"}, block_size_limit=BLOCK_BYTES)
    parts = dask.compute(*[dask.delayed(_shares_of)(block) for block in lazy.to_delayed().ravel()])
    n_results = np.sum([part.n_results for part in parts], axis=0)
    # where a structure lacks results in a block only, its images are no fair comparison
    whole = [bool(((part.n_results > 0) == (n_results > 0)).all()) for part in parts]
    for part, is_whole in zip(parts, whole, strict=True):
        part.comparable[:] &= is_whole
    n = sum(int(part.comparable.sum()) for part in parts)

    whole_parts = [part for part, is_whole in zip(parts, whole, strict=True) if is_whole]
    total = sum((part.mean_log_likelihood for part in whole_parts), np.zeros(len(n_results)))
    return _Shares(
        best=np.concatenate([part.best for part in parts]),
        probability=np.concatenate([part.probability for part in parts]),
        margin=np.concatenate([part.margin for part in parts]),
        comparable=np.concatenate([part.comparable for part in parts]),
        n_results=n_results,
        n_assigned=sum(
            (part.n_assigned for part in whole_parts), np.zeros(len(n_results), np.int64)
        ),
        mean_log_likelihood=np.where(n_results > 0, total / n if n else np.nan, np.nan),
    )


def _shares_of(log_likelihood: NDArray[Any]) -> _Shares:
    """Compare the structures of a block, (structure, image); the mean is a sum still.

    Comparable are images with results under each structure that has any in this block.
    """
    values = np.asarray(log_likelihood, np.float64)
    known = np.isfinite(values)
    n_results = known.sum(axis=1)
    comparable = known[n_results > 0].all(axis=0) & known.any(axis=0)
    values = np.where(known, values, -np.inf)
    best = np.where(known.any(axis=0), values.argmax(axis=0), -1)
    largest = np.where(best >= 0, values.max(axis=0, initial=-np.inf), 0.0)
    below = values - largest  # exponentials of the log-likelihoods themselves would underflow
    with np.errstate(divide="ignore", invalid="ignore"):
        probability = np.where(best >= 0, 1 / np.exp(below).sum(axis=0), np.nan)
        mean = np.where(
            n_results > 0, np.where(known, below, 0.0)[:, comparable].sum(axis=1), np.nan
        )
    margin = np.full(len(best), np.nan)
    if len(values) > 1:
        second = np.partition(below, -2, axis=0)[-2]
        margin = np.where(np.isfinite(second) & (best >= 0), -second, np.nan)
    n_assigned = np.bincount(best[comparable], minlength=len(values))
    return _Shares(
        best, probability, margin, comparable, n_results, n_assigned, np.nan_to_num(mean)
    )
