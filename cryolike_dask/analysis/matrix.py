"""The likelihood matrix, (structure, image): what other quantities are made of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import refuse_mixed, without_decoys
from cryolike_dask.analysis.populations.priors import OfEach, one_of_each
from cryolike_dask.errors import InputError, counted
from cryolike_dask.io.export_names import MATRICES

IMAGES_AT_ONCE = 4096


def log_likelihood_ratio(
    results: xr.Dataset, reference: str, variable: str = labels.LOG_LIKELIHOOD_INTEGRATED
) -> xr.DataArray:
    """Log-likelihood of every structure less that of one of them, lazily: positive where the image
    prefers the other.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    reference : str
        Name of the structure whose log-likelihood is subtracted.
    variable : str
        `log_likelihood_integrated` or `log_likelihood_optimal`.

    Returns
    -------
    xarray.DataArray
        (structure, image), nat; the attribute `reference` names what was subtracted.

    Raises
    ------
    InputError
        If there is no such structure or variable.
    """
    # decoys are compared with structures like any other
    values = matrix_of(results.drop_vars(labels.DECOY_OF, errors="ignore"), variable)
    names = [str(name) for name in values[labels.STRUCTURE].values]
    if reference not in names:
        first = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise InputError(
            f"reference={reference!r} is none of the structures", remedy=f"There are {first}."
        )
    ratio = values - values.sel({labels.STRUCTURE: reference}, drop=True)
    long_name = f"{values.attrs.get('long_name', variable)}, less that of {reference}"
    return ratio.rename("log_likelihood_ratio").assign_attrs(
        long_name=long_name, units="nat", reference=reference
    )


def structure_probability(
    results: xr.Dataset,
    shares: OfEach | None = None,
    *,
    populations: xr.Dataset | None = None,
) -> xr.DataArray:
    """Give the probability of each structure for each image, as if one of them were shown, lazily.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    shares : one for each structure, optional
        How much of the sample each structure is held to be beforehand, in the order of
        `results.structure`, or by names; default: all the same.
    populations : xarray.Dataset, optional
        As `populations` gives it, in place of shares: its `population`, by the names of structures.

    Returns
    -------
    xarray.DataArray
        (structure, image), adding up to 1 over structures.

    Raises
    ------
    InputError
        If there are not as many shares as structures, or one is not positive; or populations are
        of other structures.
    """
    values = matrix_of(results, labels.LOG_LIKELIHOOD_INTEGRATED).astype(np.float64)
    names = [str(name) for name in values[labels.STRUCTURE].values]
    if populations is not None:
        if shares is not None:
            raise InputError("both shares and populations", remedy="Give one of them.")
        prior = _shares_of(populations, values)
    else:
        prior = np.ones(len(names)) if shares is None else one_of_each("shares", shares, names)
    relative = xr.apply_ufunc(np.exp, values - values.max(labels.STRUCTURE), dask="allowed")
    odds = relative * xr.DataArray(prior, dims=labels.STRUCTURE)
    probability: xr.DataArray = odds / odds.sum(labels.STRUCTURE, skipna=False)
    return probability.rename("structure_probability").assign_attrs(
        long_name="probability of the structure, given the image", units="1"
    )


def _shares_of(populations: xr.Dataset, values: xr.DataArray) -> NDArray[np.float64]:
    """The shares of the structures of a matrix; one of 0 is the smallest number above."""
    wanted = np.atleast_1d(values[labels.STRUCTURE].values).astype(str)
    known = dict(
        zip(
            populations[labels.STRUCTURE].values.astype(str),
            populations[labels.POPULATION].values,
            strict=True,
        )
    )
    missing = [name for name in wanted if name not in known]
    if missing:
        raise InputError(
            f"populations lack {counted(len(missing), 'structure')}: {', '.join(missing[:5])}",
            remedy="Give those of the same structures.",
        )
    shares = np.array([known[name] for name in wanted], np.float64)
    return np.maximum(shares, np.finfo(np.float64).tiny)


def matrix_of(results: xr.Dataset, variable: str) -> xr.DataArray:
    """A variable as (structure, image), whatever was selected; decoys are left out.

    Raises
    ------
    InputError
        If it is none of these results, or they cannot be compared.
    """
    if variable not in MATRICES or variable not in results:
        raise InputError(
            f"variable={variable!r} is no matrix of these results",
            remedy=f"Give {', '.join(MATRICES)}.",
        )
    refuse_mixed(results)
    values = results[variable]
    for dim in (labels.STRUCTURE, labels.IMAGE):
        if dim not in values.dims:
            values = values.expand_dims(dim)
    return without_decoys(values).transpose(labels.STRUCTURE, labels.IMAGE)


def parts(n_images: int) -> Iterator[slice]:
    """The images some at a time."""
    return (slice(start, start + IMAGES_AT_ONCE) for start in range(0, n_images, IMAGES_AT_ONCE))
