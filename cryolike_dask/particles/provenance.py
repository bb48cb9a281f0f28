"""Origins of the images of a stack: files, rows, and the poses that were recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.io.archives import read_archive
from cryolike_dask.io.layout import metadata_file
from cryolike_dask.io.sources import ArraySource, Files, Subset
from cryolike_dask.io.stacks import STACK_OPTIONAL
from cryolike_dask.particles.images import ParticleImages

PER_IMAGE = (
    "angleRotation",
    "angleTilt",
    "anglePsi",
    "originX",
    "originY",
    "files",
    "idxs",
    "metadataFile",
    "metadataRow",
    "randomSubset",
    "micrograph",
    "opticsGroup",
    "trueStructure",
)
"""Entries of the `.npz` of an image stack with a value for each image; each may be missing."""


def provenance(source: ParticleImages) -> dict[str, NDArray[Any] | None]:
    """Origins of particles that are read from their own files, as entries of the `.npz` of a
    stack."""
    table = source.table
    rotation, tilt, psi = (None,) * 3 if table.angles_radian is None else table.angles_radian.T
    origin_x, origin_y = (None,) * 2 if table.origin_angstrom is None else table.origin_angstrom.T
    return {
        "angleRotation": rotation,
        "angleTilt": tilt,
        "anglePsi": psi,
        "originX": origin_x,
        "originY": origin_y,
        "recentered": np.array(source.preparation.recenter),
        "files": np.array(table.image_files)[table.file_number],
        "idxs": table.image_index,
        "metadataFile": np.array(table.metadata_files)[table.metadata_number],
        "metadataRow": table.metadata_row,
        "randomSubset": table.random_subset,
        "micrograph": table.micrograph,
        "opticsGroup": table.optics_group,
        "trueStructure": table.true_structure,
    }


def origins_of(source: ArraySource) -> dict[str, NDArray[Any]]:
    """Origins of any images, as far as they are known: the entries `PER_IMAGE` and `recentered`."""
    if isinstance(source, ParticleImages):
        return {key: value for key, value in provenance(source).items() if value is not None}
    if isinstance(source, Subset):
        whole = origins_of(source.source)
        return {
            key: value if key == "recentered" else value[source.rows]
            for key, value in whole.items()
        }
    if not isinstance(source, Files):
        return {}
    known = [_entries_of_file(Path(part.path), part.shape[0]) for part in source.parts]
    # always in this order
    common = [key for key in PER_IMAGE if all(key in entries for entries in known)]
    joined = {key: np.concatenate([entries[key] for entries in known]) for key in common}
    return {**joined, "recentered": np.array(any(entries["recentered"] for entries in known))}


def _entries_of_file(path: Path, n_images: int) -> dict[str, NDArray[Any]]:
    """Origins that the `.npz` beside a stack says; CryoLike's lists the images of all stacks, and
    which of them are its own."""
    metadata = metadata_file(path)
    optional = (*STACK_OPTIONAL, *PER_IMAGE)
    keys = (*PER_IMAGE, "recentered", "stack_start", "stack_end")
    known = metadata.is_file()
    entries = (
        read_archive(metadata, optional=optional, keys=keys, n_images=n_images) if known else {}
    )
    entries_per_image: dict[str, NDArray[Any]] = {}
    for key in PER_IMAGE:
        value = _part_of_stack(entries.get(key), entries, n_images)
        if value is not None:
            entries_per_image[key] = value
    recentered = entries.get("recentered")
    return {
        **entries_per_image,
        "recentered": np.array(recentered is not None and recentered.any()),
    }


def _part_of_stack(
    value: NDArray[Any] | None, entries: Mapping[str, NDArray[Any] | None], n_images: int
) -> NDArray[Any] | None:
    if value is None or value.ndim != 1 or not value.size:
        return None
    start, stop = entries.get("stack_start"), entries.get("stack_end")
    if (
        len(value) != n_images
        and start is not None
        and stop is not None
        and start.size == stop.size == 1
    ):
        value = value[int(start) : int(stop)]
    return value if len(value) == n_images else None
