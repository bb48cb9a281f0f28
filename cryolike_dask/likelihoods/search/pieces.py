"""Places of images under a few templates at a time: what a block in windows goes through."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from cryolike_dask.compute.gpu import sent
from cryolike_dask.likelihoods.search.places import (
    FloatArray,
    PlaceBits,
    Places,
    Positions,
    Window,
)
from cryolike_dask.likelihoods.tiled_block import Block, slices

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.compressed import ImageTerms
    from cryolike_dask.likelihoods.kernels.tile import Tile
    from cryolike_dask.likelihoods.kernels.windows import Axis, Windows


TEMPLATES_TOGETHER = 4
"""Of which images that want one are multiplied with all, on CPUs: of the products of 12 templates
three in four are not wanted."""


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
    best : (row, template) float64
        Largest correlation; minus infinity where it is not wanted.
    poses : (row, template) int64
        Of the best, over (displacement, rotation).
    log_likelihood, log_posterior : (row, template) float64
        Summed over displacements and rotations, without and with the prior.
    log_missed : (row, template) float64
        What is as much as lies beyond the window, with the prior.
    """

    rows: Positions
    image: Positions
    s: slice
    tile: Tile
    best: FloatArray
    poses: Positions
    log_likelihood: FloatArray
    log_posterior: FloatArray
    log_missed: FloatArray

    def locate(self, rows: Positions, templates: Positions) -> tuple[Positions, Positions]:
        """Displacement and rotation of the best poses of some pairs."""
        n_inplanes = self.tile.constants.folding.n_inplanes
        displacement, rotation = np.divmod(self.poses[rows, templates], n_inplanes)
        return displacement, rotation


def pieces(
    block: Block, places: Places, wanted: PlaceBits, window: Window, sums: FloatArray
) -> Iterator[Piece]:
    """Compare; poses that would change `sums` of images by less than rounding may be left out."""

    device = block.constants.weights.device
    of_templates = block.template_rows["log_prior"]
    n_poses = block.shape[1] * len(window.displacements) * block.pose_shape[1]
    reach = math.log(n_poses / block.constants.rounding)
    for rows, s, tile in tiles(block, places, wanted):
        image = places.image[rows]
        bits = wanted[image, s]
        wants = places.wanted_by(wanted[:, s], rows)
        log_prior = of_templates[s]
        if places.arcs is not None and places.arcs.log_prior is not None:
            log_prior = log_prior + places.arcs.log_prior[image, s]
        reference = np.where(wants, sums[image, None] - log_prior - reach, np.inf)
        best, fit, log_likelihood, at_edge, poses = block.constants.checks.read(
            *tile.summarise_in_windows(
                sent(reference, device),
                sent(wants, device),
                windows_of(block, places, rows, window, s, bits),
            )
        )
        best = best.astype(np.float64)
        for k, j in np.argwhere(wants & ~(fit < block.constants.recomputes_offset_above)):
            best[k, j], poses[k, j], log_likelihood[k, j] = _compared_directly(
                block, places, int(rows[k]), s.start + int(j), window, bits[k : k + 1, j : j + 1]
            )
        posterior, missed = log_likelihood + log_prior, at_edge + log_prior
        yield Piece(rows, image, s, tile, best, poses, log_likelihood, posterior, missed)


def _compared_directly(
    block: Block, places: Places, row: int, template: int, window: Window, bits: PlaceBits
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
    first = torch.zeros(block.pose_shape[1], dtype=torch.int64, device=correlation.device)
    shares = windows_of(
        block, places, number, replace(window, finer=1), slice(template, template + 1), bits
    ).shares(torch.arange(len(first), device=correlation.device), first, first, cut=0)
    angles = block.comparison.grid.angles
    allowed = window.inside(places.at[number], angles)[0]
    if places.arcs is not None:
        on_arc, log_weight = places.arcs.of_pair(int(places.image[row]), template, angles)
        allowed &= on_arc[:, None]
        log_likelihood = log_likelihood + sent(log_weight, correlation.device)
    inside = torch.from_numpy(allowed)
    outside = ~inside.T.to(correlation.device)
    correlation = correlation.masked_fill(outside, -math.inf)
    log_likelihood = (log_likelihood + shares.T.log()).masked_fill(outside, -math.inf)
    best, pose = correlation.flatten().max(0)
    return float(best), int(pose), float(torch.logsumexp(log_likelihood.flatten(), 0))


def tiles(
    block: Block, places: Places, wanted: PlaceBits
) -> Iterator[tuple[Positions, slice, Tile]]:
    """Correlate, for each few templates, the places of images that want some of them."""
    from cryolike_dask.likelihoods.kernels.compressed import correlate, prepare_templates

    together = block.tile[1]
    if block.constants.weights.is_cpu and (wanted > 0).mean() < 0.5:
        together = min(together, TEMPLATES_TOGETHER)
    for group in slices(0, len(places.image), block.n_images_at_a_time):
        rows = np.arange(group.start, group.stop)
        terms = _prepared(block, places, group)
        columns = list(slices(0, block.shape[1], together))
        for s, values in zip(columns, block.templates(columns), strict=True):
            wanting = np.flatnonzero(places.wanted_by(wanted[:, s], rows).any(axis=1))
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
        rows, row_of_place = np.unique(places.image[part], return_inverse=True)
        images = block.images(rows).take(sent(row_of_place, block.constants.weights.device))
        moved = replace(images, values=images.values * _moving_back(places.at[part], block))
        parts.append(prepare_images(moved, block.constants))
    return ImageTerms.joined(parts)


def _moving_back(places: FloatArray, block: Block) -> torch.Tensor:
    """Factors that move images back by their places, complex (place, shell, angle)."""

    from cryolike_dask.likelihoods.kernels import translation_factors

    grid, device = block.comparison.grid, block.constants.mask.device
    kx, ky = (sent(k, device) for k in grid.points())
    x, y = (sent(-2 * v / grid.box_size_angstrom, device) for v in places.T)
    return translation_factors(x, y, kx, ky).to(block.constants.mask.dtype)


def windows_of(
    block: Block, places: Places, rows: Positions, window: Window, s: slice, bits: PlaceBits
) -> Windows:
    """Windows of some places under some templates, which want those of their image that bits, (row,
    template), say; on the device."""

    from cryolike_dask.likelihoods.kernels.windows import Windows

    device = block.constants.weights.device
    return Windows(
        *axes_of(window, float(block.comparison.grid.spatial_frequencies[-1]), device),
        sent(block.comparison.grid.angles, device),
        sent(places.of_image[rows], device),
        sent(places.number[rows], device),
        sent(bits.astype(np.int64), device),
        sent(rows < places.n_free, device),
        window.edge,
        None if places.arcs is None else sent(places.arcs.terms[places.image[rows], s], device),
        0.0 if places.arcs is None else places.arcs.slope,
        window.neglects,
        window.missed,
    )


@lru_cache(maxsize=4)
def axes_of(window: Window, highest_frequency: float, device: torch.device) -> tuple[Axis, Axis]:
    """Axes of a window, which all of its tiles share."""
    from cryolike_dask.likelihoods.kernels.windows import Axis

    x, y = (
        Axis.of(along, window.finer, highest_frequency, limit, device, window.sigma)
        for along, limit in zip((window.x_angstrom, window.y_angstrom), window.limit, strict=True)
    )
    return x, y
