"""From records of posteriors over poses to labelled variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.likelihoods.graph import ComparisonGraph, template_rows
from cryolike_dask.likelihoods.setup import realised_table
from cryolike_dask.likelihoods.variables import dataset

FloatArray = NDArray[np.float64]

FIELDS = {
    labels.N_EFFECTIVE_POSES: "n_effective",
    labels.VIEW_ENTROPY: "entropy",
    labels.DISPLACEMENT_RADIUS: "displacement_radius",
    labels.MEAN_DISPLACEMENT_X: "x",
    labels.MEAN_DISPLACEMENT_Y: "y",
}


def posterior_variables(graph: ComparisonGraph, poses: da.Array, records: da.Array) -> xr.Dataset:
    """Label how posteriors are spread: `poses`, (image,) POSE, are those of the search, `records`
    those of `pose_posteriors`."""
    real, whole = graph.real, np.dtype(np.int64)
    log_prior = template_rows(graph.templates, graph.settings.rules)["log_prior"]

    def of_records(
        function: Callable[..., NDArray[Any]], name: str, dtype: np.dtype[Any], **options: str
    ) -> da.Array:
        return records.map_blocks(function, dtype=dtype, token=name, **options).astype(dtype)

    fields = {
        labels.BEST_POSE_PROBABILITY: poses.map_blocks(
            _probability, log_prior, dtype=real, token=labels.BEST_POSE_PROBABILITY
        ).astype(real),
        labels.N_SIGNIFICANT_POSES: of_records(_count, labels.N_SIGNIFICANT_POSES, whole),
        labels.ORIENTATION_RADIUS: of_records(_degrees, labels.ORIENTATION_RADIUS, real),
        **{label: of_records(_field, label, real, field=name) for label, name in FIELDS.items()},
    }
    fields = {name: fields[name] for name in labels.OF_POSTERIOR}
    n_top = graph.settings.n_top_poses
    x, y = realised_table(graph.templates.displacements, graph.comparison.conventions)
    tables = {
        labels.TOP_TEMPLATE: ("template", None, whole),
        labels.TOP_DISPLACEMENT_X: ("displacement", x, real),
        labels.TOP_DISPLACEMENT_Y: ("displacement", y, real),
        labels.TOP_INPLANE_ROTATION: ("rotation", graph.templates.grid.angles, real),
        labels.TOP_PROBABILITY: ("probability", None, real),
    }
    top = {
        label: records.map_blocks(
            _of_top,
            field=name,
            table=table,
            dtype=dtype,
            new_axis=1,
            chunks=(records.chunks[0], (n_top,)),
            token=label,
        ).astype(dtype)
        for label, (name, table, dtype) in tables.items()
    }
    of_top = dataset(graph, top, (labels.IMAGE, labels.TOP_POSE))
    return dataset(graph, fields, (labels.IMAGE,)).assign(of_top.data_vars)


def _probability(poses: NDArray[np.void], log_prior: FloatArray) -> FloatArray:
    logs = poses["log_likelihood_optimal"] + log_prior[poses["template"]]
    found: FloatArray = np.exp(np.minimum(logs - poses["log_likelihood_integrated"], 0))
    return found


def _count(records: NDArray[np.void]) -> NDArray[np.int64]:
    n = records["n_significant"]
    return np.where(np.isfinite(n), n, -1).astype(np.int64)


def _degrees(records: NDArray[np.void]) -> FloatArray:
    degrees: FloatArray = np.degrees(records["orientation_radius"])
    return degrees


def _field(records: NDArray[np.void], *, field: str) -> FloatArray:
    values: FloatArray = records[field]
    return values


def _of_top(
    records: NDArray[np.void], *, field: str, table: FloatArray | None
) -> NDArray[np.float64]:
    """A field of the best poses, -1 (templates) or NaN where there are no more."""
    values = records[field] if table is None else table[records[field]]
    if field == "template":
        return np.where(records["probability"] > 0, values, -1)
    return np.where(records["probability"] > 0, values, np.nan)
