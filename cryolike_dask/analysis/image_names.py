"""What images are called, and at which defocus they were taken: by results, and by the metadata
that they name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import of_images
from cryolike_dask.errors import CryolikeError
from cryolike_dask.particles.image_names import split_names
from cryolike_dask.particles.opening import read_optics
from cryolike_dask.particles.relion import optics_of
from cryolike_dask.particles.star_columns import open_columns

IMAGE_NAME = "rlnImageName"


@dataclass(frozen=True, eq=False)
class Called:
    """Images as people know them.

    Attributes
    ----------
    name : (image,) str
        As RELION has it, `000003@file`: by the STAR file where that can be read, or else by image
        file; where neither is known, the number of the image.
    defocus_angstrom : (image,) float64 or None
        Mean of both axes, NaN where it is not known; None: of no image.
    """

    name: NDArray[np.object_]
    defocus_angstrom: NDArray[np.float64] | None = None


def image_names(results: xr.Dataset | xr.DataArray) -> list[str]:
    """Images as RELION names them, `000003@file`, by what results say themselves; where that is not
    recorded, their numbers."""
    numbers = [str(number) for number in np.atleast_1d(results[labels.IMAGE].values)]
    if not {labels.IMAGE_FILE, labels.IMAGE_INDEX} <= set(results.coords):
        return numbers
    files, index = (of_images(results, name) for name in (labels.IMAGE_FILE, labels.IMAGE_INDEX))
    recorded = zip(numbers, files, index, strict=True)
    return [f"{at + 1:06d}@{file}" if file and at >= 0 else n for n, file, at in recorded]


def called(results: xr.Dataset) -> Called:
    """Read what images are called, and their defocus, in the metadata that results name; a file
    that is not there, or is another by now, is passed over."""
    names = np.array(image_names(results), object)
    n = len(names)
    if not {labels.METADATA_FILE, labels.METADATA_ROW} <= set(results.coords):
        return Called(names)
    files, rows = (of_images(results, name) for name in (labels.METADATA_FILE, labels.METADATA_ROW))
    defocus = np.full(n, np.nan)
    for file in sorted({str(file) for file in files if file}):
        chosen = np.flatnonzero((files == file) & (rows >= 0))
        of_file, of_optics = _described(file)
        its = rows[chosen]
        n_rows = min((len(of) for of in (of_file, of_optics) if of is not None), default=0)
        if not len(chosen) or its.max() >= n_rows:
            continue
        if of_file is not None:
            if not _are_the_same(of_file[its], results, chosen):
                continue
            names[chosen] = of_file[its]
        if of_optics is not None:
            both = of_optics["defocus_u_angstrom"] + of_optics["defocus_v_angstrom"]
            defocus[chosen] = both[its] / 2
    return Called(names, defocus if np.isfinite(defocus).any() else None)


def _described(file: str) -> tuple[NDArray[np.str_] | None, NDArray[np.void] | None]:
    """Names and optics in a metadata file; None of what it does not say."""
    names = None
    try:
        if file.lower().endswith(".cs"):
            return None, read_optics(file)
        columns = open_columns(file, need_names=False)
        names = columns.particles.get(IMAGE_NAME)
        return names, optics_of(columns)
    except (CryolikeError, OSError):
        return names, None


def _are_the_same(names: NDArray[np.str_], results: xr.Dataset, chosen: NDArray[np.int64]) -> bool:
    """Whether names are of the images that results were made of, as far as these say it."""
    try:
        files, positions = split_names(names)
    except CryolikeError:  # no names of images
        return False
    recorded = of_images(results, labels.IMAGE_FILE)[chosen]
    index = of_images(results, labels.IMAGE_INDEX)[chosen]
    same_file = [
        not known or _last(known) == _last(file)
        for known, file in zip(recorded, files, strict=True)
    ]
    same_place = (index < 0) | (positions < 0) | (index == positions)
    return bool(np.all(same_file) and same_place.all())


def _last(path: str) -> str:
    return str(path).rpartition("/")[2]
