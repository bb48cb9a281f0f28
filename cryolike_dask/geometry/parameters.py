"""Parameters, as `parameters.npz` holds them: the image grid, the precision, and how templates are
made from atoms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import (
    ViewingAngles,
    check_viewing_distance,
    viewing_grid,
)
from cryolike_dask.labels import Precision

REAL = ("pixel_size_angstrom", "radius_max", "dist_radii", "viewing_distance")


@dataclass(frozen=True)
class ImageParameters:
    """The grid that images and templates share, and the viewing grid of the templates.

    Attributes
    ----------
    n_pixels : int
        Pixels along a side; boxes are square.
    pixel_size_angstrom : float
    radius_max : float
        Band limit, cycles per half box. Default: the Nyquist frequency, n_pixels / 4.
    n_inplanes : int
        In-plane angles. Default 2 n_pixels. Even.
    dist_radii : float
        Distance between shells, cycles per half box.
    precision : "default" | "single" | "double"
        "default" is the precision of the data found.
    viewing_distance : float
        Distance of viewing directions, radian. Default 1 / (4 pi resolution factor): 2370 at full
        resolution.
    atom_radii, atom_selection, use_protein_residue_model, atom_shape
        How templates were made from atoms.
    """

    n_pixels: int
    pixel_size_angstrom: float
    radius_max: float = 0.0
    n_inplanes: int = 0
    dist_radii: float = 0.25
    precision: Precision = "default"
    viewing_distance: float = 0.0
    atom_radii: float | None = None
    atom_selection: str | None = None
    use_protein_residue_model: bool = True
    atom_shape: str = "default"

    def __post_init__(self) -> None:
        if self.precision not in ("default", "single", "double"):
            raise InputError(f"precision={self.precision!r} is not default, single or double")
        if self.atom_shape not in ("gaussian", "hard-sphere", "default"):
            raise InputError(
                f"atom_shape={self.atom_shape!r} is not gaussian, hard-sphere or default"
            )
        n_pixels = number("n_pixels", self.n_pixels, whole=True, at_least=1)
        whole = {
            "n_pixels": n_pixels,
            "n_inplanes": number("n_inplanes", self.n_inplanes, whole=True),
        }
        real = {name: number(name, getattr(self, name)) for name in REAL}
        radii = None if self.atom_radii is None else number("atom_radii", self.atom_radii, above=0)
        # plain numbers, which go into records
        for name, value in {
            **whole,
            **real,
            "atom_radii": radii,
        }.items():
            object.__setattr__(self, name, value)
        if not self.radius_max:
            object.__setattr__(self, "radius_max", n_pixels / 4)
        if not self.n_inplanes:
            object.__setattr__(self, "n_inplanes", 2 * n_pixels)
        self.grid  # noqa: B018 - a grid that cannot be is refused here
        if not self.viewing_distance:
            resolution_factor = self.radius_max * 4 / n_pixels
            object.__setattr__(self, "viewing_distance", 1 / (4 * math.pi * resolution_factor))
        check_viewing_distance(self.viewing_distance)

    @property
    def grid(self) -> PolarGrid:
        """The polar grid of images and templates."""
        return PolarGrid(
            n_pixels=self.n_pixels,
            pixel_size_angstrom=self.pixel_size_angstrom,
            radius_max=self.radius_max,
            n_inplanes=self.n_inplanes,
            dist_radii=self.dist_radii,
        )

    def viewing_angles(self) -> ViewingAngles:
        """The viewing directions of a template file made with these parameters."""
        return viewing_grid(self.viewing_distance)
