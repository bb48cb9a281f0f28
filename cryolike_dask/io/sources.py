"""Sources of the rows of stacks: descriptors small enough to travel with every task."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.identity import InputDescription, describe_file
from cryolike_dask.io.layout import metadata_file
from cryolike_dask.io.noise_entries import read_rings
from cryolike_dask.io.tensors import TensorFile

if TYPE_CHECKING:
    import torch


class ArraySource(Protocol):
    """Source of the rows of a three-dimensional complex array; small enough to travel with every
    task."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that say what it is, for attributes of results."""

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy rows into memory."""

    @property
    def knows_rings(self) -> bool:
        """Whether `rings` tells them."""

    def rings(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Sums over the rings of images, (row, 2, shell), on more angles than the grid has: of
        |F|^2 weight, and of Re conj(s) F weight with the exact transform s of the box. None where
        they are not known; sums over the rows themselves then take their place."""

    def locate(self, row: int) -> tuple[str, int]:
        """The file of a row, and its position there."""

    def describe(self, rows: NDArray[np.int64]) -> list[InputDescription]:
        """Describe the inputs of rows for completion records: files by name, size and time, arrays
        by checksum."""

    def subset(self, rows: NDArray[np.int64]) -> ArraySource:
        """These rows as a source, which carries what these rows need and no more."""


class OnDevice(NamedTuple):
    """Rows that were made on a device: complex half rings, (row, shell, W/2), and the sums of
    `ArraySource.rings`, float64."""

    half_rings: torch.Tensor
    ring_sums: torch.Tensor | None


@runtime_checkable
class MadeOnDevice(Protocol):
    """An `ArraySource` whose rows need not be made on the host."""

    def take_on(self, rows: NDArray[np.int64], device: torch.device) -> OnDevice | None:
        """Make rows on a device; None where they are read, or made on the host as fast."""


def on_device(
    source: ArraySource, rows: NDArray[np.int64], device: torch.device
) -> OnDevice | None:
    """Rows that their source makes on a device; None where they are to be taken and sent there."""
    return source.take_on(rows, device) if isinstance(source, MadeOnDevice) else None


@dataclass(frozen=True)
class Files:
    """The rows of several tensor files, one after the other.

    Attributes
    ----------
    parts : tuple of TensorFile
    knows_rings : bool
        The `.npz` files beside all of them hold sums over the rings of images.
    """

    parts: tuple[TensorFile, ...]
    knows_rings: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, shell, angle)."""
        return (sum(p.shape[0] for p in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> str:
        """The widest type of the files."""
        return str(np.result_type(*(p.dtype for p in self.parts)))

    @property
    def paths(self) -> tuple[str, ...]:
        """Each file."""
        return tuple(part.path for part in self.parts)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy rows into memory, reading each file once."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for part, rows_here, row_in_part in self.by_part(rows):
            values[rows_here] = part.take(row_in_part)
        return values

    def rings(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """What the `.npz` files say; None unless all of them say it.

        Raises
        ------
        InputFileError
            If one of them is damaged.
        """
        if not self.knows_rings:
            return None
        n_shells = self.shape[1]
        rings = np.empty((len(rows), 2, n_shells))
        for part, rows_here, row_in_part in self.by_part(rows):
            metadata = metadata_file(Path(part.path))
            rings[rows_here] = read_rings(metadata, part.shape[0], n_shells)[row_in_part]
        return rings

    def by_part(
        self, rows: NDArray[np.int64]
    ) -> Iterator[tuple[TensorFile, NDArray[np.bool_], NDArray[np.int64]]]:
        """Each part that holds some of the rows, with which of them, and their positions there."""
        part_of_row, row_in_part = self._places(rows)
        for i in np.unique(part_of_row):
            rows_here = part_of_row == i
            yield self.parts[i], rows_here, row_in_part[rows_here]

    def locate(self, row: int) -> tuple[str, int]:
        """The file of a row, and its position there."""
        for part in self.parts:
            if row < part.shape[0]:
                return part.path, row
            row -= part.shape[0]
        raise IndexError(row)

    def describe(self, rows: NDArray[np.int64]) -> list[InputDescription]:
        """The files of rows, as they were when they were opened, and the `.npz` files beside
        them."""
        described: list[InputDescription] = []
        for part in (self.parts[i] for i in np.unique(self._places(rows)[0])):
            path = Path(part.path)
            described.append({"name": path.name, "size": part.size, "mtime_ns": part.mtime_ns})
            with suppress(InputFileError):  # CryoLike's templates have none
                described.append(describe_file(metadata_file(path)))
        return described

    def subset(self, rows: NDArray[np.int64]) -> ArraySource:
        """These rows, of the files that hold them."""
        part_of_row, row_in_part = self._places(rows)
        used, number = np.unique(part_of_row, return_inverse=True)
        kept_files = Files(tuple(self.parts[i] for i in used), self.knows_rings)
        return Subset(kept_files, kept_files._starts[number] + row_in_part)

    @property
    def _starts(self) -> NDArray[np.int64]:
        """The first row of each part."""
        sizes = [part.shape[0] for part in self.parts]
        return np.cumsum([0, *sizes[:-1]])

    def _places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The part that each row is in, and its position there."""
        part_of_row = np.searchsorted(self._starts, rows, side="right") - 1
        return part_of_row, rows - self._starts[part_of_row]


@dataclass(frozen=True, eq=False)
class InMemory:
    """The rows of an array in memory. It travels with the tasks: meant for small data, tests and
    notebooks."""

    values: NDArray[Any]
    ring_sums: NDArray[np.float64] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, shell, angle)."""
        return self.values.shape

    @property
    def dtype(self) -> str:
        """numpy's name."""
        return str(self.values.dtype)

    @property
    def paths(self) -> tuple[str, ...]:
        """A phrase, for there is no file."""
        return ("array in memory",)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy rows."""
        return self.values[rows]

    @property
    def knows_rings(self) -> bool:
        """Whether they are given."""
        return self.ring_sums is not None

    def rings(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """As they were given with the array."""
        return None if self.ring_sums is None else self.ring_sums[rows]

    def locate(self, row: int) -> tuple[str, int]:
        """A phrase, for there is no file; and the position."""
        return "array in memory", row

    def describe(self, rows: NDArray[np.int64]) -> list[InputDescription]:
        """The checksum of the rows."""
        return [describe_array("array in memory", self.values[rows])]

    def subset(self, rows: NDArray[np.int64]) -> ArraySource:
        """A copy of these rows."""
        return InMemory(self.values[rows], self.rings(rows))


@dataclass(frozen=True, eq=False)
class Subset:
    """Some rows of another source."""

    source: ArraySource
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, shell, angle)."""
        return (len(self.rows), *self.source.shape[1:])

    @property
    def dtype(self) -> str:
        """Type of the other source."""
        return self.source.dtype

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of the other source."""
        return self.source.paths

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy rows into memory."""
        return self.source.take(self.rows[rows])

    def take_on(self, rows: NDArray[np.int64], device: torch.device) -> OnDevice | None:
        """Make rows where the other source makes them."""
        return on_device(self.source, self.rows[rows], device)

    @property
    def knows_rings(self) -> bool:
        """Whether the other source does."""
        return self.source.knows_rings

    def rings(self, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
        """Those of the other source."""
        return self.source.rings(self.rows[rows])

    def locate(self, row: int) -> tuple[str, int]:
        """The file of a row, and its position there."""
        return self.source.locate(int(self.rows[row]))

    def describe(self, rows: NDArray[np.int64]) -> list[InputDescription]:
        """Describe these rows as the other source does, and say which they are."""
        chosen = self.rows[rows]
        if np.array_equal(chosen, np.arange(self.source.shape[0])):
            return self.source.describe(chosen)
        return [*self.source.describe(chosen), describe_array("rows", chosen)]

    def subset(self, rows: NDArray[np.int64]) -> ArraySource:
        """These rows of the other source."""
        return self.source.subset(self.rows[rows])


def evenly_spread(n: int, most: int) -> NDArray[np.int64]:
    """Positions of at most so many of `n` rows, the first and the last among them."""
    positions: NDArray[np.int64] = np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)
    return positions


def innermost(source: ArraySource) -> ArraySource:
    """The source that a subset is of, in the end."""
    return innermost(source.source) if isinstance(source, Subset) else source


def describe_array(name: str, values: NDArray[Any]) -> InputDescription:
    """Name, shape and checksum of an array."""
    return {
        "name": name,
        "shape": list(values.shape),
        "sha256": hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest(),
    }


@dataclass(frozen=True)
class _Sliceable:
    """A source as `dask.array.from_array` needs it."""

    source: ArraySource

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.source.dtype)

    @property
    def ndim(self) -> int:
        return len(self.source.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        rows = np.arange(self.shape[0])[first]
        return self.source.take(np.atleast_1d(rows))[(slice(None), *rest)]


def lazy_array(source: ArraySource, chunks: tuple[int, ...], name: str) -> da.Array:
    """Give a source as a Dask array, chunked along its first axis."""
    array = _Sliceable(source)
    token = f"{name}-{da.core.tokenize(source, chunks)}"
    meta = np.empty((0,) * array.ndim, array.dtype)
    return da.from_array(
        array, chunks=(chunks, *source.shape[1:]), name=token, meta=meta, asarray=False
    )
