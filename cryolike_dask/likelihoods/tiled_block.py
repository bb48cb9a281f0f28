"""The images and templates of one task, on its device, compared tile by tile.

torch is imported inside the functions: the scheduler imports this module too, and does not need
torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.block_reports import BlockReport, Teller
from cryolike_dask.compute.device import resolve_device
from cryolike_dask.compute.gpu import name_of_device, sent
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.reading import read_images, read_templates
from cryolike_dask.likelihoods.setup import make_constants
from cryolike_dask.likelihoods.tiles import Footprint, first_tile, images_at_a_time, ranks_of

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.direct import BlockConstants, WhitenedImages
    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis
    from cryolike_dask.likelihoods.kernels.tile import Tile

PAIRS_AT_A_TIME = 16
"""Pairs that are compared directly: every pose of theirs is in memory."""


def open_block(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis, comparison: Comparison
) -> Block:
    """Choose tiles by memory, and bring to the device what all of them share."""
    footprint = Footprint.of(comparison, ranks_of(basis, comparison))
    tile = first_tile(len(image_rows), len(template_rows), comparison, footprint)
    return Block(
        image_rows,
        template_rows,
        comparison,
        make_constants(comparison, resolve_device(comparison.device), basis),
        tile,
        images_at_a_time(comparison, footprint, tile),
    )


@dataclass(frozen=True)
class Block:
    """Images and templates of one task, on its device, and the (images, templates) of a tile."""

    image_rows: Rows
    template_rows: Rows
    comparison: Comparison
    constants: BlockConstants
    tile: tuple[int, int]
    n_images_at_a_time: int

    def report(self, tile_tried_first: tuple[int, int], seconds: float) -> BlockReport:
        """Say what was compared, where, and how."""
        return BlockReport(
            name=self.comparison.name,
            first_image=int(self.image_rows["index"][0]),
            n_images=len(self.image_rows),
            first_template=int(self.template_rows["index"][0]),
            n_templates=len(self.template_rows),
            of_templates=self.comparison.templates.shape[0],
            device=name_of_device(self.constants.weights.device.type),
            dtype=str(self.constants.weights.dtype).removeprefix("torch."),
            tile=self.tile,
            first_tile=tile_tried_first,
            seconds=round(seconds, 3),
            level=self.comparison.level,
            share=self.comparison.share,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(image, template)."""
        return len(self.image_rows), len(self.template_rows)

    @property
    def pose_shape(self) -> tuple[int, int]:
        """(displacement, rotation)."""
        return len(self.comparison.displacements), self.comparison.grid.n_inplanes

    def tiles(self) -> Iterator[tuple[slice, slice, Tile]]:
        """Correlate. Templates are the outer loop: what belongs to them alone is made once,
        used, and dropped."""
        from cryolike_dask.likelihoods.kernels.compressed import (
            correlate,
            prepare_images,
            prepare_templates,
        )

        first_rows = (int(rows["index"][0]) for rows in (self.image_rows, self.template_rows))
        tell = Teller(self.comparison.name, tuple(first_rows))
        n_pairs = 0
        for group in slices(0, self.shape[0], self.n_images_at_a_time):
            prepared = [
                (m, prepare_images(self.images(m), self.constants))
                for m in slices(group.start, group.stop, self.tile[0])
            ]
            columns = list(slices(0, self.shape[1], self.tile[1]))
            for s, values in zip(columns, self.templates(columns), strict=True):
                templates = prepare_templates(
                    values, self.constants, int(self.template_rows["index"][s.start])
                )
                for m, images in prepared:
                    yield m, s, correlate(images, templates, self.constants)
                    n_pairs += (m.stop - m.start) * (s.stop - s.start)
                    tell(n_pairs / self.comparison.templates.shape[0])

    def correlations(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Give all correlations, (image, template, displacement, rotation), a few images at a
        time."""
        above = self.constants.recomputes_offset_above
        for m, s, tile in self.tiles():
            for i, correlation in tile.correlations():
                part = slice(m.start + i.start, m.start + i.stop)
                if self.constants.zero_normalised:
                    largest = correlation.square().amax((2, 3))
                    (doubtful,) = self.constants.checks.read(~(largest < above))
                    for k, j, exact, _ in self.compared_directly(doubtful, (part.start, s.start)):
                        correlation[k, j] = exact
                yield part, s, correlation

    def compared_directly(
        self, pairs: NDArray[np.bool_], first: tuple[int, int] = (0, 0)
    ) -> Iterator[tuple[torch.Tensor, int, torch.Tensor, torch.Tensor]]:
        """Compare those of some pairs directly, over all shells, whose offset must be taken at the
        pose.

        Parameters
        ----------
        pairs : bool, (image, template)
            Which.
        first : (int, int)
            The first image and the first template of these.

        Yields
        ------
        Images and template among these; correlation and log-likelihood, (image, displacement,
        rotation).
        """
        from cryolike_dask.likelihoods.kernels.direct import compare

        for j in np.flatnonzero(pairs.any(axis=0)).tolist():
            at = first[1] + j
            (template,) = self.templates([slice(at, at + 1)])
            rows = np.flatnonzero(pairs[:, j])
            for part in slices(0, len(rows), PAIRS_AT_A_TIME):
                i = rows[part]
                correlation, log_likelihood = compare(
                    self.images(first[0] + i),
                    template,
                    self.constants,
                    int(self.template_rows["index"][at]),
                )
                yield (
                    sent(i, self.constants.weights.device),
                    j,
                    correlation[:, 0],
                    log_likelihood[:, 0],
                )

    def images(self, m: slice | NDArray[np.int64]) -> WhitenedImages:
        """Read images and their contrast."""
        return read_images(self.image_rows[m], self.comparison, self.constants)

    def templates(self, parts: Sequence[slice]) -> Iterator[torch.Tensor]:
        """Read templates part by part."""
        indices = [self.template_rows["index"][s] for s in parts]
        return read_templates(indices, self.comparison, self.constants)


def slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Cut a range into slices of this size."""
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))
