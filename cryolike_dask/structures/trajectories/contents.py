"""What a trajectory file holds: how many frames of how many atoms; and the positions of one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.identity import refuse_changed, regular_file
from cryolike_dask.structures.trajectories.library import library, quiet, reading_by_library
from cryolike_dask.structures.trajectories.xdr import frame_offsets

XDR = {".xtc": "XTCFile", ".trr": "TRRFile"}
ANGSTROM = 10.0
"""In a nanometre, the unit of XTC and TRR files."""
UNREADABLE = "cannot be read as a trajectory: it is damaged, or not what its name says"

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Contents:
    """What a trajectory file holds.

    Attributes
    ----------
    n_frames : int
        Whole ones.
    n_atoms : int
    is_cut_off : bool
        Whether the file ends inside a frame.
    offsets : (frame,) int64 or None
        Where frames begin, where a file has to be hopped through to find them.
    """

    n_frames: int
    n_atoms: int
    is_cut_off: bool = False
    offsets: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class FramePlace:
    """Place of a frame in its file: small, for it travels with tasks.

    Attributes
    ----------
    path : str
        Absolute.
    frame : int
        From 0 on.
    offset : int or None
        Its first byte, where that is known.
    n_atoms : int
    size, mtime_ns : int
        Of the file when it was opened; a file that has changed since is refused.
    """

    path: str
    frame: int
    offset: int | None
    n_atoms: int
    size: int
    mtime_ns: int

    def read(self) -> tuple[FloatArray, FloatArray | None]:
        """Read the positions (atom, 3) and the box, whose rows are its edges; angstrom.

        Raises
        ------
        InputFileError
            If it is damaged, or the file has changed.
        """
        refuse_changed(self.path, self.size, self.mtime_ns)
        with reading_by_library(self.path, f"frame {self.frame:,} is damaged"):
            positions, box = self._in_xdr() if self.offset is not None else self._by_reader()
        if positions.shape != (self.n_atoms, 3):
            raise InputFileError(
                f"frame {self.frame:,} has {len(positions):,} atoms, but the topology has "
                f"{self.n_atoms:,}",
                source=self.path,
            )
        if not np.isfinite(positions).all():
            raise InputFileError(
                f"frame {self.frame:,} has coordinates that are not finite", source=self.path
            )
        return positions, box if box is not None and _is_box(box) else None

    def _in_xdr(self) -> tuple[FloatArray, FloatArray]:
        formats, suffix = (
            library("MDAnalysis.lib.formats.libmdaxdr"),
            Path(self.path).suffix.lower(),
        )
        if suffix == ".xtc":
            # it is compiled, by a package whose import takes longer than all others here
            from cryolike_dask.structures.trajectories.compressed import refuse_wrong_bits

            with open(self.path, "rb") as content:
                refuse_wrong_bits(content, self.offset or 0, self.n_atoms)
        with getattr(formats, XDR[suffix])(self.path) as file:
            file.set_offsets(np.array([0, self.offset], np.int64))
            file.seek(1)
            frame = file.read()
        return ANGSTROM * frame.x.astype(np.float64), ANGSTROM * frame.box.astype(np.float64)

    def _by_reader(self) -> tuple[FloatArray, FloatArray | None]:
        with quiet():
            frame = _reader(self.path, self.n_atoms, self.size, self.mtime_ns)[self.frame]
            box = frame.triclinic_dimensions
            return frame.positions.astype(np.float64), None if box is None else box.astype(float)


def contents_of(path: Path, n_atoms: int) -> Contents:
    """Look at a trajectory of so many atoms; no coordinates are kept, and nothing is written.

    Raises
    ------
    InputFileError
        If it is empty, damaged, not of the format of its name, or of other atoms.
    """
    path, suffix = regular_file(path), path.suffix.lower()
    if suffix in XDR:
        offsets, n, is_cut_off = frame_offsets(path, suffix)
        return Contents(len(offsets), n, is_cut_off, offsets)
    status = path.stat()
    if not status.st_size:
        raise InputFileError("is empty", source=path, remedy="Give a trajectory.")
    library()
    with reading_by_library(path, UNREADABLE), quiet():
        reader = _reader(str(path.absolute()), n_atoms, status.st_size, status.st_mtime_ns)
        return Contents(
            int(reader.n_frames), int(reader.n_atoms), suffix == ".dcd" and _is_cut_off(reader)
        )


def _is_cut_off(reader: Any) -> bool:
    """Whether a DCD file ends inside a frame."""
    file = reader._file
    size = Path(reader.filename).stat().st_size
    return bool((size - file._header_size - file._firstframesize) % file._framesize)


@lru_cache(maxsize=1)
def _reader(path: str, n_atoms: int, size: int, mtime_ns: int) -> Any:
    """The reader of the latest task of this process: some read the whole file when it is opened."""
    kind = library("MDAnalysis.core._get_readers").get_reader_for(path)
    reader = kind.__new__(kind)
    # one that cannot be made is closed all the same when it is forgotten, and fails in that too
    reader.close, reader._auxs = _nothing, {}
    reader.__init__(path, n_atoms=n_atoms)
    del reader.close
    return reader


def _nothing() -> None:
    """Close what was not opened."""


def _is_box(box: FloatArray) -> bool:
    return bool(np.isfinite(box).all() and abs(np.linalg.det(box)) > 1)
