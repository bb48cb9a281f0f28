"""Functions that tasks compute: rows of images against rows of templates. The border between numpy
and torch.

Block functions take small tables of rows (which images, which templates, and what is known of
each), a radial basis and a `Comparison` (where the data is, and every setting), and give numpy
arrays. torch lives only inside them; it is imported inside the functions, because the scheduler
imports this module too.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from dask.base import tokenize
from numpy.typing import NDArray

from cryolike_dask.compute.block_reports import announce
from cryolike_dask.compute.device import real_dtype
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.envelope import BestOfStructures, choose_structures
from cryolike_dask.likelihoods.poses import no_poses
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
    import torch

    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis
    from cryolike_dask.likelihoods.kernels.tile import Tile

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

UNKNOWN = -1
"""In place of the index of a pose that nobody has asked for yet."""

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
    log_pairs = np.empty((len(image_rows), len(template_rows)))
    search = partial(_search, log_pairs=log_pairs)
    return run(image_rows, template_rows, basis, comparison, search)[:, None], log_pairs


def with_log_likelihoods(
    image_rows: Rows, poses: Rows, *, comparison: Comparison, of_windows: bool = False
) -> NDArray[np.void]:
    """The best poses of images among all templates, with the log-likelihood there: (image,),
    POSE. Those of windows are near displacements of the search, and come to the best of these."""
    poses = poses.copy()
    there = np.flatnonzero(np.isfinite(poses["cross_correlation"]))
    with turn(comparison):
        if of_windows and len(there):
            look = partial(best_nodes, image_rows[there], poses[there], comparison)
            poses["displacement"][there] = with_less(look, IMAGES_AT_A_TIME, fewer_images)
        look = partial(log_likelihood_at, image_rows[there], poses[there], comparison)
        poses["log_likelihood_optimal"][there] = with_less(look, IMAGES_AT_A_TIME, fewer_images)
    return poses


def best_of_structures(
    image_rows: Rows, poses: Sequence[Rows], comparisons: Sequence[Comparison]
) -> BestOfStructures:
    """The likeliest structure of each image, and the power of its template at the best pose."""
    with turn(comparisons[0]):
        return choose_structures(image_rows, poses, comparisons)


def _search(block: Block, log_pairs: NDArray[np.float64] | None = None) -> Rows:
    """Go through the tiles of a block, and keep the best pose and the likelihood of each image, and
    of each pair where there is an array for them."""
    import torch

    poses = no_poses((block.shape[0],))
    device = block.constants.weights.device
    sums = torch.full(block.shape[:1], -math.inf, dtype=torch.float64, device=device)
    bounds = torch.zeros_like(sums)
    for m, s, tile, best, poses_of_best, summed in _summed_tiles(block, sums):
        if log_pairs is not None:
            log_pairs[m, s] = summed.cpu().numpy() + block.template_rows["log_prior"][s]
        indices = block.template_rows["index"][s]
        _keep_best(poses[m], tile, best, poses_of_best, indices, block.pose_shape)
        bounds[m] = torch.maximum(bounds[m], tile.error_bound.amax(1))
    poses["log_likelihood_integrated"] = sums.cpu().numpy()
    poses["correlation_error_bound"] = bounds.cpu().numpy()
    poses["n_poses"] = block.shape[1] * math.prod(block.pose_shape)
    return poses


def _summed_tiles(
    block: Block, sums: torch.Tensor
) -> Iterator[tuple[slice, slice, Tile, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Go through the tiles of a block, and add to the integrated likelihood of each image, `sums`:
    images and templates, their tile, best correlations, poses of these where they are known, and
    log-likelihoods summed over displacements and rotations."""
    import torch

    priors = torch.from_numpy(block.template_rows["log_prior"].copy()).to(sums.device)
    # all poses that are farther below the sum than this would change it by less than rounding does
    reach = math.log(block.shape[1] * math.prod(block.pose_shape) / block.constants.rounding)
    for m, s, tile in block.tiles():
        best, fit, summed = tile.summarise(sums[m, None] - priors[s] - reach)
        poses_of_best = torch.full(best.shape, UNKNOWN, device=sums.device)
        block.settle_doubtful_pairs(m, s, fit, best, poses_of_best, summed)
        sums[m] = torch.logaddexp(sums[m], torch.logsumexp(summed + priors[s], 1))
        yield m, s, tile, best, poses_of_best, summed


def _keep_best(
    poses: Rows,
    tile: Tile,
    best: torch.Tensor,
    poses_of_best: torch.Tensor,
    indices: NDArray[np.int64],
    pose_shape: tuple[int, int],
) -> None:
    """Update the poses of images that some template of a tile fits better; find out where only
    for these."""
    import torch

    top, template = best.max(1)  # the first of equal ones
    values = top.cpu().numpy()
    improved = np.flatnonzero(values > poses["cross_correlation"])
    if not len(improved):
        return
    m = torch.from_numpy(improved).to(best.device)
    s = template[m]
    known = poses_of_best[m, s]
    located = torch.where(known == UNKNOWN, tile.locate(m, s), known)
    poses["cross_correlation"][improved] = values[improved]
    poses["template"][improved] = indices[s.cpu().numpy()]
    poses["displacement"][improved], poses["rotation"][improved] = np.unravel_index(
        located.cpu().numpy(), pose_shape
    )


def best_of_pairs(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """Best displacement and rotation, and the log-likelihood summed over both: (image, template),
    PAIR."""
    import torch

    def search(block: Block) -> Rows:
        pairs = np.zeros(block.shape, PAIR)
        for m, s, tile in block.tiles():
            best, fit, summed = tile.summarise(torch.full_like(tile.error_bound, -math.inf))
            poses_of_best = torch.full(best.shape, UNKNOWN, device=best.device)
            for part, correlation in tile.correlations():
                best[part], poses_of_best[part] = correlation.flatten(2).max(2)
            block.settle_doubtful_pairs(m, s, fit, best, poses_of_best, summed)
            pairs["cross_correlation"][m, s] = best.cpu().numpy()
            pairs["displacement"][m, s], pairs["rotation"][m, s] = np.unravel_index(
                poses_of_best.cpu().numpy(), block.pose_shape
            )
            pairs["log_likelihood"][m, s] = summed.cpu().numpy()
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
    """Go through the tiles of a block for sums over displacements and rotations alone."""
    import torch

    likelihoods = np.full(block.shape, -np.inf)
    device = block.constants.weights.device
    sums = torch.full(block.shape[:1], -math.inf, dtype=torch.float64, device=device)
    for m, s, _, _, _, summed in _summed_tiles(block, sums):
        likelihoods[m, s] = summed.cpu().numpy()
    return likelihoods


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
        largest, index = correlation.max(dim)
        best["cross_correlation"][m, s] = largest.cpu().numpy()
        best[name][m, s] = index.cpu().numpy()
    return best


def all_correlations(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.floating[Any]]:
    """Correlation of every pose: real, (image, template, displacement, rotation)."""

    def search(block: Block) -> NDArray[Any]:
        shape = (*block.shape, *block.pose_shape)
        correlations = np.zeros(shape, real_dtype(comparison.precision))
        for m, s, correlation in block.correlations():
            correlations[m, s] = correlation.cpu().numpy()
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
            results = search(block)
            return block, results, time.perf_counter() - start

    done, results, seconds = with_less(timed, block, _smaller)
    announce(done.report(block.tile, seconds))
    return results


def _smaller(block: Block, reason: str) -> Block:
    """The same block with half the tile, and no scratch memory."""
    block.constants.scratch.kept.clear()
    tile = smaller_tile(block.tile, reason)
    return replace(block, tile=tile, n_images_at_a_time=max(tile[0], block.n_images_at_a_time // 2))
