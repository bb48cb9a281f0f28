"""A tensor where it stands in its file: what its pickle says is held against what is there,
nothing is unpickled."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.pickles import RECONSTRUCT, Call, Name, Reference, parse_pickle
from cryolike_dask.io.zips import Zip, open_zip

REMEDY = "Make the file again, or check that it is the right one."

LONGEST_HEADER, LONGEST_PICKLE = 2**16, 2**22
"""Bytes of the pickle of a tensor, whose values stand beside it, and of that of CryoLike's
displacements."""

AT_ONCE = 2**16
"""Bytes that are read, for that takes less time than to map them."""

STORED = {
    "HalfStorage": "f2",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "ComplexFloatStorage": "c8",
    "ComplexDoubleStorage": "c16",
    "BoolStorage": "b1",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
}
"""numpy's names of what torch's classes store."""

FULL_CORRELATION = (
    "cryolike.likelihoods.interface.cross_correlation_full_return.CrossCorrelationReturn"
)


@dataclass(frozen=True)
class Layout:
    """Place of a tensor in its storage, in values; `claimed` is how many that is said to hold."""

    dtype: np.dtype[Any]
    key: str
    claimed: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    views: frozenset[str]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def reach(self) -> int:
        """Values of the storage up to the last one that is used."""
        steps = ((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return self.offset + sum(steps) + 1 if self.size else 0


@dataclass(frozen=True, eq=False)
class MappedTensor:
    """A tensor in a file, mapped into memory as it is stored; `crc` is the checksum of its
    storage."""

    path: str
    layout: Layout
    values: NDArray[Any]
    crc: int

    def copy(self, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Rows of the first axis, or everything, in memory."""
        values = np.array(self.values) if rows is None else self.values[np.asarray(rows, np.int64)]
        if "conj" in self.layout.views:
            np.conjugate(values, out=values)
        if "neg" in self.layout.views:
            np.negative(values, out=values)
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def checked(self) -> NDArray[Any]:
        """Everything, in memory, undamaged; a part of a storage has no checksum."""
        whole = self.values.size == self.layout.claimed and self.values.flags.c_contiguous
        if whole and zlib.crc32(self.values.data) != self.crc:
            raise InputFileError(
                "is damaged (its checksum is another)", source=self.path, remedy=REMEDY
            )
        return self.copy()


def map_tensor(path: str | Path) -> MappedTensor:
    """Map the one tensor of a file.

    Raises
    ------
    InputFileError
        If the file is missing, damaged, or holds something else, or less than it says.
    """
    try:
        with open_zip(path) as file:
            root = _root(file)
            order = (
                file.read(f"{root}/byteorder", 10)
                if f"{root}/byteorder" in file.entries
                else b"little"
            )
            layout = _layout(file.read(f"{root}/data.pkl", LONGEST_HEADER), order)
            start, stored_bytes = file.place(f"{root}/data/{layout.key}")
            _refuse_beyond(layout, stored_bytes, path)
            stored = _stored(file, layout, start, path)
            crc = file.entries[f"{root}/data/{layout.key}"].CRC
        return MappedTensor(str(path), layout, _view(stored, layout), crc)
    except InputFileError:
        raise
    except _OtherKindError as error:
        raise InputFileError(str(error), source=path, remedy=REMEDY) from error
    except Exception as error:  # zipfile raises many types for damaged files
        raise _unreadable(path, error) from error


def read_pickled_array(path: str | Path) -> NDArray[Any] | None:
    """Read an array of real numbers that was pickled as a whole; None if the file holds something
    else.

    Raises
    ------
    InputFileError
        If the file is missing or damaged.
    """
    try:
        with open_zip(path) as file:
            return _array(parse_pickle(file.read(f"{_root(file)}/data.pkl", LONGEST_PICKLE)))
    except InputFileError:
        raise
    except Exception as error:  # zipfile raises many types for damaged files
        raise _unreadable(path, error) from error


class _OtherKindError(Exception):
    """A file holds no tensor, or none that numpy has."""


def _unreadable(path: str | Path, error: Exception) -> InputFileError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    what = f"cannot be read as a plain tensor and is not unpickled ({reason})"
    return InputFileError(what, source=path, remedy=REMEDY)


def _root(file: Zip) -> str:
    """The folder in which torch puts everything."""
    roots = [
        name.partition("/")[0] for name in file.entries if name.partition("/")[2] == "data.pkl"
    ]
    if len(roots) != 1:
        raise ValueError(f"it has {len(roots)} entries data.pkl")
    return roots[0]


@lru_cache(maxsize=64)
def _layout(pickle: bytes, order: bytes) -> Layout:
    """Place of the tensor that a pickle describes."""
    value = parse_pickle(pickle)
    if isinstance(value, Call) and value.name in (
        FULL_CORRELATION,
        "torch._utils._rebuild_parameter",
    ):
        value = value.arguments[0]
    match value:
        case Call(
            "torch._utils._rebuild_tensor_v2",
            (
                Reference(("storage", Name(kind), str(key), _, n)),
                offset,
                shape,
                stride,
                bool(),
                Call(),
                *views,
            ),
        ):
            whole = [n, offset, *shape, *stride]
            if (
                any(type(k) is not int or not 0 <= k < 2**63 for k in whole)
                or not len(shape) == len(stride) <= 32
            ):
                raise ValueError("its header is damaged")
            names = frozenset(name for view in views for name, is_so in view.items() if is_so)
            return Layout(_dtype(kind, order), key, n, offset, shape, stride, names)
        case Call():
            raise ValueError(f"it calls {value.name[:100]}")
    raise _OtherKindError(f"holds a {type(value).__name__}, not one plain tensor")


def _dtype(kind: str, order: bytes) -> np.dtype[Any]:
    name = kind.removeprefix("torch.")
    if name not in STORED:
        shown = name.removesuffix("Storage").lower()[:20]
        raise _OtherKindError(f"holds torch.{shown} values, which have no numpy type")
    return np.dtype({b"little": "<", b"big": ">"}[order] + STORED[name])


def _refuse_beyond(layout: Layout, stored_bytes: int, path: str | Path) -> None:
    """Refuse a tensor that is larger than its storage, or reaches beyond it."""
    n_stored = min(layout.claimed, stored_bytes // layout.dtype.itemsize)
    if layout.size > n_stored:
        what = f"claims {layout.size} values of shape {layout.shape}, but stores {n_stored}"
        raise InputFileError(what, source=path, remedy=REMEDY)
    if layout.claimed > n_stored:
        raise InputFileError(
            "claims a storage larger than the one it holds", source=path, remedy=REMEDY
        )
    if layout.reach > n_stored:
        raise InputFileError(
            f"reaches beyond the {n_stored} values that it stores", source=path, remedy=REMEDY
        )


def _stored(file: Zip, layout: Layout, start: int, path: str | Path) -> NDArray[Any]:
    n_bytes = layout.claimed * layout.dtype.itemsize
    if n_bytes > AT_ONCE:
        return np.asarray(np.memmap(path, layout.dtype, "r", start, (layout.claimed,)))
    file.file.seek(start)
    return np.frombuffer(file.file.read(n_bytes), layout.dtype)


def _view(stored: NDArray[Any], layout: Layout) -> NDArray[Any]:
    if not layout.size:
        return np.empty(layout.shape, layout.dtype)
    strides = [
        step * layout.dtype.itemsize * (n > 1)
        for n, step in zip(layout.shape, layout.stride, strict=True)
    ]
    return as_strided(stored[layout.offset :], layout.shape, strides, writeable=False)


def _array(value: Any) -> NDArray[Any] | None:
    """The array that numpy would make: all of its bytes must be there."""
    match value:
        case Call(
            made,
            (Name("numpy.ndarray"), (0,), _),
            (1, tuple(shape), dtype, bool(by_columns), content),
        ) if made in RECONSTRUCT:
            kind = _real(dtype)
            data = _bytes(content)
            if any(type(n) is not int or n < 0 for n in shape) or math.prod(
                shape
            ) * kind.itemsize != len(data):
                raise ValueError(f"it claims an array of shape {shape} but holds {len(data)} bytes")
            return np.frombuffer(data, kind).reshape(shape, order="F" if by_columns else "C")
    return None


def _real(dtype: Any) -> np.dtype[np.floating[Any]]:
    match dtype:
        case Call("numpy.dtype", ("f4" | "f8" as kind, *_), (3, "<" | ">" as order, *_)):
            return np.dtype(f"{order}{kind}")
    raise ValueError("it is an array of other than real numbers")


def _bytes(content: Any) -> bytes:
    match content:
        case bytes():
            return content
        case Call("_codecs.encode", (str(text), "latin1")):
            return text.encode("latin1")
    raise ValueError("it is an array without values")
