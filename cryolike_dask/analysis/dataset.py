"""All results below an output folder as one lazy Dataset, each image with where it comes from."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.errors import InputFileError, listed
from cryolike_dask.io.holders import living
from cryolike_dask.io.layout import (
    FILE_SUFFIX,
    OPTIMAL_POSE_FILES,
    LikelihoodFiles,
    structure_numbers,
)
from cryolike_dask.io.records import Record, read_record
from cryolike_dask.io.results import attributes
from cryolike_dask.io.tensors import load_displacements, load_vector
from cryolike_dask.runs.origins import Entries, read_origins, read_structure

DIMS = (labels.STRUCTURE, labels.IMAGE)
VALUES_PER_CHUNK = 2**16
"""Files of several structures are read by one task: Dask takes as long for a task as it takes to
read a file."""
LOOKED_UP = {labels.OPTIMAL_AZIMUTH: 0, labels.OPTIMAL_POLAR: 1}
"""Rows of `Floats`."""
TEXT = {
    labels.IMAGE_FILE: "files",
    labels.METADATA_FILE: "metadataFile",
    labels.MICROGRAPH: "micrograph",
    labels.TRUE_STRUCTURE: "trueStructure",
}
WHOLE = {
    labels.IMAGE_INDEX: "idxs",
    labels.METADATA_ROW: "metadataRow",
    labels.OPTICS_GROUP: "opticsGroup",
    labels.RANDOM_SUBSET: "randomSubset",
}
REAL = {
    labels.RECORDED_ROT: "angleRotation",
    labels.RECORDED_TILT: "angleTilt",
    labels.RECORDED_PSI: "anglePsi",
    labels.RECORDED_ORIGIN_X: "originX",
    labels.RECORDED_ORIGIN_Y: "originY",
}
OF_STRUCTURE = {labels.TEMPLATE_SOURCE: "source", labels.TEMPLATE_CONVENTIONS: "conventions"}
ALWAYS = (labels.IMAGE_FILE, labels.IMAGE_INDEX, labels.METADATA_FILE, labels.METADATA_ROW)

logger = logging.getLogger("cryolike_dask")

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stored:
    """Which results there are.

    Attributes
    ----------
    files : LikelihoodFiles
    structures, stacks : tuple of int
        Their numbers.
    sizes : tuple of int
        Images of each stack.
    there : dict of variable name to bool array, (structure, stack)
    views : tuple of array, (2, template), or None
        Azimuth and polar angle of each structure's viewing directions.
    dtype : str
        Of real values.
    """

    files: LikelihoodFiles
    structures: tuple[int, ...]
    stacks: tuple[int, ...]
    sizes: tuple[int, ...]
    there: dict[str, NDArray[np.bool_]]
    views: tuple[Floats | None, ...]
    dtype: str

    def read(self, variable: str, i: int, k: int) -> NDArray[Any]:
        """One variable of one stack under one structure; positions, not numbers."""
        if not self.there[variable][i, k]:
            return np.full(self.sizes[k], -1 if variable == labels.OPTIMAL_TEMPLATE else np.nan)
        path = self.files.output(
            self.structures[i], variable, OPTIMAL_POSE_FILES[variable], self.stacks[k]
        )
        return load_vector(path, self.sizes[k])

    def look_up(self, i: int, templates: NDArray[np.int64], row: int) -> Floats:
        """A row of the views of a structure, for the best templates of some of its images."""
        views = self.views[i]
        if views is None or templates.min() < 0 or templates.max() >= views.shape[1]:
            return np.full(len(templates), np.nan)
        angles: Floats = views[row][templates]
        return angles


def open_results(folder_output: str | Path) -> xr.Dataset:
    """Open all optimal poses and likelihoods of an output folder, lazily, with where each image
    comes from.

    Select with `results.sel(structure="open")`, and where they are recorded
    `results.sel(micrograph=...)` and `results.sel(optics_group=...)`. `results.to_zarr(path)`,
    `results.to_netcdf(path)` keep all of it.

    Parameters
    ----------
    folder_output : path
        Of `run_likelihood_optimal_pose`, of a run that is not finished, or of CryoLike.

    Returns
    -------
    xarray.Dataset
        Dims (structure, image): the variables of `compute_optimal_pose`, and the direction of the
        best view, optimal_azimuth and optimal_polar (radian). Where there is no result yet values
        are NaN, optimal_template -1. Coordinates of each image: its stack and position there, image
        file and position there, metadata file and row, and what was recorded of micrograph, optics
        group, half-set and pose; true_structure of simulated particles.

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
    there = {
        i: found
        for i in structure_numbers(files.folder_output)
        if any((found := _stacks(files, i)).values())
    }
    numbers = list(there)
    stacks = sorted(
        {k for of_variable in there.values() for found in of_variable.values() for k in found}
    )
    if not stacks:
        raise InputFileError(
            "holds no results", source=folder_output, remedy="Give the output folder of a run."
        )
    about = [
        read_structure(path) if (path := files.structure(i)).is_file() else {} for i in numbers
    ]
    origins = [_origins(files, k, there) for k in stacks]
    record = _any_record(files, there)
    stored = Stored(
        files,
        tuple(numbers),
        tuple(stacks),
        tuple(_size(files, k, entries, there) for k, entries in zip(stacks, origins, strict=True)),
        {
            v: np.array([[k in there[i][v] for k in stacks] for i in numbers])
            for v in OPTIMAL_POSE_FILES
        },
        _views(about),
        "float32" if record is not None and record["precision"] == "single" else "float64",
    )
    if gaps := sorted(set(range(stacks[-1])) - set(stacks)):
        logger.warning(
            "%s: image stack(s) %s have no results at all, and their images are left out",
            folder_output,
            listed(gaps),
        )
    for holder in living(files.folder_output):
        logger.warning(
            "%s: a run is writing here now (%s): not all may be there yet", folder_output, holder
        )
    missing = int((~stored.there[labels.CROSS_CORRELATION]).sum())
    if missing:
        logger.warning(
            "%s: %d of %d stacks have no results yet: NaN",
            folder_output,
            missing,
            missing + _done(stored),
        )
    coords = {
        **_of_images(stored, origins),
        **{name: _of_structures(about, name, key) for name, key in OF_STRUCTURE.items()},
        labels.STRUCTURE: np.array(_names(numbers, about, files, there), object),
    }
    arrays = {variable: _lazy(stored, variable) for variable in OPTIMAL_POSE_FILES}
    for (
        variable,
        row,
    ) in LOOKED_UP.items():  # from the same array, so that its files are read once for all three
        looked_up = {"stored": stored, "row": row, "dtype": "float64", "meta": np.empty((0, 0))}
        arrays[variable] = da.map_blocks(_angles, arrays[labels.OPTIMAL_TEMPLATE], **looked_up)
    data = {name: (DIMS, array, labels.ATTRIBUTES[name]) for name, array in arrays.items()}
    results = xr.Dataset(data, coords=coords, attrs=_attributes(files, record, about, origins))
    for name in (labels.MICROGRAPH, labels.OPTICS_GROUP):
        if name in coords:
            results = results.set_xindex(name)
    return results


def _done(stored: Stored) -> int:
    return int(stored.there[labels.CROSS_CORRELATION].sum())


def _stacks(files: LikelihoodFiles, i: int) -> dict[str, set[int]]:
    """The stacks of which each variable of a structure is there."""
    listed: dict[Path, set[str]] = {}
    found = {}
    for variable, folder in OPTIMAL_POSE_FILES.items():
        first = files.output(i, variable, folder, 0)
        if first.parent not in listed:
            listed[first.parent] = set(os.listdir(first.parent)) if first.parent.is_dir() else set()
        stem = first.name.removesuffix(f"000000{FILE_SUFFIX}")
        here = (
            n
            for n in listed[first.parent]
            if n.startswith(stem) and re.fullmatch(rf"\d{{6}}\{FILE_SUFFIX}", n[len(stem) :])
        )
        found[variable] = {int(name[len(stem) : -len(FILE_SUFFIX)]) for name in here}
    return found


def _origins(files: LikelihoodFiles, k: int, there: dict[int, dict[str, set[int]]]) -> Entries:
    """Where the images of a stack come from: no more of them than its results have bytes for."""
    path, result = files.origins(k), _a_result(files, k, there)
    if not path.is_file():
        return {}
    most = result.stat().st_size // 4
    entries = read_origins(path, most)
    if (n := int(entries["n_images"])) > most:  # type: ignore[arg-type]
        load_vector(result, n)  # says which of them it is
    return entries


def _any_record(files: LikelihoodFiles, there: dict[int, dict[str, set[int]]]) -> Record | None:
    for i, of_variable in there.items():
        for k in sorted(of_variable[labels.CROSS_CORRELATION]):
            record = read_record(files.record(i, k, "optimal_pose"))
            if record is not None:
                return record
    return None


def _size(
    files: LikelihoodFiles, k: int, origins: Entries, there: dict[int, dict[str, set[int]]]
) -> int:
    if origins.get("n_images") is not None:
        return int(origins["n_images"])  # type: ignore[arg-type]
    return len(load_vector(_a_result(files, k, there)))


def _a_result(files: LikelihoodFiles, k: int, there: dict[int, dict[str, set[int]]]) -> Path:
    i, v = next(
        (i, v) for i, of_variable in there.items() for v, found in of_variable.items() if k in found
    )
    return files.output(i, v, OPTIMAL_POSE_FILES[v], k)


def _views(about: list[Entries]) -> tuple[Floats | None, ...]:
    """Structures that are seen from the same directions share them."""
    shared: dict[bytes, Floats] = {}
    views: list[Floats | None] = []
    for entries in about:
        azimuth, polar = entries.get("azimuth"), entries.get("polar")
        if azimuth is None or polar is None:
            views.append(None)
            continue
        table = np.stack([azimuth, polar])
        views.append(shared.setdefault(table.tobytes(), table))
    return tuple(views)


def _names(
    numbers: list[int],
    about: list[Entries],
    files: LikelihoodFiles,
    there: dict[int, dict[str, set[int]]],
) -> list[str]:
    names = []
    for i, entries in zip(numbers, about, strict=True):
        said = entries.get("structure")
        record = _any_record(files, {i: there[i]}) if said is None else None
        name = said if record is None else record.get("structure")
        names.append(f"template{i}" if name is None else str(name))
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name} (template{i})"
        for i, name in zip(numbers, names, strict=True)
    ]


def _of_images(stored: Stored, origins: list[Entries]) -> dict[str, Any]:
    """Coordinates along image; what no stack says is left out, what some do not say is "", -1 or
    NaN."""
    sizes = stored.sizes
    coords: dict[str, Any] = {
        labels.IMAGE: np.arange(sum(sizes)),
        labels.STACK: np.repeat(stored.stacks, sizes),
        labels.IMAGE_IN_STACK: np.concatenate([np.arange(n) for n in sizes]),
    }
    for keys, unknown in ((TEXT, ""), (WHOLE, -1), (REAL, np.nan)):
        for name, key in keys.items():
            parts = [entries.get(key) for entries in origins]
            if name in ALWAYS or any(part is not None for part in parts):
                filled = [
                    np.full(n, unknown) if p is None else p
                    for p, n in zip(parts, sizes, strict=True)
                ]
                joined = [_shared(part) for part in filled] if keys is TEXT else filled
                coords[name] = np.concatenate(joined)
    moved = [entries.get(labels.RECENTERED) for entries in origins]
    coords[labels.RECENTERED] = np.repeat([m is not None and bool(m) for m in moved], sizes)
    return {
        name: values if name == labels.IMAGE else (labels.IMAGE, values, labels.ATTRIBUTES[name])
        for name, values in coords.items()
    }


def _of_structures(
    about: list[Entries], name: str, key: str
) -> tuple[str, NDArray[np.object_], dict[str, str]]:
    said = [str(entries.get(key, "unknown")) for entries in about]
    return labels.STRUCTURE, np.array(said, object), labels.ATTRIBUTES[name]


def _shared(text: NDArray[np.str_]) -> NDArray[np.object_]:
    """Text whose equal values are one object: paths are long, and many images share each."""
    distinct, which = np.unique(text, return_inverse=True)
    shared: NDArray[np.object_] = distinct.astype(object)[which]
    return shared


def _lazy(stored: Stored, variable: str) -> da.Array:
    n, step = len(stored.structures), _structures_at_once(stored)
    dtype = "int64" if variable == labels.OPTIMAL_TEMPLATE else stored.dtype
    return da.map_blocks(
        _block,
        chunks=(tuple(min(step, n - start) for start in range(0, n, step)), stored.sizes),
        dtype=dtype,
        meta=np.empty((0, 0), dtype),
        # files may be others when the same folder is opened again
        name=f"read-{variable}-{uuid4().hex}",
        stored=stored,
        variable=variable,
        real=dtype,
    )


def _structures_at_once(stored: Stored) -> int:
    return max(1, VALUES_PER_CHUNK // max(stored.sizes))


def _block(stored: Stored, variable: str, real: str, block_id: tuple[int, int]) -> NDArray[Any]:
    """One variable of some structures and one stack."""
    start, k = block_id[0] * _structures_at_once(stored), block_id[1]
    rows = range(start, min(start + _structures_at_once(stored), len(stored.structures)))
    return np.stack([stored.read(variable, i, k) for i in rows]).astype(real, copy=False)


def _angles(
    templates: NDArray[np.int64], stored: Stored, row: int, block_id: tuple[int, int]
) -> Floats:
    """The direction of the best templates of a block."""
    start = block_id[0] * _structures_at_once(stored)
    return np.stack([stored.look_up(start + i, of_one, row) for i, of_one in enumerate(templates)])


def _attributes(
    files: LikelihoodFiles, record: Record | None, about: list[Entries], origins: list[Entries]
) -> dict[str, Any]:
    """What all results share, as plain values."""
    said = dict.fromkeys(("precision", "version", "device", "conventions"), "unknown") | attributes(
        record
    )
    # CryoLike's folders do not say
    frames = {str(entries.get("frame", "transposed")) for entries in origins}
    if len(frames) > 1:
        raise InputFileError(
            "holds results of stacks in different frames",
            source=files.folder_output,
            remedy="Compute stacks that CryoLike made, and others, in folders of their own.",
        )
    said["frame"] = frames.pop()
    said["template_conventions"] = _common(about, "conventions", "unknown")
    said["template_source"] = _common(about, "source", "unknown")
    said["folder"] = str(files.folder_output)
    said["folder_templates"], said["folder_particles"] = (
        _common(about, "folder", ""),
        _common(origins, "folder", ""),
    )
    if files.displacements.is_file():
        x, y = load_displacements(files.displacements)
        said |= {"displacements_x_angstrom": x.tolist(), "displacements_y_angstrom": y.tolist()}
    return said


def _common(described: list[Entries], key: str, otherwise: str) -> str:
    """What all say alike."""
    values = {str(entries.get(key, otherwise)) for entries in described}
    return values.pop() if len(values) == 1 else otherwise
