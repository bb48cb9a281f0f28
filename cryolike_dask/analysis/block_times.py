"""Times of the blocks of runs, read from the table that runs append to."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.identity import reading

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Times of the blocks of runs, and the devices that computed them.

    Attributes
    ----------
    seconds : (block,) float64
    device : (block,) str
    first, last : str
        When the first and the last block ended, UTC; empty where no time can be read.
    n_unreadable : int
        Rows of the table that are damaged.
    """

    seconds: Floats
    device: NDArray[np.str_]
    first: str
    last: str
    n_unreadable: int

    def __len__(self) -> int:
        return len(self.seconds)


def read_blocks(path: str | Path) -> Blocks:
    """Read the table of blocks that runs append to; rows that cannot be read are counted and left
    out.

    Raises
    ------
    InputFileError
        If there is no such file, or it is no table of blocks.
    """
    seconds, devices, times, n_unreadable = [], [], [], 0
    try:
        with (
            reading(path) as opened,
            io.TextIOWrapper(opened, "utf-8", "replace", newline="") as file,
        ):
            rows = csv.DictReader(file)
            missing = {"seconds", "device", "time"} - set(rows.fieldnames or ())
            if missing:
                raise InputFileError(
                    f"is no table of blocks: it lacks {', '.join(sorted(missing))}", source=path
                )
            for row in rows:
                try:
                    value, when = float(row["seconds"]), datetime.fromisoformat(row["time"])
                except (TypeError, ValueError):
                    n_unreadable += 1
                    continue
                if not 0 <= value < np.inf:
                    n_unreadable += 1
                    continue
                seconds.append(value)
                devices.append(row["device"])
                times.append(f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}")
    except csv.Error as error:
        raise InputFileError(f"is no table of blocks: {error}", source=path) from error
    return Blocks(
        seconds=np.array(seconds, np.float64),
        device=np.array(devices, str),
        first=min(times, default=""),
        last=max(times, default=""),
        n_unreadable=n_unreadable,
    )
