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

    Pairs whose offset must be taken at the pose are left until all tiles are done (`doubtful`).
    """

    def __init__(self, block: Block) -> None:
        import torch

        self.block, self.device = block, block.constants.weights.device
        self.of_pairs = self.nothing(block.shape, torch.float64)
        self.of_images = self.nothing(block.shape[:1], torch.float64)
        self.doubtful = torch.zeros(block.shape, dtype=torch.bool, device=self.device)
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
        for m, s, tile in self.block.tiles():
            best, fit, summed = tile.summarise(self.of_images[m, None] - far[s])
            doubtful = ~(fit < self.block.constants.recomputes_offset_above)
            self.doubtful[m, s] = doubtful
            self.of_pairs[m, s] = summed.masked_fill_(doubtful, -math.inf)
            self.keep(m, s, tile, best.masked_fill_(doubtful, -math.inf))
            of_tile = torch.logsumexp(summed + self.log_prior[s], 1)
            torch.logaddexp(self.of_images[m], of_tile, out=self.of_images[m])

    def keep(self, m: slice, s: slice, tile: Tile, best: torch.Tensor) -> None:
        """Keep more of a tile, whose best correlations these are, (image, template)."""

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
            doubtful, *found = self.block.constants.checks.read(self.doubtful, *values)
            if not doubtful.any():
                return found
            self._settle(doubtful)

    def _settle(self, doubtful: NDArray[np.bool_]) -> None:
        """Put exact numbers in the place of those that are doubtful."""
        import torch

        from cryolike_dask.likelihoods.kernels import integrate_log_likelihood

        for m, s, correlation, log_likelihood in self.block.compared_directly(doubtful):
            summed = integrate_log_likelihood(log_likelihood[:, None])[:, 0]
            self.of_pairs[m, s] = summed
            self.of_images[m] = torch.logaddexp(self.of_images[m], summed + self.log_prior[s])
            self.keep_exact(m, s, *correlation.flatten(1).max(1))
        self.doubtful.zero_()


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

    def keep(self, m: slice, s: slice, tile: Tile, best: torch.Tensor) -> None:
        """Update the poses of images that some template of a tile fits better."""
        import torch

        top, template = best.max(1)  # the first of equal ones
        improved = top > self.correlation[m]
        pose = tile.locate_best(template, improved)
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

    def poses(self) -> NDArray[np.void]:
        """Best pose of each image, and its likelihood over all of these templates, POSE."""
        names = ("correlation", "template", "pose", "of_images", "error_bound")
        correlation, template, pose, of_images, bound = self.read(*names)
        poses = no_poses((len(correlation),))
        there = correlation > -np.inf
        poses["cross_correlation"][there] = correlation[there]
        poses["template"][there] = self.block.template_rows["index"][template[there]]
        poses["displacement"][there], poses["rotation"][there] = np.unravel_index(
            pose[there], self.block.pose_shape
        )
        poses["log_likelihood_integrated"], poses["correlation_error_bound"] = of_images, bound
        poses["n_poses"] = self.block.shape[1] * math.prod(self.block.pose_shape)
        return poses


class BestOfPairs(Likelihoods):
    """The same, and the best pose of each pair."""

    def __init__(self, block: Block) -> None:
        import torch

        super().__init__(block)
        self.correlation = self.nothing(block.shape, block.constants.weights.dtype)
        self.pose = torch.zeros(block.shape, dtype=torch.int64, device=self.device)

    def keep(self, m: slice, s: slice, tile: Tile, best: torch.Tensor) -> None:
        """The best of all correlations: where is asked for every pair."""
        for i, correlation in tile.correlations():
            part = slice(m.start + i.start, m.start + i.stop)
            self.correlation[part, s], self.pose[part, s] = correlation.flatten(2).max(2)

    def keep_exact(self, m: torch.Tensor, s: int, best: torch.Tensor, pose: torch.Tensor) -> None:
        """In the place of what was found."""
        self.correlation[m, s], self.pose[m, s] = best, pose
