"""Where an image's particle may lie, and the window of displacements about it (numpy only).

A place t is in the frame of the image: under a rotation gamma, a displacement delta of the window
about it is d = R(gamma) t + delta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.displacements import DisplacementGrid

FloatArray = NDArray[np.float64]
Flags = NDArray[np.bool_]
Positions = NDArray[np.int64]
PlaceBits = NDArray[np.uint32]
"""Of pairs of an image and a template: the k-th bit says whether it wants the k-th place of the
image."""

BEYOND = 2
"""Steps that values are known beyond those that others are interpolated between."""
ROUNDED = 1e-9
"""Part of a length."""
MISSED = 0.03
"""Part of a sum that steps which are cut into parts may miss, unless more or less is asked for."""
FAR = 1e12
"""Angstrom. In place of a place that is not there: no window reaches it."""


def all_places(wanted: Flags) -> PlaceBits:
    """Pairs that want all places of their image, and pairs that want none."""
    return np.where(wanted, np.iinfo(np.uint32).max, 0).astype(np.uint32)


@dataclass(frozen=True, eq=False)
class Window:
    """A window of displacements in a search.

    Attributes
    ----------
    x_angstrom, y_angstrom : (displacement,) float64
        Along each axis, about the place of an image.
    search : DisplacementGrid
        All that the prior is spread over.
    step : (float, float)
        Between displacements of the window along x and y, angstrom; 0 of a single one.
    finer : int
        Parts of a step along each axis at which likelihoods are interpolated, at most: a power of
        two.
    is_whole : bool
        Whether nothing of the search lies beyond it.
    sigma : float
        Standard deviation of a Gaussian prior about the place, angstrom, which is 1 there; 0: flat.
    neglects : float
        Nat below the best pose of a pair that do not count; infinity: less than rounding alone.
    missed : float
        Part of a sum that steps which are cut into parts may miss.
    """

    x_angstrom: FloatArray
    y_angstrom: FloatArray
    search: DisplacementGrid
    step: tuple[float, float]
    finer: int = 1
    is_whole: bool = False
    sigma: float = 0.0
    neglects: float = math.inf
    missed: float = MISSED

    @classmethod
    def of(
        cls,
        half_width: tuple[float, float],
        step: tuple[float, float],
        search: DisplacementGrid,
        finer: int = 1,
    ) -> Window:
        """Make one of displacements in steps, the place among them, at least half as wide."""
        n = [math.ceil(w / s - 1e-6) if s else 0 for w, s in zip(half_width, step, strict=True)]
        return cls.of_size([2 * k + 1 for k in n], step, search, finer)

    @classmethod
    def of_size(
        cls,
        size: Sequence[int],
        step: tuple[float, float],
        search: DisplacementGrid,
        finer: int = 1,
    ) -> Window:
        """Make one of so many displacements along x and y."""
        x, y = (
            np.linspace(-(n - 1) / 2, (n - 1) / 2, n) * s for n, s in zip(size, step, strict=True)
        )
        return cls(x, y, search, step, finer)

    @property
    def whole(self) -> Window:
        """The window that is the whole search, about the middle."""
        return self._about_the_middle(0)

    @property
    def fine_search(self) -> DisplacementGrid:
        """All displacements of the search, in steps no longer than those of the window."""
        is_fine = all(
            a <= b * (1 + ROUNDED) for a, b in zip(self.search.steps, self.step, strict=True)
        )
        return self.search if is_fine else self.whole.displacements

    @property
    def beyond_whole(self) -> Window:
        """The same where peaks are narrow: wider, so that likelihoods that are interpolated are
        known at the end of the search as well, beyond which nothing counts."""
        return self._about_the_middle(BEYOND if self.finer > 1 else 0)

    @property
    def is_line(self) -> bool:
        """Whether the search is along one axis alone."""
        return (self.step[0] > 0) != (self.step[1] > 0)

    @property
    def is_wider_than_search(self) -> bool:
        """Whether it has more displacements along an axis than the whole search: what lies between
        so few is not known."""
        whole = self.whole
        return len(self.x_angstrom) > len(whole.x_angstrom) or len(self.y_angstrom) > len(
            whole.y_angstrom
        )

    def _about_the_middle(self, beyond: int) -> Window:
        """The search, and so many steps beyond it along each axis, or as many as this window has
        there."""
        along = [_cut(*axis) for axis in zip(self.step, self.limit.tolist(), strict=True)]
        (n_x, step_x), (n_y, step_y) = along
        if beyond:
            n_x = max(n_x + beyond, len(self.x_angstrom) // 2)
            n_y = max(n_y + beyond, len(self.y_angstrom) // 2)
        of = Window.of((n_x * step_x, n_y * step_y), (step_x, step_y), self.search)
        x, y = of.x_angstrom, of.y_angstrom
        return replace(self, x_angstrom=x, y_angstrom=y, step=of.step, is_whole=True)

    @property
    def n_inside(self) -> int:
        """Displacements that lie in the search when it lies about the middle."""
        return int(self.inside(np.zeros((1, 2)), np.zeros(1)).sum())

    @property
    def edge(self) -> tuple[int, int]:
        """Displacements at each end along x and y that hold as much as lies beyond."""
        along_x, along_y = (0 if self.is_whole or not step else 1 for step in self.step)
        return along_x, along_y

    @property
    def displacements(self) -> DisplacementGrid:
        """All of the window, x fastest."""
        x, y = self.x_angstrom, self.y_angstrom
        return DisplacementGrid(np.tile(x, len(y)), np.repeat(y, len(x)))

    @property
    def log_share(self) -> float:
        """Logarithm of the prior of a displacement of the window, times how many it has."""
        n = len(self.x_angstrom) * len(self.y_angstrom)
        return math.log(n / len(self.search)) + self.log_volume

    @property
    def log_volume(self) -> float:
        """Logarithm of the displacements of the search that one of the window stands for."""
        area = [a / b for a, b in zip(self.step, self.search.steps, strict=True) if a]
        return math.log(math.prod(area))

    @property
    def limit(self) -> FloatArray:
        """Where the search ends along x and y, half a step beyond its last displacement."""
        steps = np.array(self.search.steps)
        end: FloatArray = np.abs(self.search.table()).max(axis=1) + steps / 2
        return np.where(steps > 0, end * (1 + 1e-9), np.inf)

    @property
    def fits(self) -> bool:
        """Whether it is inside of the search when it lies about the middle, with all that its
        displacements stand for."""
        end = np.abs(self.displacements.table()).max(axis=1) + np.array(self.step) / 2
        return bool((end <= self.limit * (1 + ROUNDED)).all())

    def inside(self, places: FloatArray, angles: FloatArray) -> Flags:
        """Poses inside of the search, (place, rotation, displacement)."""
        moved = np.einsum("rij,pj->pri", turns(angles), places)[:, :, None]
        delta = self.displacements.table().T
        within: Flags = (np.abs(moved + delta) < self.limit).all(axis=-1)
        return within

    def node(self, place: FloatArray, gamma: float, displacement: int) -> int:
        """The displacement of the search that is nearest to one of the window."""
        (turn,) = turns(np.array([gamma]))
        d = turn @ place + self.displacements.table()[:, displacement]
        return int(self.nodes(d[:, None])[0])

    def nodes(self, displacements: FloatArray) -> Positions:
        """Those of the search that are nearest to some, (2, n)."""
        apart = displacements[:, :, None] - self.search.table()[:, None]
        nearest: Positions = (apart**2).sum(axis=0).argmin(axis=1)
        return nearest


def _cut(step: float, limit: float) -> tuple[int, float]:
    """How many steps there are on each side of the middle, and a step no larger than this one, in
    which nothing of them lies beyond a limit: a sum takes each for whole."""
    if step == 0:
        return 0, step
    n = math.ceil(limit / step - 0.5 - 1e-6)
    whole = limit / (n + 0.5)
    return n, whole if whole < step * (1 - ROUNDED) else step


def turns(angles: FloatArray) -> FloatArray:
    """R(gamma), (rotation, 2, 2)."""
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


@dataclass(frozen=True, eq=False)
class Arcs:
    """Rotations that images are compared with templates at.

    Attributes
    ----------
    terms : (image, template, 3) float64
        a, b, c: rotations of a cos(gamma) + b sin(gamma) >= c.
    slope : float
        Logarithm of their prior, below that of the likeliest, over that of these sums; 0: flat.
    log_prior : (image, template) float64, or None
        Logarithm of the prior of the likeliest, beside that of templates; None: 0.
    """

    terms: FloatArray
    slope: float = 0.0
    log_prior: FloatArray | None = None

    def take(self, pairs: tuple[Positions, ...]) -> Arcs:
        """Those of some pairs."""
        log_prior = None if self.log_prior is None else self.log_prior[pairs]
        return Arcs(self.terms[pairs], self.slope, log_prior)

    def of_pair(self, image: int, template: int, angles: FloatArray) -> tuple[Flags, FloatArray]:
        """Which rotations are compared, and the logarithm of their prior below that of the
        likeliest, (rotation,)."""
        a, b, c = self.terms[image, template]
        along = a * np.cos(angles) + b * np.sin(angles)
        return along >= c, self.slope * (along - np.hypot(a, b))


@dataclass(frozen=True, eq=False)
class Places:
    """Places of images, one after the other.

    Attributes
    ----------
    image : (place,) int64
        Position of its image.
    at : (place, 2) float64
        Angstrom.
    of_image : (place, n, 2) float64
        All places of the image; `FAR` where there are no more.
    number : (place,) int64
        Which of them this one is.
    n_free : int
        The first ones, whose windows neither reach another place's nor the end of the search.
    arcs : Arcs, or None
        Of images and templates. None: all rotations alike.
    """

    image: Positions
    at: FloatArray
    of_image: FloatArray
    number: Positions
    n_free: int
    arcs: Arcs | None = None

    @classmethod
    def of(cls, places: FloatArray, window: Window, arcs: Arcs | None = None) -> Places:
        """Those of all images, (image, place, 2), NaN where there are no more."""
        image, k = np.nonzero(~np.isnan(places[:, :, 0]))
        at = places[image, k]
        of_image = np.where(np.isnan(places), FAR, places)[image, : k.max(initial=0) + 1]
        half = np.hypot(*(np.abs(window.displacements.table()).max(axis=1) + np.array(window.step)))
        apart = np.hypot(*(of_image - at[:, None]).transpose(2, 0, 1))
        apart[np.arange(len(k)), k] = FAR
        reaches = np.where((at == 0).all(axis=1), 0, np.hypot(*at.T) + half) >= window.limit.min()
        is_free = (apart > 2 * half).all(axis=1) & ~reaches & window.fits
        order = np.argsort(~is_free, kind="stable")
        n_free = int(is_free.sum())
        return cls(image[order], at[order], of_image[order], k[order], n_free, arcs)

    def wanted_by(self, bits: PlaceBits, rows: Positions) -> Flags:
        """Whether pairs of images and templates want these places, (row, template)."""
        wanted: Flags = (
            bits[self.image[rows]] >> self.number[rows, None].astype(np.uint32)
        ) & 1 > 0
        return wanted
