"""One task: rows of images against rows of templates. The border between numpy and torch.

Block functions take small tables of rows (which images, which templates, and what is known of
each), a radial basis and a `Comparison` (where the data is, and every setting), and give numpy
arrays. torch lives only inside them; it is imported inside the functions, because the scheduler
imports this module too.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.block_reports import Teller, announce
from cryolike_dask.compute.device import real_dtype, resolve_device
from cryolike_dask.errors import CryolikeError
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.poses import no_poses
from cryolike_dask.likelihoods.reading import read_images, read_templates
from cryolike_dask.likelihoods.setup import find_basis, log_likelihood_at, make_constants
from cryolike_dask.likelihoods.tiles import (
    Footprint,
    first_tile,
    images_at_a_time,
    ranks_of,
    smaller_tile,
)

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.direct import BlockConstants
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

UNKNOWN = -1
"""In place of the index of a pose that nobody has asked for yet."""
PAIRS_AT_A_TIME = 16
"""That are compared directly: every pose of theirs is in memory."""

_TURN = threading.Lock()
"""One block at a time in a process, so that a device never runs two: the only state of this
module."""


def radial_basis_of(comparison: Comparison) -> RadialBasis:
    """The radial basis that all blocks of a comparison are given."""
    with _TURN:
        return find_basis(comparison)


def optimal_poses(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """The best pose of each image among these templates, and its likelihood over all of them:
    (image, 1), POSE."""
    poses = _run(image_rows, template_rows, basis, comparison, _search)
    with _TURN:
        poses["log_likelihood_optimal"] = log_likelihood_at(image_rows, poses, comparison)
    return poses[:, None]


def _search(block: Block) -> Rows:
    """Go through the tiles of a block, and keep the best pose and the likelihood of each image."""
    import torch

    poses = no_poses((block.shape[0],))
    priors = torch.from_numpy(block.template_rows["log_prior"].copy()).to(
        block.constants.weights.device
    )
    # all poses that are farther below the sum than this would change it by less than rounding does
    reach = math.log(block.shape[1] * math.prod(block.pose_shape) / block.constants.rounding)
    sums = torch.full(block.shape[:1], -math.inf, dtype=torch.float64, device=priors.device)
    bounds = torch.zeros_like(sums)
    for m, s, tile in block.tiles():
        best, fit, summed = tile.summarise(sums[m, None] - priors[s] - reach)
        at = torch.full(best.shape, UNKNOWN, device=best.device)
        block.settle_doubtful_pairs(m, s, fit, best, at, summed)
        sums[m] = torch.logaddexp(sums[m], torch.logsumexp(summed + priors[s], 1))
        _keep_best(poses[m], tile, best, at, block.template_rows["index"][s], block.pose_shape)
        bounds[m] = torch.maximum(bounds[m], tile.error_bound.amax(1))
    poses["log_likelihood_integrated"] = sums.cpu().numpy()
    poses["correlation_error_bound"] = bounds.cpu().numpy()
    return poses


def _keep_best(
    poses: Rows,
    tile: Tile,
    best: torch.Tensor,
    at: torch.Tensor,
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
    at = torch.where(at[m, s] == UNKNOWN, tile.locate(m, s), at[m, s])
    poses["cross_correlation"][improved] = values[improved]
    poses["template"][improved] = indices[s.cpu().numpy()]
    poses["displacement"][improved], poses["rotation"][improved] = np.unravel_index(
        at.cpu().numpy(), pose_shape
    )


def best_of_pairs(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """The best displacement and rotation, and the log-likelihood summed over both: (image,
    template), PAIR."""
    import torch

    def search(block: Block) -> Rows:
        pairs = np.zeros(block.shape, PAIR)
        for m, s, tile in block.tiles():
            best, fit, summed = tile.summarise(torch.full_like(tile.error_bound, -math.inf))
            at = torch.full(best.shape, UNKNOWN, device=best.device)
            for part, correlation in tile.correlations():
                best[part], at[part] = correlation.flatten(2).max(2)
            block.settle_doubtful_pairs(m, s, fit, best, at, summed)
            pairs["cross_correlation"][m, s] = best.cpu().numpy()
            pairs["displacement"][m, s], pairs["rotation"][m, s] = np.unravel_index(
                at.cpu().numpy(), block.pose_shape
            )
            pairs["log_likelihood"][m, s] = summed.cpu().numpy()
        return pairs

    return _run(image_rows, template_rows, basis, comparison, search)


def best_displacements(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """The best displacement at each rotation: (image, template, rotation), BEST_DISPLACEMENT."""

    def search(block: Block) -> Rows:
        return _best_along(
            block,
            2,
            np.zeros((*block.shape, block.pose_shape[1]), BEST_DISPLACEMENT),
            "displacement",
        )

    return _run(image_rows, template_rows, basis, comparison, search)


def best_rotations(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.void]:
    """The best rotation at each displacement: (image, template, displacement), BEST_ROTATION."""

    def search(block: Block) -> Rows:
        return _best_along(
            block, 3, np.zeros((*block.shape, block.pose_shape[0]), BEST_ROTATION), "rotation"
        )

    return _run(image_rows, template_rows, basis, comparison, search)


def _best_along(block: Block, dim: int, out: Rows, name: str) -> Rows:
    for m, s, correlation in block.correlations():
        best, at = correlation.max(dim)
        out["cross_correlation"][m, s] = best.cpu().numpy()
        out[name][m, s] = at.cpu().numpy()
    return out


def all_correlations(
    image_rows: Rows, template_rows: Rows, basis: RadialBasis = (), *, comparison: Comparison
) -> NDArray[np.floating[Any]]:
    """The correlation of every pose: real, (image, template, displacement, rotation)."""

    def search(block: Block) -> NDArray[Any]:
        out = np.zeros((*block.shape, *block.pose_shape), real_dtype(comparison.precision))
        for m, s, correlation in block.correlations():
            out[m, s] = correlation.cpu().numpy()
        return out

    return _run(image_rows, template_rows, basis, comparison, search)


@dataclass(frozen=True)
class Block:
    """Images and templates of one task, on its device, and the (images, templates) of a tile."""

    image_rows: Rows
    template_rows: Rows
    comparison: Comparison
    constants: BlockConstants
    tile: tuple[int, int]
    n_images_at_a_time: int

    def describe(self) -> dict[str, Any]:
        """What is compared, where, and how."""
        images, templates = self.image_rows["index"], self.template_rows["index"]
        return {
            "name": self.comparison.name,
            "first_image": int(images[0]),
            "n_images": len(images),
            "first_template": int(templates[0]),
            "n_templates": len(templates),
            "of_templates": self.comparison.templates.shape[0],
            "device": str(self.constants.weights.device),
            "dtype": str(self.constants.weights.dtype).removeprefix("torch."),
            "tile": [int(n) for n in self.tile],
        }

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

        rows, of_templates, n_done = (
            (self.image_rows, self.template_rows),
            self.comparison.templates.shape[0],
            0,
        )
        tell = Teller(self.comparison.name, tuple(int(r["index"][0]) for r in rows))
        for group in slices(0, self.shape[0], self.n_images_at_a_time):
            prepared = []
            for m in slices(group.start, group.stop, self.tile[0]):
                prepared.append((m, prepare_images(*self.images(m), self.constants)))
            columns = list(slices(0, self.shape[1], self.tile[1]))
            for s, values in zip(columns, self.templates(columns), strict=True):
                templates = prepare_templates(
                    values, self.constants, int(self.template_rows["index"][s.start])
                )
                for m, images in prepared:
                    yield m, s, correlate(images, templates, self.constants)
                    n_done += (m.stop - m.start) * (s.stop - s.start)
                    tell(n_done / of_templates)

    def correlations(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Give all correlations, (image, template, displacement, rotation), a few images at a
        time."""
        for m, s, tile in self.tiles():
            for i, correlation in tile.correlations():
                part = slice(m.start + i.start, m.start + i.stop)
                if self.constants.zero_normalised:
                    for k, j, exact, _ in self.doubtful_pairs(
                        part, s, correlation.square().amax((2, 3))
                    ):
                        correlation[k, j] = exact
                yield part, s, correlation

    def settle_doubtful_pairs(
        self,
        m: slice,
        s: slice,
        fit: torch.Tensor,
        best: torch.Tensor,
        at: torch.Tensor,
        summed: torch.Tensor,
    ) -> None:
        """Put the best correlation, its place and the summed log-likelihood of doubtful pairs in
        place of a tile's."""
        from cryolike_dask.likelihoods.kernels import integrate_log_likelihood

        for i, j, correlation, log_likelihood in self.doubtful_pairs(m, s, fit):
            best[i, j], at[i, j] = correlation.flatten(1).max(1)
            summed[i, j] = integrate_log_likelihood(log_likelihood[:, None])[:, 0]

    def doubtful_pairs(
        self, m: slice, s: slice, fit: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, int, torch.Tensor, torch.Tensor]]:
        """Compare those pairs of a tile directly, over all shells, whose offset must be taken at
        the pose.

        Parameters
        ----------
        fit : Tensor, real, (image, template)
            The largest part of each image's variance that a pose explains.

        Yields
        ------
        Images and template within the tile; correlation and log-likelihood, (image, displacement,
        rotation).
        """
        from cryolike_dask.likelihoods.kernels.direct import compare

        doubtful = ~(fit < self.constants.recomputes_offset_above)
        for j in doubtful.any(0).nonzero().flatten().tolist():
            (template,) = self.templates([slice(s.start + j, s.start + j + 1)])
            first = int(self.template_rows["index"][s.start + j])
            rows = doubtful[:, j].nonzero().flatten()
            for part in slices(0, len(rows), PAIRS_AT_A_TIME):
                i = rows[part]
                images, contrast = self.images(np.arange(m.start, m.stop)[i.cpu().numpy()])
                found = compare(images, contrast.repeat(1, 1, 2), template, self.constants, first)
                yield i, j, found[0][:, 0], found[1][:, 0]

    def images(self, m: slice | NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
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


def _run(
    image_rows: Rows,
    template_rows: Rows,
    basis: RadialBasis,
    comparison: Comparison,
    search: Callable[[Block], NDArray[Any]],
) -> NDArray[Any]:
    """Search a block; on running out of memory, start again with half the tile."""
    import torch

    with _TURN, torch.inference_mode():
        block = open_block(image_rows, template_rows, basis, comparison)
    first = block.tile
    while True:
        try:
            with _TURN, torch.inference_mode():
                start = time.perf_counter()
                found = search(block)
                seconds = time.perf_counter() - start
            break
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        block = _smaller(block, message)
    announce(
        {**block.describe(), "first_tile": [int(n) for n in first], "seconds": round(seconds, 3)}
    )
    return found


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of the GPU or of the machine did not suffice."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return not isinstance(error, CryolikeError)
    return "DefaultCPUAllocator" in str(error)  # torch has no type for this


def _smaller(block: Block, reason: str) -> Block:
    """The same block with half the tile, and no memory kept from before."""
    import torch

    block.constants.scratch.kept.clear()
    torch.cuda.empty_cache()
    tile = smaller_tile(block.tile, reason)
    return replace(block, tile=tile, n_images_at_a_time=max(tile[0], block.n_images_at_a_time // 2))


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
