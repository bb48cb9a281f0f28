"""Search coarse to fine: a part of the band tells which views and places of each image are worth
more of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter

import dask.array as da
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import eye_array

from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.search_method import Adaptive
from cryolike_dask.likelihoods.graph import ComparisonGraph, template_rows
from cryolike_dask.likelihoods.poses import POSE
from cryolike_dask.likelihoods.search.coarser import (
    coarser_grid,
    coarser_images,
    coarser_templates,
    neighbours,
    spacing_of_views,
    spread_views,
)
from cryolike_dask.likelihoods.search.places import Window
from cryolike_dask.likelihoods.search.selection import FOUND, MOST_PLACES, Flat, Reach, Selection
from cryolike_dask.likelihoods.search.windows import (
    best_of_pairs_in_windows,
    optimal_poses_and_pairs,
    optimal_poses_in_windows,
)
from cryolike_dask.stacks import TemplateStack

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]

HALF_PIXELS = 32
"""Half of the band is that of a box of so many pixels, or everything is compared at once."""
COARSEST_PIXELS, COARSEST_PART = 20, 0.25
"""The coarsest level has the band of a box of so many pixels, this part of the band at least."""
REACH, REACH_OF_HALF = Reach(12.0, 2.0, 0.25), Reach(10.0, 4.0, 0.15)
"""Of views that the coarsest level keeps, and of those that half of the band keeps. Of structures
that look nearly alike from two sides the coarsest level loses one or two images in a hundred with a
part of the gain of 0.1 or 0.15, none of 600 with 0.2: the wrong side may lie nearer to one of its
views. Half of the band has the views of the whole one: what may be lost is what the other half
tells."""
NEGLECTED = 6.0
"""Nat below the best pose of a pair that do not count where views are chosen: of noise at a quarter
of the band they are 0.007 +- 0.007 nat, for two thirds of the time."""
STEP_OF_BAND = 0.5
"""Pixels of a level's band between displacements: a quarter of the shortest wave, so that what lies
between them is known."""
DENSER, WIDEST, NEAR = 0.4, 0.15, 1.2
"""Views of the coarsest level lie so much denser than in proportion to its band, radian apart at
most (of clear images of a disc 0.3 loses one in twenty, 0.2 one in 100); those within so many
distances of one that is kept are kept at the next level."""
FINER = 16
"""Parts of a step along each axis at which likelihoods are interpolated in the end, at most, as
many as a peak needs: about one place all poses have the same displacements, and what sums over half
pixels miss of a narrow peak does not average out as in the whole search."""
MISSED = 0.3
"""Part of the error that is asked for which sums over parts of steps may miss."""
MORE_WORK = 1.5
"""Times the work of the level before."""
FLAT, FLAT_OF_HALF = Flat(15.0, 0.8), Flat(30.0, 0.2)
"""Images that tell nothing, to the coarsest level and to half of the band. Noise alone gains 5 to
15 and 15 to 20 nat, and sums over displacements of a search alone are right to 0.1 nat up to 30; a
pose in windows takes four times as long as one of everything, ten times at the search's end."""
SIZE, LAST, SERVES = 8, 9, 4 / 3
"""Displacements along each axis of a window, 64 in all (loops over them take so many at once), and
of the last level: likelihoods between those of 8 are off by up to 0.6 nat, of 9 by 0.03; and steps
within which another place needs no window of its own."""


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
    share : float
        Part of the work of all levels, about.
    """

    grid: PolarGrid
    views: Rows
    spacing: float
    step: tuple[float, float]
    share: float = 1.0


def pixels_of_band(grid: PolarGrid) -> float:
    """Pixels of a box whose Nyquist frequency is the band's."""
    return 4 * grid.radius_max


def step_of_band(grid: PolarGrid, part: float) -> float:
    """Angstrom between displacements that a part of the band asks for."""
    return STEP_OF_BAND * grid.box_size_angstrom / (part * pixels_of_band(grid))


def is_worth_levels(grid: PolarGrid) -> bool:
    """Whether half of the band is wide enough to be searched before all of it."""
    return pixels_of_band(grid) / 2 >= HALF_PIXELS


def has_fine_steps(templates: TemplateStack) -> bool:
    """Whether likelihoods between the displacements of the search follow from those there."""
    finest = step_of_band(templates.grid, 1)
    return max(templates.displacements.steps) <= finest * (1 + 1e-6)


def levels_of(templates: TemplateStack) -> list[Level]:
    """Levels from the coarsest to the whole search."""
    grid, viewing = templates.grid, templates.viewing
    spacing, steps = spacing_of_views(viewing), templates.displacements.steps

    def step(part: float) -> tuple[float, float]:
        of_band = step_of_band(grid, part)
        return of_band if steps[0] else 0.0, of_band if steps[1] else 0.0

    every = np.arange(len(templates))
    levels = [Level(grid, every, spacing, step(1))]
    levels.append(Level(coarser_grid(grid, 0.5), every, spacing, step(0.5)))
    part = max(COARSEST_PART, COARSEST_PIXELS / pixels_of_band(grid))
    apart = min(DENSER * spacing / part, WIDEST)
    if part < 0.5 and apart > spacing:
        views = spread_views(viewing, apart)
        levels.append(Level(coarser_grid(grid, part), views, apart, step(part)))
    work = MORE_WORK ** -np.arange(len(levels), dtype=np.float64)
    shares = (work / work.sum()).tolist()
    return [replace(level, share=s) for level, s in zip(levels, shares, strict=True)][::-1]


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search of some poses gives.

    Attributes
    ----------
    records : (image, template chunk) POSE
    log_pairs : (image, template) float64, or None
        Log-likelihood times prior; None: nobody asks for it.
    graph : ComparisonGraph
        Of the last level: its displacements are those of the window.
    window : Window
    places : (image, place, 2) float64
    wanted : (image, template) uint32
        Which of these were compared, bit by bit.
    """

    records: da.Array
    log_pairs: da.Array | None
    graph: ComparisonGraph
    window: Window
    places: da.Array
    wanted: da.Array


def adaptive_search(graph: ComparisonGraph) -> Searched | None:
    """Search coarse to fine; None where the band is too narrow to be worth levels."""
    templates, rules = graph.templates, graph.settings.rules
    if not is_worth_levels(templates.grid):
        return None
    levels = levels_of(templates)
    log_prior = template_rows(templates, rules)["log_prior"]
    error = (graph.settings.adaptive or Adaptive()).error_nat
    found, parts_left_out = _found_everywhere(levels[0], graph), []
    for before, level in pairwise(levels):
        is_last = level is levels[-1]
        size = [(LAST if is_last else SIZE) if step else 1 for step in level.step]
        window = Window.of_size(size, level.step, templates.displacements)
        if is_last:
            window = replace(window, finer=FINER, missed=MISSED * error)
        else:
            window = replace(window, neglects=NEGLECTED)
        selection = _selection(before, level, window, templates, log_prior[before.views])
        selection = replace(selection, reach=selection.reach.to(error))
        of_level = _at_level(level, graph, level.views, window.displacements)
        wanted, places, left_out = _selected(found, selection, of_level.template_chunks)
        parts_left_out.append(left_out)
        if not is_last:
            found = of_level.blockwise(
                best_of_pairs_in_windows,
                "search-level",
                FOUND,
                more=((wanted, "ms"), (places, "mkx")),
                window=window,
            )
    left_out = da.stack(parts_left_out).sum(axis=0)
    records, log_pairs = last_level(of_level, window, wanted, places)
    records = da.blockwise(
        _with_part_left_out,
        "ms",
        records,
        "ms",
        left_out,
        "m",
        dtype=POSE,
        meta=np.empty((0, 0), POSE),
    )
    return Searched(records, log_pairs, of_level, window, places, wanted)


def _selection(
    before: Level, level: Level, window: Window, templates: TemplateStack, log_prior: FloatArray
) -> Selection:
    """How what a level has found chooses for the next one."""
    of_same_views = len(before.views) == len(level.views)
    distance = min(NEAR * before.spacing, math.pi)
    around = neighbours(templates.viewing, level.views, before.views, distance)
    itself = eye_array(len(level.views), dtype=np.bool_, format="csr")
    most_places = len(window.whole.displacements) / len(window.displacements)
    return Selection(
        log_prior,
        near=itself if of_same_views else around,
        around=around,
        reach=REACH_OF_HALF if of_same_views else REACH,
        distance=SERVES * max(level.step),
        # about a place, the displacements of a line are others under each rotation
        most_places=0 if window.is_line else most_places,
        flat=FLAT_OF_HALF if level.grid == templates.grid else FLAT,
        end=float(window.limit.min()) - max(before.step),
    )


def wanted_in_whole_band(graph: ComparisonGraph) -> NDArray[np.bool_]:
    """Which templates each image is compared with at the last level, (image, template)."""
    searched = adaptive_search(graph)
    if searched is None:
        return np.ones((len(graph.images), len(graph.templates)), np.bool_)
    wanted: NDArray[np.bool_] = searched.wanted.compute(scheduler="synchronous") > 0
    return wanted


def last_level(
    graph: ComparisonGraph, window: Window, wanted: da.Array, places: da.Array
) -> tuple[da.Array, da.Array | None]:
    """Records of the best poses, (image, template chunk), POSE; and log-likelihood times prior of
    each pair, (image, template), where posteriors are asked for."""
    more = ((wanted, "ms"), (places, "mkx"))
    if not graph.settings.pose_posteriors:
        found = graph.blockwise(
            optimal_poses_in_windows,
            "search-last-level",
            POSE,
            one_per_chunk=True,
            more=more,
            window=window,
        )
        return found, None
    both = graph.blockwise(
        optimal_poses_and_pairs, "search-last-level", np.dtype(object), more=more, window=window
    )
    n = ((1,) * both.numblocks[1],)
    records = da.map_blocks(
        itemgetter(0), both, chunks=both.chunks[:1] + n, dtype=POSE, meta=np.empty((0, 0), POSE)
    )
    log_pairs = da.map_blocks(itemgetter(1), both, dtype=np.float64, meta=np.empty((0, 0)))
    return records, log_pairs


def _with_part_left_out(poses: NDArray[np.void], left_out: FloatArray) -> NDArray[np.void]:
    poses = poses.copy()
    poses["part_left_out"] = left_out[:, None]
    return poses


def _selected(
    found: da.Array, selection: Selection, template_chunks: tuple[int, ...]
) -> tuple[da.Array, da.Array, da.Array]:
    """Places that are worth the next level: which of them each pair wants, bits (image, template),
    and where they are, (image, place, 2); and what is left out, (image,). Chunks of images know all
    views."""
    chosen = da.map_blocks(
        selection.chosen,
        found.rechunk({1: -1}),
        drop_axis=1,
        dtype=np.dtype(object),
        meta=np.empty(0, np.dtype(object)),
        token="search-chosen",
    )

    def part(i: int, dtype: type, *shape: int) -> da.Array:
        return da.map_blocks(
            itemgetter(i),
            chosen,
            new_axis=list(range(1, 1 + len(shape))),
            chunks=(chosen.chunks[0], *((n,) for n in shape)),
            dtype=dtype,
            meta=np.empty((0,) * (1 + len(shape)), dtype),
        )

    wanted = part(1, np.uint32, selection.near.shape[0]).rechunk({1: template_chunks})
    return wanted, part(0, np.float64, MOST_PLACES, 2), part(2, np.float64)


def _found_everywhere(level: Level, graph: ComparisonGraph) -> da.Array:
    """What the coarsest level finds: every image under all of its views, (image, view), FOUND."""
    window = Window.of((0, 0), level.step, graph.templates.displacements)
    window = replace(window, neglects=NEGLECTED).whole
    of_level = _at_level(level, graph, level.views, window.displacements)
    wanted, places = everywhere(of_level)
    return of_level.blockwise(
        best_of_pairs_in_windows,
        "search-first-level",
        FOUND,
        more=((wanted, "ms"), (places, "mkx")),
        window=window,
        **of_level.first,
    )


def everywhere(graph: ComparisonGraph) -> tuple[da.Array, da.Array]:
    """What images want that are compared with all templates about the middle: which places, bits
    (image, template), and where they are, (image, place, 2)."""
    shape, chunks = (len(graph.images), len(graph.templates)), graph.image_chunks
    middle = np.full((shape[0], MOST_PLACES, 2), np.nan)
    middle[:, 0] = 0
    wanted = da.ones(shape, dtype=np.uint32, chunks=(chunks, graph.template_chunks))
    return wanted, da.from_array(middle, chunks=(chunks, -1, -1))


def _at_level(
    level: Level, graph: ComparisonGraph, views: Rows, displacements: DisplacementGrid
) -> ComparisonGraph:
    """Images and views of a level."""
    of_level = ComparisonGraph(
        coarser_images(graph.images, level.grid),
        coarser_templates(graph.templates, level.grid, views, displacements),
        graph.settings,
        discover_tiles=graph.comparison.discover_tiles,
        withheld=graph.withheld,
    )
    number = level.grid.n_shells  # no two have as many
    of_level.comparison = replace(of_level.comparison, level=number, share=level.share)
    return of_level
