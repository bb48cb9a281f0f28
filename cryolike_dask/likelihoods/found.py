"""What a block finds, kept on its device until all of it is known: to read a result before makes
the program wait for the device, and the device for the program.

torch is imported inside the functions: the scheduler imports this module too, and does not need
torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.gpu import sent
from cryolike_dask.likelihoods.poses import no_poses
from cryolike_dask.likelihoods.tiled_block import Block

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.tile import Tile


class Likelihoods:
    """Log-likelihoods of the pairs of a block, summed over displacements and rotations.

    Pairs whose offset must be taken at the pose are not sure, and left until all tiles are done.
    """

    def __init__(self, block: Block) -> None:
        import torch

        self.block, self.device = block, block.constants.weights.device
        self.of_pairs = self.nothing(block.shape, torch.float64)
        self.of_images = self.nothing(block.shape[:1], torch.float64)
        self.sure = torch.ones(block.shape, dtype=torch.bool, device=self.device)
        self.log_prior = sent(block.template_rows["log_prior"], self.device)

    def nothing(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Minus infinity."""
        import torch

        return torch.full(shape, -math.inf, dtype=dtype, device=self.device)

    def compare(self, neglects: bool = True) -> None:
        """Go through all tiles.

        Parameters
        ----------
        neglects : bool
            Leave out poses that would change the sum over all pairs of an image by less than
            rounding does.
        """
        import torch

        reach = math.log(
            self.block.shape[1] * math.prod(self.block.pose_shape) / self.block.constants.rounding
        )
        far = self.log_prior + (reach if neglects else math.inf)
        above = self.block.constants.recomputes_offset_above
        for m, s, tile in self.block.tiles():
            of_images, of_pairs, sure = self.of_images[m], self.of_pairs[m, s], self.sure[m, s]
            best, fit, summed, poses = tile.summarise(of_images[:, None] - far[s], self.to_beat(m))
            torch.lt(fit, above, out=sure)
            torch.where(sure, summed, of_pairs, out=of_pairs)
            self.keep(m, s, tile, torch.where(sure, best, -math.inf), poses)
            of_tile = torch.logsumexp(of_pairs + self.log_prior[s], 1)
            torch.logaddexp(of_images, of_tile, out=of_images)

    def to_beat(self, m: slice) -> torch.Tensor | None:
        """Correlations beyond which it matters where the best one of a tile is, (image,)."""

    def keep(
        self, m: slice, s: slice, tile: Tile, best: torch.Tensor, poses: torch.Tensor | None
    ) -> None:
        """Keep more of a tile: its best correlations, (image, template), and where they are."""

    def keep_exact(self, m: torch.Tensor, s: int, best: torch.Tensor, pose: torch.Tensor) -> None:
        """The same of a few images under one template, (image,)."""

    def read(self, *names: str) -> list[NDArray[Any]]:
        """What these attributes are in the end, on the host.

        Raises
        ------
        ZeroPowerError, NotFiniteError, InputError
            If there are images or templates that cannot be compared.
        """
        while True:
            values = (getattr(self, name) for name in names)
            sure, *found = self.block.constants.checks.read(self.sure, *values)
            if sure.all():
                return found
            self._settle(~sure)

    def _settle(self, doubtful: NDArray[np.bool_]) -> None:
        """Put exact numbers in their place."""
        import torch

        from cryolike_dask.likelihoods.kernels import integrate_log_likelihood

        for m, s, correlation, log_likelihood in self.block.compared_directly(doubtful):
            summed = integrate_log_likelihood(log_likelihood[:, None])[:, 0]
            self.of_pairs[m, s] = summed
            self.of_images[m] = torch.logaddexp(self.of_images[m], summed + self.log_prior[s])
            self.keep_exact(m, s, *correlation.flatten(1).max(1))
        self.sure.fill_(True)


class BestOfImages(Likelihoods):
    """The same, and the best pose of each image."""

    def __init__(self, block: Block) -> None:
        import torch

        super().__init__(block)
        n = block.shape[:1]
        self.correlation = self.nothing(n, block.constants.weights.dtype)
        self.template = torch.zeros(n, dtype=torch.int64, device=self.device)
        self.pose = torch.zeros_like(self.template)
        self.error_bound = torch.zeros(n, dtype=torch.float64, device=self.device)

    def to_beat(self, m: slice) -> torch.Tensor:
        """The best so far."""
        return self.correlation[m]

    def keep(
        self, m: slice, s: slice, tile: Tile, best: torch.Tensor, poses: torch.Tensor | None
    ) -> None:
        """Update the poses of images that some template of a tile fits better."""
        import torch

        top, template = best.max(1)  # the first of equal ones
        improved = top > self.correlation[m]
        pose = tile.locate_best(template, improved, poses)
        for kept, new in (
            (self.correlation, top),
            (self.template, template + s.start),
            (self.pose, pose),
        ):
            torch.where(improved, new, kept[m], out=kept[m])
        bounds = self.error_bound[m]
        torch.maximum(bounds, tile.error_bound.amax(1), out=bounds)

    def keep_exact(self, m: torch.Tensor, s: int, best: torch.Tensor, pose: torch.Tensor) -> None:
        """Update those that this template fits better, or as well as a later one."""
        before = self.correlation[m]
        improved = (best > before) | ((best == before) & (s < self.template[m]))
        m = m[improved]
        self.correlation[m], self.template[m], self.pose[m] = best[improved], s, pose[improved]

    def poses(self, *more: str) -> list[NDArray[Any]]:
        """Best pose of each image, and its likelihood over all of these templates, POSE; and what
        more of these attributes are."""
        names = ("correlation", "template", "pose", "of_images", "error_bound")
        correlation, template, pose, of_images, bound, *others = self.read(*names, *more)
        poses = no_poses((len(correlation),))
        there = correlation > -np.inf
        poses["cross_correlation"][there] = correlation[there]
        poses["template"][there] = self.block.template_rows["index"][template[there]]
        poses["displacement"][there], poses["rotation"][there] = np.unravel_index(
            pose[there], self.block.pose_shape
        )
        poses["log_likelihood_integrated"], poses["correlation_error_bound"] = of_images, bound
        poses["n_poses"] = self.block.shape[1] * math.prod(self.block.pose_shape)
        return [poses, *others]


class BestOfPairs(Likelihoods):
    """The same, and the best pose of each pair."""

    def __init__(self, block: Block) -> None:
        import torch

        super().__init__(block)
        self.correlation = self.nothing(block.shape, block.constants.weights.dtype)
        self.pose = torch.zeros(block.shape, dtype=torch.int64, device=self.device)

    def keep(
        self, m: slice, s: slice, tile: Tile, best: torch.Tensor, poses: torch.Tensor | None
    ) -> None:
        """The best of all correlations: where is asked for every pair."""
        for i, correlation in tile.correlations():
            part = slice(m.start + i.start, m.start + i.stop)
            self.correlation[part, s], self.pose[part, s] = correlation.flatten(2).max(2)

    def keep_exact(self, m: torch.Tensor, s: int, best: torch.Tensor, pose: torch.Tensor) -> None:
        """In the place of what was found."""
        self.correlation[m, s], self.pose[m, s] = best, pose
