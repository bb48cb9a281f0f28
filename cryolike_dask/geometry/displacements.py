"""In-plane displacements of the templates: the search that a user asks for and the grid that it
becomes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.polar_grid import PolarGrid

FloatArray = NDArray[np.float64]

MOST_DISPLACEMENTS = 10**8


@dataclass(frozen=True, eq=False)
class DisplacementGrid:
    """The displacements that are tried, angstrom.

    Attributes
    ----------
    x_angstrom, y_angstrom : (displacement,) float64
    """

    x_angstrom: FloatArray
    y_angstrom: FloatArray

    def __post_init__(self) -> None:
        x, y = np.shape(self.x_angstrom), np.shape(self.y_angstrom)
        if x != y or len(x) != 1 or x[0] == 0:
            raise InputError(
                f"a displacement grid needs as many x as y, and at least one; got shapes {x} and "
                f"{y}"
            )
        if not (np.isfinite(self.x_angstrom).all() and np.isfinite(self.y_angstrom).all()):
            raise InputError("a displacement is not finite")

    def __len__(self) -> int:
        return len(self.x_angstrom)

    def table(self) -> FloatArray:
        """Rows x and y, angstrom, (2, displacement)."""
        return np.stack([self.x_angstrom, self.y_angstrom])

    @property
    def steps(self) -> tuple[float, float]:
        """From a displacement to the next along x and y, angstrom; 0 where there is one alone.
        (0, 0), where it is appended to even numbers of them, is none of these."""
        table = np.round(self.table(), 5)
        axes = [np.unique(axis) for axis in table[:, :-1]]
        if table[:, -1].any() or len(axes[0]) * len(axes[1]) != len(self) - 1:
            axes = [np.unique(axis) for axis in table]
        x, y = (float(np.median(np.diff(axis))) if len(axis) > 1 else 0.0 for axis in axes)
        return x, y


class _Displaceable(Protocol):
    """A template stack, as far as a displacer needs to know it."""

    @property
    def grid(self) -> PolarGrid: ...

    @property
    def displacements(self) -> DisplacementGrid: ...


Templates = TypeVar("Templates", bound=_Displaceable)


def not_displaced() -> DisplacementGrid:
    """The grid of (0, 0) alone."""
    return DisplacementGrid(np.zeros(1), np.zeros(1))


@dataclass(frozen=True)
class DisplacementSearch:
    """A square search, and the callback that applies it: `search(templates)` gives templates that
    carry its grid.

    Attributes
    ----------
    max_displacement_pixels : float
        Largest displacement along each axis, pixels.
    n_displacements_x, n_displacements_y : int
        Displacements along each axis; below 1 counts as 1 (no displacement along that axis).
    """

    max_displacement_pixels: float
    n_displacements_x: int
    n_displacements_y: int

    @classmethod
    def in_steps(cls, max_displacement_pixels: float, step_pixels: float) -> DisplacementSearch:
        """The search whose displacements are so far apart along both axes, or, where that does not
        divide the way from end to end, as nearly so as can be."""
        step = number("displacement_step_pixels", step_pixels, above=0)
        farthest = number("max_displacement_pixels", max_displacement_pixels, at_least=0)
        n = round(min(2 * farthest / step, MOST_DISPLACEMENTS)) + 1
        return cls(farthest, n, n)

    def __post_init__(self) -> None:
        number("max_displacement_pixels", self.max_displacement_pixels, at_least=0)
        number("n_displacements_x", self.n_displacements_x, whole=True)
        number("n_displacements_y", self.n_displacements_y, whole=True)

    def grid(self, pixel_size_angstrom: float) -> DisplacementGrid:
        """Realise the search; (0, 0) is appended where an even count would leave it out. x runs
        fastest."""
        limit = self.max_displacement_pixels * pixel_size_angstrom
        n_x, n_y = max(1, int(self.n_displacements_x)), max(1, int(self.n_displacements_y))
        if n_x * n_y > MOST_DISPLACEMENTS:
            raise InputError(
                f"{n_x} x {n_y} displacements are more than {MOST_DISPLACEMENTS}",
                remedy="Try a coarser search first.",
            )
        x = np.linspace(-limit, limit, n_x) if n_x > 1 else np.zeros(1)
        y = np.linspace(-limit, limit, n_y) if n_y > 1 else np.zeros(1)
        pairs = np.stack([np.tile(x, n_y), np.repeat(y, n_x)])
        if n_x % 2 == 0 or n_y % 2 == 0:
            pairs = np.concatenate([pairs, np.zeros((2, 1))], axis=1)
        return DisplacementGrid(pairs[0], pairs[1])

    def __call__(self, templates: Templates) -> Templates:
        """Give the same templates with this search's grid; nothing is changed in place."""
        return replace(templates, displacements=self.grid(templates.grid.pixel_size_angstrom))  # type: ignore[type-var]
