"""Every error a user can meet. A message says where, what, which value, and what to do; it is put
together here.

The one positional argument of each error is its whole message, so that errors raised on a worker
arrive unchanged.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any


class CryolikeError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    what : str
        What is wrong, with the value.
    source : path, optional
        The file or folder that it is about.
    remedy : str, optional
        What the user can do.
    """

    def __init__(
        self, what: str, *, source: str | Path | None = None, remedy: str | None = None
    ) -> None:
        message = what if source is None else f"{source}: {what}"
        if remedy is not None:
            message = f"{message.rstrip('.')}. {remedy}"
        super().__init__(message)


class InputError(CryolikeError, ValueError):
    """A parameter or an input has a value that cannot be used."""


class InputFileError(InputError):
    """An input file is missing, damaged, or holds something other than it should."""


class GridMismatchError(InputError):
    """Two inputs that must lie on one grid do not."""


class NotFiniteError(InputError):
    """Images or templates hold NaN or infinite values."""


class ZeroPowerError(InputError):
    """Images or templates have no power, so that no correlation is defined."""


class DeviceError(CryolikeError, RuntimeError):
    """The device that was asked for is not there, or is used in a way that it cannot be."""


class BrokenGpuError(DeviceError):
    """A GPU has failed, so that its process can compute nothing more there.

    Attributes
    ----------
    worker : str
        Address of the worker whose process it is; empty: of none.
    device : str
        The GPU, as its node calls it.
    reason : str
        What CUDA said of it.
    """

    worker, device, reason = "", "", ""


class CannotFitError(CryolikeError, MemoryError):
    """A result or a block is larger than the memory or the disk."""


class OutputError(CryolikeError):
    """The output folder holds something that must not be mixed with, or lost to, this run."""


class ClusterError(CryolikeError, RuntimeError):
    """A scheduler cannot be reached or was lost, or workers die."""


class FailedPiecesError(CryolikeError, RuntimeError):
    """Some image stacks or structures failed; all others are done."""

    @classmethod
    def of(cls, failed: Mapping[str, BaseException]) -> FailedPiecesError:
        """List them, each with its error."""
        lines = [f"{name}: {error or type(error).__name__}" for name, error in failed.items()]
        what = "\n  ".join([f"{len(lines)} failed; all others are done and written:", *lines])
        return cls(f"{what}\nMend what they name, and run again with skip_exist=True.")


LARGEST = 1e300
"""Numbers of this size and more are refused: what is computed from them would be infinite."""


def number(
    name: str,
    value: Any,
    *,
    whole: bool = False,
    above: float = -math.inf,
    at_least: float = -math.inf,
) -> Any:
    """Give a value as a plain int or float; refuse what is not a finite number, naming it.

    Parameters
    ----------
    name : str
    value : object
        A number of Python or numpy; text and booleans are none.
    whole : bool
        Only integers will do.
    above, at_least : float
        Bounds.

    Raises
    ------
    InputError
    """
    scalar: Any = value.item() if getattr(value, "shape", None) == () else value
    kind = "a whole number" if whole else "a number"
    is_number: bool = isinstance(scalar, numbers.Integral if whole else numbers.Real)
    if not is_number or isinstance(scalar, bool):
        fault = f"not {kind}"
    elif scalar in (math.inf, -math.inf):
        fault = "not a finite number"
    elif abs(scalar) >= LARGEST:
        fault = "too far from 0"
    elif above > -math.inf and not scalar > above:  # NaN is above nothing
        fault = "not positive" if above == 0 else f"not {kind} above {above:g}"
    elif at_least > -math.inf and not scalar >= at_least:
        positive = whole and at_least == 1
        fault = "not a positive number" if positive else f"not {kind}, {at_least:g} or more"
    elif math.isnan(scalar):
        fault = f"not {kind}"
    else:
        return int(scalar) if whole else float(scalar)
    raise InputError(f"{name}={scalar!r} is {fault}")


def listed(indices: Iterable[int], limit: int = 10) -> str:
    """Write indices for a message: the first few, and how many more there are."""
    values = [int(i) for i in indices]
    shown = ", ".join(str(v) for v in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


SHOWN = 10
"""Missing files that a message names."""


def counted(n: int, what: str) -> str:
    """Write a number of things for a message: `1 worker`, `2 workers`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def is_or_are(n: int) -> str:
    """The verb of a number of things."""
    return "is" if n == 1 else "are"


def joined_by_and(names: Sequence[str]) -> str:
    """Write names for a message: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def times(sizes: Iterable[float]) -> str:
    """Write sizes for a message: `3 x 4 x 5`."""
    return " x ".join(f"{n:g}" if isinstance(n, float) else str(n) for n in sizes)


def missing_files(paths: Iterable[str | Path], remedy: str, n: int | None = None) -> InputFileError:
    """Name the first of all missing files at once, and say how many there are: n, if only these
    are given."""
    rest = iter(paths)
    names = [str(p) for p in islice(rest, SHOWN)]
    n = len(names) + sum(1 for _ in rest) if n is None else n
    more = [f"and {n - len(names):,} more"] if n > len(names) else []
    return InputFileError(
        "\n  ".join([f"{n:,} missing input file(s):", *names, *more]) + f"\n{remedy}"
    )
