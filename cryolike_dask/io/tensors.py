"""Reading and writing `.pt` files: nothing is unpickled, headers only until data is asked for, writes are atomic.

torch is imported inside the functions: the scheduler imports this module too, and does not need torch.
"""

from __future__ import annotations

import io
import sys
import threading
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.inputs import refuse_changed

if TYPE_CHECKING:
    import torch

REMEDY = "Make the file again, or check that it is the right one."

_ALLOWING = threading.Lock()
"""torch keeps the names that may be unpickled in one place for all threads."""


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

        refuse_changed(self.path, self.size, self.mtime_ns)
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
    dtype = str(tensor.dtype).removeprefix("torch.")
    if n_dims is not None and tensor.ndim != n_dims:
        raise InputFileError(f"has shape {tuple(tensor.shape)}, but {n_dims} dimensions are needed", source=path)
    if dtypes is not None and dtype not in dtypes:
        raise InputFileError(f"holds {dtype} values, but {' or '.join(dtypes)} are needed", source=path)
    return TensorFile(str(path.absolute()), tuple(tensor.shape), dtype, status.st_size, status.st_mtime_ns)


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
    plain = None if n is None else _plain_vector(path, n)
    if plain is not None:
        return plain
    values: NDArray[Any] = _load(path).clone().numpy()
    if values.ndim != 1 or (n is not None and len(values) != n):
        wanted = "one value per image" if n is None else f"the {n} images of its stack"
        raise InputFileError(f"has shape {values.shape}, not {wanted}", source=path, remedy=REMEDY)
    return values


def _plain_vector(path: str | Path, n: int) -> NDArray[Any] | None:
    """Read a file whose header is byte for byte that of `save_tensor`: a third of the time that torch takes for it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            if archive.read(names.get("byteorder", "")) != sys.byteorder.encode():
                return None
            header, content = archive.read(names["data.pkl"]), archive.read(names["data/0"])
    except (OSError, KeyError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        if "CRC" in str(error):  # torch would not notice
            raise InputFileError(f"is damaged ({error})", source=path, remedy=REMEDY) from error
        return None  # torch says what is wrong with it
    for dtype in ("float32", "float64", "int64"):
        if len(content) == n * np.dtype(dtype).itemsize and header == _header(n, dtype):
            return np.frombuffer(content, dtype).copy()
    return None


@lru_cache(maxsize=64)
def _header(n: int, dtype: str) -> bytes:
    """What torch writes about a vector, beside its values."""
    import torch

    file = io.BytesIO()
    torch.save(torch.from_numpy(np.zeros(n, dtype)), file)
    with zipfile.ZipFile(file) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def save_tensor(path: str | Path, values: NDArray[Any]) -> None:
    """Write an array as a plain tensor, atomically; it loads with `torch.load(weights_only=True)`."""
    import torch

    contiguous = np.require(values, requirements=["C", "W"])
    with replacing(path) as file:
        try:
            torch.save(torch.from_numpy(contiguous), file)
        except RuntimeError as error:  # torch's word for a disk that is full
            raise OSError(str(error).splitlines()[0]) from error


def load_displacements(path: str | Path) -> NDArray[np.float64]:
    """Read `displacements_set.pt`, ours or CryoLike's: angstrom, (2, displacement), rows x and y."""
    loaded = _load_object(path, cryolike=True)
    values = loaded if isinstance(loaded, np.ndarray) else _plain(loaded, path).numpy()
    if values.ndim != 2 or values.shape[0] != 2 or values.dtype.kind != "f":
        raise InputFileError("does not hold displacements of shape (2, D)", source=path, remedy=REMEDY)
    return values.astype(np.float64)


def load_full_correlation(path: str | Path) -> NDArray[Any]:
    """Read a full cross-correlation, ours or CryoLike's: (image, template, displacement, rotation)."""
    loaded = _load_object(path, cryolike=True)
    values = _plain(loaded[0] if isinstance(loaded, tuple) and len(loaded) == 1 else loaded, path).numpy()
    if values.ndim != 4 or values.dtype.kind != "f":
        raise InputFileError("does not hold a correlation of four dimensions", source=path, remedy=REMEDY)
    return values


def _load(path: str | Path) -> torch.Tensor:
    return _plain(_load_object(path, cryolike=False), path)


def _plain(loaded: Any, path: str | Path) -> torch.Tensor:
    """Refuse what is not one dense tensor of a type that numpy has, all of whose values are in the file."""
    import torch

    if not isinstance(loaded, torch.Tensor) or loaded.layout != torch.strided or loaded.is_quantized:
        raise InputFileError(f"holds a {type(loaded).__name__}, not one plain tensor", source=path, remedy=REMEDY)
    tensor = loaded.detach()
    try:
        np.dtype(str(tensor.dtype).removeprefix("torch."))
    except TypeError:
        raise InputFileError(f"holds {tensor.dtype} values, which have no numpy type", source=path) from None
    claimed, held = tensor.untyped_storage().nbytes(), _bytes_in_archive(path)
    stored = min(claimed, held) // tensor.element_size()
    if tensor.numel() > stored:
        raise InputFileError(
            f"claims {tensor.numel()} values of shape {tuple(tensor.shape)}, but stores {stored}",
            source=path,
            remedy=REMEDY,
        )
    if claimed > held:
        raise InputFileError("claims a storage larger than the one it holds", source=path, remedy=REMEDY)
    return tensor


def _bytes_in_archive(path: str | Path) -> int:
    """Size of the largest storage of a `.pt` file: torch trusts the header, and would read on into what follows."""
    with zipfile.ZipFile(path) as archive:
        return max((entry.file_size for entry in archive.infolist() if "/data/" in entry.filename), default=0)


def _load_object(path: str | Path, *, cryolike: bool) -> Any:
    import torch

    try:
        if not cryolike:
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        with _ALLOWING, torch.serialization.safe_globals(_cryolike_names()):
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise InputFileError("there is no such file", source=path) from None
    except Exception as error:  # torch raises many types for damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
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
