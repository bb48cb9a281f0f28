"""Completion records: a small file per stack and structure, written last, that says what its results came from.

`skip_exist` believes records, shapes and checksums, never mere names.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from cryolike_dask.errors import OutputError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.layout import STORE_SUFFIX, as_stored

FORMAT = 1
NOTHING_THERE = "there are no results"
KEPT = "%d of %d %s and kept; skip_exist=False computes them again"

Key = TypeVar("Key", bound=Hashable)

logger = logging.getLogger("cryolike_dask")


@dataclass(frozen=True)
class Job:
    """What is to be written, where, and from what: an image stack under a structure, or an input file of a run.

    Attributes
    ----------
    kind : str
        "optimal_pose", "full_cross_correlation", "templates" or "particles".
    name : str
        How the job is called on the dashboard and in messages.
    about : dict
        What the record says of it besides: the numbers of its stack and structure, and their names.
    outputs : dict of variable name to Path
    shape : tuple of int
        Of the outputs that are results; an input file of a run has the shape of its tensor.
    record : Path
    settings : dict
        Search, parameters, conventions and the like: what must be the same throughout an output folder.
    precision : "single" | "double"
    inputs : list of dict
        Name, size and time of every input file; contents of files are never hashed on the way.
    """

    kind: str
    name: str
    about: dict[str, Any]
    outputs: dict[str, Path]
    shape: tuple[int, ...]
    record: Path
    settings: dict[str, Any]
    precision: str
    inputs: list[dict[str, Any]]

    def __post_init__(self) -> None:
        """Workers may run in another folder: paths are absolute."""
        object.__setattr__(self, "outputs", {name: path.absolute() for name, path in self.outputs.items()})
        object.__setattr__(self, "record", self.record.absolute())

    @property
    def is_store(self) -> bool:
        """Whether its result is written as a store, since it is too large for a file."""
        return any(path.suffix == STORE_SUFFIX for path in self.outputs.values())


def write_record(job: Job, details: Mapping[str, Any], known: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write the record of a job whose outputs are all in place; `details` says by what they were made.

    `known` holds checksums of files of a store that need not be computed again.
    """
    outputs = {name: {"file": path.name, "sha256": checksum(path, known)} for name, path in job.outputs.items()}
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
    with replacing(job.record) as file:
        file.write(json.dumps(record, indent=1).encode())


def why_not_done(job: Job) -> str | None:
    """Say why a job must be computed; None if its results are complete, undamaged, and came from these inputs."""
    outputs = {name: as_stored(path) for name, path in job.outputs.items()}
    missing = [path.name for path in outputs.values() if not (path.is_file() or path.is_dir())]
    if missing:
        return f"{missing[0]} is missing" if len(missing) < len(outputs) else NOTHING_THERE
    record = read_record(job.record)
    if record is None:
        return f"there is no readable completion record {job.record.name}"
    expected = {"format": FORMAT, "kind": job.kind, "settings": job.settings, "precision": job.precision}
    for name, value in {**expected, "inputs": job.inputs, "shape": list(job.shape)}.items():
        if record.get(name) != value:
            return f"the {name} of the results are others than those of this run"
    for name, path in outputs.items():
        if listed_outputs(record).get(name, {}).get("sha256") != checksum(path):
            return f"{path.name} is not the file that the record describes"
    return None


def still_to_do(jobs: Mapping[Key, Job], *, skip_exist: bool, becomes: str, done: str) -> list[Key]:
    """Which jobs are to be done: with `skip_exist` those that are not done yet; of what is there the log says why.

    `becomes` is what happens to a job ("computed"), `done` what the others are ("stacks are done"), for the log.
    """
    if not skip_exist:
        return list(jobs)
    reasons = {key: why_not_done(job) for key, job in jobs.items()}
    to_do = [key for key, reason in reasons.items() if reason is not None]
    for key in to_do:
        if reasons[key] != NOTHING_THERE:
            logger.info("%s is %s: %s", jobs[key].name, becomes, reasons[key])
    if n_done := len(jobs) - len(to_do):
        logger.info(KEPT, n_done, len(jobs), done)
    return to_do


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a completion record; None if it is not there or not readable."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def need_folder(folder: Path) -> None:
    """Refuse an output folder that is something else."""
    if folder.exists() and not folder.is_dir():
        raise OutputError("is not a folder", source=folder, remedy="Choose another output folder.")


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Say what is there and what is here, where they differ; empty where they do not."""
    return "; ".join(f"{k}: {theirs.get(k)} there, {v} here" for k, v in ours.items() if theirs.get(k) != v)


def listed_outputs(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a record says of each output."""
    outputs = record.get("outputs")
    return {k: v for k, v in outputs.items() if isinstance(v, dict)} if isinstance(outputs, dict) else {}


def checksum(path: Path, known: Mapping[str, str] = MappingProxyType({})) -> str:
    """sha256 in hexadecimal: of a file, or of the names and checksums of the files of a store, known ones excepted."""
    if path.is_dir():
        files = {str(file.relative_to(path)): file for file in path.rglob("*") if not file.is_dir()}
        lines = (f"{known.get(name) or checksum(file)}  {name}\n" for name, file in sorted(files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    if not path.is_file():
        raise OutputError("is not a file", source=path, remedy="Remove it.")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
