"""Parameters, as `parameters.npz` holds them: the image grid, the precision, and how templates are
made from atoms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.symmetry import NO_SYMMETRY, point_group, unit_grid
from cryolike_dask.geometry.viewing_angles import ViewingAngles, check_viewing_distance
from cryolike_dask.labels import AtomicB, BulkSolvent, Precision

BABINET = (0.85, 200.0)
"""Share and B-factor (angstrom^2) of the bulk solvent if nothing else is said: within what
refinement against X-rays finds, 0.75 to 0.95 and 150 to 350 (Glykos and Kokkinidis, 2000, Acta
Cryst. D56, 1070-1072)."""
LARGEST_B = 500.0
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
    atom_radii, atom_selection
        How templates are made from atoms.
    use_protein_residue_model : bool
        One sphere per residue, otherwise all atoms. Default: unless atoms scatter.
    atom_shape : "default" | "gaussian" | "hard-sphere" | "scattering"
    atomic_b : float or "file"
        B-factor of all atoms that scatter, angstrom^2, or that of each in its file. "none" is 0.
    bulk_solvent : (float, float) or None
        Share and B-factor of the solvent that atoms that scatter displace. "babinet" is `BABINET`,
        "none" is None.
    symmetry : str
        Point group that the structures have, such as "C4", in RELION's orientation: templates are
        views of its asymmetric unit. "I" is "I2", as in RELION.
    frame_origin : (x, y, z) or None
        Origin of poses in the coordinates of the structure files, angstrom. None: the mean of the
        atoms of each structure.
    superpose : str or None
        Selection of atoms by which every structure is superposed on the first. None: as they are.
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
    use_protein_residue_model: bool | None = None
    atom_shape: str = "default"
    atomic_b: AtomicB = 0.0
    bulk_solvent: BulkSolvent | None = None
    symmetry: str = NO_SYMMETRY
    frame_origin: tuple[float, float, float] | None = None
    superpose: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("default", "single", "double"):
            raise InputError(f"precision={self.precision!r} is not default, single or double")
        if self.atom_shape not in ("gaussian", "hard-sphere", "default", "scattering"):
            raise InputError(
                f"atom_shape={self.atom_shape!r} is not gaussian, hard-sphere, scattering or "
                f"default"
            )
        if self.use_protein_residue_model is None:
            object.__setattr__(self, "use_protein_residue_model", self.atom_shape != "scattering")
        object.__setattr__(self, "atomic_b", _atomic_b(self.atomic_b))
        object.__setattr__(self, "bulk_solvent", _bulk_solvent(self.bulk_solvent))
        object.__setattr__(self, "symmetry", point_group(self.symmetry).name)
        object.__setattr__(self, "frame_origin", _three_numbers(self.frame_origin))
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
        self._refuse_what_is_of_no_effect()

    @property
    def scatters(self) -> bool:
        """Whether atoms scatter by the factors of their elements; a residue model that was asked
        for wins."""
        return self.atom_shape == "scattering" and not self.use_protein_residue_model

    def _refuse_what_is_of_no_effect(self) -> None:
        if self.scatters and self.atom_radii is not None:
            raise InputError(
                f'atom_shape="scattering" excludes atom_radii={self.atom_radii!r}',
                remedy="Atoms that scatter have no radii; leave one of them out.",
            )
        for name, value in (("atomic_b", self.atomic_b), ("bulk_solvent", self.bulk_solvent)):
            if value and not self.scatters:
                raise InputError(
                    f"{name}={value!r} is for atoms that scatter, and these do not",
                    remedy=f'Leave it out; or give atom_shape="scattering" (here '
                    f"{self.atom_shape!r}) and all atoms (use_protein_residue_model is "
                    f"{self.use_protein_residue_model}).",
                )

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

    @property
    def view_step_degrees(self) -> float:
        """From one viewing direction to the next, degrees."""
        return math.degrees(self.viewing_distance)

    @property
    def resolution_angstrom(self) -> float:
        """The band limit, angstrom."""
        return self.grid.box_size_angstrom / (2 * self.radius_max)

    def viewing_angles(self) -> ViewingAngles:
        """The viewing directions of a template file made with these parameters."""
        return unit_grid(self.viewing_distance, self.symmetry)


def _three_numbers(given: Sequence[float] | None) -> tuple[float, float, float] | None:
    if given is None:
        return None
    if isinstance(given, str) or len(given) != 3:
        raise InputError(f"frame_origin={given!r} is not x, y and z in angstrom")
    x, y, z = (float(number("frame_origin", value)) for value in given)
    return x, y, z


def _atomic_b(given: AtomicB | None) -> float | str:
    """The B-factor of all atoms, angstrom^2, or "file"."""
    if given is None or given == "none":
        return 0.0
    if given == "file":
        return "file"
    if isinstance(given, str):
        raise InputError(f"atomic_b={given!r} is not none, file or a number")
    b_factor = float(number("atomic_b", given, at_least=0))
    if b_factor > LARGEST_B:
        raise InputError(
            f"atomic_b={b_factor:g} is more than {LARGEST_B:g}", remedy="It is in angstrom^2."
        )
    return b_factor


def _bulk_solvent(given: BulkSolvent | None) -> tuple[float, float] | None:
    """Share and B-factor (angstrom^2) of the bulk solvent."""
    if given is None or given == "none":
        return None
    if given == "babinet":
        return BABINET
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        raise InputError(f"bulk_solvent={given!r} is not none, babinet or a share and a B-factor")
    share = float(number("bulk_solvent", given[0], at_least=0))
    b_factor = float(number("bulk_solvent", given[1], at_least=0))
    if share >= 1 or b_factor > 1000:
        raise InputError(
            f"bulk_solvent={share:g}, {b_factor:g} is not a share below 1 and a B-factor up to "
            f"1000",
            remedy=f"Such as {BABINET[0]:g}, {BABINET[1]:g}.",
        )
    return share, b_factor
