"""Names of particles in tables: as the STAR file of the particles has them, where it is there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.export.assignment import of_images
from cryolike_dask.analysis.matrix_files import names_of_images
from cryolike_dask.errors import CryolikeError
from cryolike_dask.particles.image_names import ALONE, split_names
from cryolike_dask.particles.star_columns import open_columns

logger = logging.getLogger("cryolike_dask")


def particle_names(results: xr.Dataset) -> NDArray[np.object_]:
    """rlnImageName of each image, (image,).

    It is that of the STAR file, by which tables are joined with it, if the file says of the row
    which image it is, and says the image that was compared. Else it is made of the image file and
    the position there; or it is the number of the image, where that is not known.
    """
    names = np.array(names_of_images(results), object)
    files = of_images(results, labels.METADATA_FILE, "").astype(str)
    rows = of_images(results, labels.METADATA_ROW, -1).astype(np.int64)
    paths = of_images(results, labels.IMAGE_FILE, "").astype(str)
    index = of_images(results, labels.IMAGE_INDEX, -1).astype(np.int64)
    for file in sorted(set(files.tolist())):
        images = np.flatnonzero((files == file) & (rows >= 0))
        if not file.lower().endswith(".star") or not len(images):
            continue
        try:
            named, of_rows, at = _named_in(Path(file))
        except (CryolikeError, OSError) as error:
            logger.info("names of particles are those of the results: %s", error)
            continue
        images = images[rows[images] < len(named)]
        row = rows[images]
        same = np.array(
            [of_rows[r] == _last_part(path) for r, path in zip(row, paths[images], strict=True)],
            np.bool_,
        )
        same &= (at[row] == index[images]) | (at[row] == ALONE)
        names[images[same]] = named[row[same]]
    return names


def _named_in(path: Path) -> tuple[NDArray[Any], list[str], NDArray[np.int64]]:
    """Names in a STAR file, the last part of each file's name, and the position there."""
    columns = open_columns(path, need_names=False).particles
    named = columns.get("rlnImageName", np.array([], np.str_))
    files, index = split_names(named)
    return named, [_last_part(file) for file in files], index


def _last_part(path: str) -> str:
    return str(path).rpartition("/")[2]
