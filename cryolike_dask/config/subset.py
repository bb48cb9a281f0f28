"""The frames of a trajectory that a run compares: chosen once, and kept with its results."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryolike_dask.config.inputs import Subset
from cryolike_dask.config.model import RunConfig
from cryolike_dask.errors import InputFileError, OutputError, counted
from cryolike_dask.io.atomic import read_own, replacing
from cryolike_dask.io.claims import differences
from cryolike_dask.io.export_names import ASSIGNMENT, COUNTS, FRAMES, SUBSET, SUBSET_RECORD
from cryolike_dask.io.identity import describe_file
from cryolike_dask.io.records import checksum
from cryolike_dask.runs.capacity import existing
from cryolike_dask.structures.trajectories.subset import (
    FrameSubset,
    choose_subset,
    files_of,
    refuse_subset,
    write_subset,
)
from cryolike_dask.structures.trajectories.trajectory import Trajectory, open_trajectory

MOST_BYTES = 2**20
"""Of the record."""
REMEDY = (
    "Choose another output folder, or pass --overwrite (machine.overwrite) to replace those "
    "results."
)

logger = logging.getLogger("cryolike_dask")

Record = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ChosenSubset:
    """Frames that stand for all of a trajectory, for one run.

    Attributes
    ----------
    frames : tuple of int
        Their numbers.
    folder : Path
        Where their files are, or will be.
    to_write : FrameSubset or None
        None: the files are there.
    record : mapping
        How they were chosen, and of what; JSON.
    """

    frames: tuple[int, ...]
    folder: Path
    to_write: FrameSubset | None
    record: Record

    @property
    def counts(self) -> Path:
        """For how many frames each stands."""
        return self.folder / COUNTS

    def keep(self) -> None:
        """Write what is not there yet.

        The record comes first, with the checksums of the files: where they are not those, a run
        was killed meanwhile, and they are written again.
        """
        if self.to_write is None:
            return
        content = files_of(self.to_write)
        files = {name: hashlib.sha256(text).hexdigest() for name, text in content.items()}
        with replacing(self.folder / SUBSET_RECORD) as file:
            file.write(json.dumps({**self.record, "files": files}, indent=1).encode())
        write_subset(self.to_write, self.folder, overwrite=True)


def chosen_subset(config: RunConfig) -> ChosenSubset | None:
    """Choose frames as a configuration asks for it, or take those that its output folder has.
    Nothing is written.

    Returns
    -------
    ChosenSubset or None
        None: none is asked for.

    Raises
    ------
    InputError, InputFileError
        As for `choose_subset`.
    OutputError
        If the output folder has a subset that was chosen otherwise, and may not be overwritten.
    """
    asked = config.structures.subset
    if asked is None:
        return None
    folder, replaces = config.output / SUBSET, config.machine.overwrite
    trajectory, record = _asked(config, asked)
    there = _record_in(folder)
    if there is None:
        refuse_subset(folder, overwrite=replaces)
    elif other := differences(there["subset"], record["subset"]):
        if not replaces:
            raise OutputError(
                f"holds results of another subset ({SUBSET}/{SUBSET_RECORD}): {other}",
                source=config.output,
                remedy=REMEDY,
            )
    elif there["made_from"] == record["made_from"]:
        frames = _frames_in(folder, there["files"])
        if frames is not None:
            return ChosenSubset(frames, folder, None, record)
    n_frames = counted(record["subset"]["frames"]["number"], "frame")
    logger.info("choosing %s of %s, each of which is read", asked.n, n_frames)
    found = choose_subset(
        trajectory, asked.n, by=asked.by, method=asked.method, folder=existing(config.output)
    )
    n = len(found.chosen)
    if n < asked.n:
        logger.warning("%s chosen instead of %d: no more differ", counted(n, "frame"), asked.n)
    return ChosenSubset(tuple(found.chosen.tolist()), folder, found, record)


def subset_in_words(config: RunConfig) -> str:
    """Say which frames a configuration asks for; empty: it asks for no subset."""
    asked, files = config.structures.subset, config.structures.files
    if asked is None or files is None:
        return ""
    of = asked.by.name if isinstance(asked.by, Path) else asked.by
    return f"{counted(asked.n, 'frame')} of {files[0].name} ({asked.method}, by {of})"


def _asked(config: RunConfig, asked: Subset) -> tuple[Trajectory, Record]:
    """The trajectory, and how frames of it are chosen."""
    structures = config.structures
    trajectory = Trajectory(
        (structures.files or ())[0],
        structures.topology,
        structures.frames,
        structures.every,
        asked.selection,
    )
    opened = open_trajectory(trajectory)
    features = asked.by if isinstance(asked.by, Path) else None
    frames = {
        "number": len(opened.frames),
        "sha256": hashlib.sha256(opened.frames.tobytes()).hexdigest(),
    }
    how = {
        "n": asked.n,
        "method": asked.method,
        "by": asked.by if features is None else features.name,
        "selection": asked.selection,
        "frames": frames,
        "trajectory": opened.path.name,
        "topology": Path(opened.topology.path).name,
    }
    files = [opened.path, Path(opened.topology.path), *([] if features is None else [features])]
    return trajectory, {"subset": how, "made_from": [describe_file(path) for path in files]}


def _record_in(folder: Path) -> Record | None:
    """How the subset of a folder was chosen; None if that is not said."""
    path = folder / SUBSET_RECORD
    try:
        record = json.loads(read_own(path, MOST_BYTES) or b"null")
        if not isinstance(record, dict):
            return None
        kinds = {"subset": dict, "made_from": list, "files": dict}
        are = [isinstance(record.get(key), kind) for key, kind in kinds.items()]
        return record if all(are) else None
    except (InputFileError, ValueError, RecursionError):
        return None


def _frames_in(folder: Path, checksums: Mapping[str, object]) -> tuple[int, ...] | None:
    """The frames of a folder; None if its files are not those that were written."""
    for name in (FRAMES, COUNTS, ASSIGNMENT):
        path = folder / name
        if not path.is_file() or checksum(path) != checksums.get(name):
            return None
    try:
        return tuple(map(int, (folder / FRAMES).read_text().split()))
    except ValueError:  # the record was edited, too
        return None
