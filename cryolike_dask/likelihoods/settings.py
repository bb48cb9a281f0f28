"""Settings, which decide the numbers of a comparison, and tiling, which cuts its work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from cryolike_dask.conventions import STANDARD, Conventions, ConventionsName, conventions_named
from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.known_poses import Around
from cryolike_dask.geometry.noise import B_FACTORS, LEAST_DEGREES_OF_FREEDOM, NoiseModel
from cryolike_dask.geometry.search_method import Adaptive, Search, search_done
from cryolike_dask.labels import Device, Precision, SearchMethod
from cryolike_dask.stacks import TemplateStack

DEFAULT_TOLERANCE = 1e-7
"""Compression's in single precision: no worse than rounding (benchmarks/tolerance.py). Ten times
more would save a twenty-fifth of the coefficients."""


@dataclass(frozen=True)
class Settings:
    """Settings that decide the numbers of a comparison, besides its inputs and their search.

    Attributes
    ----------
    conventions : "standard" | "cryolike"
    device : "auto" | "cpu" | "cuda"
        Resolved where a task runs.
    precision : "default" | "single" | "double"
        "default" is that of the templates.
    tolerance : float or None
        Part of a displaced template's norm that compression may leave out; None: that of the
        precision.
    noise : NoiseModel or None
        None: white.
    b_factor : float
        Angstrom^2, added to what the optics and the noise model say of each image.
    degrees_of_freedom : float or None
        Of the noise of an image; None: as the noise model says, or else all of the band.
    search : "exhaustive" | "adaptive" | "recorded" | Adaptive | Around
        Of best poses and of likelihoods integrated over all of them: everything, coarse to fine,
        or at or around the recorded poses.
    pose_posteriors : bool
        Whether to say how the posterior of each image is spread over poses.
    n_top_poses : int
        How many of the best poses that are far from each other are told then.

    Raises
    ------
    InputError
        If a value is none of these; when they are made.
    """

    conventions: ConventionsName = STANDARD.name
    device: Device = "auto"
    precision: Precision = "default"
    tolerance: float | None = None
    noise: NoiseModel | None = None
    b_factor: float = 0.0
    degrees_of_freedom: float | None = None
    search: Search = "exhaustive"
    pose_posteriors: bool = False
    n_top_poses: int = 5

    def __post_init__(self) -> None:
        """Refuse words and numbers that say nothing."""
        conventions_named(self.conventions)
        if self.device not in get_args(Device):
            raise InputError(
                f"device={self.device!r} is not known", remedy="Use auto, cpu or cuda."
            )
        if self.precision not in get_args(Precision):
            raise InputError(
                f"precision={self.precision!r} is not known",
                remedy="Use default, single or double.",
            )
        is_told = isinstance(self.search, Around | Adaptive)
        if not is_told and self.search not in get_args(SearchMethod):
            raise InputError(
                f"search={self.search!r} is not known",
                remedy="Use exhaustive, adaptive, recorded, Adaptive(error_nat), or "
                "Around(degrees, pixels).",
            )
        if self.search != "exhaustive" and not self.rules.searches_coarse_to_fine:
            raise InputError(
                f'search="{self.search}" is given, but conventions="{self.conventions}" compare '
                "everything",
                remedy='Leave it out, or use conventions="standard".',
            )
        number("n_top_poses", self.n_top_poses, whole=True, at_least=1)
        if self.pose_posteriors and not self.rules.searches_coarse_to_fine:
            raise InputError(
                f'pose_posteriors=True is given, but conventions="{self.conventions}" know none',
                remedy='Leave it out, or use conventions="standard".',
            )
        if self.pose_posteriors and self.around is not None:
            raise InputError(
                f'pose_posteriors=True is given, but a search by recorded poses ("{self.search}") '
                "does not know them",
                remedy='Leave it out, or search everything, "adaptive" or "exhaustive".',
            )
        if self.tolerance is not None:
            object.__setattr__(self, "tolerance", _part_of_one(self.tolerance))
        if not isinstance(self.noise, NoiseModel | None):
            raise InputError(
                f"noise={self.noise!r} is no noise model",
                remedy="Give what estimate_noise gives, or None for white noise.",
            )
        number("b_factor", self.b_factor)
        if not B_FACTORS[0] <= self.b_factor <= B_FACTORS[1]:
            raise InputError(
                f"b_factor={self.b_factor:g} is not between {B_FACTORS[0]:g} and "
                f"{B_FACTORS[1]:g} angstrom^2"
            )
        if self.degrees_of_freedom is not None:
            number("degrees_of_freedom", self.degrees_of_freedom, above=LEAST_DEGREES_OF_FREEDOM)
        if not self.rules.knows_noise:
            for name in ("noise", "b_factor", "degrees_of_freedom"):
                if getattr(self, name):
                    raise InputError(
                        f'{name} is given, but conventions="{self.conventions}" knows none',
                        remedy='Leave it out, or use conventions="standard".',
                    )

    @property
    def adaptive(self) -> Adaptive | None:
        """How it is searched coarse to fine; None: it is not."""
        return Adaptive.named(str(self.search))

    @property
    def around(self) -> Around | None:
        """Around which recorded poses is searched; None: the search does not ask for any."""
        return self.search if isinstance(self.search, Around) else Around.named(str(self.search))

    @property
    def refines(self) -> bool:
        """Whether best poses are refined between those of the search."""
        return self.around is not None and self.around.refine

    @property
    def unrefined(self) -> Settings:
        """The same where best poses stay those of the search."""
        around = self.around
        return self if around is None else replace(self, search=replace(around, refine=False))

    @property
    def checked(self) -> Settings:
        """The same where recorded poses have been compared with those found."""
        return replace(self, search=search_done(str(self.search)))

    @property
    def rules(self) -> Conventions:
        """The conventions as values."""
        return conventions_named(self.conventions)

    def precision_with(self, templates: TemplateStack) -> str:
        """The precision of a computation, "single" or "double": the one asked for, or else that of
        the templates."""
        if self.precision != "default":
            return self.precision
        return "double" if templates.source.dtype == "complex128" else "single"

    def tolerance_in(self, precision: str) -> float:
        """The tolerance of a computation: as asked, or else little in single precision and none in
        double."""
        if self.tolerance is None:
            return 0.0 if precision == "double" else DEFAULT_TOLERANCE
        return self.tolerance


@dataclass(frozen=True)
class Tiling:
    """The images and templates that a task compares at a time; None: what the kernel does best.

    Attributes
    ----------
    n_images, n_templates : int or None
        Called batch sizes in public functions.
    discover : bool
        Choose by the device and its free memory instead.
    """

    n_images: int | None = None
    n_templates: int | None = None
    discover: bool = False


def _part_of_one(tolerance: float) -> float:
    value: float = number("tolerance", tolerance, at_least=0)
    if value >= 1:
        raise InputError(
            f"tolerance={value:g} is not a part of 1",
            remedy="Give 1e-6, say; 0 computes without compression.",
        )
    return value
