"""Checks of what stacks are made of: data that fit their grid, chunks that add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from cryolike_dask.errors import GridMismatchError, InputError, number
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.sources import ArraySource


def chunks_of(size: int | Sequence[int], n: int, what: str) -> tuple[int, ...]:
    """Chunks of one size, or those that are given, of n images or templates."""
    if isinstance(size, (str, dict)) or not hasattr(size, "__len__"):
        step: int = number(f"{what}s per chunk", size, whole=True, at_least=1)
        return tuple(min(step, n - start) for start in range(0, n, step))
    chunks = tuple(number(f"{what}s per chunk", c, whole=True) for c in cast(Sequence[int], size))
    if sum(chunks) != n or min(chunks, default=0) < 1:
        raise InputError(f"chunks {chunks} do not add up to {n} {what}s")
    return chunks


def check_source(source: ArraySource, grid: PolarGrid, what: str) -> None:
    """Refuse data of another shape than the grid has, and what is not complex."""
    if len(source.shape) != 3 or source.shape[1:] != grid.shape or source.shape[0] < 1:
        raise GridMismatchError(
            f"{what} have shape {source.shape}, but the parameters describe (n, {grid.shape[0]}, "
            f"{grid.shape[1]})"
        )
    if source.dtype not in ("complex64", "complex128"):
        raise InputError(
            f"{what} are {source.dtype}", remedy="They must be complex64 or complex128."
        )


def check_batch(n: int | None, name: str) -> None:
    """Refuse what is no number of images or templates per tile."""
    if n is not None:
        number(name, n, whole=True, at_least=1)
