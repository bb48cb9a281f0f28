"""From records of poses to labelled variables: indices become angstrom and radian, with coordinates
and attributes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.conventions import CRYOLIKE
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.noise import model_checksum
from cryolike_dask.io.records import WHITE
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.search.refined import REFINED_POSE
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.setup import degrees_of_freedom, realised_table
from cryolike_dask.version import __version__

FLOAT64 = np.dtype("f8")


def field(
    graph: ComparisonGraph,
    records: da.Array,
    name: str,
    dtype: np.dtype[Any] | None = None,
    token: str | None = None,
) -> da.Array:
    """Take one field out of the records, in the precision of the computation."""
    dtype = dtype or graph.real
    return records.map_blocks(_take_field, name, dtype, dtype=dtype, token=token or name)


def fields_of_search(graph: ComparisonGraph, records: da.Array) -> dict[str, da.Array]:
    """What a search of some poses may have missed, nat, and how many they are."""
    around = graph.settings.around
    return {
        labels.LOG_LIKELIHOOD_ERROR: records.map_blocks(
            _missed,
            has_windows=around is None or around.within_pixels > 0,
            dtype=graph.real,
            token=labels.LOG_LIKELIHOOD_ERROR,
        ).astype(graph.real),
        labels.N_POSES_COMPARED: field(
            graph, records, "n_poses", np.dtype(np.int64), labels.N_POSES_COMPARED
        ),
    }


def refined_fields(graph: ComparisonGraph, records: da.Array) -> dict[str, da.Array]:
    """The parts of refined poses, `REFINED_POSE`."""
    parts = zip(labels.REFINED, REFINED_POSE.names or (), strict=True)
    return {
        name: field(graph, records, part, FLOAT64 if part == "log_likelihood" else None, token=name)
        for name, part in parts
    }


def displacement_fields(graph: ComparisonGraph, records: da.Array) -> dict[str, da.Array]:
    """Turn displacement indices into angstrom."""
    tables = realised_table(graph.templates.displacements, graph.comparison.conventions).astype(
        graph.real
    )
    names = (labels.OPTIMAL_DISPLACEMENT_X, labels.OPTIMAL_DISPLACEMENT_Y)
    return {
        name: records.map_blocks(_look_up, "displacement", table, dtype=graph.real, token=name)
        for name, table in zip(names, tables, strict=True)
    }


def rotation_field(graph: ComparisonGraph, records: da.Array) -> da.Array:
    """Turn rotation indices into radian."""
    angles = graph.templates.grid.angles.astype(graph.real)
    name = labels.OPTIMAL_INPLANE_ROTATION
    return records.map_blocks(_look_up, "rotation", angles, dtype=graph.real, token=name)


def dataset(
    graph: ComparisonGraph, variables: dict[str, da.Array], dims: tuple[str, ...]
) -> xr.Dataset:
    """Label the variables."""
    data = {name: (dims, values, labels.ATTRIBUTES[name]) for name, values in variables.items()}
    coords = _coordinates(graph)
    used = {name: value for name, value in coords.items() if value[0] in dims}
    used[labels.STRUCTURE] = ((), graph.templates.structure, {})
    return xr.Dataset(data, coords=used, attrs=_attributes(graph))


def _coordinates(graph: ComparisonGraph) -> dict[Hashable, Any]:
    displacements = realised_table(graph.templates.displacements, graph.comparison.conventions)
    viewing = graph.templates.viewing
    values = {
        labels.IMAGE: (labels.IMAGE, np.arange(len(graph.images))),
        labels.STACK: (labels.IMAGE, graph.images.stack),
        labels.IMAGE_IN_STACK: (labels.IMAGE, graph.images.image_in_stack),
        labels.TEMPLATE: (labels.TEMPLATE, np.arange(len(graph.templates))),
        labels.AZIMUTH: (labels.TEMPLATE, viewing.azimuth),
        labels.POLAR: (labels.TEMPLATE, viewing.polar),
        labels.VIEWING_WEIGHT: (labels.TEMPLATE, viewing.weight),
        labels.DISPLACEMENT: (labels.DISPLACEMENT, np.arange(displacements.shape[1])),
        labels.DISPLACEMENT_X: (labels.DISPLACEMENT, displacements[0]),
        labels.DISPLACEMENT_Y: (labels.DISPLACEMENT, displacements[1]),
        labels.ROTATION: (labels.ROTATION, graph.templates.grid.angles),
    }
    return {name: (*value, labels.ATTRIBUTES.get(name, {})) for name, value in values.items()}


def noise_attributes(grid: PolarGrid, settings: Settings) -> dict[str, Any]:
    """What a comparison takes the noise for: the checksum of its model; degrees of freedom and
    B-factor, one for all images or those of the groups of the model."""
    model, n_free = settings.noise, settings.degrees_of_freedom
    if model is None:
        numbers = [degrees_of_freedom(grid, settings.rules)], [settings.b_factor]
    else:
        b_factors = model.b_factor_angstrom2 + settings.b_factor
        numbers = model.degrees_of_freedom(grid).tolist(), b_factors.tolist()
    if n_free is not None:
        numbers = [float(n_free)], numbers[1]
    named = zip(("degrees_of_freedom", "b_factor"), numbers, strict=True)
    shared = {name: of[0] if len(set(of)) == 1 else of for name, of in named}
    is_by_group = model is not None and any(isinstance(of, list) for of in shared.values())
    return {
        "noise": WHITE if model is None else model_checksum(model),
        **shared,
        **({"noise_groups": list(model.groups)} if is_by_group and model is not None else {}),
    }


def _attributes(graph: ComparisonGraph) -> dict[str, Any]:
    grid, search = graph.templates.grid, graph.templates.displacements
    return {
        "conventions": graph.comparison.conventions.name,
        "precision": graph.precision,
        "device": graph.comparison.device,
        "tolerance": graph.comparison.tolerance,
        "search": str(graph.settings.search),
        **noise_attributes(grid, graph.settings),
        "frame": graph.images.frame,
        "template_conventions": graph.templates.conventions or CRYOLIKE.name,
        "n_pixels": grid.n_pixels,
        "pixel_size_angstrom": grid.pixel_size_angstrom,
        "radius_max": grid.radius_max,
        "n_inplanes": grid.n_inplanes,
        "n_templates": len(graph.templates),
        "symmetry": graph.templates.viewing.symmetry,
        "n_displacements": len(search),
        "max_displacement_angstrom": float(np.abs(search.table()).max()),
        "version": __version__,
    }


def _missed(records: NDArray[np.void], *, has_windows: bool) -> NDArray[np.float64]:
    if not has_windows:
        return np.full(records.shape, np.nan)
    part = records["part_left_out"] + np.exp(
        records["log_missed"] - records["log_likelihood_integrated"]
    )
    missed: NDArray[np.float64] = -np.log1p(-np.minimum(part, 1 - 1e-12))
    return missed


def _take_field(records: NDArray[np.void], name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    return records[name].astype(dtype)


def _look_up(records: NDArray[np.void], name: str, table: NDArray[Any]) -> NDArray[Any]:
    values: NDArray[Any] = table[records[name]]
    return values
