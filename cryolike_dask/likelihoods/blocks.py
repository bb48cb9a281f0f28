"""Functions that tasks compute: rows of images against rows of templates. The border between numpy
and torch.

Block functions take small tables of rows (which images, which templates, and what is known of
each), a radial basis and a `Comparison` (where the data is, and every setting), and give numpy
arrays. torch lives only inside them; it is imported inside the functions, because the scheduler
imports this module too.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from cryolike_dask.compute.block_reports import announce
from cryolike_dask.compute.device import real_dtype, resolve_device
from cryolike_dask.errors import CryolikeError
from cryolike_dask.likelihoods import kept_images
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.envelope import BestOfStructures, choose_structures
from cryolike_dask.likelihoods.found import BestOfImages, BestOfPairs, Likelihoods
from cryolike_dask.likelihoods.setup import (
    IMAGES_AT_A_TIME,
    best_nodes,
    find_basis,
    log_likelihood_at,
)
from cryolike_dask.likelihoods.tiled_block import Block, open_block
from cryolike_dask.likelihoods.tiles import smaller_tile
from cryolike_dask.likelihoods.turns import (
    fewer_images,
    opened,
    turn,
    with_less,
)

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis

PAIR = np.dtype(
    [
        ("cross_correlation", "f8"),
        ("displacement", "i4"),
        ("rotation", "i4"),
        ("log_likelihood", "f8"),
    ]
)
BEST_DISPLACEMENT = np.dtype([("cross_correlation", "f8"), ("displacement", "i4")])
BEST_ROTATION = np.dtype([("cross_correlation", "f8"), ("rotation", "i4")])

Found = TypeVar("Found")

KEPT_BASES = 8
"""Radial bases of the latest comparisons that a process keeps, some MB each: one takes as long as
preparing two hundred templates, and stacks of images under one structure have the same."""
_LATEST = OrderedDict[str, "RadialBasis"]()


def radial_basis_of(comparison: Comparison) -> RadialBasis:
    """Radial basis that all blocks of a comparison are given; made once in a process for all images
    that are compared with the same templates."""
    key = _what_bases_depend_on(comparison)
    with turn(comparison):
        basis = _LATEST.get(key)
        basis = find_basis(comparison) if basis is None else basis
        _keep(key, basis)
    return basis


def _keep(key: str, basis: RadialBasis) -> None:
    """Keep a basis for what this process compares next, wherever it was made."""
    _LATEST[key] = basis
    _LATEST.move_to_end(key)
    while len(_LATEST) > KEPT_BASES:
        _LATEST.popitem(last=False)


def _what_bases_depend_on(comparison: Comparison) -> str:
    """Files are known by name, size and time, arrays by their values."""
    key: str = tokenize(
        comparison.templates,
        comparison.grid,
        comparison.displacements.table(),
        comparison.conventions,
        comparison.whitening.of_templates,
        comparison.tolerance,
        comparison.device,
    )
    return key


def optimal_poses(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """Best pose of each image among these templates, and its likelihood over all of them: (image,
    1), POSE, as far as they are known before all templates are."""
    return run(image_rows, template_rows, basis, comparison, _search)[:, None]


def optimal_poses_and_pairs(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> tuple[NDArray[np.void], NDArray[np.float64]]:
    """The same, and likelihood times prior under each of these templates, their logarithm, (image,
    template)."""
    poses, log_pairs = run(image_rows, template_rows, basis, comparison, _search_with_pairs)
    return poses[:, None], log_pairs


def with_log_likelihoods(
    image_rows: Rows, poses: Rows, *, comparison: Comparison, of_windows: bool = False
) -> NDArray[np.void]:
    """The best poses of images among all templates, with the log-likelihood there: (image,),
    POSE. Those of windows are near displacements of the search, and come to the best of these."""
    poses = poses.copy()
    there = np.flatnonzero(np.isfinite(poses["cross_correlation"]))
    at_once = IMAGES_AT_A_TIME[resolve_device(comparison.device).type]
    with turn(comparison):
        if of_windows and len(there):
            look = partial(best_nodes, image_rows[there], poses[there], comparison)
            poses["displacement"][there] = with_less(look, at_once, fewer_images)
        look = partial(log_likelihood_at, image_rows[there], poses[there], comparison)
        poses["log_likelihood_optimal"][there] = with_less(look, at_once, fewer_images)
    return poses


def best_of_structures(
    image_rows: Rows, poses: Sequence[Rows], comparisons: Sequence[Comparison]
) -> BestOfStructures:
    """The likeliest structure of each image, and the power of its template at the best pose."""
    with turn(comparisons[0]):
        return choose_structures(image_rows, poses, comparisons)


def _search(block: Block) -> Rows:
    """Best poses and likelihoods of images."""
    found = BestOfImages(block)
    found.compare()
    (poses,) = found.poses()
    return poses


def _search_with_pairs(block: Block) -> tuple[Rows, NDArray[np.float64]]:
    """The same, and likelihood times prior of each pair, their logarithm."""
    found = BestOfImages(block)
    found.compare()
    poses, of_pairs = found.poses("of_pairs")
    return poses, of_pairs + block.template_rows["log_prior"]


def best_of_pairs(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """Best displacement and rotation, and the log-likelihood summed over both: (image, template),
    PAIR."""

    def search(block: Block) -> Rows:
        found = BestOfPairs(block)
        found.compare(neglects=False)
        pairs = np.zeros(block.shape, PAIR)
        correlation, pose, of_pairs = found.read("correlation", "pose", "of_pairs")
        pairs["cross_correlation"], pairs["log_likelihood"] = correlation, of_pairs
        pairs["displacement"], pairs["rotation"] = np.unravel_index(pose, block.pose_shape)
        return pairs

    return run(image_rows, template_rows, basis, comparison, search)


def log_likelihoods_of_pairs(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.float64]:
    """Log-likelihood of each image under each template, summed over displacements and rotations,
    (image, template); of templates that count for nothing beside others, some value as small."""
    return run(image_rows, template_rows, basis, comparison, _log_likelihoods)


def integrated_log_likelihoods(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.float64]:
    """Log-likelihood of each image, integrated over the poses of these templates, (image, 1)."""
    of_pairs = run(image_rows, template_rows, basis, comparison, _log_likelihoods)
    result: NDArray[np.float64] = np.logaddexp.reduce(
        of_pairs + template_rows["log_prior"], axis=1, keepdims=True
    )
    return result


def _log_likelihoods(block: Block) -> NDArray[np.float64]:
    """Sums over displacements and rotations alone."""
    found = Likelihoods(block)
    found.compare()
    (of_pairs,) = found.read("of_pairs")
    return of_pairs


def best_displacements(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """Best displacement at each rotation: (image, template, rotation), BEST_DISPLACEMENT."""

    def search(block: Block) -> Rows:
        best = np.zeros((*block.shape, block.pose_shape[1]), BEST_DISPLACEMENT)
        return _best_along(block, 2, best, "displacement")

    return run(image_rows, template_rows, basis, comparison, search)


def best_rotations(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """Best rotation at each displacement: (image, template, displacement), BEST_ROTATION."""

    def search(block: Block) -> Rows:
        best = np.zeros((*block.shape, block.pose_shape[0]), BEST_ROTATION)
        return _best_along(block, 3, best, "rotation")

    return run(image_rows, template_rows, basis, comparison, search)


def _best_along(block: Block, dim: int, best: Rows, name: str) -> Rows:
    """Fill in the largest correlation along a dimension, and the index, of this name, where it
    is."""
    for m, s, correlation in block.correlations():
        found = block.constants.checks.read(*correlation.max(dim))
        best["cross_correlation"][m, s], best[name][m, s] = found
    return best


def all_correlations(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.floating[Any]]:
    """Correlation of every pose: real, (image, template, displacement, rotation)."""

    def search(block: Block) -> NDArray[Any]:
        shape = (*block.shape, *block.pose_shape)
        correlations = np.zeros(shape, real_dtype(comparison.precision))
        for m, s, correlation in block.correlations():
            (correlations[m, s],) = block.constants.checks.read(correlation)
        return correlations

    return run(image_rows, template_rows, basis, comparison, search)


def run(
    image_rows: Rows,
    template_rows: Rows,
    basis: RadialBasis,
    comparison: Comparison,
    search: Callable[[Block], Found],
) -> Found:
    """Search a block; on running out of memory, start again with half the tile."""
    with turn(comparison):
        # its name is made of all templates: not for each block that is given the same one
        if basis and all(basis is not kept for kept in _LATEST.values()):
            _keep(_what_bases_depend_on(comparison), basis)
        block = opened(partial(open_block, image_rows, template_rows, basis, comparison))

    def timed(block: Block) -> tuple[Block, Found, float]:
        with turn(comparison):
            start = time.perf_counter()
            try:
                results = search(block)
                block.constants.checks.read()  # what has not been looked at
            except CryolikeError:
                kept_images.forget()  # among them may be those that it is about
                raise
            return block, results, time.perf_counter() - start

    done, results, seconds = with_less(timed, block, _smaller)
    announce(done.report(block.tile, seconds))
    return results


def _smaller(block: Block, reason: str) -> Block:
    """The same block with half the tile, and nothing left of before."""
    block.constants.scratch.kept.clear()
    block.constants.checks.forget()
    kept_images.forget()
    tile = smaller_tile(block.tile, reason)
    return replace(block, tile=tile, n_images_at_a_time=max(tile[0], block.n_images_at_a_time // 2))
