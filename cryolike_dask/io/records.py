"""Completion records: a small file per stack and structure, written last, that says what its
results came from.

A record is read in one place, which believes it only if it is what a run writes: whoever has one
need not look at types. Whether its checksums are those of the files is looked at in `jobs`.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NotRequired, TypedDict, cast

from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import LARGEST, InputFileError, OutputError
from cryolike_dask.geometry.search_method import is_search
from cryolike_dask.io.atomic import read_own
from cryolike_dask.io.identity import InputDescription

FORMAT = 1
MOST_BYTES = 2**25
WHITE, FITTED = "white", "fit"
"""Name of noise without a model; and what records say of B-factors that stand in the model."""
MAY_BE_ZERO = ("max_displacement_angstrom", "tolerance")
AGAIN = "Run again with skip_exist=True, which computes again what is damaged."

SavedPrecision = Literal["single", "double"]


class Search(TypedDict, total=False):
    """The displacements that a run tries."""

    n_displacements: int
    max_displacement_angstrom: float
    sha256: str


class FolderSettings(TypedDict, total=False):
    """Settings that must be the same for all that an output folder holds.

    Attributes
    ----------
    noise : str
        sha256 of the noise model; not there: white.
    b_factor : "fit" or float
        Angstrom^2; not there: none besides the noise model's.
    degrees_of_freedom : float
        Not there: as the noise model says.
    image_power : str
        Where images tell the power of their rings; not there: as stacks hold them.
    search_method : str
        Of best poses and their likelihoods; not there: exhaustive.
    """

    search: Search
    parameters: dict[str, float]
    conventions: ConventionsName
    tolerance: float | None
    noise: str
    b_factor: str | float
    degrees_of_freedom: float
    image_power: str
    search_method: str


class About(TypedDict, total=False):
    """Numbers of the stack and the structure that a job is of, and the structure's name."""

    i_template: int
    i_stack: int
    structure: str


class RecordedOutput(TypedDict):
    """Name and checksum of an output."""

    file: str
    sha256: str


class Record(TypedDict):
    """A completion record that can be believed."""

    kind: str
    shape: list[int]
    settings: FolderSettings
    precision: SavedPrecision
    inputs: list[InputDescription]
    outputs: dict[str, RecordedOutput]
    format: NotRequired[int | None]
    i_template: NotRequired[int | None]
    i_stack: NotRequired[int | None]
    structure: NotRequired[str | None]
    version: NotRequired[str | None]
    device: NotRequired[str | None]


def other_names(theirs: list[InputDescription], ours: list[InputDescription]) -> str:
    """Difference of the names of inputs; empty if there is none."""
    names_there, names_here = (
        {str(described.get("name")) for described in inputs} for inputs in (theirs, ours)
    )
    if names_there == names_here:
        return ""
    only_there, only_here = (
        ", ".join(sorted(names)) or "less"
        for names in (names_there - names_here, names_here - names_there)
    )
    return f"made from {only_there} there, {only_here} here"


def read_record(path: Path) -> Record | None:
    """Read a completion record; None if there is none.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Record or None
        Each entry has the type that `write_record` gives it; settings hold a search if it is the
        record of results.

    Raises
    ------
    InputFileError
        If it is a link, a folder or too large, or does not say what such a record says; names the
        entry.
    """
    try:
        content = read_own(path, MOST_BYTES)
        record = None if content is None else json.loads(content)
    except InputFileError as error:
        raise InputFileError(str(error), remedy=f"Remove it. {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise InputFileError(
            "is not a readable completion record", source=path, remedy=AGAIN
        ) from error
    if content is None:
        return None
    if not isinstance(record, dict):
        raise InputFileError("is not a completion record", source=path, remedy=AGAIN)
    for name, says in _ENTRIES.items():
        if not says(record.get(name)):
            what = f"says {name}={reprlib.repr(record.get(name))}, which no run writes"
            raise InputFileError(what, source=path, remedy=AGAIN)
    return cast(Record, record)


def readable_record(path: Path) -> Record | None:
    """Read a completion record; None if there is none that can be believed, and what lies beside
    it is made again."""
    try:
        return read_record(path)
    except InputFileError:
        return None


def checksum_of_settings(record: Record) -> str:
    """sha256 of all that is the same for all results of a folder."""
    text = json.dumps(record["settings"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def noise_name(settings: FolderSettings) -> str:
    """The name of what results take noise for: the same where they can be compared."""
    words = [settings.get("noise", WHITE)]
    if b_factor := settings.get("b_factor"):
        words.append(f"B-factor {b_factor}")
    if n_free := settings.get("degrees_of_freedom"):
        words.append(f"{n_free} degrees of freedom")
    return ", ".join(words)


def search_method(settings: FolderSettings) -> str:
    """How the poses of results were searched."""
    return settings.get("search_method", "exhaustive")


def of_any_kind(settings: FolderSettings) -> FolderSettings:
    """What records of best poses and of full cross-correlations of one folder say alike."""
    same = settings.copy()
    same.pop("search_method", None)
    return same


def added_b_factor(settings: FolderSettings) -> float:
    """The B-factor that a run adds to those of optics and noise model, angstrom^2."""
    b_factor = settings.get("b_factor", 0.0)
    return 0.0 if isinstance(b_factor, str) else b_factor


def _are_settings(value: Any) -> bool:
    """Search, grid and conventions, as far as they are there, of which every number may be
    divided by or counted to, and every word is known."""
    if not isinstance(value, dict):
        return False
    search, parameters = value.get("search", {}), value.get("parameters", {})
    return (
        isinstance(search, dict)
        and isinstance(search.get("sha256", ""), str)
        and isinstance(parameters, dict)
        and all(_is_number(name, number) for name, number in parameters.items())
        and all(_is_number(name, number) for name, number in search.items() if name != "sha256")
        and _is_text_or_none(value.get("conventions"))
        and (value.get("tolerance") is None or _is_number("tolerance", value["tolerance"]))
        and _is_noise(value)
        and is_search(value.get("search_method", "exhaustive"))
    )


def _is_noise(settings: dict[str, Any]) -> bool:
    b_factor = settings.get("b_factor", 0.0)
    return (
        isinstance(settings.get("noise", ""), str)
        and isinstance(settings.get("image_power", ""), str)
        and (b_factor == FITTED or (type(b_factor) in (int, float) and abs(b_factor) < LARGEST))
        and _is_number("degrees_of_freedom", settings.get("degrees_of_freedom", 1.0))
    )


def _is_number(name: str, value: Any) -> bool:
    if name.startswith("n_"):
        return type(value) is int and 0 < value < 2**31
    return type(value) in (int, float) and (
        0 < value < LARGEST or (value == 0 and name in MAY_BE_ZERO)
    )


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(n) is int and 0 < n < 2**63 for n in value)
    )


def _are_inputs(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(described, dict) and isinstance(described.get("name", ""), str)
        for described in value
    )


def _are_outputs(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(output, dict)
        and isinstance(output.get("file"), str)
        and isinstance(output.get("sha256"), str)
        for output in value.values()
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_count_or_none(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**31)


_ENTRIES: dict[str, Callable[[Any], bool]] = {
    "format": _is_count_or_none,
    "kind": _is_text,
    "i_template": _is_count_or_none,
    "i_stack": _is_count_or_none,
    "structure": _is_text_or_none,
    "shape": _is_shape,
    "settings": _are_settings,
    "precision": ("single", "double").__contains__,
    "inputs": _are_inputs,
    "outputs": _are_outputs,
    "version": _is_text_or_none,
    "device": _is_text_or_none,
}


def checksum(path: Path, known: Mapping[str, str] = MappingProxyType({})) -> str:
    """sha256 in hexadecimal: of a file, or of the names and checksums of the files of a store,
    known ones excepted."""
    if path.is_dir():
        files = {str(file.relative_to(path)): file for file in path.rglob("*") if not file.is_dir()}
        lines = (
            f"{known.get(name) or checksum(file)}  {name}\n" for name, file in sorted(files.items())
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    if not path.is_file():
        raise OutputError("is not a file", source=path, remedy="Remove it.")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
