"""Poses that are recorded with particles, and how far around them to look."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.viewing_angles import viewing_rotation
from cryolike_dask.labels import Prior, SearchMethod
from cryolike_dask.notebook import html_table

FloatArray = NDArray[np.float64]

RECORDED_POSE = np.dtype(
    [
        ("rot_radian", "f8"),
        ("tilt_radian", "f8"),
        ("psi_radian", "f8"),
        ("x_angstrom", "f8"),
        ("y_angstrom", "f8"),
    ]
)
"""Angles as RELION defines them, and where the particle lies in its image as the image is used: x
along columns, y along rows of its MRC file, from the middle. NaN is what is not known."""

RECORDED: SearchMethod = "recorded"
"""The search that looks at the recorded pose alone."""
SIGMAS = 3
"""Standard deviations of a Gaussian prior that are looked at, as RELION looks at a local angular
search range of three times its sigma_ang."""
REFINED = ", refined"


@dataclass(frozen=True)
class Around:
    """A search around recorded poses.

    Attributes
    ----------
    within_degrees : float
        Largest angle of the rotation from the recorded pose to another, view and in-plane rotation
        together; 180 is everything. The nearest pose is always looked at.
    within_pixels : float
        Largest displacement along each axis from where the particle is recorded.
    check : bool
        Compare some images with everything first, and refuse poses that are not those found.
        Changes no result.
    prior : "flat" | "gaussian"
        "flat": that of the whole search. "gaussian": around the recorded pose, with standard
        deviations of a third of the two numbers, and of sum 1 over the whole search.
    refine : bool
        Refine the best pose of each image, between the poses of the search.
    """

    within_degrees: float
    within_pixels: float
    check: bool = field(default=True, compare=False)
    prior: Prior = "flat"
    refine: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no angle and no distance."""
        degrees = number("within_degrees", self.within_degrees, at_least=0)
        if degrees > 180:
            raise InputError(
                f"within_degrees={degrees:g} is more than any rotation turns",
                remedy="180 looks at all of them.",
            )
        pixels = number("within_pixels", self.within_pixels, at_least=0)
        object.__setattr__(self, "within_degrees", float(degrees))
        object.__setattr__(self, "within_pixels", float(pixels))
        if self.prior not in get_args(Prior):
            raise InputError(f"prior={self.prior!r} is neither flat nor gaussian")
        if self.is_gaussian and not (degrees and pixels):
            raise InputError(
                f"a Gaussian prior of a third of {degrees:g} degrees and {pixels:g} pixels",
                remedy="Give both more than 0, or prior='flat' (--prior flat).",
            )

    def _repr_html_(self) -> str:
        entries = {
            "within": f"{self.within_degrees:g} degrees and {self.within_pixels:g} pixels",
            "prior": self.prior,
            "poses are checked": "yes" if self.check else "no",
            "best poses are refined": "yes" if self.refine else "no",
        }
        return html_table("Search: around recorded poses", entries)

    @property
    def is_gaussian(self) -> bool:
        """Whether poses near the recorded one are likelier before an image is looked at."""
        return self.prior == "gaussian"

    @property
    def is_all(self) -> bool:
        """Whether every rotation is looked at, and none is likelier."""
        return self.within_degrees == 180 and not self.is_gaussian

    def __str__(self) -> str:
        """The name of this method of search, by which results are told apart."""
        refined = REFINED if self.refine else ""
        if self.within_degrees == self.within_pixels == 0:
            return RECORDED + refined
        degrees, pixels = (f"{n:.15g}" for n in (self.within_degrees, self.within_pixels))
        which = "gaussian around" if self.is_gaussian else "around"
        return f"{which} {degrees} degrees {pixels} pixels{refined}"

    @classmethod
    def named(cls, name: str) -> Around | None:
        """The search of a name; None if it is that of another method."""
        plain = name.removesuffix(REFINED)
        refine = plain != name
        if plain == RECORDED:
            return cls(0, 0, refine=refine)
        found = re.fullmatch(r"(gaussian )?around (\S+) degrees (\S+) pixels", plain)
        if found is None:
            return None
        prior: Prior = "gaussian" if found[1] else "flat"
        try:
            return cls(float(found[2]), float(found[3]), prior=prior, refine=refine)
        except ValueError:  # of Python for what is no number, and of this package
            return None


def recorded_poses(
    n_images: int, angles: FloatArray | None, origin: FloatArray | None, *, recentered: bool
) -> NDArray[np.void] | None:
    """Poses of images; None if nothing is recorded.

    Parameters
    ----------
    n_images : int
    angles : (image, 3) float64, radian
        rot, tilt and psi.
    origin : (image, 2) float64, angstrom
        x and y by which the content was to be shifted to be centred.
    recentered : bool
        It has been.
    """
    if angles is None and origin is None:
        return None
    poses = np.full(n_images, np.nan).astype(RECORDED_POSE)
    if angles is not None:
        poses["rot_radian"], poses["tilt_radian"], poses["psi_radian"] = angles.T
    if recentered:
        poses["x_angstrom"] = poses["y_angstrom"] = 0
    elif origin is not None:
        poses["x_angstrom"], poses["y_angstrom"] = -origin.T
    return poses


def joined_poses(
    stacks: Sequence[tuple[NDArray[np.void] | None, int]],
) -> NDArray[np.void] | None:
    """Poses of the images of several stacks, which have so many images, if any are known."""
    if all(poses is None for poses, _ in stacks):
        return None
    unknown = (np.full(n, np.nan).astype(RECORDED_POSE) for _, n in stacks)
    return np.concatenate(
        [none if poses is None else poses for (poses, _), none in zip(stacks, unknown, strict=True)]
    )


def recorded_rotations(poses: NDArray[np.void], *, transposed: bool) -> FloatArray:
    """Rz(azimuth) Ry(polar) Rz(gamma) of the templates that images show, (image, 3, 3).

    Where x of an image is the row of its file it shows the structure from behind: the beam is
    always the vector product of x and y.
    """
    axes = viewing_rotation(poses["rot_radian"], poses["tilt_radian"], poses["psi_radian"])
    if not transposed:
        return axes
    turned: FloatArray = axes[:, :, [1, 0, 2]] * [1, 1, -1]
    return turned


def recorded_places(poses: NDArray[np.void], *, transposed: bool) -> FloatArray:
    """Where particles lie, x and y of their images, angstrom, (image, 2)."""
    names = ("y_angstrom", "x_angstrom") if transposed else ("x_angstrom", "y_angstrom")
    return np.stack([poses[name] for name in names], axis=1)
