"""The noise of images: how its variance depends on spatial frequency, and how many degrees of
freedom it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import GridMismatchError, InputError, listed
from cryolike_dask.geometry.leak import leaked
from cryolike_dask.geometry.polar_grid import PolarGrid

FloatArray = NDArray[np.float64]

ALL_IMAGES = "all images"
OPTICS_GROUP, MICROGRAPH = "optics group ", "micrograph "
"""Names of groups: one for all images; or these words, followed by what the metadata say."""
OF_ENVELOPE = "; B-factor: "
"""Stands in reasons before what the B-factor comes from."""
B_FACTORS = (-200.0, 500.0)
"""Angstrom^2. Images of an envelope beyond these hold no signal, or are described wrongly."""
LEAST_DEGREES_OF_FREEDOM = 4
"""The likelihood integrates out offset, scale and level: with fewer it does not fall off."""
SAME_PIXEL_SIZE = 1e-4
LEAST_FREQUENCY = 1e-9
"""Part of the band by which a spectrum may fall short of it, for rounding."""


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """What is known of the noise of each group of images, and of their envelope.

    The level of the noise is each image's own, and integrated out: only the shape of a spectrum
    counts.

    Attributes
    ----------
    groups : tuple of str
        "all images", or "optics group NAME" and "micrograph NAME" for the names in the metadata. An
        image is of its micrograph, if that is a group, or else of its optics group, or else of all.
    n_pixels : int
    pixel_size_angstrom : float
        The images that it is for.
    frequencies : (frequency,) float64
        1/angstrom, ascending.
    variance : (group, frequency) float64
        Power of the noise, in any unit of the group.
    relative_error : (group, frequency) float64
        Standard error of the variance over the variance; 0 where it is known.
    n_images : (group,) int64
        Images that it is estimated from; 0 where it is given.
    band_limit : (group,) float64
        1/angstrom. The noise ends here, as that of low-passed images does; inf: it does not.
    share : (group,) float64
        Part of the box that the noise fills, in (0, 1]; NaN: not known, and taken as 1.
    reasons : tuple of str
        Why band and share are these, and after `OF_ENVELOPE` the B-factor, for a reader.
    b_factor_angstrom2 : (group,) float64
        Added to the B-factor that the metadata give.
    b_factor_error : (group,) float64
        Its standard error; NaN where it is not fitted.

    Raises
    ------
    InputError
        If a number cannot be what it stands for, or shapes do not belong together.
    """

    groups: tuple[str, ...]
    n_pixels: int
    pixel_size_angstrom: float
    frequencies: FloatArray
    variance: FloatArray
    relative_error: FloatArray
    n_images: NDArray[np.int64]
    band_limit: FloatArray
    share: FloatArray
    reasons: tuple[str, ...]
    b_factor_angstrom2: FloatArray
    b_factor_error: FloatArray

    def __post_init__(self) -> None:
        """Refuse spectra that are none."""
        n = len(self.groups)
        if not n or len(set(self.groups)) < n:
            raise InputError(f"a noise model of the groups {list(self.groups)[:5]}")
        shapes = {
            "frequencies": (len(self.frequencies),),
            "variance": (n, len(self.frequencies)),
            "relative_error": (n, len(self.frequencies)),
            **dict.fromkeys(("n_images", "band_limit", "share"), (n,)),
            **dict.fromkeys(("b_factor_angstrom2", "b_factor_error"), (n,)),
        }
        for name, shape in shapes.items():
            if np.shape(getattr(self, name)) != shape:
                raise InputError(
                    f"a noise model of {n} group(s) whose {name} has the shape "
                    f"{np.shape(getattr(self, name))}, not {shape}"
                )
        if len(self.reasons) != n:
            raise InputError(f"a noise model of {n} group(s) with {len(self.reasons)} reasons")
        f = self.frequencies
        if len(f) < 2 or not (np.isfinite(f).all() and (f >= 0).all() and (np.diff(f) > 0).all()):
            raise InputError(
                "the frequencies of a noise model are not two or more ascending numbers from 0 on"
            )
        bad = ~(np.isfinite(self.variance) & (self.variance > 0)).all(axis=1)
        if bad.any():
            raise InputError(
                f"the noise of {_named(self.groups, bad)} has a variance that is zero, negative or "
                "not finite",
                remedy="Where a low-pass has left no noise, give band_limit instead.",
            )
        bad = (
            ~(self.band_limit > f[0])
            | ~(np.isnan(self.share) | (self.share > 0))
            | (self.share > 1)
        )
        if bad.any():
            raise InputError(
                f"the noise of {_named(self.groups, bad)} has a band_limit below all frequencies, "
                "or a share of the box that is not above 0 and at most 1"
            )
        low, high = B_FACTORS
        bad = ~((self.b_factor_angstrom2 >= low) & (self.b_factor_angstrom2 <= high))
        if bad.any():
            raise InputError(
                f"b_factor={self.b_factor_angstrom2[bad][0]:g} of {_named(self.groups, bad)} is "
                f"not between {low:g} and {high:g} angstrom^2"
            )

    @classmethod
    def of_spectrum(
        cls,
        frequencies: Sequence[float] | FloatArray,
        variance: Sequence[float] | FloatArray,
        grid: PolarGrid,
        groups: Sequence[str] = (ALL_IMAGES,),
    ) -> NoiseModel:
        """Make a model of spectra that are known.

        Parameters
        ----------
        frequencies : (frequency,)
            1/angstrom, ascending.
        variance : (frequency,) or (group, frequency)
            Power of the noise, in any unit.
        grid : PolarGrid
            Of the images.
        groups : sequence of str
        """
        n = len(groups)
        spectra = np.atleast_2d(np.asarray(variance, np.float64))
        return cls(
            groups=tuple(groups),
            n_pixels=grid.n_pixels,
            pixel_size_angstrom=grid.pixel_size_angstrom,
            frequencies=np.asarray(frequencies, np.float64),
            variance=spectra,
            relative_error=np.zeros(spectra.shape),
            n_images=np.zeros(n, np.int64),
            band_limit=np.full(n, np.inf),
            share=np.ones(n),
            reasons=("given",) * n,
            b_factor_angstrom2=np.zeros(n),
            b_factor_error=np.full(n, np.nan),
        )

    def __len__(self) -> int:
        return len(self.groups)

    def check_grid(self, grid: PolarGrid) -> None:
        """Refuse images of another box or pixel, and a band that the spectra do not cover.

        Raises
        ------
        GridMismatchError
        """
        same = abs(self.pixel_size_angstrom / grid.pixel_size_angstrom - 1) < SAME_PIXEL_SIZE
        if self.n_pixels != grid.n_pixels or not same:
            raise GridMismatchError(
                f"the noise model is for images of {self.n_pixels} pixels of "
                f"{self.pixel_size_angstrom:g} angstrom, but these have {grid.n_pixels} of "
                f"{grid.pixel_size_angstrom:g}",
                remedy="Estimate the noise from these images.",
            )
        highest, needed = self.frequencies[-1], grid.spatial_frequencies[-1]
        if highest < needed * (1 - LEAST_FREQUENCY):
            raise GridMismatchError(
                f"the noise model ends at {1 / highest:.4g} angstrom, but images reach "
                f"{1 / needed:.4g}",
                remedy="Estimate the noise from these images.",
            )

    def spectra(self, grid: PolarGrid) -> FloatArray:
        """Variance on the shells of a grid, (group, shell): 1 in the geometric mean over the band,
        so that whitening changes no volume; infinite where there is no noise."""
        self.check_grid(grid)
        shells = grid.spatial_frequencies
        logs = self._logs(grid)
        inside = shells <= self.band_limit[:, None]
        weights = grid.weights * inside
        mean = (logs * weights).sum(axis=1) / weights.sum(axis=1)
        return np.where(inside, np.exp(logs - mean[:, None]), np.inf)

    def degrees_of_freedom(self, grid: PolarGrid) -> FloatArray:
        """Degrees of freedom of the noise of an image, (group,): those inside the band, 4 pi K^2 if
        noise fills box and band. Whitened power, in units of the variance inside: where the box
        has smeared a peak of the spectrum, images hold more of it, and at the end of a band less.
        """
        inside = grid.spatial_frequencies <= self.band_limit[:, None]
        power = leaked(self.variance, self.frequencies, self.band_limit, grid)
        power /= np.exp(self._logs(grid))
        area = (inside * power * grid.weights).sum(axis=1) * grid.n_inplanes
        share = np.where(np.isnan(self.share), 1.0, self.share)
        result: FloatArray = 4 * area * share
        few = ~(result > LEAST_DEGREES_OF_FREEDOM)
        if few.any():
            raise InputError(
                f"the noise of {_named(self.groups, few)} has {result[few][0]:.3g} degrees of "
                f"freedom, no more than the {LEAST_DEGREES_OF_FREEDOM} that its level, an offset "
                "and a scale take",
                remedy="Is the band limit, or the share of the box, right?",
            )
        return result

    def _logs(self, grid: PolarGrid) -> FloatArray:
        """Logarithm of the variance on the shells of a grid, (group, shell)."""
        shells = grid.spatial_frequencies
        return np.stack([np.interp(shells, self.frequencies, row) for row in np.log(self.variance)])

    def find(self, names: NDArray[np.str_] | None, n_images: int) -> NDArray[np.int64]:
        """Find the group of each image.

        Parameters
        ----------
        names : (image, 2) str or None
            Micrograph and optics group, "" where they are not known.
        n_images : int

        Raises
        ------
        InputError
            If an image is of no group.
        """
        index = {name: i for i, name in enumerate(self.groups)}
        everyone = index.get(ALL_IMAGES, -1)
        if names is None:
            found = np.full(n_images, everyone)
        else:
            pairs, which = np.unique(names, axis=0, return_inverse=True)
            of_pairs = [
                index.get(MICROGRAPH + m, index.get(OPTICS_GROUP + o, everyone))
                for m, o in pairs.tolist()
            ]
            found = np.array(of_pairs, np.int64)[which.ravel()]
        lost = np.flatnonzero(found < 0)
        if len(lost):
            of = "" if names is None else f", of {' and '.join(filter(None, names[lost[0]]))},"
            raise InputError(
                f"image(s) {listed(lost)}{of} belong to no group of the noise model, which has "
                f"{', '.join(self.groups[:5])}",
                remedy="Estimate the noise from these images.",
            )
        return found

    def strangers(self, names: NDArray[np.str_] | None) -> NDArray[np.int64]:
        """Images of optics groups that the model does not know, although it knows others: they are
        taken with all images."""
        if names is None or not any(name.startswith(OPTICS_GROUP) for name in self.groups):
            return np.empty(0, np.int64)
        known = [name.removeprefix(OPTICS_GROUP) for name in self.groups]
        in_micrograph = np.isin(np.char.add(MICROGRAPH, names[:, 0]), self.groups)
        return np.flatnonzero(~np.isin(names[:, 1], known) & ~in_micrograph & (names[:, 1] != ""))

    def take(self, groups: NDArray[np.int64]) -> NoiseModel:
        """Some of the groups."""
        chosen: dict[str, Any] = {
            name: getattr(self, name)[groups]
            for name in ("variance", "relative_error", "n_images", "band_limit", "share")
        }
        return replace(
            self,
            **chosen,
            groups=tuple(self.groups[i] for i in groups),
            reasons=tuple(self.reasons[i] for i in groups),
            b_factor_angstrom2=self.b_factor_angstrom2[groups],
            b_factor_error=self.b_factor_error[groups],
        )


def _named(groups: Sequence[str], chosen: Any) -> str:
    names = [name for name, is_chosen in zip(groups, chosen, strict=True) if is_chosen]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
