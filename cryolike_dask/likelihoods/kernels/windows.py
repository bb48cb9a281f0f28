"""Sums over windows of displacements, each about a place of an image: between displacements, and
where windows overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryolike_dask.compute.gpu import sent

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.window_points_cpu import WindowTerms

ROUNDED = 1e-5
"""Part of a covariance that rounding and compression may be off by."""

NARROWER_AT_END = 4.0
"""The same of likelihoods that the end of the search cuts through, times so much: of half of one a
sum over parts of two standard deviations misses a tenth."""


@dataclass(frozen=True)
class Axis:
    """Displacements of a window along an axis.

    Attributes
    ----------
    displacements : Tensor, float64, (displacement,)
        Angstrom from the place.
    at : tuple of Tensor, float64, (point,)
        Where likelihoods are summed, angstrom from the place: with each step in 1, 2, 4, ... parts.
    matrix : tuple of Tensor, float64, (point, displacement)
        Interpolation of values at displacements, for each of these.
    half_width : float
        Of the window, half a step beyond the last displacement.
    limit : float
        Of the search, half a step beyond its last displacement.
    prior : tuple of Tensor, float64, (point,)
        Of points, 1 where the prior is flat.
    """

    displacements: Tensor
    at: tuple[Tensor, ...]
    matrix: tuple[Tensor, ...]
    half_width: float
    limit: float
    prior: tuple[Tensor, ...]

    @classmethod
    def of(
        cls,
        displacements: NDArray[np.float64],
        finer: int,
        highest_frequency: float,
        limit: float,
        device: torch.device,
        sigma: float = 0.0,
    ) -> Axis:
        """Cut each step into parts, at most so many; frequencies in 1/angstrom. The prior is
        Gaussian if it has a sigma."""
        n, cuts = len(displacements), finer.bit_length()
        if n == 1:
            one = torch.zeros(1, dtype=torch.float64, device=device)
            ones = (one + 1,) * cuts
            return cls(one, (one,) * cuts, (one[:, None] + 1,) * cuts, np.inf, np.inf, ones)
        step = displacements[1] - displacements[0]
        parts = [interpolation(n, 2**cut, step * highest_frequency) for cut in range(cuts)]
        at = [displacements[0] + in_steps * step for in_steps, _ in parts]
        prior = [np.exp(-((x / sigma) ** 2) / 2) if sigma else np.ones(len(x)) for x in at]
        of_parts: list[tuple[Tensor, ...]] = [
            tuple(sent(one, device) for one in some)
            for some in (at, [matrix for _, matrix in parts], prior)
        ]
        points, matrices, priors = of_parts
        nodes = sent(displacements, device)
        return cls(nodes, points, matrices, n * step / 2, limit, priors)

    @cached_property
    def tables(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """`at`, `matrix` and `prior` for compiled loops, each number of parts after the other; and
        where each begins, and the last ends."""
        at, matrix, prior = (
            torch.cat([part.contiguous() for part in parts]).numpy()
            for parts in (self.at, self.matrix, self.prior)
        )
        return at, matrix, prior, np.cumsum([0, *(len(of_part) for of_part in self.at)])

    def taper(self, distance: Tensor) -> Tensor:
        """What a window counts at a distance from its place, before it is shared with others: it
        falls smoothly to 0 at its end, so that sums over displacements stay right."""
        return (1 - (distance / self.half_width) ** 2).clamp_(min=0) ** 2

    def part_inside(self, distance: Tensor, cut: int) -> Tensor:
        """The part of what a point stands for that lies inside of the search, by the distance from
        its middle."""
        if len(self.displacements) == 1:
            return torch.ones_like(distance)
        size = 2 * self.half_width / len(self.at[cut])
        return ((self.limit - distance.abs()) / size + 0.5).clamp_(0, 1)


@dataclass(frozen=True)
class Windows:
    """Windows about places of images.

    Attributes
    ----------
    x, y : Axis
    angles : Tensor, float64, (rotation,)
    places : Tensor, float64, (row, place, 2)
        Of the image of each row, angstrom in the frame of the image; far off where there are no
        more.
    own : Tensor, int64, (row,)
        Which of these a row's window is about.
    bits : Tensor, int64, (row, template)
        Those whose windows are summed under a template, bit by bit.
    is_free : Tensor, bool, (row,)
        Windows that reach neither another place's nor the end of the search.
    edge : (int, int)
        Displacements at the edge of a window, along x and y, as much as about which lies beyond it.
    arcs : Tensor, float64, (row, template, 3), or None
        a, b, c of each pair: rotations gamma are allowed where a cos(gamma) + b sin(gamma) >= c.
        None: all of them.
    slope : float
        Logarithm of the prior of rotations, below that of the likeliest, over these sums; 0: flat.
    neglects : float
        Nat below the best pose of a pair that rotations do not count from; infinity: less than
        rounding alone.
    missed : float
        Part of a sum that steps which are cut into parts may miss.
    """

    x: Axis
    y: Axis
    angles: Tensor
    places: Tensor
    own: Tensor
    bits: Tensor
    is_free: Tensor
    edge: tuple[int, int] = (0, 0)
    arcs: Tensor | None = None
    slope: float = 0.0
    neglects: float = np.inf
    missed: float = 0.03

    @property
    def _own_places(self) -> Tensor:
        """That which each row's window is about, (row, 2)."""
        return self.places.gather(1, self.own[:, None, None].expand(-1, -1, 2))[:, 0]

    def inside(self, rotations: Tensor) -> Tensor | None:
        """Poses inside of the search and on arcs, bool (2, W/2, row, template or 1, displacement or
        1), by rows of `rotate`; None: all of them."""
        within = self._inside_of_search(rotations)
        if self.arcs is None:
            return within
        gamma = self.angles[rotations][..., None, None]
        a, b, c = self.arcs.unbind(2)
        on_arc = (a * torch.cos(gamma) + b * torch.sin(gamma) >= c)[..., None]
        return on_arc if within is None else within & on_arc

    def log_prior(self, rotations: Tensor) -> Tensor | None:
        """Of rotations, below that of the likeliest of each pair: (2, W/2, row, template) by rows
        of `rotate`. None: flat."""
        if self.arcs is None or self.slope == 0:
            return None
        gamma = self.angles[rotations][..., None, None]
        a, b, _ = self.arcs.unbind(2)
        return self.slope * (a * torch.cos(gamma) + b * torch.sin(gamma) - torch.hypot(a, b))

    def _inside_of_search(self, rotations: Tensor) -> Tensor | None:
        """Of every template, bool (2, W/2, row, 1, displacement); None: all of them."""
        if self.is_free.all():
            return None
        gamma = self.angles[rotations]
        c, s = torch.cos(gamma)[..., None, None], torch.sin(gamma)[..., None, None]
        px, py = self._own_places[:, None].unbind(2)
        along_x = (c * px - s * py + self.x.displacements).abs() < self.x.limit
        along_y = (s * px + c * py + self.y.displacements).abs() < self.y.limit
        within = along_y[..., :, None] & along_x[..., None, :]
        return within.flatten(3)[:, :, :, None]

    def for_loops(self, wanted: Tensor, rotations: NDArray[np.int64]) -> WindowTerms:
        """The same for compiled loops, whose rows hold these rotations."""
        from cryolike_dask.likelihoods.kernels.window_points_cpu import WindowTerms

        gamma = self.angles.numpy()[rotations]
        (x, matrix_x, prior_x, first_x), (y, matrix_y, prior_y, first_y) = (
            axis.tables for axis in (self.x, self.y)
        )
        return WindowTerms(
            nodes_x=self.x.displacements.numpy(),
            nodes_y=self.y.displacements.numpy(),
            x=x,
            y=y,
            matrix_x=matrix_x,
            matrix_y=matrix_y,
            first_x=first_x,
            first_y=first_y,
            half_width=(float(self.x.half_width), float(self.y.half_width)),
            limit=(float(self.x.limit), float(self.y.limit)),
            turns=np.stack([np.cos(gamma), np.sin(gamma)], axis=1),
            rotations=rotations,
            places=self.places.contiguous().numpy(),
            own=self.own.contiguous().numpy(),
            bits=self.bits.contiguous().numpy(),
            wanted=wanted.contiguous().numpy(),
            is_free=self.is_free.contiguous().numpy(),
            edge=self.edge,
            arcs=np.empty((0, 0, 3)) if self.arcs is None else self.arcs.contiguous().numpy(),
            slope=self.slope,
            neglects=self.neglects,
            prior_x=prior_x,
            prior_y=prior_y,
            parts_per_narrowness=self.parts_per_narrowness,
        )

    @property
    def cuts(self) -> int:
        """How many times steps may be halved."""
        return len(self.x.at) - 1

    def curvature(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """How fast covariances fall off about their extremes along x and y, (..., displacement) to
        (...): their second difference over it; 0 where no step may be cut."""
        if not self.cuts:
            none = torch.zeros_like(values[..., 0])
            return none, none
        n_x, n_y = len(self.x.displacements), len(self.y.displacements)
        at = values.abs().argmax(-1)
        most = values.gather(-1, at[..., None])[..., 0]
        along = []
        for n, step in ((n_x, 1), (n_y, n_x)):
            if n < 3:
                along.append(torch.zeros_like(most))
                continue
            i = at // step % n
            middle = at + (i.clamp(1, n - 2) - i) * step
            before, here, after = (
                values.gather(-1, (middle + k * step)[..., None])[..., 0] for k in (-1, 0, 1)
            )
            along.append(((2 * here - before - after) / most).clamp(min=0).nan_to_num_(0))
        return along[0], along[1]

    def at_end(self, values: Tensor, rotations: Tensor, m: slice) -> Tensor:
        """How much narrower than they are likelihoods are taken for, (row, template): where
        covariances of some rows under these rotations, (row, template, displacement), have their
        extremes within a step of the end of the search, or beyond."""
        near = torch.zeros(values.shape[:2], dtype=torch.bool, device=values.device)
        n_x, at = len(self.x.displacements), values.abs().argmax(-1)
        gamma = self.angles[rotations]
        c, s = torch.cos(gamma), torch.sin(gamma)
        px, py = self._own_places[m, :, None].unbind(1)
        for axis, along in (
            (self.x, c * px - s * py + self.x.displacements[at % n_x]),
            (self.y, s * px + c * py + self.y.displacements[at // n_x]),
        ):
            if len(axis.displacements) > 1:
                near |= along.abs() > axis.limit - 2 * axis.half_width / len(axis.displacements)
        return 1 + (NARROWER_AT_END - 1) * (near & ~self.is_free[m, None]).double()

    @property
    def parts_per_narrowness(self) -> float:
        """Parts that a step is cut into, squared, over the narrowness of a likelihood: one over the
        variance of a Gaussian, in steps. A sum over parts misses 4 exp(-2 pi^2 parts^2 /
        narrowness) of it at most, a third of that in the mean over where it lies."""
        return math.log(4 / self.missed) / (2 * math.pi**2)

    def parts(self, narrowness: Tensor) -> Tensor:
        """How many times a step has to be halved, int64."""
        halvings = torch.log2(self.parts_per_narrowness * narrowness).div_(2).ceil_()
        return halvings.clamp_(0, self.cuts).long()

    def at_edge(self, cut: int) -> Tensor:
        """Which points lie at the edge, bool (point,)."""
        along = []
        for axis, n in ((self.x, self.edge[0]), (self.y, self.edge[1])):
            points = torch.arange(len(axis.at[cut]), device=self.places.device)
            edge = n * (len(points) // len(axis.displacements))
            along.append((points >= edge) & (points < len(points) - edge))
        return (~(along[1][:, None] & along[0])).flatten()

    def between(self, values: Tensor, cut: int) -> Tensor:
        """Values where they are summed, by those at displacements, x fastest: (value, point). A
        covariance, whose band ends, is a smooth function of the displacement."""
        of_x, of_y = self.x.matrix[cut], self.y.matrix[cut]
        square = values.view(-1, of_y.shape[1], of_x.shape[1])
        return (of_y @ (square @ of_x.T)).flatten(1)

    def shares(self, rotations: Tensor, rows: Tensor, templates: Tensor, cut: int) -> Tensor:
        """What each point of a row's window counts under a template and a rotation, (pair, point):
        its part of a step; less where windows that this template wants overlap, so that they count
        once in all, and where it reaches beyond the end of the search, so that sums do not depend
        on how points lie to it."""
        at_x, at_y = self.x.at[cut], self.y.at[cut]
        gamma = self.angles[rotations]
        c, s = torch.cos(gamma)[:, None], torch.sin(gamma)[:, None]
        px, py = self.places[rows].unbind(2)
        # of all places, as templates are displaced under this rotation: (pair, place)
        x, y = c * px - s * py, s * px + c * py
        at, bits = self.own[rows][:, None], self.bits[rows, templates]
        of_x, of_y = x.gather(1, at) + at_x, y.gather(1, at) + at_y
        own = self.y.taper(at_y)[:, None] * self.x.taper(at_x)
        total = own.new_zeros((len(x), *own.shape))
        for k in range(x.shape[1]):
            along_x = self.x.taper(of_x - x[:, k, None]) * (bits >> k & 1)[:, None]
            along_y = self.y.taper(of_y - y[:, k, None])
            total += along_y[:, :, None] * along_x[:, None]
        share = own / total * (self.y.prior[cut][:, None] * self.x.prior[cut])
        share *= self.y.part_inside(of_y, cut)[:, :, None] * self.x.part_inside(of_x, cut)[:, None]
        n_displacements = len(self.x.displacements) * len(self.y.displacements)
        return share.flatten(1) * (n_displacements / own.numel())


@lru_cache(maxsize=64)
def interpolation(
    n: int, finer: int, band: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut each of n steps into parts, and interpolate n values, at the middles of the steps, at the
    middles of their parts.

    Returns
    -------
    at : (n * finer,) float64
        In steps, from the first value.
    matrix : (n * finer, n) float64
        Of all linear interpolations that of least square error, for waves of up to `band` cycles
        per step, and errors of `ROUNDED` in the values.
    """
    at = (np.arange(n * finer) + 0.5) / finer - 0.5
    if finer == 1:
        return at, np.eye(n)
    nodes = np.arange(n)
    overlaps = np.sinc(2 * band * (nodes[:, None] - nodes)) + ROUNDED**2 * np.eye(n)
    matrix = np.linalg.solve(overlaps, np.sinc(2 * band * (nodes[:, None] - at)))
    return at, matrix.T
