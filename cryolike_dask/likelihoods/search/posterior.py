"""Posteriors over poses: a block that compares once more what holds nearly all of each image's, and
says how it is spread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.gpu import sent
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.search.between import Nodes
from cryolike_dask.likelihoods.search.gathered import NEGLECTED, Gathered
from cryolike_dask.likelihoods.search.pieces import tiles, windows_of
from cryolike_dask.likelihoods.search.places import (
    Flags,
    FloatArray,
    PlaceBits,
    Places,
    Window,
    all_places,
)
from cryolike_dask.likelihoods.search.regions import (
    Orientations,
)
from cryolike_dask.likelihoods.search.windows import Wanted, compared
from cryolike_dask.likelihoods.tiled_block import Block

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis

LEFT_OUT = 1e-4
"""Part of a posterior in pairs of image and view that are not compared once more."""


def posterior_dtype(n_top: int) -> np.dtype[Any]:
    """The record of a posterior: poses of the search that hold 99.9% of it, and their effective
    number 1 / sum p^2; entropy over views, nat; radii of 95% about the best orientation (radian)
    and about the mean displacement (angstrom), and this, under the best rotation; and the best
    poses that are far from each other, of no probability where there are fewer."""
    return np.dtype(
        [
            *((name, "f8") for name in ("n_significant", "n_effective", "entropy")),
            *((name, "f8") for name in ("orientation_radius", "displacement_radius", "x", "y")),
            ("template", "i8", (n_top,)),
            *((name, "i4", (n_top,)) for name in ("displacement", "rotation")),
            ("probability", "f8", (n_top,)),
        ]
    )


@dataclass(frozen=True, eq=False)
class Stage:
    """What all posteriors of a search share.

    Attributes
    ----------
    template_rows : structured array
        Of all templates.
    window : Window
    orientations : Orientations
    n_top : int
        Best poses that are told.
    """

    template_rows: Rows
    window: Window
    orientations: Orientations
    n_top: int


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of images when their search is done.

    Attributes
    ----------
    index : (image,) int64
        Of the image in its stack.
    poses : (image,) POSE
    log_pairs : (image, template) float64
        Log-likelihood times prior, summed over displacements and rotations.
    nodes : Nodes
        Orientations about the best ones.
    """

    index: NDArray[np.int64]
    poses: Rows
    log_pairs: FloatArray
    nodes: Nodes

    def parts(self) -> FloatArray:
        """Part of each image's posterior that each template holds."""
        logs = self.log_pairs - np.logaddexp.reduce(self.log_pairs, axis=1)[:, None]
        parts: FloatArray = np.exp(logs)
        return parts

    def take(self, index: NDArray[np.int64]) -> Evidence:
        """That of some images, by their index."""
        rows = np.searchsorted(self.index, index)
        return Evidence(index, self.poses[rows], self.log_pairs[rows], self.nodes.take(rows))


def fewest_templates(parts: FloatArray, left_out: float = LEFT_OUT) -> Flags:
    """The fewest templates of each image that leave out no more than a part, (image, template)."""
    order = np.argsort(-parts, axis=1, kind="stable")
    before = np.take_along_axis(parts, order, axis=1).cumsum(axis=1)
    before = np.pad(before, ((0, 0), (1, 0)))[:, :-1]
    kept = np.zeros(parts.shape, np.bool_)
    np.put_along_axis(kept, order, before < 1 - left_out, axis=1)
    return kept


def entropy(parts: FloatArray) -> FloatArray:
    """Nat, (image,)."""
    logs = np.log(parts, where=parts > 0, out=np.zeros_like(parts))
    found: FloatArray = -(parts * logs).sum(axis=1)
    return found


def pose_posteriors(
    image_rows: Rows,
    poses: Rows,
    log_pairs: FloatArray,
    compared_at: PlaceBits,
    places: FloatArray,
    basis: RadialBasis = (),
    *,
    comparison: Comparison,
    stage: Stage,
) -> NDArray[np.void]:
    """How the posterior of each image is spread over poses: (image,), records.

    Parameters
    ----------
    image_rows : structured array
    poses : (image,) POSE
        Of the search.
    log_pairs : (image, template) float64
        Log-likelihood times prior that it has found.
    compared_at : (image, template) uint32
        Places where it has, bit by bit.
    places : (image, place, 2) float64
    basis : RadialBasis
        Of `comparison`.
    comparison : Comparison
        Its displacements are those of the window.
    stage : Stage
    """
    nodes = Nodes.about(stage.orientations, poses["template"], poses["rotation"])
    evidence = Evidence(image_rows["index"], poses, log_pairs, nodes)
    parts = evidence.parts()
    template_rows = stage.template_rows.copy()
    template_rows["log_prior"] += stage.window.log_share
    found = np.zeros(len(image_rows), posterior_dtype(stage.n_top))
    are_near = nodes.count > 0
    # views near the best one may not have been compared, which says nothing of where
    bits = np.where(are_near & (compared_at == 0), all_places(are_near), compared_at)
    wanted = Wanted(np.where(fewest_templates(parts) | are_near, bits, np.uint32(0)), places)
    spread = partial(_spread, evidence=evidence, stage=stage)
    for images, _, of_them in compared(
        image_rows, template_rows, wanted, basis, comparison, stage.window, spread
    ):
        found[images] = of_them
    found["entropy"] = entropy(parts)
    return found


def _spread(
    block: Block,
    places: Places,
    wanted: PlaceBits,
    window: Window,
    *,
    evidence: Evidence,
    stage: Stage,
) -> Rows:
    """Gather the posteriors of a block's images, and sum them up."""

    from cryolike_dask.likelihoods.kernels.spread import Always, spread_of

    device, known = block.constants.weights.device, evidence.take(block.image_rows["index"])
    gathered = Gathered(block, places, window)
    first, count = (
        of[:, block.template_rows["index"]] for of in (known.nodes.first, known.nodes.count)
    )
    log_prior = block.template_rows["log_prior"] - window.log_volume
    log_sum = np.logaddexp.reduce(known.log_pairs, axis=1)
    n_points = window.finer**2 * math.prod(block.pose_shape) * (wanted > 0).sum(axis=1)
    least = np.log(NEGLECTED / n_points)
    for rows, s, tile in tiles(block, places, wanted):
        image = places.image[rows]
        above = log_prior[s] - log_sum[image, None]
        for spread in spread_of(
            tile,
            windows_of(block, places, rows, window, s, wanted[image, s]),
            sent(places.wanted_by(wanted[:, s], rows), device),
            sent(above, device),
            sent(least[image], device),
            Always(
                sent(first[image, s], device),
                sent(count[image, s], device),
                known.nodes.step,
            ),
        ):
            gathered.add(spread, rows, s, least)
    found = np.zeros(block.shape[0], posterior_dtype(stage.n_top))
    kept = np.where(wanted, _of_used(known, block), 0).sum(axis=1)
    gathered.sum_up(found, known.poses, kept, stage.orientations, known.nodes)
    return found


def _of_used(evidence: Evidence, block: Block) -> FloatArray:
    return evidence.parts()[:, block.template_rows["index"]]
