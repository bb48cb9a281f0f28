"""The columns of a RELION STAR file, one value per particle, whichever of its tables they are
in."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError, listed
from cryolike_dask.io.star import StarBlock, read_star

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

IN_DEGREES = ("rlnDefocusAngle", "rlnPhaseShift", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")


LARGEST_INTEGER = 2**53
"""Beyond it, numbers are not those that the file has."""


@dataclass(frozen=True, eq=False)
class StarColumns:
    """The columns of the particles of a STAR file, wherever they are recorded.

    Attributes
    ----------
    path : Path
    particles : dict of str to array of str, (image,)
    optics : dict of str to array of str, (optics group,)
        Empty for files without an optics table.
    group_row : (image,) int64
        The row of each particle in the optics table.
    """

    path: Path
    particles: dict[str, NDArray[np.str_]]
    optics: dict[str, NDArray[np.str_]]
    group_row: IntArray

    def __len__(self) -> int:
        return len(next(iter(self.particles.values())))

    def number(self, label: str) -> FloatArray | None:
        """Give a column of numbers, angles in radian, one per particle; None if it is in neither
        table.

        Raises
        ------
        InputFileError
            If a value is no finite number, or the two tables contradict each other.
        """
        own, shared = self._parsed("particles", label), self._parsed("optics", label)
        if shared is None:
            return own
        spread = shared[self.group_row]
        if own is not None and label != "rlnOpticsGroup":
            self._refuse_conflict(label, own, spread)
        return spread

    def integer(self, label: str) -> IntArray | None:
        """Give a column of integers, as `number` does."""
        values = self.number(label)
        if values is None:
            return None
        wrong = np.flatnonzero((values != np.round(values)) | (np.abs(values) > LARGEST_INTEGER))
        if len(wrong):
            row = wrong[0]
            kind = "integer" if values[row] != np.round(values[row]) else "number of anything"
            raise InputFileError(
                f"{label} is {values[row]:g} in row {row} (from 0), which is no {kind}",
                source=self.path,
            )
        return values.astype(np.int64)

    def together(self, *labels: str) -> FloatArray | None:
        """Give columns of numbers side by side, (image, label); None unless all are there."""
        columns = [self.number(label) for label in labels]
        present = [column for column in columns if column is not None]
        return np.stack(present, axis=1) if len(present) == len(columns) else None

    def differs(self, label: str, neutral: float) -> bool:
        """Tell whether a number, or one of a list of numbers in brackets, differs from a value."""
        words = np.unique(self.optics.get(label, self.particles.get(label, np.empty(0, np.str_))))
        numbers = [
            float(n) for word in words for n in re.findall(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", word)
        ]
        return any(abs(n - neutral) > 1e-6 for n in numbers)

    def _parsed(self, table: str, label: str) -> FloatArray | None:
        words = (self.optics if table == "optics" else self.particles).get(label)
        if words is None:
            return None
        try:
            values = words.astype(np.float64)
        except ValueError:
            values = np.array([_float(word) for word in words])
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise InputFileError(
                f"{label} is {str(words[bad[0]])!r} in row {bad[0]} (from 0) of the {table} table, "
                f"which is no number; {len(bad)} such row(s)",
                source=self.path,
            )
        return np.deg2rad(values) if label in IN_DEGREES else values

    def _refuse_conflict(self, label: str, own: FloatArray, shared: FloatArray) -> None:
        with np.errstate(over="ignore"):
            differ = np.flatnonzero(~np.isclose(own, shared, rtol=1e-6, atol=1e-9))
        if len(differ):
            row = differ[0]
            raise InputFileError(
                f"{label} is {own[row]:g} in row {row} (from 0) of the particles table, but "
                f"{shared[row]:g} in the optics table; {len(differ)} such row(s)",
                source=self.path,
                remedy="Remove the column that is wrong.",
            )


def open_columns(path: str | Path, *, need_names: bool) -> StarColumns:
    """Read a STAR file, and find its particles and the optics group of each.

    Parameters
    ----------
    path : path
    need_names : bool
        Whether the particles must have `rlnImageName`.

    Raises
    ------
    InputFileError
        If the file is damaged, has no particles, or the optics table does not fit them.
    """
    path = Path(path)
    blocks = read_star(path)
    particles = _particle_table(blocks, path, need_names)
    optics = [
        b
        for b in blocks
        if b is not particles and (b.name == "optics" or "rlnOpticsGroupName" in b.columns)
    ]
    if len(optics) > 1:
        raise InputFileError(
            f"has {len(optics)} optics tables", source=path, remedy="Leave the one that is right."
        )
    shared = optics[0].columns if optics else {}
    columns = StarColumns(path, particles.columns, shared, np.zeros(len(particles), np.int64))
    return (
        dataclasses.replace(columns, group_row=_group_rows(columns, len(optics[0])))
        if optics
        else columns
    )


def _particle_table(blocks: list[StarBlock], path: Path, need_names: bool) -> StarBlock:
    for label in ("rlnImageName", "rlnDefocusU"):
        tables = [block for block in blocks if label in block.columns]
        if tables:
            break
    else:
        more = f" and {len(blocks) - 10} more" if len(blocks) > 10 else ""
        names = ", ".join(f"data_{block.name[:40]}" for block in blocks[:10]) + more
        raise InputFileError(
            f"has no table of particles (rlnImageName, rlnDefocusU) among {names}",
            source=path,
            remedy="Check that it is the STAR file of the particles.",
        )
    table = max(tables, key=lambda block: (block.name == "particles", len(block)))
    if need_names and label != "rlnImageName":
        raise InputFileError(
            "has no rlnImageName", source=path, remedy="Give the MRC stack of these particles too."
        )
    if len(table) == 0:
        raise InputFileError(f"has no particles in block data_{table.name}", source=path)
    return table


def _group_rows(columns: StarColumns, n_groups: int) -> IntArray:
    """The row in the optics table of the group of each particle."""
    own = dataclasses.replace(columns, optics={}).integer("rlnOpticsGroup")
    groups = dataclasses.replace(columns, particles={}, group_row=np.arange(n_groups)).integer(
        "rlnOpticsGroup"
    )
    if groups is None or (own is None and n_groups != 1):
        where = "optics" if groups is None else "particles"
        raise InputFileError(f"has no rlnOpticsGroup in its {where} table", source=columns.path)
    if own is None:
        return columns.group_row
    order: IntArray = np.argsort(groups, kind="stable")
    if len(np.unique(groups)) < len(groups):
        raise InputFileError(
            f"has an optics group twice: {listed(groups[order])}", source=columns.path
        )
    rows: IntArray = order[np.searchsorted(groups, own, sorter=order).clip(max=n_groups - 1)]
    unknown = np.flatnonzero(groups[rows] != own)
    if len(unknown):
        raise InputFileError(
            f"optics group(s) {listed(np.unique(own[unknown]))} of row(s) {listed(unknown)} (from "
            f"0) are not in the optics table, which has {listed(groups[order])}",
            source=columns.path,
        )
    return rows


def _float(word: Any) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")
