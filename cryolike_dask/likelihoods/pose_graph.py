"""Best poses as a graph: searched as settings say, and one record of each image in the end."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da

from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.graph import ComparisonGraph, combined
from cryolike_dask.likelihoods.poses import POSE
from cryolike_dask.likelihoods.search.adaptive import Searched, adaptive_search
from cryolike_dask.likelihoods.search.known import AroundKnown, images_to_check


def pose_records(graph: ComparisonGraph, name: str) -> da.Array:
    """The records of the best poses of a graph, (image,), POSE, without the log-likelihood there;
    `name` is that of its tasks."""
    poses, _ = searched_poses(graph, name)
    return poses


def searched_poses(
    graph: ComparisonGraph, name: str
) -> tuple[da.Array, Searched | AroundKnown | None]:
    """The records of the best poses, (image,), POSE, and the search that left poses out, if one
    did: coarse to fine, or around recorded ones."""
    if graph.settings.around is not None:
        known = AroundKnown.of(graph, graph.settings.around)
        return _poses_around(known, name), known
    searched = adaptive_search(graph) if graph.settings.adaptive else None
    if searched is None:
        records = graph.blockwise(
            blocks.optimal_poses, f"{name}-block", POSE, one_per_chunk=True, **graph.first
        )
    else:
        records = searched.records
    return combined(records, name), searched


def _poses_around(search: AroundKnown, name: str) -> da.Array:
    """Best poses around recorded ones, once some are found to be those."""
    graph, found = search.graph, None
    if search.around.check:
        everywhere = replace(graph.settings, search="adaptive")
        some = ComparisonGraph(images_to_check(graph.images), graph.templates, everywhere)
        found = pose_records(some, f"{name}-check")
    return search.with_edges_said(combined(search.records(found), name))
