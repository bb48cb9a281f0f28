"""One task: rows of images against rows of templates. The border between numpy and torch.

Block functions take small tables of rows (which images, which templates, and what is known of each) and a `Comparison`
(where the data is, and every setting), and give numpy arrays. torch lives only inside them; it is imported inside
the functions, because the scheduler imports this module too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.likelihoods.poses import combine, no_poses
from cryolike_dask.likelihoods.tiles import (
    Comparison,
    Rows,
    first_tile,
    log_likelihood_at,
    real_dtype,
    smaller_tile,
    tiles,
)

if TYPE_CHECKING:
    import torch

PAIR = np.dtype([("cross_correlation", "f8"), ("displacement", "i4"), ("rotation", "i4"), ("log_likelihood", "f8")])
BEST_DISPLACEMENT = np.dtype([("cross_correlation", "f8"), ("displacement", "i4")])
BEST_ROTATION = np.dtype([("cross_correlation", "f8"), ("rotation", "i4")])

_TURN = threading.Lock()
"""One block at a time in a process, so that a device never runs two: the only state of this module."""

Fill = Callable[[NDArray[Any], slice, slice, Rows, "torch.Tensor", "torch.Tensor"], None]


def optimal_poses(image_rows: Rows, template_rows: Rows, comparison: Comparison) -> NDArray[np.void]:
    """The best pose of each image among these templates, and its likelihood over all of them: (image, 1), POSE."""

    import torch

    from cryolike_dask.likelihoods.kernels import integrate_log_likelihood

    def fill(poses: Rows, m: slice, s: slice, rows: Rows, correlation: torch.Tensor, ll: torch.Tensor) -> None:
        best, at = correlation.flatten(1).max(1)
        template, displacement, rotation = np.unravel_index(at.cpu().numpy(), correlation.shape[1:])
        of_templates = integrate_log_likelihood(ll) + torch.from_numpy(rows["log_prior"].copy()).to(ll.device)
        tile = no_poses((len(best),))
        tile["cross_correlation"] = best.cpu().numpy()
        tile["template"] = rows["index"][template]
        tile["displacement"], tile["rotation"] = displacement, rotation
        tile["log_likelihood_integrated"] = torch.logsumexp(of_templates, 1).cpu().numpy()
        poses[m, 0] = combine(poses[m, 0], tile)

    poses = _block(image_rows, template_rows, comparison, no_poses((len(image_rows), 1)), fill)
    with _TURN:
        poses["log_likelihood_optimal"] = log_likelihood_at(image_rows, poses[:, 0], comparison)[:, None]
    return poses


def best_of_pairs(image_rows: Rows, template_rows: Rows, comparison: Comparison) -> NDArray[np.void]:
    """The best displacement and rotation, and the log-likelihood summed over both: (image, template), PAIR."""

    from cryolike_dask.likelihoods.kernels import integrate_log_likelihood

    def fill(pairs: Rows, m: slice, s: slice, rows: Rows, correlation: torch.Tensor, ll: torch.Tensor) -> None:
        best, at = correlation.flatten(2).max(2)
        pairs["cross_correlation"][m, s] = best.cpu().numpy()
        found = np.unravel_index(at.cpu().numpy(), correlation.shape[2:])
        pairs["displacement"][m, s], pairs["rotation"][m, s] = found
        pairs["log_likelihood"][m, s] = integrate_log_likelihood(ll).cpu().numpy()

    return _block(image_rows, template_rows, comparison, np.zeros((len(image_rows), len(template_rows)), PAIR), fill)


def best_displacements(image_rows: Rows, template_rows: Rows, comparison: Comparison) -> NDArray[np.void]:
    """The best displacement at each rotation: (image, template, rotation), BEST_DISPLACEMENT."""
    shape = (len(image_rows), len(template_rows), comparison.grid.n_inplanes)
    return _best_along(2, "displacement", np.zeros(shape, BEST_DISPLACEMENT), image_rows, template_rows, comparison)


def best_rotations(image_rows: Rows, template_rows: Rows, comparison: Comparison) -> NDArray[np.void]:
    """The best rotation at each displacement: (image, template, displacement), BEST_ROTATION."""
    shape = (len(image_rows), len(template_rows), len(comparison.displacements))
    return _best_along(3, "rotation", np.zeros(shape, BEST_ROTATION), image_rows, template_rows, comparison)


def all_correlations(image_rows: Rows, template_rows: Rows, comparison: Comparison) -> NDArray[np.floating[Any]]:
    """The correlation of every pose: real, (image, template, displacement, rotation)."""

    def fill(out: NDArray[Any], m: slice, s: slice, rows: Rows, correlation: torch.Tensor, ll: torch.Tensor) -> None:
        out[m, s] = correlation.cpu().numpy()

    shape = (len(image_rows), len(template_rows), len(comparison.displacements), comparison.grid.n_inplanes)
    empty = np.zeros(shape, real_dtype(comparison.precision))
    return _block(image_rows, template_rows, comparison, empty, fill)


def _best_along(
    dim: int, name: str, out: Rows, image_rows: Rows, template_rows: Rows, comparison: Comparison
) -> NDArray[np.void]:
    def fill(out: Rows, m: slice, s: slice, rows: Rows, correlation: torch.Tensor, ll: torch.Tensor) -> None:
        best, at = correlation.max(dim)
        out["cross_correlation"][m, s] = best.cpu().numpy()
        out[name][m, s] = at.cpu().numpy()

    return _block(image_rows, template_rows, comparison, out, fill)


def _block(
    image_rows: Rows, template_rows: Rows, comparison: Comparison, empty: NDArray[Any], fill: Fill
) -> NDArray[Any]:
    """Run all tiles of a block; on running out of memory, start again with half the tile."""
    import torch

    tile = first_tile(len(image_rows), len(template_rows), comparison)
    while True:
        out = empty.copy()
        try:
            with _TURN, torch.inference_mode():
                for m, s, correlation, log_likelihood in tiles(image_rows, template_rows, comparison, tile):
                    fill(out, m, s, template_rows[s], correlation, log_likelihood)
            return out
        except torch.OutOfMemoryError as error:
            message = str(error)
        tile = smaller_tile(tile, message)
        torch.cuda.empty_cache()
