"""Search coarse to fine: a part of the band tells which views and places of each image are worth
more of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.graph import ComparisonGraph, template_rows
from cryolike_dask.likelihoods.poses import POSE
from cryolike_dask.likelihoods.search.coarser import (
    coarser_grid,
    coarser_images,
    coarser_templates,
    spread_views,
)
from cryolike_dask.likelihoods.search.selection import FOUND, MOST_PLACES, Selection
from cryolike_dask.likelihoods.search.windows import (
    Window,
    best_of_pairs_in_windows,
    optimal_poses_in_windows,
)
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.stacks import ImageStack, TemplateStack

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]

COARSEST_PIXELS, COARSEST_PART = 32, 0.25
"""The coarsest level has the band of a box of so many pixels, but this part of the band at least;
each level twice that of the one before."""
REACH = 12.0
"""Nat below the best view of a level that may still hold what counts."""
STEP_OF_BAND = 0.5
"""Pixels of the level's band: between displacements."""
DENSER, WIDEST, NEAR = 0.6, 0.3, 1.2
"""Views of a level lie so much denser than in proportion to its band, radian apart at most; those
within so many distances of one that is kept are kept at the next level."""
FINER = 2
"""How many times as finely as the search displacements are tried in the end: about one place, all
poses have the same nodes, and what sums over half pixels miss of a narrow peak does not average
out as in the whole search."""
WIDE = 1.25
"""Half width of a window, steps of the level before."""


@dataclass(frozen=True, eq=False)
class Level:
    """Views and displacements that are worth trying in a part of the band.

    Attributes
    ----------
    grid : PolarGrid
    views : (view,) int64
        Of all templates.
    spacing : float
        Radian between them.
    step : (float, float)
        Angstrom between displacements.
    """

    grid: PolarGrid
    views: Rows
    spacing: float
    step: tuple[float, float]


def levels_of(templates: TemplateStack) -> list[Level]:
    """Levels from the coarsest to the whole search."""
    grid, directions = templates.grid, templates.viewing.rotations()[:, :, 2]
    spacing, steps = _spacing(directions), steps_of(templates.displacements)
    levels = [Level(grid, np.arange(len(templates)), spacing, steps)]
    part = 0.5
    while part >= COARSEST_PART and part * grid.n_pixels >= COARSEST_PIXELS:
        apart = min(max(DENSER * spacing / part, spacing), max(WIDEST, spacing))
        step = STEP_OF_BAND * grid.pixel_size_angstrom / part
        levels.append(
            Level(
                coarser_grid(grid, part),
                spread_views(directions, apart),
                apart,
                (max(step, steps[0]) if steps[0] else 0.0, max(step, steps[1]) if steps[1] else 0.0),
            )
        )
        part /= 2
    return levels[::-1]


def adaptive_pose_records(
    images: ImageStack, templates: TemplateStack, settings: Settings
) -> da.Array:
    """Records of the best poses, (image, template chunk), POSE."""
    first, *others = levels_of(templates)
    if not others:
        raise NotImplementedError
    directions = templates.viewing.rotations()[:, :, 2]
    found = _found_everywhere(first, images, templates, settings)
    for before, level in zip([first, *others[:-1]], others, strict=True):
        whole_prior = template_rows(templates, settings.rules)["log_prior"]
        half_width = tuple(WIDE * s for s in before.step)
        selection = Selection(
            whole_prior[before.views],
            directions[level.views] @ directions[before.views].T
            > math.cos(NEAR * before.spacing + 1e-9),
            REACH,
            max(half_width) / 2.5,
        )
        places = found.map_blocks(
            _places,
            selection,
            drop_axis=1,
            new_axis=[1, 2],
            chunks=(found.chunks[0], (MOST_PLACES,), (2,)),
            dtype=np.float64,
            meta=np.empty((0, 0, 0)),
        )
        wanted = da.blockwise(
            _wanted,
            "ms",
            found,
            "mv",
            places,
            "mkx",
            selection,
            None,
            new_axes={"s": len(level.views)},
            concatenate=True,
            dtype=np.bool_,
            meta=np.empty((0, 0), np.bool_),
        )
        is_last = level is others[-1]
        finer = FINER if is_last else 1
        window = Window(
            _square(half_width, (level.step[0] / finer, level.step[1] / finer)),
            templates.displacements,
            level.step,
            finer,
        )
        at_level = coarser_templates(templates, level.grid, level.views, window.displacements)
        graph = ComparisonGraph(coarser_images(images, level.grid), at_level, settings)
        function = optimal_poses_in_windows if is_last else best_of_pairs_in_windows
        found = graph.blockwise(
            function,
            "optimal-pose-windows" if is_last else "windows",
            POSE if is_last else FOUND,
            one_per_chunk=is_last,
            more=((wanted.rechunk({1: graph.template_chunks}), "ms"), (places, "mkx")),
            window=window,
        )
        if not is_last:
            found = found.rechunk({1: -1})
    return found


def _found_everywhere(
    level: Level, images: ImageStack, templates: TemplateStack, settings: Settings
) -> da.Array:
    """What the coarsest level finds: every image under all of its views, (image, view), FOUND."""
    limits = np.abs(templates.displacements.table()).max(axis=1)
    displacements = _square(tuple(limits), level.step, exact=True)
    coarse = coarser_templates(templates, level.grid, level.views, displacements)
    graph = ComparisonGraph(coarser_images(images, level.grid), coarse, settings)
    pairs = graph.blockwise(blocks.best_of_pairs, "coarse", blocks.PAIR).rechunk({1: -1})
    return pairs.map_blocks(
        _in_frame_of_image, displacements, level.grid.angles, dtype=FOUND, meta=np.empty((0, 0), FOUND)
    )


def steps_of(displacements: DisplacementGrid) -> tuple[float, float]:
    """Angstrom between displacements along x and y; 0 of a single one."""
    found = []
    for values in displacements.table():
        distinct = np.unique(np.round(values, 6))
        found.append(float(np.median(np.diff(distinct))) if len(distinct) > 1 else 0.0)
    return found[0], found[1]


def _spacing(directions: FloatArray) -> float:
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -1)
    return float(np.median(np.arccos(np.clip(cosines.max(axis=1), -1, 1))))


def _square(
    half_width: tuple[float, ...], step: tuple[float, float], *, exact: bool = False
) -> DisplacementGrid:
    """A square of displacements in steps; `exact`: in steps no longer, up to just its half
    width."""
    axes = []
    for width, s in zip(half_width, step, strict=True):
        n = math.ceil(width / s - 1e-6) if s else 0
        axes.append(np.arange(-n, n + 1) * (width / n if exact and n else s))
    x, y = axes
    return DisplacementGrid(np.tile(x, len(y)), np.repeat(y, len(x)))


def _in_frame_of_image(
    pairs: NDArray[np.void], displacements: DisplacementGrid, angles: FloatArray
) -> NDArray[np.void]:
    """Best poses as places of the particle: moved by d and turned by -gamma, it lies at R(-gamma)
    d."""
    gamma = angles[pairs["rotation"]]
    x, y = displacements.table()[:, pairs["displacement"]]
    found = np.zeros(pairs.shape, FOUND)
    found["log_likelihood"] = pairs["log_likelihood"]
    found["x"] = np.cos(gamma) * x + np.sin(gamma) * y
    found["y"] = np.cos(gamma) * y - np.sin(gamma) * x
    return found


def _places(found: NDArray[np.void], selection: Selection) -> FloatArray:
    return selection.places(found)


def _wanted(found: NDArray[np.void], places: FloatArray, selection: Selection) -> Any:
    return selection.templates(found, places)
