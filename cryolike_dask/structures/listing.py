"""Structures that are given, one by one: folders opened, and the names of all."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryolike_dask.errors import InputError, InputFileError, missing_files
from cryolike_dask.io.identity import regular_file
from cryolike_dask.io.kinds import TRAJECTORY_SUFFIXES
from cryolike_dask.io.layout import is_of_templates
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.maps import ARRAY_SUFFIXES
from cryolike_dask.structures.models import CIF_SUFFIXES, PDB_SUFFIXES, suffix_of
from cryolike_dask.structures.naming import stem_of, told_apart
from cryolike_dask.structures.trajectories.trajectory import Trajectory
from cryolike_dask.structures.volumes import Volume

logger = logging.getLogger("cryolike_dask")

ATOM_SUFFIXES = (*PDB_SUFFIXES, *CIF_SUFFIXES)
MAP_SUFFIXES = (".mrc", ".map", ".ccp4", *ARRAY_SUFFIXES)
REMEDY = (
    f"Structures are {', '.join((*ATOM_SUFFIXES, *MAP_SUFFIXES))} files, arrays (z, y, x), "
    f"Atoms or Volume; and trajectories ({', '.join(TRAJECTORY_SUFFIXES[:3])} ...) with a topology."
)


def bases(given: list[Any]) -> list[str]:
    """The names of all inputs; it is said where they are not those of their files."""
    paths = [_path_of(structure) for structure in given]
    names = told_apart([path or "structure" for path in paths])
    apart = [
        f"{name} ({path})"
        for name, path in zip(names, paths, strict=True)
        if path is not None and name != stem_of(path)
    ]
    if apart:
        shown = ", ".join(apart[:5] + [f"and {len(apart) - 5:,} more"] * (len(apart) > 5))
        logger.info("structures of one name are named after their folders: %s", shown)
    return names


def listed(structures: Any) -> list[Any]:
    """The structures one by one, folders opened; every missing file is named at once."""
    one = isinstance(structures, (str, Path, Atoms, Volume, Trajectory))
    single = one or hasattr(structures, "shape")
    if not single and not isinstance(structures, Iterable):
        raise InputError(f"structures={structures!r} are none", remedy=REMEDY)
    found: list[Any] = []
    for structure in [structures] if single else structures:
        path = Path(structure) if isinstance(structure, (str, Path)) else None
        if path is None or not os.path.isdir(path):
            found.append(structure if path is None else path)
            continue
        files = sorted(
            p
            for p in path.iterdir()
            if suffix_of(p) in (*ATOM_SUFFIXES, *MAP_SUFFIXES) and not is_of_templates(p)
        )
        if not files:
            raise InputFileError("holds no structures", source=path, remedy=REMEDY)
        found += files
    paths = [_path_of(structure) for structure in found]
    missing = [path for path in paths if path is not None and not os.path.lexists(path)]
    if missing:
        raise missing_files(missing, "Check the names of the structures.")
    return [
        regular_file(structure) if isinstance(structure, Path) else structure for structure in found
    ]


def _path_of(structure: Any) -> Path | None:
    """The file of a structure, if it has one."""
    if isinstance(structure, Trajectory):
        return Path(structure.path)
    return structure if isinstance(structure, Path) else None
