"""A subset of the frames of a trajectory, which stand for all; and its files."""

from __future__ import annotations

import csv
import io
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError, OutputError, number
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.export_names import ASSIGNMENT, COUNTS, FRAMES
from cryolike_dask.io.identity import reading
from cryolike_dask.labels import SubsetMethod
from cryolike_dask.structures.naming import stem_of
from cryolike_dask.structures.trajectories.measures import Measure, features_in, superposed_atoms
from cryolike_dask.structures.trajectories.representatives import clusters, farthest_points
from cryolike_dask.structures.trajectories.trajectory import (
    Trajectory,
    name_of_frame,
    open_trajectory,
)

METHODS = {"farthest": farthest_points, "clusters": clusters}
HEAD = ["frame", "structure", "distance"]
MOST_BYTES = 2**31
"""Of an assignment: of forty million frames."""

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class FrameAssignment:
    """Frames of a trajectory, and the structures that stand for them.

    Attributes
    ----------
    structures : (structure,) str
        Names of those that are chosen, as `open_structures` gives them.
    frames : (frame,) int64
        Numbers of all frames that were looked at.
    assignment : (frame,) int64
        Which of the structures each frame is nearest to.
    distance : (frame,) float64
        How far each is from it, in `unit`.
    unit : str
        "angstrom", or "standard deviations" of features; "" if that is not known.
    """

    structures: NDArray[np.str_]
    frames: IntArray
    assignment: IntArray
    distance: NDArray[np.float64]
    unit: str

    @property
    def counts(self) -> IntArray:
        """How many frames each structure stands for, itself included, (structure,)."""
        return np.bincount(self.assignment, minlength=len(self.structures))

    def __repr__(self) -> str:
        n, of = len(self.structures), len(self.frames)
        return f"<{type(self).__name__}: {n:,} structures for {of:,} frames>"


@dataclass(frozen=True, eq=False, repr=False)
class FrameSubset(FrameAssignment):
    """Frames of a trajectory that were chosen to stand for all.

    Attributes
    ----------
    chosen : (structure,) int64
        Their numbers in the trajectory.
    """

    chosen: IntArray


def choose_subset(
    trajectory: Trajectory,
    n: int,
    *,
    by: str | Path = "rmsd",
    method: SubsetMethod = "farthest",
    folder: str | Path | None = None,
) -> FrameSubset:
    """Choose frames that stand for all frames of a trajectory.

    Each frame is read once, and compared with each that is chosen: time grows with the product of
    their numbers, memory by some numbers for each.

    Parameters
    ----------
    trajectory : Trajectory
        Its `selection` says by which atoms frames are superposed; default: those named CA, or all
        but hydrogens, waters and ions where there are fewer than three.
    n : int
        How many; fewer are chosen if there are not so many frames that differ.
    by : "rmsd" or path
        The root of the mean square distance of atoms, after the best superposition; or a table of
        features in a text file, a line for each frame, each column of which is divided by its
        standard deviation.
    method : "farthest" | "clusters"
        Frames that are as far from each other as can be, which finds the rare ones; or in the
        middles of clusters, which follow the density.
    folder : path, optional
        Where a file of coordinates lies meanwhile, 12 bytes for each atom that is selected in each
        frame. Default: the folder of temporary files.

    Returns
    -------
    FrameSubset

    Raises
    ------
    InputError, InputFileError
        As for `open_structures`; if n is larger than the number of frames, or the table is not one
        of these frames.
    """
    n = number("n", n, whole=True, at_least=1)
    if method not in METHODS:
        raise InputError(f"method={method!r} is neither {' nor '.join(METHODS)}")
    if not isinstance(trajectory, Trajectory):
        raise InputError(
            f"a {type(trajectory).__name__} is no trajectory",
            remedy="Give Trajectory(path, topology).",
        )
    opened = open_trajectory(trajectory)
    if n > len(opened.frames):
        raise InputFileError(
            f"n={n:,}, but {len(opened.frames):,} frames are chosen", source=opened.path
        )
    if by == "rmsd":
        where = Path(tempfile.gettempdir() if folder is None else folder)
        measure: Measure = superposed_atoms(opened, trajectory.selection, where)
    else:
        measure = features_in(by, opened.frames, opened.contents.n_frames)
    found = METHODS[method](measure, n)
    order = np.argsort(opened.frames[found.chosen], kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    chosen = opened.frames[found.chosen[order]]
    names = [name_of_frame(stem_of(opened.path), frame) for frame in chosen.tolist()]
    return FrameSubset(
        np.array(names, np.str_),
        opened.frames,
        place[found.assignment],
        found.distance,
        measure.unit,
        chosen,
    )


def write_subset(
    subset: FrameSubset, folder_output: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """Write a subset as text.

    Parameters
    ----------
    subset : FrameSubset
    folder_output : path
        Gets `frames.txt`, which `frames=` (`--frames`) takes; `counts.txt`, a name and a number of
        frames a line; and `assignment.csv`, frame, structure and distance, which `read_assignment`
        reads.
    overwrite : bool
        Replace these files.

    Returns
    -------
    list of Path

    Raises
    ------
    OutputError
        If one of them is there, or the disk does not take it.
    """
    folder = Path(folder_output)
    contents = files_of(subset)
    refuse_subset(folder, overwrite=overwrite)
    for name, content in contents.items():
        with replacing(folder / name) as file:
            file.write(content)
    return [folder / name for name in contents]


def files_of(subset: FrameSubset) -> dict[str, bytes]:
    """The files of a subset, by name."""
    counts = zip(subset.structures.tolist(), subset.counts.tolist(), strict=True)
    return {
        FRAMES: "".join(f"{frame}\n" for frame in subset.chosen.tolist()).encode(),
        COUNTS: "".join(f"{name} {n}\n" for name, n in counts).encode(),
        ASSIGNMENT: _table(subset).encode(),
    }


def refuse_subset(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds a subset already, unless it may be replaced.

    Raises
    ------
    OutputError
    """
    there = [folder / name for name in (FRAMES, COUNTS, ASSIGNMENT) if (folder / name).exists()]
    if there and not overwrite:
        raise OutputError(
            "is there already",
            source=there[0],
            remedy="Choose another output folder, or pass overwrite=True (--overwrite).",
        )


def read_assignment(path: str | Path) -> FrameAssignment:
    """Read which frame of a trajectory is assigned to which structure.

    Parameters
    ----------
    path : path
        `assignment.csv`, or the folder that holds it; a table of your own with the columns frame
        and structure will do, and distance if it is known.

    Returns
    -------
    FrameAssignment

    Raises
    ------
    InputFileError
        If it is missing, no such table, or names a frame twice.
    """
    path = Path(path) / ASSIGNMENT if Path(path).is_dir() else Path(path)
    with reading(path, "Give what `subset` writes.") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES or b"\0" in content:
        raise InputFileError("is no table of frames", source=path)
    rows = csv.reader(io.StringIO(content.decode("utf-8-sig", "replace")))
    head = [name.strip() for name in next(rows, [])]
    if not {*HEAD[:2]} <= {*head}:
        raise InputFileError(
            "has no columns frame and structure",
            source=path,
            remedy="Write their names in the first line.",
        )
    try:
        frames, assignment, distances, names = _columns(rows, head)
    except (ValueError, IndexError, OverflowError, csv.Error) as error:
        reason = str(error)[:200]
        raise InputFileError(f"is no table of frames ({reason})", source=path) from error
    values, count = np.unique(frames, return_counts=True)
    if len(values) < len(frames) or values[0] < 0:
        wrong = values[count > 1][0] if len(values) < len(frames) else values[0]
        what = "more than once" if len(values) < len(frames) else ", and they are counted from 0"
        raise InputFileError(f"names frame {wrong:,} {what}", source=path)
    return FrameAssignment(np.array(names, np.str_), frames, assignment, distances, "")


def _columns(
    rows: Iterator[list[str]], head: list[str]
) -> tuple[IntArray, IntArray, NDArray[np.float64], list[str]]:
    """Frames, which name each has, distances, and the names; row by row, for text takes many times
    the memory of numbers."""
    frames, assignment, distances = array("q"), array("q"), array("d")
    names: dict[str, int] = {}
    of_frame, of_structure = head.index(HEAD[0]), head.index(HEAD[1])
    of_distance = head.index(HEAD[2]) if HEAD[2] in head else None
    for row in rows:
        if row:
            frames.append(int(row[of_frame]))
            assignment.append(names.setdefault(row[of_structure].strip(), len(names)))
            distances.append(0.0 if of_distance is None else float(row[of_distance]))
    if not frames:
        raise ValueError("it is empty")
    arrays = np.array(frames, np.int64), np.array(assignment, np.int64), np.array(distances)
    return *arrays, list(names)


def _table(subset: FrameSubset) -> str:
    names = subset.structures[subset.assignment].tolist()
    lines = zip(subset.frames.tolist(), names, subset.distance.tolist(), strict=True)
    return f"{','.join(HEAD)}\n" + "".join(f"{f},{name},{d:.6g}\n" for f, name, d in lines)
