"""Numbers of what each structure stands for, as users write them."""

from __future__ import annotations

import math
from pathlib import Path

from cryolike_dask.errors import InputFileError

LARGEST_FILE = 2**26
"""Bytes: a million structures have less."""


def read_counts(path: str | Path) -> list[float] | dict[str, float]:
    """Read a number of each structure: one a line in their order, or after its name.

    Empty lines, and what follows a #, are left out; names may contain spaces, and a comma may
    stand before the number.

    Raises
    ------
    InputFileError
        If the file cannot be read, or a line does not say a positive number.
    """
    try:
        if Path(path).stat().st_size > LARGEST_FILE:
            raise InputFileError("is too large for a list of counts", source=path)
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise InputFileError(f"cannot be read: {reason}", source=path) from error
    in_order: list[float] = []
    by_name: dict[str, float] = {}
    for k, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, _, last = text.replace(",", " ").rpartition(" ")
        name = name.strip()
        try:
            value = float(last)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise InputFileError(
                f"line {k}: {last!r} is no positive number",
                source=path,
                remedy="Give a number a line, or a name and a number.",
            )
        if name in by_name:
            raise InputFileError(f"line {k}: {name!r} stands there twice", source=path)
        if name:
            by_name[name] = value
        else:
            in_order.append(value)
    if not (in_order or by_name) or (in_order and by_name):
        what = "some lines have names, others have none" if in_order else "says no number"
        raise InputFileError(what, source=path)
    return by_name or in_order
