"""A trajectory with its topology, and its frames as structures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError, counted
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.identity import regular_file
from cryolike_dask.io.kinds import TRAJECTORY_SUFFIXES
from cryolike_dask.structures.accounts import Account
from cryolike_dask.structures.b_factors import INSTEAD
from cryolike_dask.structures.superposing import Superposing
from cryolike_dask.structures.trajectories.choosing import Frames, chosen_frames
from cryolike_dask.structures.trajectories.contents import Contents, FramePlace, contents_of
from cryolike_dask.structures.trajectories.source import FrameInFile
from cryolike_dask.structures.trajectories.topology import TopologyFile
from cryolike_dask.structures.trajectories.whole import MOST_STRETCHED

MOST_FRAMES = 100_000
"""Structures that are made of frames at once: each takes a few kilobytes here, and all of its
templates or likelihoods later."""


@dataclass(frozen=True)
class Trajectory:
    """Frames of a simulation, each a structure.

    Parameters
    ----------
    path : path
        XTC, TRR, DCD, or what else MDAnalysis reads. It is neither written to nor beside.
    topology : path
        A PDB or mmCIF file, of which the first model is taken, or a topology that MDAnalysis reads
        (GRO, PSF, PRMTOP, TPR ...), of the same atoms in the same order.
    frames : int, slice, list of int, str or path, optional
        Which, counted from 0: `"0, 5, 10-20, 100-"`, or a text file of such numbers. Default: all.
    every : int
        Only the first of each so many of these.
    selection : str, optional
        Atoms, in the words of `atom_selection`, where the parameters select none.
    """

    path: str | Path
    topology: str | Path | None
    frames: Frames | None = None
    every: int = 1
    selection: str | None = None


@dataclass(frozen=True, eq=False)
class OpenTrajectory:
    """Open trajectory: which frames there are, and of what; no coordinates.

    Attributes
    ----------
    path : Path
    topology : TopologyFile
    contents : Contents
    frames : (frame,) int64
        Those that are chosen.
    size, mtime_ns : int
        Of the file as it is now.
    """

    path: Path
    topology: TopologyFile
    contents: Contents
    frames: NDArray[np.int64]
    size: int
    mtime_ns: int

    def place(self, frame: int) -> FramePlace:
        """Where a frame is."""
        offsets = self.contents.offsets
        return FramePlace(
            str(self.path.absolute()),
            frame,
            None if offsets is None else int(offsets[frame]),
            self.contents.n_atoms,
            self.size,
            self.mtime_ns,
        )


def open_trajectory(trajectory: Trajectory) -> OpenTrajectory:
    """Find the frames of a trajectory; the headers of XTC and TRR files are read, and nothing else.

    Raises
    ------
    InputError, InputFileError
        If a file is missing, damaged or cut off, frames are chosen that are not there, or the
        topology has another number of atoms.
    """
    path = regular_file(trajectory.path, "Check the name of the trajectory.")
    if trajectory.topology is None:
        raise InputFileError(
            "is a trajectory, which does not say what its atoms are",
            source=path,
            remedy="Give the topology, such as its PDB file: topology= (--topology).",
        )
    topology = TopologyFile.at(regular_file(trajectory.topology, "Check the name of the topology."))
    status = path.stat()
    model = topology.read().model
    contents = contents_of(path, len(model))
    if contents.n_atoms != len(model):
        left_out = f" ({model.n_alternates:,} alternates apart)" if model.n_alternates else ""
        raise InputFileError(
            f"has {contents.n_atoms:,} atoms, but its topology {topology.path} has "
            f"{len(model):,}{left_out}",
            source=path,
            remedy="Give the topology of just these atoms.",
        )
    if not contents.n_frames:
        raise InputFileError("has no frames", source=path, remedy="Copy it again.")
    try:
        frames = chosen_frames(
            trajectory.frames,
            trajectory.every,
            contents.n_frames,
            is_cut_off=contents.is_cut_off,
        )
    except InputFileError:
        raise
    except InputError as error:
        raise InputFileError(str(error), source=path) from error
    return OpenTrajectory(path, topology, contents, frames, status.st_size, status.st_mtime_ns)


def frames_as_structures(
    trajectory: Trajectory, superposing: Superposing
) -> Iterator[tuple[str, FrameInFile, Account]]:
    """End of the name, source and account of each frame.

    The first is read, so that a selection that finds nothing is told before anything runs; the
    others are too where they are superposed.
    """
    parameters = _parameters(trajectory, superposing.parameters)
    opened = open_trajectory(trajectory)
    path, n = opened.path, len(opened.frames)
    if n > MOST_FRAMES:
        raise InputFileError(
            f"gives {n:,} structures",
            source=path,
            remedy=f"Take fewer, up to {MOST_FRAMES:,}: every= (--every), or those that `subset` "
            f"chooses.",
        )
    account = None
    for frame in opened.frames.tolist():
        source, placement = FrameInFile(opened.place(frame), opened.topology, parameters), None
        if account is None or parameters.superpose is not None:
            model = source.model()
            try:
                placement, found = superposing.account(model, path, parameters)
            except InputFileError:
                raise
            except InputError as error:
                raise InputFileError(f"frame {frame:,}: {error}", source=path) from error
            if account is None:
                refuse_other_atoms(opened, model.position_angstrom)
                found = replace(found, notes=(*found.notes, *_notes(source, opened)))
            account = found
        yield name_of_frame("", frame), replace(source, placement=placement), account
        account = replace(account, diameter_angstrom=None)


def name_of_frame(base: str, frame: int) -> str:
    """The name of a frame as a structure."""
    return f"{base}_frame_{frame:06d}"


def with_topology(
    structures: Any,
    topology: str | Path | None,
    frames: Frames | None = None,
    every: int = 1,
    selection: str | None = None,
) -> Any:
    """Structures, the trajectories among which have this topology, and frames chosen.

    Raises
    ------
    InputError
        If something is said of trajectories, and there are none.
    """
    told = (topology, frames, selection) != (None, None, None) or every != 1
    single = isinstance(structures, (str, Path, Trajectory)) or not isinstance(structures, Iterable)
    listed = [structures] if single or hasattr(structures, "shape") else list(structures)
    are = [isinstance(x, (str, Path)) and is_trajectory(Path(x)) for x in listed]
    if told and not any(are):
        raise InputError(
            "topology, frames, every and selection (--topology, --frames, --every) are of "
            "trajectories, and there are none among the structures",
            remedy=f"Trajectories are {', '.join(TRAJECTORY_SUFFIXES)} files.",
        )
    if not any(are):
        return structures if single or hasattr(structures, "shape") else listed
    return [
        Trajectory(x, topology, frames, every, selection) if is_one else x
        for x, is_one in zip(listed, are, strict=True)
    ]


def is_trajectory(path: Path) -> bool:
    """Whether a name is that of a trajectory."""
    return path.suffix.lower() in TRAJECTORY_SUFFIXES and not os.path.isdir(path)


def _parameters(trajectory: Trajectory, parameters: ImageParameters) -> ImageParameters:
    """How atoms are made of frames."""
    if parameters.atomic_b == "file":
        raise InputFileError(
            "is a trajectory, which has no B-factors: atomic_b='file' is of no use for it",
            source=trajectory.path,
            remedy=INSTEAD,
        )
    if trajectory.selection is None:
        return parameters
    if parameters.atom_selection not in (None, trajectory.selection):
        raise InputError(
            f"selection={trajectory.selection!r}, but the parameters say "
            f"atom_selection={parameters.atom_selection!r}",
            remedy="Give one of them.",
        )
    return replace(parameters, atom_selection=trajectory.selection)


def refuse_other_atoms(opened: OpenTrajectory, positions: NDArray[np.float64]) -> None:
    """Refuse a topology of as many, but other atoms: its bonds are none in the frames.

    Raises
    ------
    InputFileError
    """
    stretched = opened.topology.read().links.stretched(positions)
    if stretched > MOST_STRETCHED:
        raise InputFileError(
            f"in frame {opened.frames[0]:,}, {stretched:.0%} of the atoms are far from the "
            f"neighbours that they have in its topology {opened.topology.path}",
            source=opened.path,
            remedy="Give the topology of these very atoms, in their order.",
        )


def _notes(source: FrameInFile, opened: OpenTrajectory) -> tuple[str, ...]:
    contents, notes = opened.contents, []
    notes.append(
        f"{counted(len(opened.frames), 'frame')} of {contents.n_frames:,} are taken; the first was "
        f"looked at, the others are read when they are needed"
    )
    if contents.is_cut_off:
        notes.append(f"is cut off inside frame {contents.n_frames:,}")
    if source.place.read()[1] is not None:
        n_apart = source.topology.read().links.n_apart
        apart = (
            f"; its {n_apart} parts that are apart there keep their places" if n_apart > 1 else ""
        )
        notes.append(f"periodic images are made whole as {source.topology.path} has them{apart}")
    return tuple(notes)
