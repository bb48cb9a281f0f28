"""Search coarse to fine: a part of the band tells which views and places of each image are worth
the whole band."""

from __future__ import annotations

import math
from dataclasses import replace

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.poses import POSE
from cryolike_dask.likelihoods.search.coarser import (
    coarser_grid,
    coarser_images,
    coarser_templates,
    spread_views,
)
from cryolike_dask.likelihoods.search.selection import (
    CoarseViews,
    modes_of_images,
    wanted_templates,
    MOST_MODES,
)
from cryolike_dask.likelihoods.search.windows import Window, optimal_poses_in_windows
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.stacks import ImageStack, TemplateStack

COARSE_PIXELS = 33
LEAST_PART, MOST_PART = 0.25, 0.5
REACH = 12.0
NEAR = 1.2


def steps_of(displacements: DisplacementGrid) -> tuple[float, float]:
    found = []
    for values in displacements.table():
        distinct = np.unique(np.round(values, 6))
        found.append(float(np.median(np.diff(distinct))) if len(distinct) > 1 else 0.0)
    return found[0], found[1]


def adaptive_poses(images: ImageStack, templates: TemplateStack, settings: Settings, part=None, reach=REACH) -> da.Array:
    grid, pixel = templates.grid, templates.grid.pixel_size_angstrom
    part = part or float(np.clip(COARSE_PIXELS / grid.n_pixels, LEAST_PART, MOST_PART))
    directions = templates.viewing.rotations()[:, :, 2]
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -1)
    spacing = float(np.median(np.arccos(np.clip(cosines.max(axis=1), -1, 1))))
    coarse_spacing = min(0.6 * spacing / part, 0.3)
    rows = spread_views(directions, coarse_spacing)
    near = directions @ directions[rows].T > math.cos(NEAR * coarse_spacing)
    limits = np.abs(templates.displacements.table()).max(axis=1)
    coarse_step = 0.5 * pixel / part
    n = [max(1, 2 * math.ceil(limit / coarse_step) + 1) for limit in limits]
    x, y = (np.linspace(-limit, limit, k) if k > 1 else np.zeros(1) for limit, k in zip(limits, n))
    displacements = DisplacementGrid(np.tile(x, len(y)), np.repeat(y, len(x)))
    coarse_grid = coarser_grid(grid, part)
    coarse = coarser_templates(templates, coarse_grid, rows, displacements)
    graph = ComparisonGraph(coarser_images(images, coarse_grid), coarse, settings)
    pairs = graph.blockwise(blocks.best_of_pairs, "coarse", blocks.PAIR).rechunk({1: -1})
    step = steps_of(templates.displacements)
    each = [math.ceil(1.25 * coarse_step / s) if s else 0 for s in step]
    delta = [s * np.arange(-k, k + 1) for s, k in zip(step, each)]
    window = Window(
        DisplacementGrid(np.tile(delta[0], len(delta[1])), np.repeat(delta[1], len(delta[0]))),
        templates.displacements,
        step,
    )
    views = CoarseViews(
        template_rows(coarse, settings.rules)["log_prior"],
        near,
        displacements,
        coarse_grid.angles,
        reach,
        (each[0] * step[0], each[1] * step[1]),
    )
    fine = ComparisonGraph(images, replace(templates, displacements=window.displacements), settings)
    modes = pairs.map_blocks(modes_of_images, views, drop_axis=1, new_axis=[1, 2], chunks=(pairs.chunks[0], (MOST_MODES,), (2,)), dtype=np.float64, meta=np.empty((0, 0, 0)))
    wanted = da.blockwise(
        _wanted, "ms", pairs, "mv", modes, "mkx", views, None, dtype=np.bool_, new_axes={"s": len(templates)}, concatenate=True, meta=np.empty((0, 0), bool),
    ).rechunk({1: fine.template_chunks})
    whole = template_rows(templates, settings.rules)
    records = da.blockwise(
        optimal_poses_in_windows, "ms",
        da.from_array(image_rows(images, settings.rules, fine.group_of_image), chunks=(fine.image_chunks,)), "m",
        da.from_array(whole, chunks=(fine.template_chunks,)), "s",
        wanted, "ms", modes, "mkx",
        basis=fine._basis(), comparison=fine.comparison, window=window,
        adjust_chunks={"s": 1}, dtype=POSE, meta=np.empty((0, 0), POSE), align_arrays=False, concatenate=True, token="windows",
    )
    return records, wanted, modes, pairs


def _wanted(pairs, modes, views) -> NDArray[np.bool_]:
    return wanted_templates(pairs, modes, views)
