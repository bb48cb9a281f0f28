"""Results that are too large for one file: a Zarr store, written region by region, which gets its
name when complete.

zarr is imported inside the functions: the scheduler imports this module too.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.atomic import writing
from cryolike_dask.io.jobs import Job, make_room, why_not_done, withdraw_record, write_record
from cryolike_dask.io.layout import FILE_SUFFIX
from cryolike_dask.io.records import checksum
from cryolike_dask.io.zarr_arrays import ZarrHeader, read_zarr_header

ARRAY = labels.CROSS_CORRELATION


@dataclass(frozen=True)
class Store:
    """A full cross-correlation in a Zarr store; what tasks carry instead of the data.

    Attributes
    ----------
    path : str
        Absolute.
    shape : tuple of int
        (image, template, displacement, rotation).
    dtype : str
        numpy's name.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy images into memory.

        Raises
        ------
        InputFileError
            If the store is gone or damaged.
        """
        with _as_input(self.path):
            header = _header(self.path)
            array = header.open(np.unique(np.asarray(rows) // header.chunk[0]))
            values: NDArray[Any] = np.asarray(array.oindex[np.asarray(rows)])
            return values

    def lazy(self) -> da.Array:
        """All of it, chunked as it is stored; never what was read of an earlier store of this
        name."""
        with _as_input(self.path):
            return da.from_zarr(
                _header(self.path).open(), name=f"read-{Path(self.path).name}-{uuid4().hex}"
            )


def open_store(path: str | Path) -> Store:
    """Read what a store says of itself.

    Raises
    ------
    InputFileError
        If it is not there, or not a store of a full cross-correlation.
    """
    with _as_input(path):
        header = _header(path)
    if len(header.shape) != 4:
        raise InputFileError(f"has shape {header.shape}, but 4 dimensions are needed", source=path)
    return Store(str(Path(path).absolute()), header.shape, header.dtype.name)


def begin_store(job: Job, full: xr.Dataset) -> Path:
    """Write all but the values of a full cross-correlation, under a name that says that it is
    not complete."""
    from zarr.codecs import Crc32cCodec

    (path,) = job.outputs.values()
    unfinished_store = path.with_name(f".{path.name}.{uuid4().hex}.part")
    (name,) = full.data_vars
    labelled = full.rename({name: ARRAY}).assign_coords(
        {labels.STRUCTURE: full[labels.STRUCTURE].astype(object)}
    )
    # compression takes a sixth off correlations at best, slowly; the checksum makes readers notice
    # damage
    encoding = {ARRAY: {"chunks": full[name].data.chunksize, "compressors": (Crc32cCodec(),)}}
    with writing(path), warnings.catch_warnings():
        # xarray warns where there is none, too
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        make_room(job)
        unfinished_store.parent.mkdir(parents=True, exist_ok=True)
        labelled.to_zarr(
            unfinished_store,
            mode="w",
            compute=False,
            zarr_format=3,
            consolidated=True,
            encoding=encoding,
        )
    return unfinished_store


def write_region(
    values: NDArray[Any], unfinished_store: Path, block: tuple[int, ...]
) -> tuple[str, str]:
    """Write one chunk; give the name of its file in the store, and the file's checksum."""
    import zarr

    with writing(unfinished_store):
        array = zarr.open_array(unfinished_store / ARRAY, mode="r+", zarr_format=3)
        array.blocks[block] = values
        file = unfinished_store / ARRAY / array.metadata.encode_chunk_key(block)
        return str(file.relative_to(unfinished_store)), checksum(file)


def finish_store(
    written: Sequence[tuple[str, str]], unfinished_store: Path, job: Job, details: Mapping[str, str]
) -> int:
    """Give a store that is complete its name, and write its record last; give the number of images.

    A file in place of which the store is written is removed.
    """
    (path,) = job.outputs.values()
    # this task ran before, and its worker was lost
    if not unfinished_store.exists() and why_not_done(job) is None:
        return job.shape[0]
    with writing(path):
        missing = [name for name, _ in written if not (unfinished_store / name).is_file()]
        if missing:
            raise OutputError(
                f"{missing[0]} is missing",
                source=unfinished_store,
                remedy="Let one run alone write here.",
            )
        withdraw_record(job)
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
        os.replace(unfinished_store, path)
        path.with_suffix(FILE_SUFFIX).unlink(missing_ok=True)
    write_record(job, details, known=dict(written))
    return job.shape[0]


def _header(path: str | Path) -> ZarrHeader:
    return read_zarr_header(Path(path) / ARRAY)


@contextmanager
def _as_input(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or error
        what = f"is not a readable store of a full cross-correlation: {reason}"
        raise InputFileError(
            what, source=path, remedy="Run the likelihood for this stack again."
        ) from error
