"""The likelihood matrix, (structure, image): compared, and written for other programs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import refuse_mixed, without_decoys
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.export_names import (
    CRYOER_DISTANCE,
    CRYOER_LIKELIHOOD,
    LOG_LIKELIHOOD_TABLE,
    MATRICES,
    likelihood_matrix,
)
from cryolike_dask.io.layout import FILE_SUFFIX
from cryolike_dask.io.tensors import save_tensor

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
    values = _matrix(results.drop_vars(labels.DECOY_OF, errors="ignore"), variable)
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
    results: xr.Dataset, shares: Sequence[float] | None = None
) -> xr.DataArray:
    """Give the probability of each structure for each image, as if one of them were shown, lazily.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    shares : sequence of float, optional
        How much of the sample each structure is held to be beforehand, in the order of
        `results.structure`; default: all the same.

    Returns
    -------
    xarray.DataArray
        (structure, image), adding up to 1 over structures.

    Raises
    ------
    InputError
        If there are not as many shares as structures, or one is not positive.
    """
    values = _matrix(results, labels.LOG_LIKELIHOOD_INTEGRATED).astype(np.float64)
    n = values.sizes[labels.STRUCTURE]
    prior = np.ones(n) if shares is None else np.asarray(shares, np.float64)
    if prior.shape != (n,) or not (prior > 0).all() or not np.isfinite(prior).all():
        raise InputError(
            f"shares={list(prior.ravel())} for {n} structure(s)",
            remedy="Give one positive share for each.",
        )
    relative = xr.apply_ufunc(np.exp, values - values.max(labels.STRUCTURE), dask="allowed")
    odds = relative * xr.DataArray(prior, dims=labels.STRUCTURE)
    probability: xr.DataArray = odds / odds.sum(labels.STRUCTURE, skipna=False)
    return probability.rename("structure_probability").assign_attrs(
        long_name="probability of the structure, given the image", units="1"
    )


def write_likelihood_matrix(
    results: xr.Dataset, folder_output: str | Path, *, text: bool = False
) -> list[Path]:
    """Write the matrices under CryoLike's names: `likelihood_matrix/*.pt`, (structure, image).

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    folder_output : path
        Gets the folder `likelihood_matrix`.
    text : bool
        Write `.txt` too: a line for each image, a column for each structure, their names in the
        first line.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    OutputError
        If there are images without a result.
    """
    written = []
    for variable in MATRICES:
        with _filled(_matrix(results, variable)) as values:
            tensor = likelihood_matrix(Path(folder_output), variable, FILE_SUFFIX)
            save_tensor(tensor, values)
            written.append(tensor)
            if text:
                table = likelihood_matrix(Path(folder_output), variable, ".txt")
                _write_text(table, values, without_decoys(results)[labels.STRUCTURE].values)
                written.append(table)
    return written


def write_reweighting_inputs(results: xr.Dataset, folder_output: str | Path) -> list[Path]:
    """Write what programs read that weight the structures of an ensemble, each with the sign that
    it expects.

    Of each image's log-likelihoods the largest is subtracted, which changes no weight.

    - `cryoer_distance_is_minus_log_likelihood.npy`, (structure, image), zero or positive: for
      `cryoER.run_cryoER_mcmc --infileimagedistance ... --lmbd 0.7071067811865476`, which multiplies
      it by -1 / (2 lmbd^2) = -1.
    - `cryoer_readlikeli_is_minus_log_likelihood.txt`, (image, structure), zero or positive: as its
      reader of likelihood matrices takes them, which expects it under the name LogLikeMat.
    - `log_likelihood_image_by_structure.npy`, (image, structure), zero or negative: for programs
      that take log-likelihoods as they are.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it.
    folder_output : path

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    OutputError
        If there are images without a result.
    """
    folder = Path(folder_output)
    values = _matrix(results, labels.LOG_LIKELIHOOD_INTEGRATED).astype(np.float64)
    with _filled(values) as log_likelihood:
        log_likelihood -= log_likelihood.max(axis=0)
        table = folder / LOG_LIKELIHOOD_TABLE
        _write_npy(table, log_likelihood.T)
        np.negative(log_likelihood, out=log_likelihood)
        log_likelihood += 0.0  # no negative zero
        distance = folder / CRYOER_DISTANCE
        _write_npy(distance, log_likelihood)
        likelihood = folder / CRYOER_LIKELIHOOD
        _write_text(likelihood, log_likelihood, None)
    return [distance, likelihood, table]


def _matrix(results: xr.Dataset, variable: str) -> xr.DataArray:
    """A variable as (structure, image), whatever was selected; decoys are left out."""
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


@contextmanager
def _filled(values: xr.DataArray) -> Iterator[NDArray[Any]]:
    """Give a matrix as an array in a scratch file, filled some images at a time: it may be
    larger than memory."""
    with tempfile.NamedTemporaryFile(prefix="cryolike_dask-") as scratch:
        array = np.memmap(scratch, values.dtype, shape=values.shape)
        for part in _parts(values.sizes[labels.IMAGE]):
            array[:, part] = values[:, part].values
            unknown = np.isnan(array[:, part]).any(axis=0)
            if unknown.any():
                first = int(values[labels.IMAGE][part][np.argmax(unknown)])
                raise OutputError(
                    f"{values.name}: image {first} has no result under some structure",
                    remedy="Finish the run with skip_exist=True, or select the images that are "
                    "done.",
                )
        yield array


def _parts(n_images: int) -> Iterator[slice]:
    return (slice(start, start + IMAGES_AT_ONCE) for start in range(0, n_images, IMAGES_AT_ONCE))


def _write_text(path: Path, values: NDArray[Any], structures: NDArray[Any] | None) -> None:
    digits = "%.9g" if values.dtype == np.float32 else "%.17g"
    with replacing(path) as file:
        if structures is not None:
            names = (
                str(name).replace("\t", " ").replace("\n", " ")
                for name in np.atleast_1d(structures)
            )
            file.write(("# " + "\t".join(names) + "\n").encode())
        for part in _parts(values.shape[1]):
            np.savetxt(file, values[:, part].T, fmt=digits, delimiter="\t")


def _write_npy(path: Path, values: NDArray[Any]) -> None:
    with replacing(path) as file:
        np.save(file, values, allow_pickle=False)
