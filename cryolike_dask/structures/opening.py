"""Opening structures: files, folders and arrays into lazy template stacks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cryolike_dask.conventions import Conventions, ConventionsName, conventions_named
from cryolike_dask.errors import InputError, InputFileError, missing_files
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.layout import TEMPLATE_LIST
from cryolike_dask.io.mrc import open_mrc_map
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.tensors import open_tensor
from cryolike_dask.stacks import TemplateStack
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.models import (
    CIF_SUFFIXES,
    PDB_SUFFIXES,
    atoms_of,
    find_models,
    read_model,
    read_models,
    suffix_of,
)
from cryolike_dask.structures.sources import MapInFile, ModelInFile, Projections, StructureInMemory, StructureSource
from cryolike_dask.structures.volumes import Volume

logger = logging.getLogger("cryolike_dask")

ATOM_SUFFIXES = (*PDB_SUFFIXES, *CIF_SUFFIXES)
MAP_SUFFIXES = (".mrc", ".map", ".ccp4", ".npy", ".pt")
REMEDY = f"Structures are {', '.join((*ATOM_SUFFIXES, *MAP_SUFFIXES))} files, arrays (z, y, x), Atoms or Volume."

StructureInput = Any
"""Path of a file or folder, numpy array or torch tensor (z, y, x), Atoms, or Volume."""
Models = Literal["first", "all"]


def open_structure(
    structure: StructureInput,
    params_input: str | Path | ImageParameters,
    *,
    viewing: ViewingAngles | None = None,
    conventions: ConventionsName = "standard",
    n_templates_per_batch: int | None = None,
) -> TemplateStack:
    """Open one structure as templates that are projected on the workers when they are needed.

    Parameters
    ----------
    structure : path, array, Atoms or Volume
        A PDB or mmCIF file (its first model), a map (`.mrc`, `.map`, `.ccp4`, `.npy`, `.pt`), an array or tensor of
        density (z, y, x) whose voxels have the size of the pixels, or a structure in memory.
    params_input : path or ImageParameters
        `parameters.npz`, or its content: the grid, how atoms are made, the precision ("default" is single).
    viewing : ViewingAngles, optional
        Directions and weights: `viewing_grid`, `healpix_grid`, or a list of your own. Default: the grid of the
        parameters.
    conventions : "standard" | "cryolike"
        "cryolike" makes the templates that CryoLike makes from the same file.
    n_templates_per_batch : int, optional
        Templates per tile inside a task. Never changes a result.

    Returns
    -------
    TemplateStack

    Raises
    ------
    InputError, InputFileError
        If the structure is missing, damaged or empty, or nothing in it is selected.
    """
    if isinstance(structure, (str, Path)) and Path(structure).is_dir():
        raise InputError(f"{structure} is a folder", remedy="Open its structures with open_structures.")
    (stack,) = open_structures(
        [structure],
        params_input,
        viewing=viewing,
        conventions=conventions,
        n_templates_per_batch=n_templates_per_batch,
    )
    return stack


def open_structures(
    structures: StructureInput | Iterable[StructureInput],
    params_input: str | Path | ImageParameters,
    *,
    models: Models = "first",
    viewing: ViewingAngles | None = None,
    conventions: ConventionsName = "standard",
    n_templates_per_batch: int | None = None,
) -> list[TemplateStack]:
    """Open many structures: files, folders of files, and files of many models, such as frames of a simulation.

    Parameters
    ----------
    structures : one of those of `open_structure`, a folder, or several of these
        A folder gives its structure files in the order of their names.
    models : "first" | "all"
        The first model of each PDB or mmCIF file, or each model as a structure of its own.
    params_input, viewing, conventions, n_templates_per_batch
        As for `open_structure`.

    Returns
    -------
    list of TemplateStack
        Named after their files; `NAME_model_0001` and so on where all models are opened.

    Raises
    ------
    InputError, InputFileError
        As for `open_structure`.
    """
    parameters, values = read_parameters(params_input), conventions_named(conventions)
    if models not in ("first", "all"):
        raise InputError(f"models={models!r} is neither first nor all")
    if viewing is not None and not isinstance(viewing, ViewingAngles):
        raise InputError(f"viewing is a {type(viewing).__name__}", remedy="Make it with ViewingAngles or healpix_grid.")
    directions = parameters.viewing_angles() if viewing is None else viewing
    precision = "double" if parameters.precision == "double" else "single"
    notes: dict[str, str] = {}
    stacks = []
    for one in _listed(structures):
        for name, source, said in _sources(one, parameters, models, values):
            projections = Projections(source, name, parameters.grid, directions, values, precision)
            stacks.append(
                TemplateStack(
                    source=projections,
                    grid=parameters.grid,
                    viewing=directions,
                    structure=name,
                    conventions=values.name,
                    n_per_batch=n_templates_per_batch,
                )
            )
            notes |= {note: name for note in said if note not in notes}
    for note, name in notes.items():
        logger.info("%s: %s", name, note)
    if not stacks:
        raise InputError("there are no structures", remedy=REMEDY)
    return stacks


def _listed(structures: Any) -> list[Any]:
    """The structures one by one, folders opened; every missing file is named at once."""
    single = isinstance(structures, (str, Path, Atoms, Volume)) or hasattr(structures, "shape")
    if not single and not isinstance(structures, Iterable):
        raise InputError(f"structures={structures!r} are none", remedy=REMEDY)
    listed: list[Any] = []
    for one in [structures] if single else structures:
        path = Path(one) if isinstance(one, (str, Path)) else None
        if path is None or not path.is_dir():
            listed.append(one if path is None else path)
            continue
        files = sorted(
            p for p in path.iterdir() if suffix_of(p) in (*ATOM_SUFFIXES, *MAP_SUFFIXES) and not _is_output(p)
        )
        if not files:
            raise InputFileError("holds no structures", source=path, remedy=REMEDY)
        listed += files
    missing = [one for one in listed if isinstance(one, Path) and not one.is_file()]
    if missing:
        raise missing_files(missing, "Check the names of the structures.")
    return listed


def _sources(
    one: Any, parameters: ImageParameters, models: Models, conventions: Conventions
) -> Iterator[tuple[str, StructureSource, list[str]]]:
    """Name, source and notes of each structure in one input."""
    if isinstance(one, (Atoms, Volume)):
        yield "structure", StructureInMemory(one), []
    elif isinstance(one, Path):
        if suffix_of(one) in ATOM_SUFFIXES:
            yield from _models(one, parameters, models)
        elif suffix_of(one) in MAP_SUFFIXES:
            yield _map(one, parameters, conventions)
        else:
            raise InputFileError("is not a structure by its name", source=one, remedy=REMEDY)
    elif hasattr(one, "shape") and hasattr(one, "__array__"):
        values = np.asarray(one.detach().cpu() if hasattr(one, "detach") else one)
        volume = Volume(values, (parameters.pixel_size_angstrom,) * 3)
        yield "structure", StructureInMemory(volume), []
    else:
        raise InputError(f"a structure is a {type(one).__name__}", remedy=REMEDY)


def _models(
    path: Path, parameters: ImageParameters, models: Models
) -> Iterator[tuple[str, StructureSource, list[str]]]:
    """Every model is read here once, so that a selection that finds nothing is told before anything runs."""
    status = path.stat()
    spans = find_models(path)
    whole = read_models(path) if spans is None else []
    n = len(whole) if spans is None else len(spans)
    for position in range(n if models == "all" else 1):
        span = None if spans is None else spans[position]
        try:
            model = whole[position] if spans is None else read_model(path, position, span)
            atoms, notes = atoms_of(model, parameters)
        except InputFileError:
            raise
        except InputError as error:
            raise InputFileError(str(error), source=path) from error
        half = parameters.grid.box_size_angstrom / 2
        if atoms.reach_angstrom > half:
            notes = [*notes, f"reaches {atoms.reach_angstrom:.0f} angstrom from its centre, but half a box is {half:g}"]
        if models == "first" and n > 1:
            notes = [*notes, f'the first of {n} models is used; models="all" (--models) takes each as a structure']
        name = _stem(path) if models == "first" else f"{_stem(path)}_model_{position + 1:04d}"
        source = ModelInFile(str(path.absolute()), position, span, parameters, status.st_size, status.st_mtime_ns)
        yield name, source, notes


def _map(path: Path, parameters: ImageParameters, conventions: Conventions) -> tuple[str, StructureSource, list[str]]:
    voxel: tuple[float, float, float] | None
    notes, pixel, n = [], parameters.pixel_size_angstrom, parameters.n_pixels
    if suffix_of(path) in (".npy", ".pt"):
        shape, voxel = _array_shape(path)[::-1], (pixel,) * 3
        notes.append(f"voxels have the size of the pixels, {pixel:g} angstrom")
    else:
        header = open_mrc_map(path)
        shape, voxel = header.shape, header.voxel_size_angstrom
        notes += header.notes
    if voxel is None and set(shape) == {n}:
        voxel = (pixel,) * 3
        notes.append(f"the header has no voxel size; that of the pixels is taken, {pixel:g} angstrom")
    if voxel is None:
        raise InputFileError(
            f"has no voxel size, and {shape} voxels are not the {n} of the images",
            source=path,
            remedy="Write the voxel size into its header.",
        )
    if len(set(shape)) > 1:
        if not conventions.reads_map_header:
            raise InputFileError(f"is no cube: {shape} voxels", source=path, remedy="Pad it to a cube.")
        notes.append(f"is no cube ({' x '.join(map(str, shape))} voxels): the origin is the middle of each side")
    finest, wanted = 2 * max(voxel), parameters.grid.box_size_angstrom / (2 * parameters.radius_max)
    if conventions.reads_map_header and finest > 1.001 * wanted:
        notes.append(f"the map ends at {finest:.3g} angstrom, the images at {wanted:.3g}; its templates are 0 beyond")
    status = path.stat()
    source = MapInFile(str(path.absolute()), voxel, status.st_size, status.st_mtime_ns)
    return _stem(path), source, notes


def _array_shape(path: Path) -> tuple[int, ...]:
    if suffix_of(path) == ".pt":
        return open_tensor(path, n_dims=3, dtypes=("float32", "float64", "float16")).shape
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputFileError(f"is not a readable .npy file ({error})", source=path) from error
    if values.ndim != 3 or values.dtype.kind not in "fiu":
        raise InputFileError(
            f"has shape {values.shape} and type {values.dtype}; a map has three axes (z, y, x) and real values",
            source=path,
        )
    return tuple(values.shape)


def _is_output(path: Path) -> bool:
    """Whether a file is what `make_templates` writes, not a structure."""
    return path.name == TEMPLATE_LIST or path.name.startswith("templates_fourier_")


def _stem(path: Path) -> str:
    return path.name[: path.name.lower().rindex(suffix_of(path))]
