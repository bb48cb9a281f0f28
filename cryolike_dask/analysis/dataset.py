"""All results below an output folder as one lazy Dataset, each image with where it comes from."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import cryolike_dask.analysis.accessor  # noqa: F401  (results.cryolike)
from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import image_coordinates, structure_coordinates
from cryolike_dask.analysis.decoys.of_images import with_q_values, with_residuals
from cryolike_dask.analysis.displacements_tried import attributes_of_displacements
from cryolike_dask.analysis.inventory import Inventory, take_inventory
from cryolike_dask.analysis.stored import StoredResults, views_of
from cryolike_dask.errors import CryolikeError, InputFileError, listed
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.symmetry import NO_SYMMETRY
from cryolike_dask.io.holders import living
from cryolike_dask.io.layout import OPTIMAL_POSE_FILES, POSE_FILES, LikelihoodFiles
from cryolike_dask.io.records import Record
from cryolike_dask.io.results import attributes
from cryolike_dask.io.tensors import load_displacements
from cryolike_dask.likelihoods.variables import noise_attributes
from cryolike_dask.runs.integrity import recorded_settings
from cryolike_dask.runs.origins import Entries

DIMS = (labels.STRUCTURE, labels.IMAGE)

logger = logging.getLogger("cryolike_dask")


def open_results(folder_output: str | Path) -> xr.Dataset:
    """Open all optimal poses and likelihoods of an output folder, lazily, with where each image
    comes from.

    Select with `results.sel(structure="open")`, and where they are recorded
    `results.sel(micrograph=...)` and `results.sel(optics_group=...)`. `results.to_zarr(path)`,
    `results.to_netcdf(path)` keep all of it. `results.cryolike` has methods: `.ratio(reference)`,
    `.probability()`, `.populations()`, `.to_star(path)`.

    Parameters
    ----------
    folder_output : path
        The output folder of `run_likelihood_optimal_pose`, finished or not, or of CryoLike.

    Returns
    -------
    xarray.Dataset
        Dims (structure, image): the variables of `compute_optimal_pose`, and the direction of the
        best view, optimal_azimuth and optimal_polar (radian). Where there is no result yet values
        are NaN, or -1 where they are whole numbers. Coordinates of each image: its stack and
        position there, image file and position there, metadata file and row, and what was recorded
        of micrograph, optics group, half-set and pose; true_structure of simulated particles;
        residual_p_value where residuals were fitted. Where decoys were compared, q_value, (image),
        as `decoy_competition` gives it for all images, computed when it is asked for. Attributes
        say what was run, notes that runs were given included.

    Raises
    ------
    InputFileError
        If the folder holds no results.
    """
    files = LikelihoodFiles(None, None, Path(folder_output).absolute(), i_template="all")
    try:
        os.listdir(files.folder_output)
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}", source=folder_output) from error
    inventory = take_inventory(files)
    stacks = inventory.stacks
    if not stacks:
        raise InputFileError(
            "holds no results", source=folder_output, remedy="Give the output folder of a run."
        )
    descriptions = inventory.descriptions()
    origins = [inventory.origins(k) for k in stacks]
    record = inventory.record()
    every = inventory.stacks_with
    present = {
        variable: np.array(
            [[k in by_variable[variable] for k in stacks] for by_variable in every.values()]
        )
        for variable in POSE_FILES
    }
    stored = StoredResults(
        files,
        inventory.structures,
        stacks,
        sizes=tuple(inventory.size(k, entries) for k, entries in zip(stacks, origins, strict=True)),
        present={
            v: there for v, there in present.items() if v in OPTIMAL_POSE_FILES or there.any()
        },
        views=views_of(descriptions),
        dtype="float32" if record is not None and record["precision"] == "single" else "float64",
    )
    _warn_of_gaps(folder_output, stored)
    arrays = stored.arrays()
    results = xr.Dataset(
        {name: (DIMS, array, labels.ATTRIBUTES[name]) for name, array in arrays.items()},
        coords={
            **image_coordinates(stacks, stored.sizes, origins),
            **structure_coordinates(
                inventory.names(descriptions),
                descriptions,
                inventory.noises(),
                inventory.search_methods(),
            ),
        },
        attrs={
            **dict.fromkeys(("precision", "version", "device", "conventions"), "unknown"),
            **attributes(record),
            **_noise_attributes(files, record),
            **_shared_attributes(inventory, descriptions, origins),
        },
    )
    for name in (labels.MICROGRAPH, labels.OPTICS_GROUP):
        if name in results.coords:
            results = results.set_xindex(name)
    return with_residuals(with_q_values(results), files, record)


def _warn_of_gaps(folder_output: str | Path, stored: StoredResults) -> None:
    """Warn of results that are not there, and say whether they may come."""
    gaps = sorted(set(range(stored.stacks[-1])) - set(stored.stacks))
    if gaps:
        logger.warning(
            "%s: image stack(s) %s have no results at all, and their images are left out",
            folder_output,
            listed(gaps),
        )
    for holder in living(stored.files.folder_output):
        logger.warning(
            "%s: a run is writing here now (%s): not all may be there yet", folder_output, holder
        )
    if stored.n_missing:
        n = len(stored.structures) * len(stored.stacks)
        logger.warning(
            "%s: %d of %d stacks have no results yet: NaN", folder_output, stored.n_missing, n
        )


def _noise_attributes(files: LikelihoodFiles, record: Record | None) -> dict[str, object]:
    """What is known of the noise, as far as the noise model of the results is there."""
    if record is None:
        return {}
    try:
        grid = PolarGrid(**record["settings"].get("parameters", {}))  # type: ignore[arg-type]
        return noise_attributes(grid, recorded_settings(files, record))
    except TypeError:  # not all of the grid is recorded
        return {}
    except CryolikeError as error:
        logger.warning("%s", error)
        return {}


def _shared_attributes(
    inventory: Inventory, descriptions: Sequence[Entries], origins: Sequence[Entries]
) -> dict[str, Any]:
    """Plain values that all results share, and whatever records say besides."""
    files = inventory.files
    # CryoLike's folders do not say
    frames = {str(entries.get("frame", "transposed")) for entries in origins}
    if len(frames) > 1:
        raise InputFileError(
            "holds results of stacks in different frames",
            source=files.folder_output,
            remedy="Compute stacks that CryoLike made, and others, in folders of their own.",
        )
    shared: dict[str, Any] = {
        **inventory.details(),
        "frame": frames.pop(),
        "template_conventions": _common(descriptions, "conventions", "unknown"),
        "symmetry": _common(descriptions, "symmetry", NO_SYMMETRY),
        "template_source": _common(descriptions, "source", "unknown"),
        "folder": str(files.folder_output),
        "folder_templates": _common(descriptions, "folder", ""),
        "folder_particles": _common(origins, "folder", ""),
    }
    if files.displacements.is_file():
        shared |= attributes_of_displacements(*load_displacements(files.displacements))
    return shared


def _common(described: Sequence[Entries], key: str, otherwise: str) -> str:
    """An entry that all have alike."""
    values = {str(entries.get(key, otherwise)) for entries in described}
    return values.pop() if len(values) == 1 else otherwise
