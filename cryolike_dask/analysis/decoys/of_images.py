"""What fits of residuals have shown of each image, opened with the results that they are of."""

from __future__ import annotations

import logging

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.errors import InputFileError
from cryolike_dask.io.export_names import RESIDUALS
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.records import Record, checksum_of_settings
from cryolike_dask.io.residuals import read_residuals

logger = logging.getLogger("cryolike_dask")


def with_residuals(
    results: xr.Dataset, files: LikelihoodFiles, record: Record | None
) -> xr.Dataset:
    """Results with the p-values of their residuals, a coordinate of images, where they were fitted;
    without, and a warning, where what lies there cannot be read or is of other results."""
    path = files.folder_output / RESIDUALS
    try:
        found = read_residuals(path)
    except InputFileError as error:
        logger.warning("%s", error)
        return results
    if found is None:
        return results
    stack, image = (results[name].values for name in (labels.STACK, labels.IMAGE_IN_STACK))
    is_of_these = record is not None and found.results == checksum_of_settings(record)
    if not is_of_these or not (
        np.array_equal(found.stack, stack) and np.array_equal(found.image_in_stack, image)
    ):
        logger.warning("%s: is of other results than lie here, and is left out", path)
        return results
    attributes = labels.ATTRIBUTES[labels.RESIDUAL_P_VALUE]
    p_value = (labels.IMAGE, found.p_value, attributes)
    return results.assign_coords({labels.RESIDUAL_P_VALUE: p_value})
