"""Back to cryoSPARC: the `.cs` file of a particle set, with the poses and likelihoods of
results."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask.analysis.export.assignment import LIKELIHOODS
from cryolike_dask.analysis.export.files import Export, ExportFiles, named_with
from cryolike_dask.analysis.export.metadata_rows import ONE_BY_ONE, Described
from cryolike_dask.analysis.export.particles import ExportedParticles, exported_particles
from cryolike_dask.analysis.export.selection import Selection
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.cryosparc import read_cs, text
from cryolike_dask.io.export_names import DROPPED
from cryolike_dask.labels import TemplateSource
from cryolike_dask.particles.opening import PathOrPaths

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]

POSE, SHIFT, PIXEL_SIZE = "alignments3D/pose", "alignments3D/shift", "alignments3D/psize_A"


def export_cryosparc(
    results: xr.Dataset,
    path: str | Path,
    *,
    structure: str | None = None,
    template_source: TemplateSource | None = None,
    metadata: PathOrPaths | None = None,
    passthrough: str | Path | None = None,
    structures: Sequence[str] | None = None,
    min_probability: float | None = None,
    max_q: float | None = None,
    overwrite: bool = False,
) -> Export:
    """Write the `.cs` file of the particles with the poses that were found, for cryoSPARC.

    All columns of the particles stay as they are in the `.cs` files that the particles came from,
    `uid` too; pose, shift and their pixel size are replaced, and columns `cryolike/...` added:
    likelihoods, and the structure.

    Parameters
    ----------
    results : xarray.Dataset
        As `open_results` gives it, or a selection of it.
    path : path
        The `.cs` file to write.
    structure : str, optional
        Write the poses under this structure; default: those of each image's best structure, by
        integrated likelihood.
    template_source : "atoms" | "map", optional
        What CryoLike made the templates from. Its files do not say, and poses depend on it.
    metadata : path or several, optional
        The `.cs` file whose rows are the images in order: for stacks that CryoLike made, which do
        not say it, and for files that have moved.
    passthrough : path, optional
        A `.cs` file whose further columns are added, joined by `uid`.
    structures : sequence of str, optional
        Write the poses under the best of these, of images that fit them best; with
        `min_probability`, of images that show one of them so probably, summed over them.
    min_probability : float, optional
        Leave out images whose structure, or `structures` together, are less probable.
    max_q : float, optional
        Leave out images whose q_value (`decoy_competition`) is larger; needs decoys among the
        results.
    overwrite : bool
        Replace the file, never the one that the particles came from.

    Returns
    -------
    Export
        How many particles are in the file; the others are listed, each with the reason, in
        `NAME.cs.dropped.txt`.

    Raises
    ------
    InputError, InputFileError
        If structure, frame or rows are not known, the `.cs` files are others than those of the run,
        or they cannot be one file; before anything is written.
    OutputError
        If there is such a file.

    Notes
    -----
    Poses and shifts refer to the centre of the structure: the mean position of the selected atoms,
    or the middle voxel n // 2 of a map. cryolike/structure_number is the position of the structure
    in the results, from 1.
    """
    export = open_cryosparc(
        results,
        path,
        structure=structure,
        template_source=template_source,
        metadata=metadata,
        passthrough=passthrough,
        selection=Selection.of(structures, min_probability, max_q),
    )
    return export.written(overwrite=overwrite)[""]


def open_cryosparc(
    results: xr.Dataset,
    path: str | Path,
    *,
    structure: str | None,
    template_source: TemplateSource | None,
    metadata: PathOrPaths | None,
    passthrough: str | Path | None,
    selection: Selection,
) -> ExportFiles:
    """Read everything, and refuse what cannot be written."""
    path = named_with(path, ".cs")
    read = partial(_columns, passthrough=passthrough)
    particles, tables = exported_particles(
        results, structure, template_source, metadata, selection, ".cs", read, _described
    )
    rows = particles.rows.joined()[particles.images]
    kept = {name: values[rows] for name, values in _merged(particles.metadata, tables).items()}
    _refuse_repeated(kept, particles.metadata)
    columns = kept | _found(particles, kept)
    return ExportFiles(
        particles,
        images={"": (path, particles.images)},
        # a STAR file of the same name has a list of its own
        dropped=path.with_suffix(f".cs.{DROPPED}"),
        inputs=[*particles.metadata, *([] if passthrough is None else [Path(passthrough)])],
        write=lambda path, _: _write(path, columns),
    )


def _columns(path: Path, passthrough: str | Path | None) -> Columns:
    """Columns of a `.cs` file, and those that only the passthrough file has, joined by `uid`."""
    columns = _read(path)
    if passthrough is None:
        return columns
    passthrough = Path(passthrough)
    more = _read(passthrough)
    for source, table in ((path, columns), (passthrough, more)):
        if "uid" not in table:
            raise InputFileError("has no uid, by which two .cs files are joined", source=source)
    known, first = np.unique(more["uid"], return_index=True)
    missing = ~np.isin(columns["uid"], known)
    if missing.any():
        raise InputFileError(
            f"{np.count_nonzero(missing)} of {len(missing)} particles are not in {passthrough}",
            source=path,
            remedy="Give the passthrough file of the same job.",
        )
    rows = first[np.searchsorted(known, columns["uid"])]
    return {**{name: values[rows] for name, values in more.items()}, **columns}


def _read(path: Path) -> Columns:
    table = read_cs(path)
    return {name: table[name] for name in table.dtype.names or ()}


def _described(path: Path, columns: Columns) -> Described:
    n = len(next(iter(columns.values())))
    if "blob/path" not in columns or "blob/idx" not in columns:
        return Described(path, n)
    names = np.char.lstrip(text(columns["blob/path"]), ">")
    return Described(path, n, names, columns["blob/idx"].astype(np.int64))


def _merged(files: Sequence[Path], tables: Sequence[Columns]) -> Columns:
    """All rows of all files, one after the other."""
    names = list(tables[0])
    for file, table in zip(files, tables, strict=True):
        differing = set(names) ^ set(table)
        if differing:
            raise InputError(
                f"{files[0]} and {file} have different columns: {', '.join(sorted(differing))}",
                remedy=ONE_BY_ONE,
            )
    return {name: np.concatenate([table[name] for table in tables]) for name in names}


def _refuse_repeated(columns: Columns, files: Sequence[Path]) -> None:
    if "uid" in columns and len(np.unique(columns["uid"])) < len(columns["uid"]):
        raise InputError(
            f"particles of one uid in {', '.join(map(str, files))}",
            remedy="Export the files one by one: results.isel(image=results.metadata_file == "
            "FILE).",
        )


def _found(particles: ExportedParticles, kept: Columns) -> Columns:
    """The columns that are replaced or added."""
    assignment, images = particles.assignment, particles.images
    poses = assignment.poses.take(images)
    pixel_size = np.full(len(images), float(particles.results.attrs.get("pixel_size_angstrom", 0)))
    for name in ("blob/psize_A", PIXEL_SIZE):
        recorded = kept.get(name, np.zeros(len(images))).astype(np.float64)
        pixel_size = np.where(recorded > 0, recorded, pixel_size)
    if not (pixel_size > 0).all():
        raise InputError(
            "no pixel size is known, and shifts are in pixels",
            remedy="Open the results by open_results.",
        )
    pixel_size = pixel_size.astype(np.float32)
    number = assignment.number[images]
    names = np.array([name.encode() for name in assignment.structures])
    return {
        POSE: poses.rotation_vectors().astype(np.float32),
        SHIFT: (poses.origin_angstrom / pixel_size[:, None]).astype(np.float32),
        PIXEL_SIZE: pixel_size,
        **{f"cryolike/{name}": assignment.likelihoods[name][images] for name in LIKELIHOODS},
        **{f"cryolike/{name}": values[images] for name, values in assignment.certainty.items()},
        "cryolike/structure": names[number],
        "cryolike/structure_number": (number + 1).astype(np.uint32),
    }


def _write(path: Path, columns: Columns) -> None:
    """Write columns as one table of records, as numpy saves it, in one go."""
    fields: list[Any] = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    table = np.empty(len(columns[POSE]), fields)
    for name, values in columns.items():
        table[name] = values
    with replacing(path) as file:
        np.lib.format.write_array(file, table, allow_pickle=False)
