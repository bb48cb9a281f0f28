"""Reading and writing `.pt` files: nothing is unpickled, headers only until data is asked for, writes are atomic.

torch is imported inside the functions: the scheduler imports this module too, and does not need torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.atomic import replacing

if TYPE_CHECKING:
    import torch

REMEDY = "Make the file again, or check that it is the right one."


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
        import torch

        try:
            status = os.stat(self.path)
        except OSError as error:
            raise InputFileError(f"cannot be read: {error.strerror}", source=self.path) from error
        if (status.st_size, status.st_mtime_ns) != (self.size, self.mtime_ns):
            raise InputFileError("has changed since it was opened", source=self.path, remedy="Open it again.")
        tensor = _load(self.path)
        part = tensor.clone() if rows is None else tensor[torch.from_numpy(np.asarray(rows, np.int64))]
        return part.resolve_conj().resolve_neg().numpy()


def open_tensor(path: str | Path, *, n_dims: int | None = None, dtypes: tuple[str, ...] | None = None) -> TensorFile:
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
        If the file is missing, damaged, not a single plain tensor, larger than its storage, or of another rank or type.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError("there is no such file", source=path)
    status = path.stat()
    tensor = _load(path)
    try:
        dtype = str(np.dtype(str(tensor.dtype).removeprefix("torch.")))
    except TypeError:
        raise InputFileError(f"holds {tensor.dtype} values, which have no numpy type", source=path) from None
    if n_dims is not None and tensor.ndim != n_dims:
        raise InputFileError(f"has shape {tuple(tensor.shape)}, but {n_dims} dimensions are needed", source=path)
    if dtypes is not None and dtype not in dtypes:
        raise InputFileError(f"holds {dtype} values, but {' or '.join(dtypes)} are needed", source=path)
    return TensorFile(str(path.absolute()), tuple(tensor.shape), dtype, status.st_size, status.st_mtime_ns)


def save_tensor(path: str | Path, values: NDArray[Any]) -> None:
    """Write an array as a plain tensor, atomically; it loads with `torch.load(weights_only=True)`."""
    import torch

    contiguous = np.require(values, requirements=["C", "W", "O"])  # a view would store all that it is a view of
    with replacing(path) as file:
        torch.save(torch.from_numpy(contiguous), file)


def load_displacements(path: str | Path) -> NDArray[np.float64]:
    """Read `displacements_set.pt`, ours or CryoLike's: angstrom, (2, displacement), rows x and y."""
    import torch

    loaded = _load_object(path, _cryolike_names())
    values = loaded.numpy() if isinstance(loaded, torch.Tensor) else loaded
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[0] != 2 or values.dtype.kind != "f":
        raise InputFileError("does not hold displacements of shape (2, D)", source=path, remedy=REMEDY)
    return values.astype(np.float64)


def load_full_correlation(path: str | Path) -> NDArray[Any]:
    """Read a full cross-correlation, ours or CryoLike's: (image, template, displacement, rotation)."""
    import torch

    loaded = _load_object(path, _cryolike_names())
    values = loaded[0] if isinstance(loaded, tuple) and len(loaded) == 1 else loaded
    if not isinstance(values, torch.Tensor) or values.ndim != 4:
        raise InputFileError("does not hold a correlation of four dimensions", source=path, remedy=REMEDY)
    return values.numpy()


def _load(path: str | Path) -> torch.Tensor:
    import torch

    tensor = _load_object(path, [])
    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise InputFileError(f"holds a {type(tensor).__name__}, not one plain tensor", source=path, remedy=REMEDY)
    tensor = tensor.detach()
    stored = tensor.untyped_storage().nbytes() // tensor.element_size()
    if tensor.numel() > stored:
        raise InputFileError(
            f"claims {tensor.numel()} values of shape {tuple(tensor.shape)}, but stores {stored}",
            source=path,
            remedy=REMEDY,
        )
    return tensor


def _load_object(path: str | Path, allowed: list[Any]) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise InputFileError("there is no such file", source=path) from None
    except Exception as error:  # torch raises many types for damaged files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputFileError(
            f"cannot be read as a plain tensor and is not unpickled ({reason})", source=path, remedy=REMEDY
        ) from error


def _cryolike_names() -> list[Any]:
    """The few names that CryoLike's own pickled outputs need, each bound to something harmless."""
    from _codecs import encode

    class CrossCorrelationReturn(NamedTuple):
        cross_correlation_msdw: Any

    reconstruct = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    dtype_classes = [type(np.dtype(t)) for t in ("float32", "float64")]
    return [
        (CrossCorrelationReturn, "cryolike.likelihoods.interface.cross_correlation_full_return.CrossCorrelationReturn"),
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        (reconstruct, "numpy.core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        encode,
        *dtype_classes,
    ]
