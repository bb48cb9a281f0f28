"""How the posterior of a tile's poses is spread: its density at each point of windows of
displacements, rotation by rotation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cryolike_dask.likelihoods.kernels.windows import Windows

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.tile import Tile

POINTS_AT_A_TIME = 2**21


@dataclass(frozen=True)
class Spread:
    """Posterior of some rotations of some pairs of a tile.

    Attributes
    ----------
    row, template, rotation : Tensor, int64, (n,)
    log_density : Tensor, float64, (n, point)
        Logarithm of the posterior that a pose of the search would have here.
    volume : Tensor, float64, (n, point)
        Displacements of the window that a point counts for.
    best : Tensor, float64, (n,)
        Largest correlation over displacements.
    displacement : Tensor, int64, (n,)
        Where it is, among those of the window.
    log_density_of_best : Tensor, float64, (n,)
    """

    row: Tensor
    template: Tensor
    rotation: Tensor
    log_density: Tensor
    volume: Tensor
    best: Tensor
    displacement: Tensor
    log_density_of_best: Tensor


@dataclass(frozen=True)
class Always:
    """Rotations that are given however low they are.

    Attributes
    ----------
    first, count : Tensor, int64, (row, template)
        The first one of a pair, and how many there are.
    step : int
        From one to the next.
    """

    first: Tensor
    count: Tensor
    step: int

    def hold(self, rotations: Tensor, m: slice, n: int) -> Tensor:
        """Whether they are among them, bool (..., row, template)."""
        since = (rotations[..., None, None] - self.first[m]) % n
        return (since % self.step == 0) & (since // self.step < self.count[m])


def spread_of(
    tile: Tile, windows: Windows, wanted: Tensor, above: Tensor, least: Tensor, always: Always
) -> Iterator[Spread]:
    """Give what a tile knows of posteriors, a few rotations of pairs at a time.

    Parameters
    ----------
    tile : Tile
    windows : Windows
    wanted : Tensor, bool, (row, template)
        Others are left out.
    above : Tensor, float64, (row, template)
        Added to a log-likelihood this is the logarithm of the posterior.
    least : Tensor, float64, (row,)
        Rotations all of whose logarithms are below it are left out.
    always : Always
        But not these.
    """
    rotations, cut = tile.constants.folding.rotations, windows.cuts
    allowed = windows.inside(rotations)
    floor = 1 - tile.constants.rounding
    for m, sums in tile.pieces():
        inside = sums
        low = sums.amin(-1)
        if allowed is not None:
            inside = sums.masked_fill(~allowed[:, :, m], -torch.inf)
            low = sums.masked_fill(~allowed[:, :, m], torch.inf).amin(-1)
        high, at = inside.max(-1)
        scale, height = (
            of.expand(high.shape) for of in (tile.scale[:, m], tile.height[:, m] + above[m])
        )
        exponent = tile.exponent[m, None].expand(high.shape)
        farthest = torch.maximum(high, -low).clamp_(min=0).double()
        top = height - exponent * torch.log1p(-(farthest**2 * scale).clamp(max=floor))
        counts = (top >= least[m, None]) | always.hold(rotations, m, len(windows.angles))
        within_reach = wanted[m] & (high >= low) & counts
        best = (high + tile.shift[m]) * tile.norm[:, m]
        of_best = high.clamp(min=0).double() ** 2 * scale
        of_best = height - exponent * torch.log1p(-of_best.clamp(max=floor))
        n_points = len(windows.x.at[cut]) * len(windows.y.at[cut])
        for some in torch.split(within_reach.nonzero(), max(1, POINTS_AT_A_TIME // n_points)):
            where = some.unbind(1)
            half, w, row, template = where
            x = windows.between(sums[where].double(), cut).square_() * scale[where][:, None]
            yield Spread(
                row + m.start,
                template,
                rotations[half, w],
                x.clamp_(max=floor).neg_().log1p_().mul_(-exponent[where][:, None])
                + height[where][:, None],
                windows.shares(rotations[half, w], row + m.start, template, cut),
                best[where].double().clamp_(max=1),
                at[where],
                of_best[where],
            )
