"""How far frames are from each other: by their atoms, superposed, or by a table of features."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.io.identity import reading
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.selection import selected
from cryolike_dask.structures.solvent import Kinds
from cryolike_dask.structures.trajectories.source import model_of_frame
from cryolike_dask.structures.trajectories.trajectory import OpenTrajectory, refuse_other_atoms

BYTES_AT_ONCE = 2**25
"""Of coordinates in double precision."""
MOST_BYTES = 2**30
"""Of a table of features."""
FEWEST = 3
"""Atoms that can be superposed."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Measure(Protocol):
    """Frames as points, and how far they are from others."""

    @property
    def unit(self) -> str:
        """Of distances."""

    def __len__(self) -> int: ...

    def point(self, frame: int) -> FloatArray:
        """A frame, by its position among these."""

    def distances(self, point: FloatArray) -> FloatArray:
        """How far each frame is from a point."""

    def mean(self, frames: IntArray, near: FloatArray) -> FloatArray:
        """The mean of some frames, all beside a point that is near to them."""


@dataclass(frozen=True, eq=False)
class Superposed:
    """Frames by the root of the mean square distance of atoms, after they are superposed.

    Attributes
    ----------
    positions : (frame, atom, 3) float32
        About their means. In a file without a name, not in memory: the system keeps what it can.
    square : (frame,) float64
        Sums of squares of these.
    """

    positions: NDArray[np.float32]
    square: FloatArray
    unit: str = "angstrom"

    def __len__(self) -> int:
        return len(self.positions)

    def point(self, frame: int) -> FloatArray:
        """The atoms of a frame."""
        point: FloatArray = self.positions[frame].astype(np.float64)
        return point

    def distances(self, point: FloatArray) -> FloatArray:
        """By the singular values of covariances (Kabsch), without turning anything."""
        found = np.empty(len(self))
        for rows in _parts(len(self), point.nbytes):
            covariance = np.swapaxes(self.positions[rows].astype(np.float64), 1, 2) @ point
            values = np.linalg.svd(covariance, compute_uv=False)
            values[:, 2] *= np.sign(np.linalg.det(covariance))
            square = self.square[rows] + np.sum(point**2) - 2 * values.sum(axis=1)
            found[rows] = np.sqrt(np.maximum(square, 0) / len(point))
        return found

    def mean(self, frames: IntArray, near: FloatArray) -> FloatArray:
        """The mean of the atoms of some frames, superposed on a point."""
        total = np.zeros_like(near)
        for rows in _parts(len(frames), near.nbytes):
            positions = self.positions[frames[rows]].astype(np.float64)
            left, _, right = np.linalg.svd(near.T @ positions)
            left[:, :, 2] *= np.linalg.det(left @ right)[:, None]
            total += (positions @ np.swapaxes(left @ right, 1, 2)).sum(axis=0)
        return total / len(frames)


@dataclass(frozen=True, eq=False)
class Features:
    """Frames by columns of a table, each over its standard deviation.

    Attributes
    ----------
    values : (frame, feature) float64
    """

    values: FloatArray
    unit: str = "standard deviations"

    def __len__(self) -> int:
        return len(self.values)

    def point(self, frame: int) -> FloatArray:
        """The features of a frame."""
        point: FloatArray = self.values[frame]
        return point

    def distances(self, point: FloatArray) -> FloatArray:
        """Root of the sum of squares."""
        square: FloatArray = np.sqrt(((self.values - point) ** 2).sum(axis=1))
        return square

    def mean(self, frames: IntArray, near: FloatArray) -> FloatArray:
        """The mean of the features of some frames."""
        mean: FloatArray = self.values[frames].mean(axis=0)
        return mean


def superposed_atoms(trajectory: OpenTrajectory, selection: str | None, folder: Path) -> Superposed:
    """Read the frames of a trajectory, each once.

    Parameters
    ----------
    trajectory : OpenTrajectory
    selection : str or None
        Atoms that are superposed; None: those that are named CA, or, where there are fewer than
        three of them, all but hydrogens, waters and ions.
    folder : Path
        Where the file of coordinates is made; it has no name, and is gone with the process.

    Raises
    ------
    InputError, InputFileError
        If too few atoms are selected, or a frame is damaged.
    """
    rows = _atoms(trajectory.topology.read().model, selection)
    shape = (len(trajectory.frames), len(rows), 3)
    positions = _on_disk(folder, shape)
    square = np.empty(len(positions))
    for k, frame in enumerate(trajectory.frames.tolist()):
        model = model_of_frame(trajectory.place(frame), trajectory.topology)
        if k == 0:
            refuse_other_atoms(trajectory, model.position_angstrom)
        chosen = model.position_angstrom[rows]
        positions[k] = chosen - chosen.mean(axis=0)
        square[k] = np.sum(positions[k].astype(np.float64) ** 2)
    return Superposed(positions, square)


def features_in(path: str | Path, frames: IntArray, n_frames: int) -> Features:
    """Read a table of features: a line for each frame, numbers apart by commas or blanks; a line of
    names may be above.

    Parameters
    ----------
    path : path
    frames : (frame,) int
        That are chosen; the table has a line for each, or for each of all.
    n_frames : int
        That there are.

    Raises
    ------
    InputFileError
    """
    with reading(path, "Check the name of the table of features.") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InputFileError(f"has more than {MOST_BYTES:,} bytes", source=path)
    lines = [
        line.replace(",", " ")
        for line in content.decode("utf-8-sig", "replace").splitlines()
        if line.partition("#")[0].strip()
    ]
    if lines and not _are_numbers(lines[0]):
        del lines[0]
    try:
        values = np.loadtxt(lines, ndmin=2) if lines else np.empty((0, 0))
    except ValueError as error:
        reason = str(error)[:200]
        raise InputFileError(f"is not a table of numbers ({reason})", source=path) from error
    if len(values) not in (n_frames, len(frames)):
        raise InputFileError(
            f"has {len(values):,} lines, but there are {n_frames:,} frames, of which "
            f"{len(frames):,} are chosen",
            source=path,
            remedy="Give a line for each frame.",
        )
    values = values if len(values) == len(frames) else values[frames]
    if not np.isfinite(values).all():
        raise InputFileError("has values that are not finite", source=path)
    spread = values.std(axis=0)
    return Features(values / np.where(spread > 0, spread, 1))


def _are_numbers(line: str) -> bool:
    try:
        np.array(line.partition("#")[0].split(), np.float64)
    except ValueError:
        return False
    return True


def _on_disk(folder: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array in a file without a name, whose place on the disk is taken at once: later there
    would be no saying that it is full."""
    n_bytes = math.prod(shape) * np.dtype(np.float32).itemsize
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            return np.memmap(file, np.float32, "w+", shape=shape)
    except OSError as error:
        raise OutputError(
            f"cannot take {n_bytes / 1e9:.3g} GB of coordinates: {error.strerror or error}",
            source=folder,
            remedy="Select fewer atoms (--selection), or fewer frames (--every).",
        ) from error


def _atoms(model: Model, selection: str | None) -> IntArray:
    kinds = Kinds.of(model)
    if selection is not None:
        rows = np.flatnonzero(selected(model, selection))
    else:
        heavy = (model.element != 1) & ~kinds.water & ~kinds.ion
        alpha = heavy & (model.name == "CA")
        rows = np.flatnonzero(alpha if alpha.sum() >= FEWEST else heavy)
    if len(rows) < FEWEST:
        raise InputError(
            f"{len(rows)} atom(s) are selected, of which frames cannot be superposed",
            remedy=f"Look at selection={selection!r} (--selection).",
        )
    return rows


def _parts(n: int, n_bytes: int) -> Iterator[slice]:
    step = max(1, BYTES_AT_ONCE // n_bytes)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
