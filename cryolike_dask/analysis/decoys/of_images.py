"""What decoys and fits of residuals say of each image, opened with the results that they are of."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import refuse_mixed
from cryolike_dask.analysis.decoys.of_results import (
    ATTRIBUTES,
    Q_VALUE,
    decoy_competition,
    has_decoys,
)
from cryolike_dask.errors import InputError, InputFileError
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


def with_q_values(results: xr.Dataset) -> xr.Dataset:
    """Results with the q-values of images, a variable that is computed when it is asked for, where
    decoys were compared; without where they cannot compete."""
    if not has_decoys(results):
        return results
    try:
        refuse_mixed(results)
    except InputError:
        return results
    lazy = indexing.LazilyIndexedArray(_QValues(results))
    return results.assign({Q_VALUE: (labels.IMAGE, lazy, ATTRIBUTES[Q_VALUE])})


class _QValues(BackendArray):
    """Q-values of all images of results, which compete together whatever is selected of them.

    As a Dask array they would need a graph over all files as soon as results are opened.
    """

    def __init__(self, results: xr.Dataset) -> None:
        self.results = results
        self.shape = (results.sizes[labels.IMAGE],)
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        values = decoy_competition(self.results)[Q_VALUE].values
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, lambda at: values[at]
        )
