"""Reading and writing `.pt` files: nothing is unpickled, headers only until data is asked for,
writes are atomic.

torch writes files, and has no part in reading them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.identity import refuse_changed, regular_file
from cryolike_dask.io.mapping import REMEDY, map_tensor, read_pickled_array


@dataclass(frozen=True)
class TensorFile:
    """A tensor in a file, described by its header: what tasks carry instead of the data.

    Attributes
    ----------
    path : str
        Absolute.
    shape : tuple of int
    dtype : str
        numpy's name.
    size, mtime_ns : int
        Of the file when it was opened; a file that has changed since is refused.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    mtime_ns: int

    def take(self, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Copy rows of the first axis into memory; None: everything.

        Raises
        ------
        InputFileError
            If the file is gone, or is not the one that was opened.
        """
        refuse_changed(self.path, self.size, self.mtime_ns)
        return map_tensor(self.path).copy(rows)


def open_tensor(
    path: str | Path, *, n_dims: int | None = None, dtypes: tuple[str, ...] | None = None
) -> TensorFile:
    """Read the header of a `.pt` file that holds one tensor.

    Parameters
    ----------
    n_dims : int, optional
        The rank that it must have.
    dtypes : tuple of str, optional
        The types that it may have, in numpy's names.

    Raises
    ------
    InputFileError
        If the file is missing, damaged, not a single plain tensor, larger than its storage, or of
        another rank or type.
    """
    path = regular_file(path)
    status = path.stat()
    values = map_tensor(path).values
    shape, dtype = values.shape, values.dtype.name
    if n_dims is not None and len(shape) != n_dims:
        raise InputFileError(f"has shape {shape}, but {n_dims} dimensions are needed", source=path)
    if dtypes is not None and dtype not in dtypes:
        raise InputFileError(
            f"holds {dtype} values, but {' or '.join(dtypes)} are needed", source=path
        )
    return TensorFile(str(path.absolute()), shape, dtype, status.st_size, status.st_mtime_ns)


def load_vector(path: str | Path, n: int | None = None) -> NDArray[Any]:
    """Read one variable of the images of a stack, (image,), into memory.

    Parameters
    ----------
    path : path
    n : int, optional
        How many values it must hold.

    Raises
    ------
    InputFileError
        If the file is missing, damaged, or holds something else.
    """
    tensor = map_tensor(path)
    shape = tensor.values.shape
    if len(shape) != 1 or (n is not None and shape != (n,)):
        wanted = "one value per image" if n is None else f"the {n} images of its stack"
        raise InputFileError(f"has shape {shape}, not {wanted}", source=path, remedy=REMEDY)
    return tensor.checked()


def save_tensor(path: str | Path, values: NDArray[Any]) -> None:
    """Write an array as a plain tensor, atomically; it loads with
    `torch.load(weights_only=True)`."""
    import torch

    contiguous = np.require(values, requirements=["C", "W"])
    with replacing(path) as file:
        try:
            torch.save(torch.from_numpy(contiguous), file)
        except RuntimeError as error:  # torch's word for a disk that is full
            raise OSError(str(error).splitlines()[0]) from error


def load_displacements(path: str | Path) -> NDArray[np.float64]:
    """Read `displacements_set.pt`, ours or CryoLike's: angstrom, (2, displacement), rows x and
    y."""
    pickled = read_pickled_array(path)
    values = map_tensor(path).checked() if pickled is None else pickled
    if values.ndim != 2 or values.shape[0] != 2 or values.dtype.kind != "f":
        raise InputFileError(
            "does not hold displacements of shape (2, D)", source=path, remedy=REMEDY
        )
    return values.astype(np.float64)
