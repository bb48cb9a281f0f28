"""Several STAR files of particles as one: the text of every column as it was, optics groups
renumbered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.analysis.export.metadata_rows import ONE_BY_ONE
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.particles.relion import pixel_size_of
from cryolike_dask.particles.star_columns import StarColumns

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Table = dict[str, NDArray[np.str_]]

GROUP, GROUP_NAME = "rlnOpticsGroup", "rlnOpticsGroupName"


@dataclass(frozen=True, eq=False)
class Merged:
    """The tables of one file, or of several as one.

    Attributes
    ----------
    files : tuple of StarColumns
    optics, particles : dict of str to array of str
        Optics are empty without an optics table.
    """

    files: tuple[StarColumns, ...]
    optics: Table
    particles: Table

    def pixel_size_angstrom(self) -> FloatArray:
        """Pixel size of the stored images, (row,).

        Raises
        ------
        InputFileError
            If a file does not say it.
        """
        return np.concatenate([pixel_size_angstrom(file) for file in self.files])


def merge(files: Sequence[StarColumns], replaced: Sequence[str] = ()) -> Merged:
    """Join STAR files, one after the other; a file alone stays as it is.

    Parameters
    ----------
    files : sequence of StarColumns
    replaced : sequence of str
        Columns that need not be in all files, because they are written anew.

    Raises
    ------
    InputError
        If one has columns, or an optics table, that another does not have.
    """
    if len(files) == 1:
        return Merged((files[0],), files[0].optics, files[0].particles)
    for kind in ("optics", "particles"):
        _refuse_different(files, kind, replaced)
    common = [
        label for label in files[0].particles if all(label in file.particles for file in files)
    ]
    particles = {
        label: np.concatenate([file.particles[label] for file in files]) for label in common
    }
    if not files[0].optics:
        return Merged(tuple(files), {}, particles)
    optics, number = _merged_optics(files)
    groups = [of_file[file.group_row] for of_file, file in zip(number, files, strict=True)]
    particles[GROUP] = np.concatenate(groups).astype(np.str_)
    return Merged(tuple(files), optics, particles)


def pixel_size_angstrom(file: StarColumns) -> FloatArray:
    """Pixel size of the stored images of one file, (row,): recorded, or by the magnification.

    Raises
    ------
    InputFileError
        If it does not say it.
    """
    size = pixel_size_of(file)
    if size is None:
        raise InputFileError(
            "says no pixel size, but its origins are in pixels",
            source=file.path,
            remedy="Add rlnDetectorPixelSize (micrometre) and rlnMagnification.",
        )
    return size


def _refuse_different(files: Sequence[StarColumns], kind: str, replaced: Sequence[str]) -> None:
    free = {*replaced, *((GROUP,) if kind == "particles" else (GROUP_NAME,))}
    columns = [set(getattr(file, kind)) - free for file in files]
    for file, own in zip(files, columns, strict=True):
        lacking = sorted(set().union(*columns) - own)
        if lacking:
            raise InputError(
                f"{file.path} has no {', '.join(lacking)} ({kind} table), as others have",
                remedy=ONE_BY_ONE,
            )


def _merged_optics(files: Sequence[StarColumns]) -> tuple[Table, list[IntArray]]:
    """One optics table, and the new numbers of the groups of each file. Groups that are the same
    become one."""
    labels = [
        label
        for label in files[0].optics
        if label != GROUP and all(label in file.optics for file in files)
    ]
    groups: dict[tuple[str, ...], int] = {}
    numbers = []
    for file in files:
        described = zip(*(file.optics[label].tolist() for label in labels), strict=True)
        numbers.append(
            np.array([groups.setdefault(group, len(groups) + 1) for group in described], np.int64)
        )
    columns = [np.array(values, np.str_) for values in zip(*groups, strict=True)]
    optics = {
        GROUP: np.arange(1, len(groups) + 1).astype(np.str_),
        **dict(zip(labels, columns, strict=True)),
    }
    if GROUP_NAME in optics:
        optics[GROUP_NAME] = _distinct(optics[GROUP_NAME])
    return optics, numbers


def _distinct(names: NDArray[np.str_]) -> NDArray[np.str_]:
    """Names of groups that differ, made to differ: RELION takes groups of one name for one."""
    taken: list[str] = []
    for name in names.tolist():
        candidates = (name if k == 1 else f"{name}_{k}" for k in range(1, len(names) + 1))
        taken.append(next(candidate for candidate in candidates if candidate not in taken))
    return np.array(taken)
