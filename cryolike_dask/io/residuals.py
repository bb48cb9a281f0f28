"""What fits of residuals have shown of each image, kept beside results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.archives import read_archive, write_archive

AGAIN = "Remove it, and make it again: cryolike-dask residuals."
STACK, IMAGE, P_VALUE, RESULTS = "stack", "image_in_stack", "residual_p_value", "results"


@dataclass(frozen=True, eq=False)
class Residuals:
    """How well the shape of each image's residual is that of noise.

    Attributes
    ----------
    stack, image_in_stack : (image,) int64
    p_value : (image,) float64
        NaN of an image without a result.
    results : str
        What the results were that it is of: the checksum of their settings.
    """

    stack: NDArray[np.int64]
    image_in_stack: NDArray[np.int64]
    p_value: NDArray[np.float64]
    results: str


def write_residuals(path: Path, residuals: Residuals) -> None:
    """Write them, atomically."""
    entries: dict[str, NDArray[Any] | str] = {
        STACK: residuals.stack,
        IMAGE: residuals.image_in_stack,
        P_VALUE: residuals.p_value,
        RESULTS: residuals.results,
    }
    write_archive(path, entries, compressed=True)


def read_residuals(path: Path) -> Residuals | None:
    """Read them; None if there are none.

    Raises
    ------
    InputFileError
        If it is no such file, or an entry is not what `write_residuals` writes; names the entry.
    """
    if not path.exists():
        return None
    entries = read_archive(path, optional=(), keys=(STACK, IMAGE, P_VALUE, RESULTS))
    p_value = entries.get(P_VALUE)
    n = 0 if p_value is None else p_value.size
    kinds = {STACK: "i", IMAGE: "i", P_VALUE: "f", RESULTS: "U"}
    for name, kind in kinds.items():
        value = entries.get(name)
        shape = () if name == RESULTS else (n,)
        if value is None or value.dtype.kind != kind or value.shape != shape:
            raise InputFileError(
                f"entry {name!r} is not what is written there", source=path, remedy=AGAIN
            )
    stack, image, known = entries[STACK], entries[IMAGE], entries[P_VALUE]
    assert stack is not None
    assert image is not None
    assert known is not None
    if ((known < 0) | (known > 1)).any():
        raise InputFileError(f"entry {P_VALUE!r} is no probability", source=path, remedy=AGAIN)
    return Residuals(stack, image, known, str(entries[RESULTS]))
