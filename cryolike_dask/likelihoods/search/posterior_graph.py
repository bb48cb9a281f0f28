"""Posteriors over poses as a stage of a graph, once all poses of an image stack are settled."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np

from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.search.adaptive import (
    FINER,
    Searched,
    everywhere,
    has_fine_steps,
    last_level,
)
from cryolike_dask.likelihoods.search.places import Window
from cryolike_dask.likelihoods.search.posterior import Stage, pose_posteriors, posterior_dtype
from cryolike_dask.likelihoods.search.regions import Orientations

PARTS = 4
"""Of a step, at which densities are interpolated."""


def posterior_records(
    graph: ComparisonGraph, poses: da.Array, searched: Searched | None
) -> da.Array:
    """How the posterior of each image is spread, (image,) records.

    Parameters
    ----------
    graph : ComparisonGraph
    poses : (image,) POSE
        Of its search.
    searched : Searched or None
        None: everything was compared; it is once more, for what each template holds.
    """
    searched = searched or search_of_everything(graph)
    of_level, rules = searched.graph, graph.settings.rules
    dtype = posterior_dtype(graph.settings.n_top_poses)
    rows = image_rows(of_level.images, rules, of_level.group_of_image)
    return da.blockwise(
        pose_posteriors,
        "m",
        da.from_array(rows, chunks=(of_level.image_chunks,)),
        "m",
        poses,
        "m",
        searched.log_pairs,
        "ms",
        searched.wanted,
        "ms",
        searched.places,
        "mkx",
        basis=of_level.basis(),
        comparison=of_level.comparison,
        stage=Stage(
            template_rows(of_level.templates, rules),
            replace(searched.window, finer=min(PARTS, searched.window.finer)),
            Orientations.of(graph.templates.viewing, graph.templates.grid.angles),
            graph.settings.n_top_poses,
        ),
        dtype=dtype,
        meta=np.empty(0, dtype),
        token=f"pose-posteriors-{of_level.comparison.name}",
        align_arrays=False,
        concatenate=True,
    )


def search_of_everything(graph: ComparisonGraph) -> Searched:
    """Everything compared in one window, the whole search; between displacements too, where the
    band lets these be known."""
    templates = graph.templates
    steps = templates.displacements.steps
    finer = FINER if has_fine_steps(templates) else 1
    window = Window.of((0, 0), steps, templates.displacements, finer).whole
    x, y = (np.unique(axis) for axis in templates.displacements.table())
    if len(x) * len(y) == len(templates.displacements):
        window = replace(window, x_angstrom=x, y_angstrom=y)
    in_window = ComparisonGraph(
        graph.images,
        replace(templates, displacements=window.displacements, chunks=None),
        graph.settings,
        discover_tiles=graph.comparison.discover_tiles,
    )
    wanted, places = everywhere(in_window)
    records, log_pairs = last_level(in_window, window, wanted, places)
    return Searched(records, log_pairs, in_window, window, places, wanted)
