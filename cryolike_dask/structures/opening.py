"""Opening structures: files, folders and arrays into lazy template stacks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryolike_dask.conventions import Conventions, ConventionsName, conventions_named
from cryolike_dask.errors import InputError, InputFileError, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.labels import Models
from cryolike_dask.stacks import TemplateStack
from cryolike_dask.structures.accounts import Account, account_of_atoms, misleading, say
from cryolike_dask.structures.atoms import Atoms, refuse_scattering
from cryolike_dask.structures.b_factors import INSTEAD, refuse_predicted
from cryolike_dask.structures.listing import ATOM_SUFFIXES, MAP_SUFFIXES, REMEDY, bases, listed
from cryolike_dask.structures.maps import account_of_map, open_map
from cryolike_dask.structures.models import find_models, read_model, read_models, suffix_of
from cryolike_dask.structures.naming import numbered
from cryolike_dask.structures.sources import (
    MapInFile,
    ModelInFile,
    Projections,
    StructureInMemory,
    StructureSource,
)
from cryolike_dask.structures.superposing import (
    Superposing,
    refuse_frame,
    refuse_without_frame,
)
from cryolike_dask.structures.symmetric import note_of_symmetry, refuse_symmetry
from cryolike_dask.structures.trajectories.choosing import Frames
from cryolike_dask.structures.trajectories.trajectory import (
    Trajectory,
    frames_as_structures,
    is_trajectory,
    with_topology,
)
from cryolike_dask.structures.volumes import Volume

StructureInput = Any
"""Path of a file or folder, numpy array or torch tensor (z, y, x), Atoms, Volume, or
Trajectory."""


def open_structure(
    structure: StructureInput,
    params_input: str | Path | ImageParameters,
    *,
    viewing: ViewingAngles | None = None,
    conventions: ConventionsName = "standard",
    voxel_size_angstrom: float | None = None,
    n_templates_per_batch: int | None = None,
) -> TemplateStack:
    """Open one structure as templates that are projected on the workers when they are needed.

    Parameters
    ----------
    structure : path, array, Atoms or Volume
        A PDB or mmCIF file (its first model), a map (`.mrc`, `.map`, `.ccp4`, `.npy`, `.pt`), an
        array or tensor of density (z, y, x) whose voxels have the size of the pixels, or a
        structure in memory.
    params_input : path or ImageParameters
        `parameters.npz`, or its content: the grid, how atoms are made, the precision ("default" is
        single).
    viewing : ViewingAngles, optional
        Directions and weights: `healpix_grid`, `asymmetric_unit` of it, or a list of your own, all
        of which are taken. Default: the grid of the parameters, in the unit of their symmetry.
    conventions : "standard" | "cryolike"
        "cryolike" makes the templates that CryoLike makes from the same file.
    voxel_size_angstrom : float, optional
        Of maps and arrays, in place of what the header says, or of the size of the pixels.
    n_templates_per_batch : int, optional
        Templates per tile inside a task. Changes no result beyond rounding.

    Returns
    -------
    TemplateStack

    Raises
    ------
    InputError, InputFileError
        If the structure is missing, damaged or empty, or nothing in it is selected.
    """
    if isinstance(structure, (str, Path)) and os.path.isdir(structure):
        raise InputError(
            f"{structure} is a folder", remedy="Open its structures with open_structures."
        )
    stacks = open_structures(
        [structure],
        params_input,
        viewing=viewing,
        conventions=conventions,
        voxel_size_angstrom=voxel_size_angstrom,
        n_templates_per_batch=n_templates_per_batch,
    )
    if len(stacks) > 1:
        raise InputError(
            f"{len(stacks):,} frames are chosen",
            remedy="Choose one; or open them with open_structures.",
        )
    return stacks[0]


def open_structures(
    structures: StructureInput | Iterable[StructureInput],
    params_input: str | Path | ImageParameters,
    *,
    models: Models = "first",
    topology: str | Path | None = None,
    frames: Frames | None = None,
    every: int = 1,
    selection: str | None = None,
    viewing: ViewingAngles | None = None,
    conventions: ConventionsName = "standard",
    voxel_size_angstrom: float | None = None,
    n_templates_per_batch: int | None = None,
) -> list[TemplateStack]:
    """Open many structures: files, folders of files, files of many models, and trajectories.

    Parameters
    ----------
    structures : one of those of `open_structure`, a folder, or several of these
        A folder gives its structure files in the order of their names. The frames of a trajectory
        (XTC, TRR, DCD ...) are structures; several of them have the same topology, or are given as
        a `Trajectory` each.
    models : "first" | "all"
        The first model of each PDB or mmCIF file, or each model as a structure of its own.
    topology, frames, every, selection
        Of the trajectories, as for `Trajectory`.
    params_input, viewing, conventions, voxel_size_angstrom, n_templates_per_batch
        As for `open_structure`.

    Returns
    -------
    list of TemplateStack
        Named after their files; `NAME_model_0001` and so on where all models are opened, and
        `NAME_frame_000000` for the first frame of a trajectory. Files of one name are named
        `FOLDER_NAME`, with as many folders as tell them apart.

    Raises
    ------
    InputError, InputFileError
        As for `open_structure`.
    """
    stacks, accounts = look_at_structures(
        with_topology(structures, topology, frames, every, selection),
        params_input,
        models=models,
        viewing=viewing,
        conventions=conventions,
        voxel_size_angstrom=voxel_size_angstrom,
        n_templates_per_batch=n_templates_per_batch,
    )
    say(accounts)
    return stacks


def look_at_structures(
    structures: StructureInput | Iterable[StructureInput],
    params_input: str | Path | ImageParameters,
    *,
    models: Models,
    viewing: ViewingAngles | None,
    conventions: ConventionsName,
    voxel_size_angstrom: float | None,
    n_templates_per_batch: int | None = None,
) -> tuple[list[TemplateStack], list[tuple[str, Account]]]:
    """Open structures as `open_structures` does, but give the accounts, by name, in place of
    logging them."""
    parameters, values = read_parameters(params_input), conventions_named(conventions)
    if models not in ("first", "all"):
        raise InputError(f"models={models!r} is neither first nor all")
    if viewing is not None and not isinstance(viewing, ViewingAngles):
        raise InputError(
            f"viewing is a {type(viewing).__name__}",
            remedy="Make it with ViewingAngles or healpix_grid.",
        )
    if parameters.scatters:
        refuse_scattering(values)
    refuse_frame(parameters, values)
    directions = parameters.viewing_angles() if viewing is None else viewing
    refuse_symmetry(directions, values)
    precision = "double" if parameters.precision == "double" else "single"
    voxel = _voxel_size(voxel_size_angstrom, values)
    given = listed(structures)
    superposing = Superposing(parameters)
    opened = [
        (f"{base}{of_file}", source, account)
        for base, structure in zip(bases(given), given, strict=True)
        for of_file, source, account in _sources(structure, superposing, models, values, voxel)
    ]
    if not opened:
        raise InputError("there are no structures", remedy=REMEDY)
    names = numbered([name for name, _, _ in opened])
    projections = [
        Projections(source, name, parameters.grid, directions, values, precision)
        for name, (_, source, _) in zip(names, opened, strict=True)
    ]
    stacks = [
        TemplateStack(
            source=source,
            grid=parameters.grid,
            viewing=directions,
            structure=source.name,
            conventions=values.name,
            n_per_batch=n_templates_per_batch,
        )
        for source in projections
    ]
    accounts = [
        replace(account, notes=(*account.notes, *note_of_symmetry(source)))
        for source, (_, _, account) in zip(projections, opened, strict=True)
    ]
    return stacks, list(zip(names, accounts, strict=True))


def _voxel_size(given: float | None, conventions: Conventions) -> float | None:
    if given is not None and not conventions.reads_map_header:
        raise InputError(
            f"voxel_size_angstrom={given!r}, but conventions={conventions.name!r} let maps fill "
            f"the box"
        )
    return None if given is None else number("voxel_size_angstrom", given, above=0)


def _sources(
    structure: Any,
    superposing: Superposing,
    models: Models,
    conventions: Conventions,
    voxel_size: float | None,
) -> Iterator[tuple[str, StructureSource, Account]]:
    """End of the name, source and account of each structure in one input."""
    parameters = superposing.parameters
    if isinstance(structure, Path) and is_trajectory(structure):
        structure = Trajectory(structure, None)
    is_model = isinstance(structure, Path) and suffix_of(structure) in ATOM_SUFFIXES
    if isinstance(structure, Trajectory):
        yield from _frames(structure, superposing, conventions)
        return
    if not is_model:
        refuse_without_frame(structure, parameters)
    if isinstance(structure, Atoms):
        if structure.shape == "scattering":
            refuse_scattering(conventions)
        yield "", StructureInMemory(structure), account_of_atoms(structure, parameters)
    elif isinstance(structure, Volume):
        _refuse_without_b_factors(parameters)
        yield (
            "",
            StructureInMemory(structure),
            _account_of_volume(structure, "as you say", parameters),
        )
    elif isinstance(structure, Path):
        if is_model:
            yield from _models(structure, superposing, models, conventions)
        elif suffix_of(structure) in MAP_SUFFIXES:
            _refuse_without_b_factors(parameters, structure)
            voxel, account = open_map(structure, parameters, conventions, voxel_size)
            status = structure.stat()
            yield (
                "",
                MapInFile(str(structure.absolute()), voxel, status.st_size, status.st_mtime_ns),
                account,
            )
        else:
            raise InputFileError("is not a structure by its name", source=structure, remedy=REMEDY)
    elif hasattr(structure, "shape") and hasattr(structure, "__array__"):
        _refuse_without_b_factors(parameters)
        values = np.asarray(structure.detach().cpu() if hasattr(structure, "detach") else structure)
        origin = "the size of the pixels" if voxel_size is None else "as you say"
        volume = Volume(values, (voxel_size or parameters.pixel_size_angstrom,) * 3)
        yield "", StructureInMemory(volume), _account_of_volume(volume, origin, parameters)
    else:
        raise InputError(f"a structure is a {type(structure).__name__}", remedy=REMEDY)


def _refuse_without_b_factors(parameters: ImageParameters, source: Path | None = None) -> None:
    """Refuse a map where each atom has the B-factor of its file."""
    if parameters.atomic_b == "file":
        raise InputFileError(
            "is a map, which has no B-factors of atoms: atomic_b='file' is of no use for it",
            source=source or "a map in memory",
            remedy=INSTEAD,
        )


def _account_of_volume(volume: Volume, origin: str, parameters: ImageParameters) -> Account:
    shape = volume.values.shape[::-1]
    return account_of_map(shape, volume.voxel_size_angstrom, origin, volume.values, parameters)


def _models(
    path: Path, superposing: Superposing, models: Models, conventions: Conventions
) -> Iterator[tuple[str, StructureSource, Account]]:
    """Every model is read here once, so that a selection that finds nothing is told before
    anything runs."""
    parameters = superposing.parameters
    if parameters.atomic_b == "file":
        refuse_predicted(path)
    remarks = misleading(parameters) if conventions.knows_scattering else ()
    status = path.stat()
    spans = find_models(path)
    whole = read_models(path) if spans is None else []
    n = len(whole) if spans is None else len(spans)
    for position in range(n if models == "all" else 1):
        span = None if spans is None else spans[position]
        try:
            model = whole[position] if spans is None else read_model(path, position, span)
            placement, account = superposing.account(model, path)
        except InputFileError:
            raise
        except InputError as error:
            raise InputFileError(str(error), source=path) from error
        account = replace(account, notes=(*account.notes, *remarks))
        if models == "first" and n > 1:
            note = (
                f'the first of {n} models is used; models="all" (--models) takes each as a '
                f"structure"
            )
            account = replace(account, notes=(*account.notes, note))
        source = ModelInFile(
            str(path.absolute()),
            position,
            span,
            parameters,
            status.st_size,
            status.st_mtime_ns,
            placement,
        )
        yield "" if models == "first" else f"_model_{position + 1:04d}", source, account


def _frames(
    trajectory: Trajectory, superposing: Superposing, conventions: Conventions
) -> Iterator[tuple[str, StructureSource, Account]]:
    remarks = misleading(superposing.parameters) if conventions.knows_scattering else ()
    for of_file, source, account in frames_as_structures(trajectory, superposing):
        yield of_file, source, replace(account, notes=(*account.notes, *remarks))
