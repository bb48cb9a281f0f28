"""Jobs: outputs that are written as a whole, their record last, and whether they are done.

`skip_exist` believes records, shapes and checksums, never mere names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from cryolike_dask.errors import OutputError, times
from cryolike_dask.io.atomic import replacing, writing
from cryolike_dask.io.claims import Claim, differences
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.io.layout import STORE_SUFFIX, as_stored
from cryolike_dask.io.records import (
    FORMAT,
    About,
    FolderSettings,
    Record,
    checksum,
    other_names,
    readable_record,
)

NOTHING_THERE = "there are no results"
REPLACED = "what is there is replaced; skip_exist=True keeps what is complete"
KEPT = "%d of %d %s and kept; skip_exist=False computes them again"

Key = TypeVar("Key")

logger = logging.getLogger("cryolike_dask")


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
    # top down, and one by one: `parents=True` would make anew an output folder that was taken away
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
    record_there, structure = readable_record(job.record), job.about.get("structure")
    # those that were there before are gone by now
    if record_there is not None and record_there.get("structure") != structure:
        what = (
            f"was written meanwhile by another run, whose structure is "
            f"{record_there.get('structure')}, not {structure}"
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
    # last, for it reads all of the results
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
    for name, value_there, value_here in values:
        if value_there != value_here:
            return f"the {name} of the results is another: {value_there} there, {value_here} here"
    if record["settings"] != job.settings:
        both_settings = differences(record["settings"], job.settings) or "more of them there"
        return f"the settings of the results are others: {both_settings}"
    if record["inputs"] != job.inputs:
        return (
            f"the inputs of the results are others: {_other_inputs(record['inputs'], job.inputs)}"
        )
    if record["shape"] != list(job.shape):
        value_there, value_here = times(record["shape"]), times(job.shape)
        return f"the shape of the results is another: {value_there} there, {value_here} here"
    return ""


def _other_inputs(theirs: list[InputDescription], ours: list[InputDescription]) -> str:
    """Difference of inputs: of their names, or else of the first that is not the same."""
    if names := other_names(theirs, ours):
        return names
    for input_there, input_here in zip(theirs, ours, strict=False):
        if input_there != input_here:
            both_inputs = differences(input_there, input_here) or "another content there"
            return f"{input_here['name']}: {both_inputs}" if "name" in input_here else both_inputs
    return f"{len(theirs)} there, {len(ours)} here"


def job_states(
    jobs: Iterable[tuple[Key, Job]],
    *,
    skip_exist: bool,
    becomes: str,
    done: str,
    replaces: str = REPLACED,
    known: Collection[Key] = (),
) -> Iterator[tuple[Key, Job, bool]]:
    """Give each job with whether it is done, one after the other; the log says why others are not.

    Parameters
    ----------
    jobs : iterable of (key, Job)
    skip_exist : bool
        Otherwise none counts as done, whatever is there.
    becomes, done, replaces : str
        For the log: what happens to a job ("computed"), what those are that are done ("stacks are
        complete"), and that without `skip_exist` they are replaced.
    known : collection of Key
        Those that are known to be done, and were told of.
    """
    n_jobs = n_done = 0
    is_told = skip_exist
    for key, job in jobs:
        reason: str | None = NOTHING_THERE
        if skip_exist:
            reason = None if key in known else why_not_done(job)
        if reason not in (None, NOTHING_THERE):
            logger.info("%s is %s: %s", job.name, becomes, reason)
        n_jobs, n_done = n_jobs + 1, n_done + (reason is None)
        if not is_told and job.record.is_file():
            logger.info(replaces)
            is_told = True
        yield key, job, reason is None
    if n_done > len(known):
        logger.info(KEPT, n_done, n_jobs, done)
