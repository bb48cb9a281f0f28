"""The likelihood matrix, (structure, image), in files for other programs."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.matrix import matrix_of, parts
from cryolike_dask.errors import OutputError
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


def write_likelihood_matrix(
    results: xr.Dataset,
    folder_output: str | Path,
    *,
    text: bool = False,
    npy: bool = False,
    csv: bool = False,
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
    npy : bool
        Write `.npy` too, (structure, image), for numpy.
    csv : bool
        Write `.csv` too: a line for each image with its name, a column for each structure.

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
        matrix = matrix_of(results, variable)
        structures = matrix[labels.STRUCTURE].values
        with _filled(matrix) as values:

            def path(suffix: str, variable: str = variable) -> Path:
                written.append(likelihood_matrix(Path(folder_output), variable, suffix))
                return written[-1]

            save_tensor(path(FILE_SUFFIX), values)
            if text:
                _write_text(path(".txt"), values, structures)
            if npy:
                _write_npy(path(".npy"), values)
            if csv:
                _write_csv(path(".csv"), values, structures, names_of_images(matrix))
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
    values = matrix_of(results, labels.LOG_LIKELIHOOD_INTEGRATED).astype(np.float64)
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


@contextmanager
def _filled(values: xr.DataArray) -> Iterator[NDArray[Any]]:
    """Give a matrix as an array in a scratch file, filled some images at a time: it may be
    larger than memory."""
    with tempfile.NamedTemporaryFile(prefix="cryolike_dask-") as scratch:
        array = np.memmap(scratch, values.dtype, shape=values.shape)
        for part in parts(values.sizes[labels.IMAGE]):
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


def _write_text(path: Path, values: NDArray[Any], structures: NDArray[Any] | None) -> None:
    digits = "%.9g" if values.dtype == np.float32 else "%.17g"
    with replacing(path) as file:
        if structures is not None:
            names = (
                str(name).replace("\t", " ").replace("\n", " ")
                for name in np.atleast_1d(structures)
            )
            file.write(("# " + "\t".join(names) + "\n").encode())
        for part in parts(values.shape[1]):
            np.savetxt(file, values[:, part].T, fmt=digits, delimiter="\t")


def _write_npy(path: Path, values: NDArray[Any]) -> None:
    with replacing(path) as file:
        np.save(file, values, allow_pickle=False)


def _write_csv(
    path: Path, values: NDArray[Any], structures: NDArray[Any], images: list[str]
) -> None:
    digits = ".9g" if values.dtype == np.float32 else ".17g"
    with replacing(path) as file:
        table = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["image", *structures])
        for part in parts(values.shape[1]):
            for name, of_image in zip(images[part], values[:, part].T, strict=True):
                writer.writerow([name, *(format(value, digits) for value in of_image)])
        table.detach()  # flushed; the file is not this function's to close


def names_of_images(matrix: xr.Dataset | xr.DataArray) -> list[str]:
    """Images as RELION names them, `000003@file`; where that is not recorded, their numbers."""
    numbers = [str(number) for number in matrix[labels.IMAGE].values]
    if not {labels.IMAGE_FILE, labels.IMAGE_INDEX} <= set(matrix.coords):
        return numbers
    # of one image that was selected they are of no dimension
    files, index = (
        np.broadcast_to(matrix[name].values, len(numbers)).tolist()
        for name in (labels.IMAGE_FILE, labels.IMAGE_INDEX)
    )
    recorded = zip(numbers, files, index, strict=True)
    return [f"{at + 1:06d}@{file}" if file and at >= 0 else n for n, file, at in recorded]
