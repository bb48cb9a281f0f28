"""Rows of metadata files that describe the images of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import of_images
from cryolike_dask.errors import InputError, InputFileError, listed
from cryolike_dask.particles.locate import distinct
from cryolike_dask.particles.opening import PathOrPaths

IntArray = NDArray[np.int64]

ONE_BY_ONE = "Export them one by one: results.isel(image=results.metadata_file == FILE)."
"""Remedy for metadata files that cannot become one file."""


@dataclass(frozen=True, eq=False)
class Described:
    """A metadata file, and which image each row names: None if it names none.

    Attributes
    ----------
    path : Path
    n_rows : int
    names : (row,) str or None
        Names of image files, as they stand there.
    index : (row,) int64 or None
        Position in the file, from 0.
    """

    path: Path
    n_rows: int
    names: NDArray[np.str_] | None = None
    index: IntArray | None = None


@dataclass(frozen=True, eq=False)
class Rows:
    """The row of each image: which file, and the row there from 0."""

    files: tuple[Described, ...]
    number: IntArray
    row: IntArray

    def joined(self) -> IntArray:
        """Rows of all files, one after the other."""
        starts = np.cumsum([0, *(file.n_rows for file in self.files[:-1])])
        joined: IntArray = starts[self.number] + self.row
        return joined

    def left_out(self, images: IntArray, missing: NDArray[np.object_]) -> list[str]:
        """Name every row whose image is not among those, with the reason; `missing` has those of
        images that are among the results."""
        ends = np.cumsum([file.n_rows for file in self.files])
        reasons = np.full(ends[-1], "not among the results given", object)
        reasons[self.joined()] = missing
        reasons[self.joined()[images]] = ""
        parts = np.split(reasons, ends[:-1])
        return [
            f"{file.path}\t{row}\t{reason}"
            for file, part in zip(self.files, parts, strict=True)
            for row, reason in enumerate(part)
            if reason
        ]


def metadata_files(results: xr.Dataset, given: PathOrPaths | None, suffix: str) -> tuple[Path, ...]:
    """The metadata files of the images, in the order of their first use, or those that are given
    instead.

    Raises
    ------
    InputError
        If they are not known, or none with this suffix, ".star" or ".cs".
    """
    if given is not None:
        files = (given,) if isinstance(given, (str, Path)) else tuple(given)
    else:
        names, row = _recorded(results)
        unknown = np.flatnonzero((names == "") | (row < 0))
        if len(unknown):
            raise InputError(
                f"it is not known which rows of a metadata file {len(unknown)} of {len(names)} "
                f"image(s) are: {listed(unknown)}",
                remedy=f"Give the {suffix} file whose rows are the images in order (metadata=, "
                f"--metadata).",
            )
        files = distinct(names.tolist())[0]
    paths = tuple(Path(file) for file in files)
    wrong = [str(path) for path in paths if (path.suffix.lower() == ".cs") != (suffix == ".cs")]
    if wrong:
        other = "export_star (--star)" if suffix == ".cs" else "export_cryosparc (--cs)"
        raise InputError(
            f"the particles are described by {', '.join(wrong)}, no {suffix} file",
            remedy=f"Use {other}.",
        )
    return paths


def rows_of(results: xr.Dataset, files: Sequence[Described], *, given: bool) -> Rows:
    """Find the row of each image; `given`: the files stand for those that are recorded.

    Raises
    ------
    InputError, InputFileError
        If the files are not those that the results are of.
    """
    names, row = _recorded(results)
    used, number = distinct(names.tolist())
    # recorded rows go before the order of the images: a selection of results has kept them
    if (row >= 0).all() and "" not in used and len(used) == len(files):
        rows, in_order = Rows(tuple(files), number, row), False
    else:
        rows, in_order = _by_order(results, files), True
    _refuse_beyond(rows)
    # files that name the very images may have more rows than the run had images
    named = [_names_the_images(results, rows, i) for i in range(len(files))]
    n_images, n_rows = int(results[labels.IMAGE].max()) + 1, sum(file.n_rows for file in files)
    if given and in_order and n_rows != n_images and not all(named):
        raise InputFileError(
            f"describes {n_rows} particles, but the results are of {n_images} images",
            source=", ".join(str(file.path) for file in files),
            remedy="Give the file whose rows are the images, in order, and all of its results.",
        )
    return rows


def _recorded(results: xr.Dataset) -> tuple[NDArray[Any], IntArray]:
    names = of_images(results, labels.METADATA_FILE, "").astype(object)
    return names, of_images(results, labels.METADATA_ROW, -1).astype(np.int64)


def _by_order(results: xr.Dataset, files: Sequence[Described]) -> Rows:
    """Image k is row k of the files taken one after the other."""
    ends = np.cumsum([file.n_rows for file in files])
    image = results[labels.IMAGE].values.astype(np.int64)
    if image.max() >= ends[-1]:
        raise InputFileError(
            f"describes {ends[-1]} particles, but the results are of {image.max() + 1} images",
            source=", ".join(str(file.path) for file in files),
            remedy="Give the file whose rows are the images, in order.",
        )
    number = np.searchsorted(ends, image, side="right")
    return Rows(tuple(files), number, image - np.r_[0, ends][number])


def _refuse_beyond(rows: Rows) -> None:
    for i, file in enumerate(rows.files):
        row = rows.row[rows.number == i]
        if len(row) and row.max() >= file.n_rows:
            raise InputFileError(
                f"has {file.n_rows} particles, but the results are of row {row.max()} (from 0) too",
                source=file.path,
                remedy="It was changed after the run; give it as it was then (metadata=, "
                "--metadata).",
            )
    if len(np.unique(rows.joined())) < len(rows.row):
        raise InputError("the results have an image twice", remedy="Select each image once.")


def _names_the_images(results: xr.Dataset, rows: Rows, i: int) -> bool:
    """Whether a metadata file names the very images of the results; False if nothing tells.

    Nothing tells where no name is that of an image file but numbers agree: then the image files
    were given beside the metadata.
    """
    file, images = rows.files[i], np.flatnonzero(rows.number == i)
    path = of_images(results, labels.IMAGE_FILE, "")[images]
    index = of_images(results, labels.IMAGE_INDEX, -1)[images]
    known = np.flatnonzero((path != "") & (index >= 0))
    if file.names is None or file.index is None or not len(known):
        return False
    row = rows.row[images][known]
    same_name = _last_part(file.names[row]) == _last_part(path[known])
    differ = np.flatnonzero(~(same_name & (file.index[row] == index[known])))
    beside = not same_name.any() and (
        file.path.suffix.lower() == ".cs" or bool((file.index[row] == index[known]).all())
    )
    if len(differ) and not beside:
        k = differ[0]
        raise InputFileError(
            f"row {row[k]} (from 0) is image {file.index[row][k] + 1} of {file.names[row][k]}, "
            f"but the result is of image {index[known][k] + 1} of {path[known][k]}; "
            f"{len(differ)} such row(s)",
            source=file.path,
            remedy="It was changed after the run; give it as it was then (metadata=, --metadata).",
        )
    return len(known) == len(images) and not len(differ)


def _last_part(paths: NDArray[Any]) -> NDArray[np.str_]:
    return np.array([str(path).rpartition("/")[2] for path in paths.tolist()])
