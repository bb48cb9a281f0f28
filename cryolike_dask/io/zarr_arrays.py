"""The array of a Zarr store, opened only if it is of the one kind that this program writes.

What a store says of itself chooses the programs that decode it; some would unpickle. So that is
read here first: format 3, real numbers, plain bytes with a checksum. zarr is imported inside the
functions: the scheduler imports this module.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from cryolike_dask.io.identity import reading

LONGEST_HEADER = 2**16
MOST_CHUNKS = 2**20
CHECKSUM = 4
"""Bytes after each chunk."""

KIND = {"zarr_format": 3, "node_type": "array", "storage_transformers": []}
KEYS = {"name": "default", "configuration": {"separator": "/"}}
CODECS = ("bytes", "crc32c")
OPTIONS: tuple[Any, ...] = (None, {}, {"endian": "little"}, {"endian": "big"})


@dataclass(frozen=True)
class ZarrHeader:
    """Header of the array of a store, which is of the kind that is read."""

    folder: Path
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def n_chunks(self) -> tuple[int, ...]:
        """Along each axis."""
        return tuple(-(-n // step) for n, step in zip(self.shape, self.chunk, strict=True))

    def open(self, chunks: Iterable[int] | None = None) -> Any:
        """Give zarr's array, once the files are seen to be whole that hold some chunks of its first
        axis, or all.

        Raises
        ------
        ValueError, OSError
            If one is missing, of another size, or not a file in this very folder.
        """
        import zarr

        first = range(self.n_chunks[0]) if chunks is None else chunks
        root = os.path.realpath(self.folder)
        size = math.prod(self.chunk) * self.dtype.itemsize + CHECKSUM
        for index in product(first, *(range(n) for n in self.n_chunks[1:])):
            name = "/".join(("c", *map(str, index)))
            file = os.path.join(root, name)
            status = os.lstat(file)
            if (
                not stat.S_ISREG(status.st_mode)
                or status.st_size != size
                or os.path.realpath(file) != file
            ):
                raise ValueError(f"its chunk {name} is not a file of {size} bytes")
        return zarr.open_array(self.folder, mode="r", zarr_format=3)


def read_zarr_header(folder: Path) -> ZarrHeader:
    """Read what an array says of itself.

    Raises
    ------
    ValueError
        If it is no array, or not of the kind that is read.
    """
    with reading(folder / "zarr.json") as file:
        content = file.read(LONGEST_HEADER + 1)
    if len(content) > LONGEST_HEADER:
        raise ValueError(f"its zarr.json has more than {LONGEST_HEADER} bytes")
    try:
        metadata = json.loads(content)
    except RecursionError as error:
        raise ValueError("its zarr.json is nested too deeply") from error
    if (
        any(metadata.get(key, value) != value for key, value in KIND.items())
        or metadata["chunk_key_encoding"] != KEYS
    ):
        raise ValueError("it is no array as this program writes them")
    if metadata["data_type"] not in ("float32", "float64"):
        raise ValueError(f"it holds {str(metadata['data_type'])[:50]}, not float32 or float64")
    _refuse_codecs(metadata["codecs"])
    grid = metadata["chunk_grid"]
    header = ZarrHeader(
        folder,
        _whole(metadata["shape"]),
        _whole(grid["configuration"]["chunk_shape"]),
        np.dtype(metadata["data_type"]),
    )
    if grid["name"] != "regular" or math.prod(header.n_chunks) > MOST_CHUNKS:
        raise ValueError("it is in chunks of an impossible kind or number")
    return header


def _refuse_codecs(codecs: Sequence[Mapping[str, object]]) -> None:
    names = tuple(str(codec["name"]) for codec in codecs)
    if names != CODECS or any(codec.get("configuration") not in OPTIONS for codec in codecs):
        raise ValueError(
            f"its chunks are made by {', '.join(names)[:100]}, not by {' and '.join(CODECS)}"
        )


def _whole(numbers: list[Any]) -> tuple[int, ...]:
    if any(type(n) is not int or not 0 < n < 2**48 for n in numbers):
        raise ValueError(f"it has an impossible shape {str(numbers)[:100]}")
    return tuple(numbers)
