"""Completion records: a small file per stack and structure, written last, that says what its
results came from.

`skip_exist` believes records, shapes and checksums, never mere names. A record is read in one
place, which believes it only if it is what `write_record` writes: whoever has one need not look at
types.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import reprlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, cast

from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import LARGEST, InputFileError, OutputError, times
from cryolike_dask.io.atomic import read_own, replacing, writing
from cryolike_dask.io.claims import Claim, differences
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.io.layout import STORE_SUFFIX, as_stored

FORMAT = 1
MOST_BYTES = 2**25
MAY_BE_ZERO = ("max_displacement_angstrom", "tolerance")
AGAIN = "Run again with skip_exist=True, which computes again what is damaged."
NOTHING_THERE = "there are no results"
KEPT = "%d of %d %s and kept; skip_exist=False computes them again"

Key = TypeVar("Key", bound=Hashable)
SavedPrecision = Literal["single", "double"]

logger = logging.getLogger("cryolike_dask")


class Search(TypedDict, total=False):
    """The displacements that a run tries."""

    n_displacements: int
    max_displacement_angstrom: float
    sha256: str


class FolderSettings(TypedDict, total=False):
    """Settings that must be the same for all that an output folder holds."""

    search: Search
    parameters: dict[str, float]
    conventions: ConventionsName
    tolerance: float | None


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


@dataclass(frozen=True)
class Job:
    """Outputs that are written as a whole, and their inputs: an image stack under a structure, or
    an input file of a run.

    Attributes
    ----------
    kind : str
        "optimal_pose", "full_cross_correlation", "templates" or "particles".
    name : str
        How the job is called on the dashboard and in messages.
    about : About
    outputs : dict of variable name to Path
    shape : tuple of int
        Of the outputs that are results; an input file of a run has the shape of its tensor.
    record : Path
    settings : FolderSettings
    precision : "single" | "double"
    inputs : list of InputDescription
    claim : Claim, optional
        Under which it is written.
    """

    kind: str
    name: str
    about: About
    outputs: dict[str, Path]
    shape: tuple[int, ...]
    record: Path
    settings: FolderSettings
    precision: str
    inputs: list[InputDescription]
    claim: Claim | None = None

    def __post_init__(self) -> None:
        """Workers may run in another folder: paths are absolute."""
        object.__setattr__(
            self, "outputs", {name: path.absolute() for name, path in self.outputs.items()}
        )
        object.__setattr__(self, "record", self.record.absolute())

    @property
    def is_store(self) -> bool:
        """Whether its result is written as a store, since it is too large for a file."""
        return any(path.suffix == STORE_SUFFIX for path in self.outputs.values())


def make_room(job: Job) -> None:
    """See that a job may be written, and make its folders, below that of the claim only.

    An output folder that was taken away while a run wrote there is not made anew.

    Raises
    ------
    OutputError
        If the claim does not stand, or folders cannot be made.
    """
    if job.claim is None:
        return
    job.claim.need()
    root = job.claim.path.parent
    with writing(job.record):
        for folder in sorted({path.parent for path in (job.record, *job.outputs.values())}):
            if not folder.is_dir():
                for above in reversed(
                    [folder, *folder.parents][: len(folder.relative_to(root).parts)]
                ):
                    above.mkdir(exist_ok=True)


def withdraw_record(job: Job) -> None:
    """Make room for a job, and remove its former record: none lies beside results that it does
    not describe."""
    make_room(job)
    there, structure = readable_record(job.record), job.about.get("structure")
    # those that were there before are gone by now
    if there is not None and there.get("structure") != structure:
        what = (
            f"was written meanwhile by another run, whose structure is "
            f"{there.get('structure')}, not {structure}"
        )
        raise OutputError(what, source=job.record, remedy="Choose another output folder.")
    with writing(job.record):
        job.record.unlink(missing_ok=True)


def write_record(
    job: Job, details: Mapping[str, str], known: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write the record of a job whose outputs are all in place; `details` says by what they were
    made.

    `known` holds checksums of files of a store that need not be computed again.
    """
    outputs = {
        name: {"file": path.name, "sha256": checksum(path, known)}
        for name, path in job.outputs.items()
    }
    record = {
        "format": FORMAT,
        "kind": job.kind,
        **job.about,
        "shape": list(job.shape),
        "settings": job.settings,
        "precision": job.precision,
        "inputs": job.inputs,
        "outputs": outputs,
        **details,
    }
    if job.claim is not None:
        job.claim.need()
    with replacing(job.record) as file:
        file.write(json.dumps(record, indent=1).encode())


def why_not_done(job: Job) -> str | None:
    """Say why a job must be computed; None if its results are complete, undamaged, and came from
    these inputs."""
    outputs = {name: as_stored(path) for name, path in job.outputs.items()}
    missing = [path.name for path in outputs.values() if not (path.is_file() or path.is_dir())]
    if missing:
        return f"{missing[0]} is missing" if len(missing) < len(outputs) else NOTHING_THERE
    record = readable_record(job.record)
    if record is None:
        return f"there is no readable completion record {job.record.name}"
    if fault := _difference(record, job):
        return fault
    for name, path in outputs.items():
        recorded = record["outputs"].get(name)
        if recorded is None or recorded["sha256"] != checksum(path):
            return f"{path.name} is not the file that the record describes"
    return None


def _difference(record: Record, job: Job) -> str:
    """First entry of a record that is not that of a job, with both; empty if there is none."""
    values = (
        ("format", record.get("format"), FORMAT),
        ("kind", record["kind"], job.kind),
        ("precision", record["precision"], job.precision),
    )
    for name, there, here in values:
        if there != here:
            return f"the {name} of the results is another: {there} there, {here} here"
    if record["settings"] != job.settings:
        both = differences(record["settings"], job.settings) or "more of them there"
        return f"the settings of the results are others: {both}"
    if record["inputs"] != job.inputs:
        return (
            f"the inputs of the results are others: {_other_inputs(record['inputs'], job.inputs)}"
        )
    if record["shape"] != list(job.shape):
        there, here = times(record["shape"]), times(job.shape)
        return f"the shape of the results is another: {there} there, {here} here"
    return ""


def _other_inputs(theirs: list[InputDescription], ours: list[InputDescription]) -> str:
    """How inputs differ: in their names, or else in what is known of the first that differs."""
    if names := other_names(theirs, ours):
        return names
    for there, here in zip(theirs, ours, strict=False):
        if there != here:
            both = differences(there, here) or "another content there"
            return f"{here['name']}: {both}" if "name" in here else both
    return f"{len(theirs)} there, {len(ours)} here"


def other_names(theirs: list[InputDescription], ours: list[InputDescription]) -> str:
    """How the names of inputs differ; empty if they do not."""
    names_there, names_here = (
        {str(one.get("name")) for one in inputs} for inputs in (theirs, ours)
    )
    if names_there == names_here:
        return ""
    only_there, only_here = (
        ", ".join(sorted(names)) or "less"
        for names in (names_there - names_here, names_here - names_there)
    )
    return f"made from {only_there} there, {only_here} here"


def still_to_do(jobs: Mapping[Key, Job], *, skip_exist: bool, becomes: str, done: str) -> list[Key]:
    """Which jobs are to be done: with `skip_exist` those that are not done yet; of what is there
    the log says why.

    `becomes` is what happens to a job ("computed"), `done` what the others are ("stacks are done"),
    for the log.
    """
    if not skip_exist:
        if any(job.record.is_file() for job in jobs.values()):
            logger.info("what is there is replaced; skip_exist=True keeps what is complete")
        return list(jobs)
    reasons = {key: why_not_done(job) for key, job in jobs.items()}
    to_do = [key for key, reason in reasons.items() if reason is not None]
    for key in to_do:
        if reasons[key] != NOTHING_THERE:
            logger.info("%s is %s: %s", jobs[key].name, becomes, reasons[key])
    if n_done := len(jobs) - len(to_do):
        logger.info(KEPT, n_done, len(jobs), done)
    return to_do


def takes_nothing(folder: Path) -> bool:
    """Whether a folder is on a disk, or of an owner, that lets nothing be written there."""
    return folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK)


def nothing_to_do(
    folder: Path, to_do: Callable[[], Sequence[Any]], refuse_others: Callable[[], None]
) -> bool:
    """Whether a folder takes nothing, and all is done there.

    Raises
    ------
    OutputError
        If something is to be done in a folder that takes nothing.
    """
    if not takes_nothing(folder):
        return False
    refuse_others()
    if n := len(to_do()):
        what = (
            f"cannot be written, and {n} of the results that belong there are missing, damaged "
            f"or of other inputs"
        )
        raise OutputError(
            what, source=folder, remedy="Choose another output folder, or a copy of this one."
        )
    return True


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


def _are_settings(value: Any) -> bool:
    """Search, grid and conventions, as far as they are there, of which every number may be
    divided by or counted to."""
    if not isinstance(value, dict):
        return False
    search, parameters = value.get("search", {}), value.get("parameters", {})
    return (
        isinstance(search, dict)
        and isinstance(search.get("sha256", ""), str)
        and isinstance(parameters, dict)
        and all(_is_number(name, one) for name, one in parameters.items())
        and all(_is_number(name, one) for name, one in search.items() if name != "sha256")
        and _is_text_or_none(value.get("conventions"))
        and (value.get("tolerance") is None or _is_number("tolerance", value["tolerance"]))
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
        isinstance(one, dict) and isinstance(one.get("name", ""), str) for one in value
    )


def _are_outputs(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, dict)
        and isinstance(one.get("file"), str)
        and isinstance(one.get("sha256"), str)
        for one in value.values()
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


def need_folder(folder: Path) -> None:
    """Refuse an output folder that is something else."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is not a folder", source=folder, remedy="Choose another output folder.")


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
