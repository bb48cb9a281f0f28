"""A block in which each image is compared with templates of its own, displaced about places of its
own.

An image is moved back by where its particle is expected, t in its own frame, so that one small
window of displacements serves all images and templates: under a rotation gamma, a displacement
delta of the window is d = R(gamma) t + delta. Poses outside of the whole search, or nearer to
another place of the same image, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.poses import no_poses
from cryolike_dask.likelihoods.search.selection import FOUND
from cryolike_dask.likelihoods.setup import log_likelihood_at
from cryolike_dask.likelihoods.tiled_block import Block, slices

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.compressed import ImageTerms
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis
    from cryolike_dask.likelihoods.kernels.tile import Tile

FloatArray = NDArray[np.float64]
Flags = NDArray[np.bool_]
Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Window:
    """A window of displacements in a search.

    Attributes
    ----------
    displacements : DisplacementGrid
        About the place of an image.
    search : DisplacementGrid
        All that the priors are spread over.
    step : (float, float)
        Between displacements of the search along x and y, angstrom.
    finer : int
        Displacements of the window for each of the search, along an axis.
    """

    displacements: DisplacementGrid
    search: DisplacementGrid
    step: tuple[float, float]
    finer: int = 1

    @property
    def log_share(self) -> float:
        """Logarithm of the prior of a displacement of the window, times how many there are."""
        area = self.finer ** np.count_nonzero(self.step)
        return math.log(len(self.displacements) / (len(self.search) * area))

    def allowed(self, places: FloatArray, angles: FloatArray) -> Flags | None:
        """Poses that count at each place of an image.

        Parameters
        ----------
        places : (place, 2) float64
            Angstrom, in the frame of the image.
        angles : (rotation,) float64

        Returns
        -------
        (place, rotation, displacement) bool; None: all of them
        """
        delta = self.displacements.table().T
        farthest = np.hypot(*np.abs(delta).max(axis=0))
        limit = np.abs(self.search.table()).max(axis=1) + np.array(self.step) / 2
        apart = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
        alone = (apart + np.where(np.eye(len(places)), np.inf, 0) > 2 * farthest).all()
        if alone and (np.hypot(*places.T).max() + farthest < limit.min()):
            return None
        c, s = np.cos(angles), np.sin(angles)
        turn = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)  # (rotation, 2, 2)
        moved = np.einsum("rij,pj->pri", turn, places)[:, :, None] + delta
        inside: Flags = (np.abs(moved) < limit * (1 + 1e-9)).all(axis=-1)
        if alone:
            return inside
        back = np.einsum("rji,prdj->prdi", turn, moved)  # in the frame of the image again
        distance = ((back[..., None, :] - places) ** 2).sum(axis=-1)
        # the first of the nearest, rounding aside
        distance += 1e-9 * farthest**2 * np.arange(len(places))
        nearest = distance.argmin(axis=-1)
        result: Flags = inside & (nearest == np.arange(len(places))[:, None, None])
        return result

    def node(self, place: FloatArray, gamma: float, displacement: int) -> int:
        """The displacement of the search that is nearest to one of the window."""
        c, s = math.cos(gamma), math.sin(gamma)
        x, y = self.displacements.table()[:, displacement]
        d = np.array([c * place[0] - s * place[1] + x, s * place[0] + c * place[1] + y])
        return int(((self.search.table().T - d) ** 2).sum(axis=1).argmin())


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
    rows = Places.of(wanted.places[some], window, comparison.grid.angles)
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
    whole = replace(comparison, displacements=window.search)
    if wanted.everything.any():
        of_search = template_rows.copy()
        of_search["log_prior"] += math.log(len(window.displacements) / len(window.search))
        poses[wanted.everything] = blocks.optimal_poses(
            image_rows[wanted.everything],
            of_search,
            blocks.radial_basis_of(whole),
            comparison=whole,
        )[:, 0]
    some, used = _compared(wanted)
    if not len(some):
        return poses[:, None]
    rows = Places.of(wanted.places[some], window, comparison.grid.angles)
    wants = wanted.templates[np.ix_(some, used)]
    poses[some] = blocks.run(
        image_rows[some],
        template_rows[used],
        basis,
        comparison,
        lambda block: _optimal_poses(block, rows, wants, window),
    )
    with blocks.TURN:
        poses["log_likelihood_optimal"][some] = log_likelihood_at(
            image_rows[some], poses[some], whole
        )
    return poses[:, None]


def _compared(wanted: Wanted) -> tuple[Positions, Positions]:
    """Images that want some templates in windows, and templates that some of them want."""
    some = np.flatnonzero(~wanted.everything & wanted.templates.any(axis=1))
    return some, np.flatnonzero(wanted.templates[some].any(axis=0))


@dataclass(frozen=True, eq=False)
class Places:
    """Places of images, one after the other.

    Attributes
    ----------
    image : (place,) int64
        Position of its image.
    at : (place, 2) float64
        Angstrom.
    allowed : dict
        Poses that count at a place, (rotation, displacement), where these are not all.
    """

    image: Positions
    at: FloatArray
    allowed: dict[int, Flags]

    @classmethod
    def of(cls, places: FloatArray, window: Window, angles: FloatArray) -> Places:
        """Those of all images, (image, place, 2); first those at which all poses count."""
        image, at, counts = [], [], []
        for m, of_image in enumerate(places):
            known = of_image[~np.isnan(of_image[:, 0])]
            flags = window.allowed(known, angles)
            for k, place in enumerate(known):
                image.append(m)
                at.append(place)
                counts.append(None if flags is None else flags[k])
        order = sorted(range(len(image)), key=lambda i: counts[i] is not None)
        allowed = {}
        for n, i in enumerate(order):
            if (of_place := counts[i]) is not None:
                allowed[n] = of_place
        return cls(np.array([image[i] for i in order]), np.array([at[i] for i in order]), allowed)

    @property
    def n_free(self) -> int:
        """How many, the first ones, count all poses."""
        return len(self.image) - len(self.allowed)


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
        c, s = np.cos(angles[rotation]), np.sin(angles[rotation])
        x, y = delta[:, displacement]
        x, y = places.at[piece.rows[k]].T + np.stack([c * x + s * y, c * y - s * x])
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
    log_prior = block.template_rows["log_prior"] + window.log_share
    n_poses = block.shape[1] * len(window.displacements) * block.pose_shape[1]
    reach = math.log(n_poses / block.constants.rounding)
    for rows, s, tile in _tiles(block, places, wanted):
        image = places.image[rows]
        wants = wanted[image, s]
        reference = np.where(wants, sums[image, None] - log_prior[s] - reach, np.inf)
        given = torch.from_numpy(reference).to(device)
        allowed = _allowed(places, rows, tile)
        summary = tile.summarise(given) if allowed is None else tile.reduce(given, allowed)
        best, fit, log_likelihood = (values.double().cpu().numpy() for values in summary)
        best, log_likelihood = (np.where(wants, v, -np.inf) for v in (best, log_likelihood))
        settled = {}
        for k, j in np.argwhere(wants & ~(fit < block.constants.recomputes_offset_above)):
            pair = _compared_directly(block, places, int(rows[k]), s.start + int(j))
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
    block: Block, places: Places, row: int, template: int
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
    if row in places.allowed:
        counts = torch.from_numpy(places.allowed[row].T).to(correlation.device)
        correlation = correlation.masked_fill(~counts, -math.inf)
        log_likelihood = log_likelihood.masked_fill(~counts, -math.inf)
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


def _allowed(places: Places, rows: Positions, tile: Tile) -> torch.Tensor | None:
    """Poses that count, bool (2, W/2, place, 1, displacement), by rows of `rotate`."""
    import torch

    if rows[0] < places.n_free:
        return None
    flags = torch.from_numpy(np.stack([places.allowed[int(n)] for n in rows]))
    order = tile.constants.folding.rotations
    return flags.to(order.device)[:, order].permute(1, 2, 0, 3)[:, :, :, None]


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
