"""The calibration of a run: what particles simulated for it have shown, kept beside its results."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.atomic import read_own, replacing

MOST_BYTES = 2**20
MAY_BE_ZERO = ("seed", "n_right", "n_decided", "n_decided_right")
AGAIN = "Remove it, and make it again: cryolike-dask calibrate."
FORMAT = 1


@dataclass(frozen=True)
class RunCalibration:
    """What particles simulated with a run's structures, optics, noise and poses show of its
    probabilities.

    Attributes
    ----------
    n_images, n_structures : int
    seed : int
    slope, slope_error : float
        Of the truth on log-odds: below 1 where probabilities are too sure. NaN where the particles
        do not tell.
    intercept, intercept_error : float
        Nat, in favour of the second of two structures; NaN of more.
    n_right : int
        Images whose best structure is the true one.
    n_promised : float
        As many as their probabilities promise.
    correlation, correlation_of_run : float
        Median of the best correlations: of the simulated particles, and of the images of the run
        that they stand for.
    views_between : bool
        Whether particles are seen from between the views of the templates, too.
    results : str
        What the results were that it is of: the checksum of their settings.
    version : str
    n_decided, n_decided_right : int
        Images of which a structure has a probability of more than 95%, and those of them whose best
        structure is the true one; 0 in files that do not say it.
    decided_promised : float
        As many of these as their probabilities promise; NaN in such files.
    """

    n_images: int
    n_structures: int
    seed: int
    slope: float
    slope_error: float
    intercept: float
    intercept_error: float
    n_right: int
    n_promised: float
    correlation: float
    correlation_of_run: float
    views_between: bool
    results: str
    version: str
    n_decided: int = 0
    n_decided_right: int = 0
    decided_promised: float = math.nan


def write_calibration(path: Path, calibration: RunCalibration) -> None:
    """Write it, atomically; numbers that are not known as null."""
    entries = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(calibration).items()
    }
    with replacing(path) as file:
        file.write((json.dumps({"format": FORMAT, **entries}, indent=1) + "\n").encode())


def read_calibration(path: Path) -> RunCalibration | None:
    """Read it; None if there is none.

    Raises
    ------
    InputFileError
        If it is no such file, or an entry is not what `write_calibration` writes; names the entry.
    """
    content = read_own(path, MOST_BYTES)
    if content is None:
        return None
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputFileError("is not a readable file", source=path, remedy=AGAIN) from error
    if not isinstance(entries, dict):
        raise InputFileError("is not a calibration", source=path, remedy=AGAIN)
    values: dict[str, Any] = {}
    for field in fields(RunCalibration):
        if field.name not in entries and field.default is not MISSING:
            continue
        value = entries.get(field.name)
        if not _may_be(str(field.type), field.name, value):
            what = f"says {field.name}={value!r}"[:200]
            raise InputFileError(f"{what}, which is never written", source=path, remedy=AGAIN)
        values[field.name] = math.nan if value is None else value
    calibration = RunCalibration(**values)
    known = math.isfinite(calibration.slope)
    counts = (calibration.n_decided_right, calibration.n_decided, calibration.n_images)
    ordered = calibration.n_right <= calibration.n_images and list(counts) == sorted(counts)
    if not ordered or (calibration.slope_error > 0) != known:
        raise InputFileError("contradicts itself", source=path, remedy=AGAIN)
    return calibration


def _may_be(kind: str, name: str, value: Any) -> bool:
    """Whether an entry has the type of its field, and a size that it can have."""
    if kind == "int":
        return type(value) is int and (0 if name in MAY_BE_ZERO else 1) <= value < 2**63
    if kind == "float":
        return value is None or (type(value) in (int, float) and abs(value) < 1e9)
    return type(value) is (bool if kind == "bool" else str)
