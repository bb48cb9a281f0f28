"""A block in which each image is compared with templates of its own, displaced about places of its
own.

An image is moved back by where its particle is expected, t in its own frame, so that one small
window of displacements serves all images and templates: under a rotation gamma, a displacement
delta of the window is d = R(gamma) t + delta. Poses outside of the whole search are left out, and
those in windows of several places of an image count once in all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.poses import no_poses
from cryolike_dask.likelihoods.search.places import Flags, FloatArray, Places, Positions, Window
from cryolike_dask.likelihoods.search.selection import FOUND
from cryolike_dask.likelihoods.setup import log_likelihood_at
from cryolike_dask.likelihoods.tiled_block import Block, slices

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.compressed import ImageTerms
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis
    from cryolike_dask.likelihoods.kernels.tile import Tile
    from cryolike_dask.likelihoods.kernels.windows import Windows


@dataclass(frozen=True, eq=False)
class Wanted:
    """What images want to be compared with.

    Attributes
    ----------
    templates : (image, template) bool
    places : (image, place, 2) float64
        Angstrom, in the frame of the image; NaN beyond those that there are, and everywhere for
        images that want everything.
    """

    templates: Flags
    places: FloatArray

    @property
    def everything(self) -> Flags:
        """Images that want all templates at all displacements, (image,)."""
        return np.isnan(self.places[:, 0, 0])


def best_of_pairs_everywhere(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """What `best_of_pairs_in_windows` finds, over all displacements: (image, template), FOUND."""
    pairs = blocks.best_of_pairs(image_rows, template_rows, basis, comparison=comparison)
    found = np.zeros(pairs.shape, FOUND)
    found["log_likelihood"] = pairs["log_likelihood"]
    found["gain"] = _gain(pairs["cross_correlation"], image_rows, comparison)
    displacements = comparison.displacements.table()[:, pairs["displacement"]]
    gamma = comparison.grid.angles[pairs["rotation"]]
    found["x"], found["y"] = _in_frame_of_image(displacements, gamma)
    return found


def _gain(correlation: FloatArray, image_rows: Rows, comparison: Comparison) -> FloatArray:
    """Log-likelihood of poses over that of noise alone, templates of equal power, (image,
    template)."""
    n_free = comparison.whitening.n_degrees_of_freedom[image_rows["group"]]
    gain: FloatArray = -(n_free[:, None] / 2 - 2) * np.log1p(-np.minimum(correlation**2, 1 - 1e-12))
    return gain


def _in_frame_of_image(displacements: FloatArray, gamma: FloatArray) -> FloatArray:
    """Moved by d and turned by -gamma, a particle lies at R(-gamma) d: (2, ...)."""
    x, y = displacements
    c, s = np.cos(gamma), np.sin(gamma)
    return np.stack([c * x + s * y, c * y - s * x])


def best_of_pairs_in_windows(
    image_rows: Rows,
    template_rows: Rows,
    templates: Flags,
    places: FloatArray,
    basis: RadialBasis = (),
    *,
    comparison: Comparison,
    window: Window,
) -> NDArray[np.void]:
    """Log-likelihood of each image under each template that it wants, summed over its windows, and
    where its particle lies at the best pose: (image, template), FOUND.

    Parameters are those of `optimal_poses_in_windows`.
    """
    wanted = Wanted(templates, places)
    found = np.zeros(wanted.templates.shape, FOUND)
    found["log_likelihood"] = np.where(wanted.everything[:, None], np.nan, -np.inf)
    some, used = _compared(wanted)
    if not len(some):
        return found
    rows = Places.of(wanted.places[some], window)
    wants = wanted.templates[np.ix_(some, used)]
    found[np.ix_(some, used)] = blocks.run(
        image_rows[some],
        template_rows[used],
        basis,
        comparison,
        lambda block: _best_of_pairs(block, rows, wants, window),
    )
    return found


def optimal_poses_in_windows(
    image_rows: Rows,
    template_rows: Rows,
    templates: Flags,
    places: FloatArray,
    basis: RadialBasis = (),
    *,
    comparison: Comparison,
    window: Window,
) -> NDArray[np.void]:
    """Best pose of each image among the templates and places that it wants, and its likelihood over
    all of them: (image, 1), POSE.

    Parameters
    ----------
    image_rows, template_rows : structured arrays
    templates : (image, template) bool
    places : (image, place, 2) float64
    basis : RadialBasis
        Of `comparison`.
    comparison : Comparison
        Its displacements are those of the window.
    window : Window
    """
    wanted = Wanted(templates, places)
    poses = no_poses((len(image_rows),))
    template_rows = template_rows.copy()  # its prior is spread over a window, and is of the search
    template_rows["log_prior"] += window.log_share
    if wanted.everything.any():
        # all poses, as carefully summed as those in windows
        m = wanted.everything
        whole = replace(comparison, displacements=window.whole.displacements)
        middle = Places.of(np.zeros((int(m.sum()), 1, 2)), window.whole)
        poses[m] = blocks.run(
            image_rows[m],
            template_rows,
            blocks.radial_basis_of(whole),
            whole,
            lambda block: _optimal_poses(block, middle, wanted.templates[m], window.whole),
        )
    some, used = _compared(wanted)
    if len(some):
        rows = Places.of(wanted.places[some], window)
        wants = wanted.templates[np.ix_(some, used)]
        poses[some] = blocks.run(
            image_rows[some],
            template_rows[used],
            basis,
            comparison,
            lambda block: _optimal_poses(block, rows, wants, window),
        )
    compared = np.union1d(some, np.flatnonzero(wanted.everything))
    with blocks.TURN:
        poses["log_likelihood_optimal"][compared] = log_likelihood_at(
            image_rows[compared],
            poses[compared],
            replace(comparison, displacements=window.search),
        )
    return poses[:, None]


def _compared(wanted: Wanted) -> tuple[Positions, Positions]:
    """Images that want some templates in windows, and templates that some of them want."""
    some = np.flatnonzero(~wanted.everything & wanted.templates.any(axis=1))
    return some, np.flatnonzero(wanted.templates[some].any(axis=0))


def _optimal_poses(block: Block, places: Places, wanted: Flags, window: Window) -> Rows:
    """Keep the best pose of each place, and the likelihood of each image."""
    sums, bounds = np.full(block.shape[0], -np.inf), np.zeros(block.shape[0])
    best_of_place = no_poses((len(places.image),))
    for piece in _pieces(block, places, wanted, window, sums):
        np.logaddexp.at(sums, piece.image, np.logaddexp.reduce(piece.log_posterior, axis=1))
        np.maximum.at(bounds, piece.image, piece.tile.error_bound.amax(1).cpu().numpy())
        best = piece.best.argmax(axis=1)
        values = piece.best[np.arange(len(best)), best]
        improved = np.flatnonzero(values > best_of_place["cross_correlation"][piece.rows])
        target = piece.rows[improved]
        displacement, rotation = piece.locate(improved, best[improved])
        best_of_place["cross_correlation"][target] = values[improved]
        best_of_place["template"][target] = block.template_rows["index"][piece.s][best[improved]]
        best_of_place["displacement"][target] = displacement
        best_of_place["rotation"][target] = rotation
    return _of_images(block, places, best_of_place, sums, bounds, window)


def _best_of_pairs(block: Block, places: Places, wanted: Flags, window: Window) -> Rows:
    """Keep the likelihood and the best place of each pair."""
    found = np.zeros(block.shape, FOUND)
    found["log_likelihood"] = -np.inf
    best = np.full(block.shape, -np.inf)
    angles, delta = block.comparison.grid.angles, window.displacements.table()
    nothing_neglected = np.full(block.shape[0], -np.inf)
    for piece in _pieces(block, places, wanted, window, nothing_neglected):
        k, j = np.nonzero(np.isfinite(piece.best))
        displacement, rotation = piece.locate(k, j)
        moved = _in_frame_of_image(delta[:, displacement], angles[rotation])
        x, y = places.at[piece.rows[k]].T + moved
        column = piece.s.start + j
        for n in range(len(k)):  # places of one image may stand in one piece
            m, at = piece.image[k[n]], column[n]
            one = found[m, at]
            one["log_likelihood"] = np.logaddexp(
                one["log_likelihood"], piece.log_likelihood[k[n], j[n]]
            )
            if piece.best[k[n], j[n]] > best[m, at]:
                best[m, at] = piece.best[k[n], j[n]]
                one["x"], one["y"] = x[n], y[n]
    correlation = np.where(np.isfinite(best), best, 0)
    found["gain"] = _gain(correlation, block.image_rows, block.comparison)
    return found


@dataclass(frozen=True, eq=False)
class Piece:
    """Some places of images under a few templates.

    Attributes
    ----------
    rows : (row,) int64
        Which of the places.
    image : (row,) int64
    s : slice
        Which of the templates of the block.
    tile : Tile
    allowed : Tensor or None
    best : (row, template) float64
        Largest correlation; minus infinity where it is not wanted.
    log_likelihood, log_posterior : (row, template) float64
        Summed over displacements and rotations, without and with the prior.
    settled : dict
        Best poses of pairs that were compared directly, by row and template.
    """

    rows: Positions
    image: Positions
    s: slice
    tile: Tile
    allowed: torch.Tensor | None
    best: FloatArray
    log_likelihood: FloatArray
    log_posterior: FloatArray
    settled: dict[tuple[int, int], int]

    def locate(self, rows: Positions, templates: Positions) -> tuple[Positions, Positions]:
        """Displacement and rotation of the best poses of some pairs."""
        import torch

        if not len(rows):
            return rows, templates
        device = self.tile.shift.device
        m, s = (torch.from_numpy(v).to(device) for v in (rows, templates))
        located = self.tile.locate(m, s, self.allowed).cpu().numpy()
        for n, of_pair in enumerate(zip(rows.tolist(), templates.tolist(), strict=True)):
            located[n] = self.settled.get(of_pair, located[n])
        displacement, rotation = np.divmod(located, self.tile.constants.folding.n_inplanes)
        return displacement, rotation


def _pieces(
    block: Block, places: Places, wanted: Flags, window: Window, sums: FloatArray
) -> Iterator[Piece]:
    """Compare; poses that would change `sums` of images by less than rounding may be left out."""
    import torch

    device = block.constants.weights.device
    log_prior = block.template_rows["log_prior"]
    n_poses = block.shape[1] * len(window.displacements) * block.pose_shape[1]
    reach = math.log(n_poses / block.constants.rounding)
    for rows, s, tile in _tiles(block, places, wanted):
        image = places.image[rows]
        wants = wanted[image, s]
        reference = np.where(wants, sums[image, None] - log_prior[s] - reach, np.inf)
        given = torch.from_numpy(reference).to(device)
        allowed = _allowed(block, places, rows, window)
        if allowed is None and window.finer == 1:
            summary = tile.summarise(given)
        else:
            summary = tile.reduce(given, allowed, _windows(block, places, rows, window))
        best, fit, log_likelihood = (values.double().cpu().numpy() for values in summary)
        best, log_likelihood = (np.where(wants, v, -np.inf) for v in (best, log_likelihood))
        settled = {}
        for k, j in np.argwhere(wants & ~(fit < block.constants.recomputes_offset_above)):
            pair = _compared_directly(block, places, int(rows[k]), s.start + int(j), window)
            best[k, j], settled[int(k), int(j)], log_likelihood[k, j] = pair
        yield Piece(
            rows,
            image,
            s,
            tile,
            allowed,
            best,
            log_likelihood,
            log_likelihood + log_prior[s],
            settled,
        )


def _compared_directly(
    block: Block, places: Places, row: int, template: int, window: Window
) -> tuple[float, int, float]:
    """Best correlation, its pose, and the log-likelihood of one place under one template, over all
    shells, with the offset of each pose."""
    import torch

    from cryolike_dask.likelihoods.kernels.direct import compare

    number = np.array([row])
    factors = _moving_back(places.at[number], block)
    image = block.images(places.image[number])
    (values,) = block.templates([slice(template, template + 1)])
    correlation, log_likelihood = (
        of_poses[0, 0]
        for of_poses in compare(
            replace(image, values=image.values * factors),
            values,
            replace(block.constants, mask=block.constants.mask * factors[0]),
            int(block.template_rows["index"][template]),
        )
    )
    # at the displacements alone: of so strong a signal next to nothing is left between them
    shares = _windows(block, places, number, replace(window, finer=1)).shares(
        torch.arange(block.pose_shape[1], device=correlation.device),
        torch.zeros(block.pose_shape[1], dtype=torch.int64, device=correlation.device),
    )
    inside = torch.from_numpy(window.inside(places.at[number], block.comparison.grid.angles)[0])
    correlation = correlation.masked_fill(~inside.T.to(correlation.device), -math.inf)
    log_likelihood = log_likelihood + shares.T.log()
    best, pose = correlation.flatten().max(0)
    return float(best), int(pose), float(torch.logsumexp(log_likelihood.flatten(), 0))


def _tiles(block: Block, places: Places, wanted: Flags) -> Iterator[tuple[Positions, slice, Tile]]:
    """Correlate, for each few templates, the places of images that want some of them."""
    from cryolike_dask.likelihoods.kernels.compressed import correlate, prepare_templates

    for group in slices(0, len(places.image), block.n_images_at_a_time):
        terms = _prepared(block, places, group)
        columns = list(slices(0, block.shape[1], block.tile[1]))
        for s, values in zip(columns, block.templates(columns), strict=True):
            wanting = np.flatnonzero(wanted[places.image[group], s].any(axis=1))
            if not len(wanting):
                continue
            first = int(block.template_rows["index"][s.start])
            templates = prepare_templates(values, block.constants, first)
            free = places.n_free - group.start
            for part in (wanting[wanting < free], wanting[wanting >= free]):
                for k in slices(0, len(part), block.tile[0]):
                    chosen = terms.take(part[k])
                    yield group.start + part[k], s, correlate(chosen, templates, block.constants)


def _prepared(block: Block, places: Places, group: slice) -> ImageTerms:
    from cryolike_dask.likelihoods.kernels.compressed import ImageTerms, prepare_images

    parts = []
    for part in slices(group.start, group.stop, block.tile[0]):
        images = block.images(places.image[part])
        moved = replace(images, values=images.values * _moving_back(places.at[part], block))
        parts.append(prepare_images(moved, block.constants))
    return ImageTerms.joined(parts)


def _moving_back(places: FloatArray, block: Block) -> torch.Tensor:
    """Factors that move images back by their places, complex (place, shell, angle)."""
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors

    grid, device = block.comparison.grid, block.constants.mask.device
    kx, ky = (torch.from_numpy(k).to(device) for k in grid.points())
    x, y = (torch.from_numpy(-2 * v / grid.box_size_angstrom).to(device) for v in places.T)
    return translation_factors(x, y, kx, ky).to(block.constants.mask.dtype)


def _allowed(block: Block, places: Places, rows: Positions, window: Window) -> torch.Tensor | None:
    """Poses inside of the search, bool (2, W/2, place, 1, displacement), by rows of `rotate`; None:
    all of them."""
    import torch

    if rows[0] < places.n_free:
        return None
    flags = torch.from_numpy(window.inside(places.at[rows], block.comparison.grid.angles))
    order = block.constants.folding.rotations
    return flags.to(order.device)[:, order].permute(1, 2, 0, 3)[:, :, :, None]


def _windows(block: Block, places: Places, rows: Positions, window: Window) -> Windows:
    """Windows of some places, on the device."""
    import torch

    from cryolike_dask.likelihoods.kernels.windows import Axis, Windows

    device, highest = block.constants.weights.device, block.comparison.grid.spatial_frequencies[-1]
    limit = window.limit
    return Windows(
        Axis.of(window.x_angstrom, window.finer, highest, limit[0], device),
        Axis.of(window.y_angstrom, window.finer, highest, limit[1], device),
        torch.from_numpy(block.comparison.grid.angles).to(device),
        torch.from_numpy(places.of_image[rows]).to(device),
    )


def _of_images(
    block: Block,
    places: Places,
    best_of_place: Rows,
    sums: FloatArray,
    bounds: FloatArray,
    window: Window,
) -> Rows:
    """The best of each image over its places, at the nearest displacement of the search."""
    angles = block.comparison.grid.angles
    for n, place in enumerate(places.at):
        best = best_of_place[n]
        if np.isfinite(best["cross_correlation"]):
            gamma = float(angles[best["rotation"]])
            best["displacement"] = window.node(place, gamma, int(best["displacement"]))
    poses = no_poses((block.shape[0],))
    order = np.lexsort([best_of_place["template"], -best_of_place["cross_correlation"]])
    image, first = np.unique(places.image[order], return_index=True)
    poses[image] = best_of_place[order[first]]
    poses["log_likelihood_integrated"], poses["correlation_error_bound"] = sums, bounds
    return poses
