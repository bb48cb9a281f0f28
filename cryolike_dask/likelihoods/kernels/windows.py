"""Sums over windows of displacements, each about a place of an image: between displacements, and
where windows overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from cryolike_dask.likelihoods.kernels.windows_cpu import WindowTerms

ROUNDED = 1e-5
"""Part of a covariance that rounding and compression may be off by."""


@dataclass(frozen=True)
class Axis:
    """Displacements of a window along an axis.

    Attributes
    ----------
    displacements : Tensor, float64, (displacement,)
        Angstrom from the place.
    at : Tensor, float64, (point,)
        Where likelihoods are summed, angstrom from the place.
    matrix : Tensor, float64, (point, displacement)
        Interpolation of values at displacements.
    half_width : float
        Of the window, half a step beyond the last displacement.
    limit : float
        Of the search, half a step beyond its last displacement.
    prior : Tensor, float64, (point,)
        Of points, 1 where the prior is flat.
    """

    displacements: Tensor
    at: Tensor
    matrix: Tensor
    half_width: float
    limit: float
    prior: Tensor

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
        """Cut each step into parts; frequencies in 1/angstrom. The prior is Gaussian if it has a
        sigma."""
        n = len(displacements)
        if n == 1:
            one = torch.zeros(1, dtype=torch.float64, device=device)
            return cls(one, one, one[:, None] + 1, np.inf, np.inf, one + 1)
        step = displacements[1] - displacements[0]
        at, matrix = interpolation(n, finer, step * highest_frequency)
        at = displacements[0] + at * step
        prior = np.exp(-((at / sigma) ** 2) / 2) if sigma else np.ones(len(at))
        return cls(
            torch.from_numpy(displacements).to(device),
            torch.from_numpy(at).to(device),
            torch.from_numpy(matrix).to(device),
            n * step / 2,
            limit,
            torch.from_numpy(prior).to(device),
        )

    def taper(self, distance: Tensor) -> Tensor:
        """What a window counts at a distance from its place, before it is shared with others: it
        falls smoothly to 0 at its end, so that sums over displacements stay right."""
        return (1 - (distance / self.half_width) ** 2).clamp_(min=0) ** 2


@dataclass(frozen=True)
class Windows:
    """Windows about places of images.

    Attributes
    ----------
    x, y : Axis
    angles : Tensor, float64, (rotation,)
    places : Tensor, float64, (row, place, 2)
        Of the image of each row, the row's own first, angstrom in the frame of the image; far off
        where there are no more.
    is_free : Tensor, bool, (row,)
        Windows that reach neither another place's nor the end of the search.
    edge : (int, int)
        Points at the edge of a window, along x and y, as much as which lies beyond it.
    arcs : Tensor, float64, (row, template, 3), or None
        a, b, c of each pair: rotations gamma are allowed where a cos(gamma) + b sin(gamma) >= c.
        None: all of them.
    slope : float
        Logarithm of the prior of rotations, below that of the likeliest, over these sums; 0: flat.
    """

    x: Axis
    y: Axis
    angles: Tensor
    places: Tensor
    is_free: Tensor
    edge: tuple[int, int] = (0, 0)
    arcs: Tensor | None = None
    slope: float = 0.0

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
        px, py = self.places[:, :1].unbind(2)
        along_x = (c * px - s * py + self.x.displacements).abs() < self.x.limit
        along_y = (s * px + c * py + self.y.displacements).abs() < self.y.limit
        within = along_y[..., :, None] & along_x[..., None, :]
        return within.flatten(3)[:, :, :, None]

    def for_loops(self, wanted: Tensor, rotations: NDArray[np.int64]) -> WindowTerms:
        """The same for compiled loops, whose rows hold these rotations."""
        from cryolike_dask.likelihoods.kernels.windows_cpu import WindowTerms

        gamma = self.angles.numpy()[rotations]
        return WindowTerms(
            nodes_x=self.x.displacements.numpy(),
            nodes_y=self.y.displacements.numpy(),
            x=self.x.at.numpy(),
            y=self.y.at.numpy(),
            matrix_x=np.ascontiguousarray(self.x.matrix.numpy()),
            matrix_y=np.ascontiguousarray(self.y.matrix.numpy()),
            half_width=(float(self.x.half_width), float(self.y.half_width)),
            limit=(float(self.x.limit), float(self.y.limit)),
            turns=np.stack([np.cos(gamma), np.sin(gamma)], axis=1),
            rotations=rotations,
            places=self.places.contiguous().numpy(),
            wanted=wanted.contiguous().numpy(),
            is_free=self.is_free.contiguous().numpy(),
            edge=self.edge,
            arcs=np.empty((0, 0, 3)) if self.arcs is None else self.arcs.contiguous().numpy(),
            slope=self.slope,
            prior_x=self.x.prior.numpy(),
            prior_y=self.y.prior.numpy(),
        )

    @property
    def at_edge(self) -> Tensor:
        """Which points lie at the edge, bool (point,)."""
        (in_x, in_y) = (
            (torch.arange(len(axis.at)) >= n) & (torch.arange(len(axis.at)) < len(axis.at) - n)
            for axis, n in zip((self.x, self.y), self.edge, strict=True)
        )
        return (~(in_y[:, None] & in_x)).flatten().to(self.places.device)

    def between(self, values: Tensor) -> Tensor:
        """Values where they are summed, by those at displacements, x fastest: (value, point). A
        covariance, whose band ends, is a smooth function of the displacement."""
        square = values.view(-1, self.y.matrix.shape[1], self.x.matrix.shape[1])
        return (self.y.matrix @ (square @ self.x.matrix.T)).flatten(1)

    def shares(self, rotations: Tensor, rows: Tensor) -> Tensor:
        """What each point of a row's window counts under a rotation, (pair, point): its part of a
        step; less where windows of the same image overlap, so that they count once in all; nothing
        outside of the search."""
        gamma = self.angles[rotations]
        c, s = torch.cos(gamma)[:, None], torch.sin(gamma)[:, None]
        px, py = self.places[rows].unbind(2)
        # of all places, as templates are displaced under this rotation: (pair, place)
        x, y = c * px - s * py, s * px + c * py
        of_x, of_y = x[:, :1] + self.x.at, y[:, :1] + self.y.at
        own = self.y.taper(self.y.at)[:, None] * self.x.taper(self.x.at)
        total = own.expand(len(x), *own.shape)
        for k in range(1, x.shape[1]):
            along_x = self.x.taper(of_x - x[:, k, None])
            along_y = self.y.taper(of_y - y[:, k, None])
            total = total + along_y[:, :, None] * along_x[:, None]
        share = own / total * (self.y.prior[:, None] * self.x.prior)
        share *= (of_y.abs() < self.y.limit)[:, :, None] & (of_x.abs() < self.x.limit)[:, None]
        n_displacements = self.x.matrix.shape[1] * self.y.matrix.shape[1]
        return share.flatten(1) * (n_displacements / own.numel())


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
