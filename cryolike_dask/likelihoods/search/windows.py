"""A block in which each image is compared with templates of its own, displaced about places of its
own.

An image is moved back by where its particle is expected, t in its own frame, so that one small
window of displacements serves all images and templates: under a rotation gamma, a displacement
delta of the window is d = R(gamma) t + delta. Poses outside of the whole search are left out, and
those in windows of several places of an image count once in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.poses import no_poses
from cryolike_dask.likelihoods.search.pieces import pieces
from cryolike_dask.likelihoods.search.places import (
    Arcs,
    Flags,
    FloatArray,
    PlaceBits,
    Places,
    Positions,
    Window,
)
from cryolike_dask.likelihoods.search.selection import FOUND
from cryolike_dask.likelihoods.tiled_block import Block

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis

Reduced = TypeVar("Reduced")


@dataclass(frozen=True, eq=False)
class Wanted:
    """What images want to be compared with.

    Attributes
    ----------
    pairs : (image, template) uint32
        Places that they want, bit by bit.
    places : (image, place, 2) float64
        Angstrom, in the frame of the image; NaN beyond those that there are, and everywhere for
        images whose particle may lie anywhere, as `Selection.chosen` gives them.
    arcs : Arcs, or None
        As of `Places`.
    """

    pairs: PlaceBits
    places: FloatArray
    arcs: Arcs | None = None

    @property
    def anywhere(self) -> Flags:
        """Images that want all displacements, (image,)."""
        return np.isnan(self.places[:, 0, 0])

    @property
    def at_end(self) -> Flags:
        """Those of them whose particle may lie at the end of the search, (image,)."""
        at_end = self.anywhere.copy()
        at_end[at_end] = np.isposinf(self.places[at_end, 1:2, 0]).any(axis=1)
        return at_end

    @property
    def everything(self) -> Flags:
        """Images that are compared with everything, at the displacements of the search, (image,)"""
        everything: Flags = (self.places[:, 1:2, 0] == -np.inf).any(axis=1)
        return everything

    def there(self) -> PlaceBits:
        """Places that are wanted, and that there are: of images that may lie anywhere the first."""
        n_places = np.maximum((~np.isnan(self.places[:, :, 0])).sum(axis=1), 1)
        bits = self.pairs & (2**n_places - 1).astype(np.uint32)[:, None]
        return np.where(self.anywhere[:, None], self.pairs > 0, bits).astype(np.uint32)

    def in_windows(self) -> Wanted:
        """The same without images that are compared with everything."""
        pairs = np.where(self.everything[:, None], np.uint32(0), self.pairs)
        return replace(self, pairs=pairs)


def gain_over_noise(
    correlation: FloatArray, image_rows: Rows, comparison: Comparison
) -> FloatArray:
    """Log-likelihood of poses over that of noise alone, templates of equal power, (image,
    template)."""
    n_free = comparison.whitening.n_degrees_of_freedom[image_rows["group"]]
    gain: FloatArray = -(n_free[:, None] / 2 - 2) * np.log1p(-np.minimum(correlation**2, 1 - 1e-12))
    return gain


def in_frame_of_image(displacements: FloatArray, gamma: FloatArray) -> FloatArray:
    """Moved by d and turned by -gamma, a particle lies at R(-gamma) d: (2, ...)."""
    x, y = displacements
    c, s = np.cos(gamma), np.sin(gamma)
    return np.stack([c * x + s * y, c * y - s * x])


def best_of_pairs_in_windows(
    image_rows: Rows,
    template_rows: Rows,
    pairs: PlaceBits,
    places: FloatArray,
    basis: RadialBasis = (),
    *,
    comparison: Comparison,
    window: Window,
) -> NDArray[np.void]:
    """Log-likelihood of each image under each template that it wants, summed over its windows, and
    where its particle lies at the best pose: (image, template), FOUND. Images that are compared
    with everything are left to the last level.

    Parameters are those of `optimal_poses_and_pairs`.
    """
    found = np.zeros(pairs.shape, FOUND)
    found["log_likelihood"] = -np.inf
    for images, used, of_them in compared(
        image_rows,
        template_rows,
        Wanted(pairs, places).in_windows(),
        basis,
        comparison,
        window,
        _best_of_pairs,
    ):
        found[np.ix_(images, used)] = of_them
    return found


def optimal_poses_in_windows(*chunks: Any, **options: Any) -> NDArray[np.void]:
    """Best pose of each image among the templates and places that it wants, and its likelihood over
    all of them: (image, 1), POSE; parameters are those of `optimal_poses_and_pairs`."""
    poses, _ = optimal_poses_and_pairs(*chunks, **options)
    return poses


def optimal_poses_and_pairs(
    image_rows: Rows,
    template_rows: Rows,
    pairs: PlaceBits,
    places: FloatArray,
    basis: RadialBasis = (),
    *,
    comparison: Comparison,
    window: Window,
    arcs: Arcs | None = None,
) -> tuple[NDArray[np.void], FloatArray]:
    """Best pose of each image among the templates and places that it wants, and its likelihood over
    all of them, (image, 1), POSE; and likelihood times prior of each of these templates, their
    logarithm, (image, template).

    Parameters
    ----------
    image_rows, template_rows : structured arrays
    pairs : (image, template) uint32
        Places that they want, bit by bit.
    places : (image, place, 2) float64
    basis : RadialBasis
        Of `comparison`.
    comparison : Comparison
        Its displacements are those of the window.
    window : Window
    arcs : Arcs, optional
        Rotations that are compared, as of `Places`; default: all.
    """
    poses, log_pairs = no_poses((len(image_rows),)), np.full(pairs.shape, -np.inf)
    wanted = Wanted(pairs, places, arcs)
    everything = wanted.everything
    if everything.any():
        poses[everything], log_pairs[everything] = among_everything(
            image_rows[everything], template_rows, comparison, window, window.fine_search
        )
    template_rows = template_rows.copy()  # its prior is spread over a window, and is of the search
    template_rows["log_prior"] += window.log_share
    for images, used, (of_them, of_pairs) in compared(
        image_rows, template_rows, wanted.in_windows(), basis, comparison, window, _optimal_poses
    ):
        log_pairs[np.ix_(images, used)] = of_pairs
        poses[images] = of_them
    return poses[:, None], log_pairs


def among_everything(
    image_rows: Rows,
    template_rows: Rows,
    comparison: Comparison,
    window: Window,
    displacements: DisplacementGrid,
) -> tuple[Rows, FloatArray]:
    """Best pose of each image among these templates at displacements of the whole search, (image,)
    POSE; and likelihood times prior of each template, their logarithm, (image, template).
    Comparison and priors are those of a window."""
    of_search = replace(comparison, displacements=displacements)
    rows = template_rows.copy()
    rows["log_prior"] += np.log(len(window.displacements) / len(displacements))
    basis = blocks.radial_basis_of(of_search)
    poses, log_pairs = blocks.optimal_poses_and_pairs(image_rows, rows, basis, comparison=of_search)
    nearest = window.nodes(displacements.table()[:, poses["displacement"][:, 0]])
    poses["displacement"][:, 0] = nearest
    return poses[:, 0], log_pairs


def compared(
    image_rows: Rows,
    template_rows: Rows,
    wanted: Wanted,
    basis: RadialBasis,
    comparison: Comparison,
    window: Window,
    reduce: Callable[..., Reduced],
) -> Iterator[tuple[Positions, Positions, Reduced]]:
    """Compare images with the templates that some of them want, in windows about their places, and
    those that may lie anywhere in one about the middle: images, templates, and what is found."""
    anywhere, at_end, bits = wanted.anywhere, wanted.at_end, wanted.there()
    if window.is_wider_than_search:
        at_end = anywhere
    for in_middle, chosen, of in (
        (False, ~anywhere, window),
        (True, anywhere & at_end, window.beyond_whole),
        (True, anywhere & ~at_end, window.whole),
    ):
        images = np.flatnonzero(chosen & bits.any(axis=1))
        if not len(images):
            continue
        used = np.flatnonzero(bits[images].any(axis=0))
        pairs, at = np.ix_(images, used), wanted.places[images]
        arcs = None if wanted.arcs is None else wanted.arcs.take(pairs)
        of_templates = template_rows[used]
        if in_middle:
            at = np.zeros((len(images), 1, 2))
            of_templates["log_prior"] += of.log_volume - window.log_volume
            comparison = replace(comparison, displacements=of.displacements)
            basis = blocks.radial_basis_of(comparison)
        places = Places.of(at, of, arcs)
        block_of = partial(reduce, places=places, wanted=bits[pairs], window=of)
        yield (
            images,
            used,
            blocks.run(image_rows[images], of_templates, basis, comparison, block_of),
        )


def _optimal_poses(
    block: Block, places: Places, wanted: PlaceBits, window: Window
) -> tuple[Rows, FloatArray]:
    """Keep the best pose of each place, and the likelihood of each image, and of each pair."""
    sums, missed = np.full((2, block.shape[0]), -np.inf)
    log_pairs = np.full(block.shape, -np.inf)
    bounds = np.zeros(block.shape[0])
    best_of_place = no_poses((len(places.image),))
    for piece in pieces(block, places, wanted, window, sums):
        np.logaddexp.at(sums, piece.image, np.logaddexp.reduce(piece.log_posterior, axis=1))
        np.logaddexp.at(missed, piece.image, np.logaddexp.reduce(piece.log_missed, axis=1))
        np.logaddexp.at(log_pairs[:, piece.s], piece.image, piece.log_posterior)
        # of templates that it wants: with which others these share a tile is left to chance
        of_wanted = np.where(np.isfinite(piece.best), piece.error_bound, 0)
        np.maximum.at(bounds, piece.image, of_wanted.max(axis=1))
        best = piece.best.argmax(axis=1)
        values = piece.best[np.arange(len(best)), best]
        improved = np.flatnonzero(values > best_of_place["cross_correlation"][piece.rows])
        target = piece.rows[improved]
        displacement, rotation = piece.locate(improved, best[improved])
        best_of_place["cross_correlation"][target] = values[improved]
        best_of_place["template"][target] = block.template_rows["index"][piece.s][best[improved]]
        best_of_place["displacement"][target] = displacement
        best_of_place["rotation"][target] = rotation
    poses = _of_images(block, places, best_of_place, window)
    poses["log_likelihood_integrated"], poses["correlation_error_bound"] = sums, bounds
    poses["log_missed"] = missed
    n_windows = np.bitwise_count(wanted).sum(axis=1, dtype=np.int64)
    n_displacements = window.n_inside if window.is_whole else len(window.displacements)
    poses["n_poses"] = n_windows * n_displacements * block.pose_shape[1]
    return poses, log_pairs


def _best_of_pairs(block: Block, places: Places, wanted: PlaceBits, window: Window) -> Rows:
    """Keep the likelihood and the best place of each pair."""
    found = np.zeros(block.shape, FOUND)
    found["log_likelihood"] = -np.inf
    best = np.full(block.shape, -np.inf)
    angles, delta = block.comparison.grid.angles, window.displacements.table()
    nothing_neglected = np.full(block.shape[0], -np.inf)
    for piece in pieces(block, places, wanted, window, nothing_neglected):
        k, j = np.nonzero(np.isfinite(piece.best))
        displacement, rotation = piece.locate(k, j)
        moved = in_frame_of_image(delta[:, displacement], angles[rotation])
        x, y = places.at[piece.rows[k]].T + moved
        pair = piece.image[k], piece.s.start + j
        # places of one image may stand in one piece: all of them add up, the best comes last
        np.logaddexp.at(found["log_likelihood"], pair, piece.log_likelihood[k, j])
        order = np.argsort(piece.best[k, j], kind="stable")
        pair, values = (pair[0][order], pair[1][order]), piece.best[k, j][order]
        better = values > best[pair]
        pair = pair[0][better], pair[1][better]
        best[pair] = values[better]
        found["x"][pair], found["y"][pair] = x[order][better], y[order][better]
    correlation = np.where(np.isfinite(best), best, 0)
    found["gain"] = gain_over_noise(correlation, block.image_rows, block.comparison)
    return found


def _of_images(
    block: Block,
    places: Places,
    best_of_place: Rows,
    window: Window,
) -> Rows:
    """The best of each image over its places, at the nearest displacement of the search."""
    angles = block.comparison.grid.angles
    poses = no_poses((block.shape[0],))
    order = np.lexsort([best_of_place["template"], -best_of_place["cross_correlation"]])
    image, first = np.unique(places.image[order], return_index=True)
    poses[image] = best_of_place[order[first]]
    for m, place in zip(image, places.at[order[first]], strict=True):
        best = poses[m]
        if np.isfinite(best["cross_correlation"]):
            gamma = float(angles[best["rotation"]])
            best["displacement"] = window.node(place, gamma, int(best["displacement"]))
    return poses
