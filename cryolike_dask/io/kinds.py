"""Kinds of files and folders that are given, by names alone, so that a wrong one is told from a
damaged one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.identity import is_there
from cryolike_dask.io.layout import (
    FILE_SUFFIX,
    METADATA_SUFFIX,
    PARAMETERS,
    STACK_NAME,
    TEMPLATE_LIST,
    is_of_templates,
    structure_numbers,
)

Kind = Literal[
    "templates",
    "image stacks",
    "structures",
    "particles",
    "images",
    "parameters",
    "a run",
    "results",
]

TRAJECTORY_SUFFIXES = (
    *(".xtc", ".trr", ".dcd", ".nc", ".ncdf", ".mdcrd", ".crdbox", ".trc", ".trz", ".lammpsdump"),
    *(".xyz", ".h5md", ".gsd", ".tng"),
)
SUFFIXES: Mapping[Kind, tuple[str, ...]] = {
    "structures": (
        *(".pdb", ".ent", ".cif", ".mmcif", ".map", ".ccp4", ".mrc"),
        *TRAJECTORY_SUFFIXES,
    ),
    "particles": (".star", ".cs"),
    "images": (".mrcs", ".stk", ".mrc"),
    "a run": (".yaml", ".yml"),
}
OURS = (METADATA_SUFFIX, ".npy", FILE_SUFFIX)
NAMES: Mapping[Kind, str] = {
    "particles": "metadata of particles",
    "a run": "the description of a run",
}


def need_kind(
    path: Path, *wanted: Kind, meant_for: Mapping[Kind, str] = MappingProxyType({})
) -> None:
    """Refuse what is not there, and what holds something else; what is not known may be right.

    Parameters
    ----------
    path : Path
    *wanted : str
        Kinds that would do; without any, all do.
    meant_for : dict
        By kind: which option or key takes it.

    Raises
    ------
    InputFileError
    """
    if not is_there(path):
        is_file = any(path.suffix.lower() in suffixes for suffixes in (*SUFFIXES.values(), OURS))
        what = "file" if is_file else "file or folder" if path.suffix else "folder"
        raise InputFileError(f"there is no such {what}", source=path, remedy="Check its name.")
    kinds = kinds_of(path)
    if (
        path.is_dir()
        and kinds == {"particles"} == kinds & set(wanted)
        and not any(path.glob("*.cs"))
    ):
        names = sorted(p.name for p in path.glob("*.star"))
        raise InputFileError(
            "is a folder", source=path, remedy=f"Name a STAR file in it: {_first_names(names)}."
        )
    if wanted and kinds and not kinds & set(wanted):
        kind = next(known_kind for known_kind in get_args(Kind) if known_kind in kinds)
        asked = " or ".join(NAMES.get(known_kind, known_kind) for known_kind in wanted)
        remedy = (
            f"Is it meant for {meant_for[kind]}?" if kind in meant_for else "Was another one meant?"
        )
        raise InputFileError(
            f"holds {NAMES.get(kind, kind)}, not {asked}", source=path, remedy=remedy
        )


def kinds_of(path: Path) -> set[Kind]:
    """Kinds of things that a file or folder holds, as far as names tell."""
    if path.is_dir():
        return _kinds_of_folder(path)
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    return {
        kind for kind, suffixes in SUFFIXES.items() if suffix.lower() in suffixes
    } or _kinds_of_ours(path)


def _kinds_of_folder(path: Path) -> set[Kind]:
    try:
        suffixes = {p.suffix.lower() for p in path.iterdir()}
    except OSError:  # whoever reads it says so
        return set()
    alone: tuple[Kind, Kind] = ("structures", "particles")
    kinds: set[Kind] = {kind for kind in alone if suffixes & {*SUFFIXES[kind]}}
    if (path / TEMPLATE_LIST).is_file():
        kinds.add("templates")
    if any(STACK_NAME.fullmatch(p.name) for p in path.glob("fft/*")):
        kinds.add("image stacks")
    if structure_numbers(path):
        kinds.add("results")
    return kinds


def _kinds_of_ours(path: Path) -> set[Kind]:
    """Kinds of a file that this program, or CryoLike, writes."""
    if is_of_templates(path):
        return {"templates"}
    if STACK_NAME.fullmatch(path.name):
        repeats_parameters = path.suffix == METADATA_SUFFIX
        return {"image stacks", "parameters"} if repeats_parameters else {"image stacks"}
    return {"parameters"} if path.name == PARAMETERS else set()


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
