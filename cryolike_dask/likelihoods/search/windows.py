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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.poses import no_poses
from cryolike_dask.likelihoods.setup import find_basis
from cryolike_dask.likelihoods.tiled_block import Block, open_block, slices

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.compressed import ImageTerms, TemplateTerms
    from cryolike_dask.likelihoods.kernels.direct import WhitenedImages
    from cryolike_dask.likelihoods.kernels.tile import Tile

FloatArray = NDArray[np.float64]
Flags = NDArray[np.bool_]


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
        Between displacements along x and y, angstrom, in both.
    """

    displacements: DisplacementGrid
    search: DisplacementGrid
    step: tuple[float, float]

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


def optimal_poses_in_windows(
    image_rows: Rows,
    template_rows: Rows,
    wanted: Flags,
    modes: FloatArray,
    basis: Any = (),
    *,
    comparison: Comparison,
    window: Window,
) -> NDArray[np.void]:
    """Best pose of each image among the templates and places that it wants, and its likelihood over
    all of them: (image, 1), POSE.

    Parameters
    ----------
    image_rows, template_rows : structured arrays
    wanted : (image, template) bool
    modes : (image, mode, 2) float64
        Places, angstrom; NaN beyond them; none: all displacements of the search.
    basis : RadialBasis
        Of `comparison`.
    comparison : Comparison
        Its displacements are those of the window.
    window : Window
    """
    from cryolike_dask.likelihoods import blocks

    modes, wanted = modes.reshape(len(image_rows), -1, 2), wanted.reshape(len(image_rows), -1)
    poses = no_poses((len(image_rows),))
    whole = np.isnan(modes[:, 0, 0])
    if whole.any():
        everything = replace(comparison, displacements=window.search)
        poses[whole] = blocks.optimal_poses(
            image_rows[whole],
            template_rows,
            blocks.radial_basis_of(everything),
            comparison=everything,
        )[:, 0]
    some = np.flatnonzero(~whole & wanted.any(axis=1))
    if not len(some):
        return poses[:, None]
    rows = Places.of(image_rows[some], modes[some], window, comparison.grid.angles)
    used = np.flatnonzero(wanted[some].any(axis=0))

    def search(block: Block) -> Rows:
        return _search(block, rows, wanted[np.ix_(some, used)], window)

    poses[some] = blocks._run(image_rows[some], template_rows[used], basis, comparison, search)
    with blocks.TURN:
        everything = replace(comparison, displacements=window.search)
        poses["log_likelihood_optimal"][some] = blocks.log_likelihood_at(
            image_rows[some], poses[some], everything
        )
    return poses[:, None]


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

    image: NDArray[np.int64]
    at: FloatArray
    allowed: dict[int, Flags]

    @classmethod
    def of(
        cls, image_rows: Rows, modes: FloatArray, window: Window, angles: FloatArray
    ) -> Places:
        """Those of all images; first those at which all poses count."""
        image, at, allowed = [], [], []
        for m, places in enumerate(modes):
            known = places[~np.isnan(places[:, 0])]
            flags = window.allowed(known, angles)
            for k, place in enumerate(known):
                image.append(m)
                at.append(place)
                allowed.append(None if flags is None else flags[k])
        order = sorted(range(len(image)), key=lambda i: allowed[i] is not None)
        return cls(
            np.array([image[i] for i in order]),
            np.array([at[i] for i in order]),
            {n: allowed[i] for n, i in enumerate(order) if allowed[i] is not None},
        )

    @property
    def n_free(self) -> int:
        """How many, the first ones, count all poses."""
        return len(self.image) - len(self.allowed)


def _search(block: Block, places: Places, wanted: Flags, window: Window) -> Rows:
    import torch

    device = block.constants.weights.device
    priors = torch.from_numpy(block.template_rows["log_prior"].copy()).to(device)
    reach = math.log(
        block.shape[1] * len(window.search) * block.pose_shape[1] / block.constants.rounding
    )
    sums = np.full(block.shape[0], -np.inf)
    bounds = np.zeros(block.shape[0])
    best_of_place = no_poses((len(places.image),))
    for rows, s, tile in _tiles(block, places, wanted):
        of_images = places.image[rows]
        wants = torch.from_numpy(wanted[of_images, s]).to(device)
        reference = torch.from_numpy(sums[of_images]).to(device)[:, None] - priors[s] - reach
        reference = torch.where(wants, reference, torch.inf)
        allowed = _allowed(places, rows, tile)
        best, fit, summed = (
            tile.summarise(reference) if allowed is None else tile.reduce(reference, allowed)
        )
        best = torch.where(wants, best, -torch.inf)
        summed = torch.where(wants, summed + priors[s], -torch.inf)
        np.logaddexp.at(sums, of_images, torch.logsumexp(summed, 1).cpu().numpy())
        np.maximum.at(bounds, of_images, tile.error_bound.amax(1).cpu().numpy())
        _keep_best(best_of_place, rows, tile, best, allowed, block.template_rows["index"][s])
    return _of_images(block, places, best_of_place, sums, bounds, window)


def _tiles(
    block: Block, places: Places, wanted: Flags
) -> Iterator[tuple[NDArray[np.int64], slice, Tile]]:
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
                    tile = correlate(terms.take(part[k]), templates, block.constants)
                    yield group.start + part[k], s, tile


def _prepared(block: Block, places: Places, group: slice) -> ImageTerms:
    from cryolike_dask.likelihoods.kernels.compressed import ImageTerms, prepare_images

    parts = []
    for part in slices(group.start, group.stop, block.tile[0]):
        images = block.images(places.image[part])
        parts.append(prepare_images(_moved(images, places.at[part], block), block.constants))
    return ImageTerms.joined(parts)


def _moved(images: WhitenedImages, places: FloatArray, block: Block) -> WhitenedImages:
    """Images moved back by their places."""
    import torch

    from cryolike_dask.likelihoods.kernels import translation_factors

    grid, device = block.comparison.grid, images.values.device
    kx, ky = (torch.from_numpy(k).to(device) for k in grid.points())
    x, y = (torch.from_numpy(-2 * v / grid.box_size_angstrom).to(device) for v in places.T)
    factors = translation_factors(x, y, kx, ky).to(images.values.dtype)
    return replace(images, values=images.values * factors)


def _allowed(places: Places, rows: NDArray[np.int64], tile: Tile) -> torch.Tensor | None:
    """Poses that count, bool (2, W/2, place, 1, displacement), by rows of `rotate`."""
    import torch

    if rows[0] < places.n_free:
        return None
    flags = torch.from_numpy(np.stack([places.allowed[int(n)] for n in rows]))
    order = tile.constants.folding.rotations
    return flags.to(order.device)[:, order].permute(1, 2, 0, 3)[:, :, :, None]


def _keep_best(
    best_of_place: Rows,
    rows: NDArray[np.int64],
    tile: Tile,
    best: torch.Tensor,
    allowed: torch.Tensor | None,
    indices: NDArray[np.int64],
) -> None:
    import torch

    top, template = best.max(1)
    values = top.cpu().numpy()
    improved = np.flatnonzero(values > best_of_place["cross_correlation"][rows])
    if not len(improved):
        return
    m = torch.from_numpy(improved).to(best.device)
    s = template[m]
    located = tile.locate(m, s, allowed).cpu().numpy()
    target = rows[improved]
    best_of_place["cross_correlation"][target] = values[improved]
    best_of_place["template"][target] = indices[s.cpu().numpy()]
    n_rotations = tile.constants.folding.n_inplanes
    best_of_place["displacement"][target] = located // n_rotations
    best_of_place["rotation"][target] = located % n_rotations


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
