"""Results on disk: written by the task that has them, read back lazily as labelled Datasets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.errors import InputFileError, missing_files
from cryolike_dask.io.jobs import Job, withdraw_record, write_record
from cryolike_dask.io.layout import (
    FULL_CORRELATION_FILES,
    OPTIMAL_POSE_FILES,
    REFINED_FILES,
    SEARCH_FILES,
    STORE_SUFFIX,
    LikelihoodFiles,
    as_stored,
    need_files,
    structure_of,
)
from cryolike_dask.io.records import WHITE, Record, read_record, search_method
from cryolike_dask.io.sources import Files, lazy_array
from cryolike_dask.io.stores import Store, open_store
from cryolike_dask.io.tensors import TensorFile, load_displacements, open_tensor, save_tensor


def write_results(values: dict[str, NDArray[Any]], job: Job, details: Mapping[str, str]) -> int:
    """Write all outputs of a job, each atomically, and its record last; give the number of images.

    Files hold float32 for single precision, float64 for double, and int64 for indices.
    """
    real = np.float64 if job.precision == "double" else np.float32
    withdraw_record(job)
    for name, path in job.outputs.items():
        value = values[name]
        save_tensor(path, value.astype(real) if value.dtype.kind == "f" else value)
        shutil.rmtree(path.with_suffix(STORE_SUFFIX), ignore_errors=True)
    write_record(job, details)
    return job.shape[0]


def open_optimal_pose(files: LikelihoodFiles) -> xr.Dataset:
    """Open the optimal poses that a run wrote, lazily.

    Parameters
    ----------
    files : LikelihoodFiles
        As `configure_likelihood_files` gives it.

    Returns
    -------
    xarray.Dataset
        Dims (image) with a scalar coordinate `structure` for one structure; (structure, image) for
        several. Every variable is one that `compute_optimal_pose` gives.

    Raises
    ------
    InputFileError
        If results are missing; names the first of them, and counts the others.
    """
    folders = {**OPTIMAL_POSE_FILES, **_of_all_results(files, {**SEARCH_FILES, **REFINED_FILES})}
    variables = {name: (name, (labels.IMAGE,)) for name in folders}
    return _open(files, "optimal_pose", folders, variables)


def open_full_cross_correlation(files: LikelihoodFiles) -> xr.Dataset:
    """Open the full cross-correlations that a run wrote, or CryoLike, lazily: (image, template,
    displacement, rotation).

    Parameters, structures and errors are those of `open_optimal_pose`.
    """
    dims = (labels.IMAGE, labels.TEMPLATE, labels.DISPLACEMENT, labels.ROTATION)
    (name,) = FULL_CORRELATION_FILES
    variables = {name: (labels.CROSS_CORRELATION, dims)}
    full = _open(files, "full_cross_correlation", FULL_CORRELATION_FILES, variables)
    x, y = load_displacements(files.displacements)
    n_rotations = full.sizes[labels.ROTATION]
    coords = {
        labels.DISPLACEMENT_X: (labels.DISPLACEMENT, x),
        labels.DISPLACEMENT_Y: (labels.DISPLACEMENT, y),
        labels.ROTATION: (labels.ROTATION, 2 * np.pi * np.arange(n_rotations) / n_rotations),
        labels.TEMPLATE: (labels.TEMPLATE, np.arange(full.sizes[labels.TEMPLATE])),
    }
    return full.assign_coords({k: (*v, labels.ATTRIBUTES.get(k, {})) for k, v in coords.items()})


def _of_all_results(files: LikelihoodFiles, folders: dict[str, str]) -> dict[str, str]:
    """Those variables that all results have."""
    need_files(files)
    pairs = [(i, k) for i in files.structures() for k in files.stack_numbers()]
    return {
        name: folder
        for name, folder in folders.items()
        if all(files.output(i, name, folder, k).is_file() for i, k in pairs)
    }


def _open(
    files: LikelihoodFiles,
    kind: str,
    folders: dict[str, str],
    variables: Mapping[str, tuple[str, Sequence[str]]],
) -> xr.Dataset:
    need_files(files)
    numbers, structures = files.stack_numbers(), files.structures()
    paths = {
        (i, name): [as_stored(files.output(i, name, folder, k)) for k in numbers]
        for i in structures
        for name, folder in folders.items()
    }
    missing = [path for group in paths.values() for path in group if not path.exists()]
    if missing:
        raise missing_files(missing, "Run the likelihood for these stacks first.")
    n_images = (
        [open_tensor(files.image_stack(k)[0]).shape[0] for k in numbers]
        if files.folder_particles
        else None
    )
    names = (
        [structure_of(path) for path in files.template_files()] if files.folder_templates else []
    )
    datasets = []
    for i in structures:
        data = {}
        for stored, (name, dims) in variables.items():
            parts = [open_result(path, len(dims)) for path in paths[i, stored]]
            sizes = tuple(part.shape[0] for part in parts)
            for part, size in zip(parts, n_images or sizes, strict=True):
                if part.shape[0] != size:
                    raise InputFileError(
                        f"holds {part.shape[0]} images, but their stack holds {size}",
                        source=part.path,
                        remedy="Run the likelihood for this stack again.",
                    )
            data[name] = (dims, _lazy(parts, sizes, name), labels.ATTRIBUTES[name])
        record = read_record(files.record(i, numbers[0], kind))
        recorded_name = record.get("structure") if record is not None else None
        structure = names[i] if names else recorded_name or f"template{i}"
        coords = {**_image_coordinates(numbers, sizes), labels.STRUCTURE: structure}
        datasets.append(xr.Dataset(data, coords=coords, attrs=attributes(record)))
    if np.ndim(files.i_template) == 0 and files.i_template != "all":
        return datasets[0]
    return xr.concat(datasets, dim=labels.STRUCTURE, combine_attrs="drop_conflicts")


def open_result(path: Path, n_dims: int | None = None) -> TensorFile | Store:
    """Read what a file or a store of results says of itself."""
    return open_store(path) if path.suffix == STORE_SUFFIX else open_tensor(path, n_dims=n_dims)


def _lazy(parts: Sequence[TensorFile | Store], sizes: tuple[int, ...], name: str) -> da.Array:
    """A variable of all stacks: a chunk for each file, and for each chunk of a store."""
    tensors = tuple(part for part in parts if isinstance(part, TensorFile))
    if len(tensors) == len(parts):
        return lazy_array(Files(tensors), sizes, f"read-{name}")
    return da.concatenate(
        [
            part.lazy()
            if isinstance(part, Store)
            else lazy_array(Files((part,)), part.shape[:1], f"read-{name}")
            for part in parts
        ]
    )


def attributes(record: Record | None) -> dict[str, object]:
    """Plain attributes of results, as their record says them; none if there is no record."""
    if record is None:
        return {}
    settings = record["settings"]
    flat = {
        **details(record),
        **settings.get("search", {}),
        **settings.get("parameters", {}),
        "precision": record["precision"],
        "version": record.get("version"),
        "device": record.get("device"),
        "conventions": settings.get("conventions"),
        "search": search_method(settings),
        "noise": settings.get("noise", WHITE),
        "b_factor": settings.get("b_factor", 0.0),
        "degrees_of_freedom": settings.get("degrees_of_freedom"),
    }
    return {name: value for name, value in flat.items() if value is not None and name != "sha256"}


def details(record: Record) -> dict[str, str]:
    """Entries of a record that are not those of every record, as text: the note of its run, say."""
    more = {name: value for name, value in record.items() if name not in Record.__annotations__}
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in more.items()
        if value is not None
    }


def _image_coordinates(numbers: Sequence[int], sizes: Sequence[int]) -> dict[str, object]:
    return {
        labels.IMAGE: np.arange(sum(sizes)),
        labels.STACK: (labels.IMAGE, np.repeat(numbers, sizes), labels.ATTRIBUTES[labels.STACK]),
        labels.IMAGE_IN_STACK: (
            labels.IMAGE,
            np.concatenate([np.arange(n) for n in sizes]),
            labels.ATTRIBUTES[labels.IMAGE_IN_STACK],
        ),
    }
