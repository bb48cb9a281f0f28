"""Shares of structures in files."""

from __future__ import annotations

import csv
import io
import shutil
import warnings
from pathlib import Path
from uuid import uuid4

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis.populations.likelihoods import identity_of
from cryolike_dask.io.atomic import replacing, writing
from cryolike_dask.io.export_names import (
    POPULATIONS_STORE,
    POPULATIONS_TABLE,
)

COLUMNS = (
    labels.POPULATION,
    labels.POPULATION_SD,
    labels.POPULATION_MAXIMUM_LIKELIHOOD,
    labels.POPULATION_FISHER_SD,
    labels.GROUP,
    labels.GROUP_POPULATION,
    labels.GROUP_POPULATION_SD,
)

NONE_OF_THESE = "none of these"


def write_populations(populations: xr.Dataset, folder_output: str | Path) -> list[Path]:
    """Write shares of structures: a table for a spreadsheet, and all of it as a Zarr store.

    Parameters
    ----------
    populations : xarray.Dataset
        As `populations` gives it.
    folder_output : path
        Gets `populations/populations.csv`, whose last line is the part of all images that show none
        of the structures where decoys have told it, and `populations/populations.zarr`, which
        `xarray.open_zarr` opens; those of before are replaced.

    Returns
    -------
    list of Path
        What was written.
    """
    table, store = (Path(folder_output) / name for name in (POPULATIONS_TABLE, POPULATIONS_STORE))
    low, high = populations[labels.POPULATION_INTERVAL].values.T
    columns = {name: populations[name].values for name in COLUMNS}
    columns |= {"lower": low, "upper": high}
    if "weight" in populations:
        columns["weight"] = populations["weight"].values
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([labels.STRUCTURE, *columns])
    for name, *values in zip(populations[labels.STRUCTURE].values, *columns.values(), strict=True):
        writer.writerow([name, *(f"{v:.6g}" if isinstance(v, np.floating) else v for v in values)])
    if labels.POPULATION_OF_NONE in populations:
        low, high = populations[labels.POPULATION_OF_NONE_INTERVAL].values
        of_none = {
            labels.POPULATION: float(populations[labels.POPULATION_OF_NONE]),
            labels.POPULATION_SD: float(populations[labels.POPULATION_OF_NONE_SD]),
            "lower": low,
            "upper": high,
        }
        known = [f"{of_none[name]:.6g}" if name in of_none else "" for name in columns]
        writer.writerow([NONE_OF_THESE, *known])
    with replacing(table) as file:
        file.write(text.getvalue().encode())
    write_store(populations, store)
    return [table, store]


def written_populations(results: xr.Dataset) -> xr.Dataset | None:
    """Shares that were written beside results, if they are of these very results, and all images
    had some; else None."""
    folder = results.attrs.get("folder")
    store = Path(folder or ".") / POPULATIONS_STORE
    if not folder or not store.is_dir():
        return None
    try:
        found: xr.Dataset = xr.open_zarr(store).load()
    except Exception:  # whatever is wrong with the files: shares can be estimated again
        return None
    is_whole = found.attrs.get("n_images_left_out") == 0 and set(COLUMNS) <= set(found)
    return found if is_whole and found.attrs.get("results") == identity_of(results) else None


def write_store(dataset: xr.Dataset, store: Path) -> None:
    """Write a Dataset as a Zarr store that is complete once it has its name; one of before is
    replaced.

    Raises
    ------
    OutputError
        If the folder or the disk does not take it.
    """
    with writing(store), warnings.catch_warnings():
        # xarray warns where there is none, too
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        unfinished = store.with_name(f".{store.name}.{uuid4().hex}.part")
        try:
            dataset.to_zarr(unfinished, zarr_format=3, consolidated=True)
            shutil.rmtree(store, ignore_errors=True)
            unfinished.rename(store)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
