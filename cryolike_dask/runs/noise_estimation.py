"""The noise of images, estimated from the images themselves.

First from the power of rings, in which noise and signal are told apart by the contrast transfer
(`particles/noise`). Then once more, from what is left when the signal that the posterior over poses
explains is taken out of some images (`noise_refinement`), which knows what view each image shows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.compute.device import active_client
from cryolike_dask.compute.progress import watch_comparisons
from cryolike_dask.errors import GridMismatchError, InputError, counted
from cryolike_dask.geometry.noise import (
    ALL_IMAGES,
    MICROGRAPH,
    OF_ENVELOPE,
    NoiseModel,
)
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.io.stacks import filled_groups
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.signal import SIGNAL, power_of_templates
from cryolike_dask.particles.noise import (
    LOWEST_SHELL,
    RingPower,
    Spectrum,
    deviation,
    deviation_splines,
    fit_spectrum,
    levels_of,
    part_of_noise,
)
from cryolike_dask.particles.noise_remarks import (
    TAKEN_AS_WHITE,
    remarks_on_noise,
)
from cryolike_dask.runs.b_factor import BFactor
from cryolike_dask.runs.envelope import fit_b_factors
from cryolike_dask.runs.joining import joined
from cryolike_dask.runs.noise_extent import Extent, extents_of, some_stacks
from cryolike_dask.runs.noise_refinement import explained_power
from cryolike_dask.runs.noise_rings import (
    FEWEST_OF_GROUP,
    MOST_OF_GROUP,
    looked_at_all,
    optics_groups,
)
from cryolike_dask.stacks import ImageStack, TemplateStack, one_or_several

logger = logging.getLogger("cryolike_dask")

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]

FEWEST_IMAGES = 3
"""Of two images with a strong signal spectra were off by a factor of 43, which no error told; of
three and more they are known to 1.3 times the error that is given, in the mean."""
TEMPLATES_LOOKED_AT = 64
REFINED_OF_GROUP, REFINED_STRUCTURES = 256, 4
"""Images of a group, and structures, for which the posterior is computed. The spread of ratios is
then that of noise that is known to 0.5%; of 64 images, to 1.5% (benchmarks/noise.py)."""
REFINED_IN_ALL, LEAST_OF_MANY = 2048, 64
"""The same of all groups together; and of each where there are many."""
LEAST_OF_NOISE = 0.15
"""Part of the power of images from which on a spectrum of noise can be told. Of images that show
what templates show, at signal to noise ratios of 6 (0.13) and 10 (0.08), spectra of white noise
came out uneven by factors of 3 to 5, and at 30 by 1e6 and more; images without any noise have 0 to
0.06 by chance."""
SURE = 3.0
"""Standard errors from which on a signal, or a difference of micrographs, is one."""


def estimate_noise(
    images: ImageStack | Sequence[ImageStack],
    templates: TemplateStack | Sequence[TemplateStack] | None = None,
    *,
    fit_b_factor: bool = False,
    b_factor: float = 0.0,
    client: Client | None = None,
    progress: bool = True,
) -> NoiseModel:
    """Estimate the noise of images: its spectrum and its degrees of freedom, by optics group, and
    by micrograph where these differ and there are enough images of each.

    Parameters
    ----------
    images : ImageStack or several
    templates : TemplateStack or several, optional
        Structures, with their displacements, whose images these are: what they explain is taken out
        of the noise. None: signal is left in it.
    fit_b_factor : bool
        Fit a B-factor to each optics group too; needs templates.
    b_factor : float
        Angstrom^2, of all images, where it is known; added to what metadata say.
    client : distributed.Client, optional
        Where to compute; default: the current client, or else the threaded scheduler.
    progress : bool
        Show bars on a terminal or in a notebook, elsewhere a line of the log now and then.

    Returns
    -------
    NoiseModel
        A group with too few images has the spectrum of all of them. Below a frequency of one cycle
        per half box spectra are continued, not estimated: images have been brought to mean 0.

    Raises
    ------
    InputError, GridMismatchError
        If there are fewer than 3 images, or they lie on different grids.
    """
    client, stacks = active_client(client), _listed(images, ImageStack)
    structures = [] if templates is None else _listed(templates, TemplateStack)
    grid = stacks[0].grid
    for other in [*stacks, *structures]:
        if other.grid != grid:
            raise GridMismatchError(f"images lie on {grid}, and others on {other.grid}")
    if (n := sum(map(len, stacks))) < FEWEST_IMAGES:
        raise InputError(
            f"noise cannot be estimated from {n} image(s): at least {FEWEST_IMAGES} are needed",
            remedy='Give a noise model, or noise="white" (--noise white).',
        )
    if fit_b_factor and b_factor:
        raise InputError(f"b_factor={b_factor:g} is given, and to be fitted too")
    if fit_b_factor and not structures:
        raise InputError("a B-factor is fitted to structures, but there are no templates")
    looked_at, shape = looked_at_all(stacks, client, progress=progress), shape_of(structures)
    names = np.concatenate([filled_groups(stack.groups, len(stack)) for stack in stacks])
    looked_at = looked_at.under(np.full(len(looked_at), b_factor), grid)
    members = optics_groups(names)
    extents = extents_of(stacks, members, looked_at, grid, client)
    groups = [_group(n, rows, extents[n], looked_at, grid, shape) for n, rows in members]
    if fit_b_factor:
        model = _model(groups, grid)
        found = fit_b_factors(stacks, structures, model, client=client, progress=progress)
        groups = [replace(group, envelope=b) for group, b in zip(groups, found, strict=True)]
        looked_at = _under_envelopes(looked_at, groups, grid)
        groups = [
            replace(_group(g.name, g.rows, g.extent, looked_at, grid, shape), envelope=g.envelope)
            for g in groups
        ]
    if structures:
        some = _some(structures)
        signal = _Signal(stacks, some, looked_at, shape, b_factor, client, progress)
        groups = signal.taken_out(groups, grid)
    model = _model([*groups, *_micrographs(groups, names, looked_at, grid, shape)], grid)
    copied = max(extent.n_copied_lines for extent in extents.values())
    for remark in remarks_on_noise(model, grid, n_copied_lines=copied):
        logger.warning("%s", remark)
    return model


@dataclass(frozen=True, eq=False)
class _Group:
    """Images of one group, by their numbers among all, and what is known of their noise."""

    name: str
    rows: Rows
    spectrum: Spectrum
    extent: Extent
    envelope: BFactor | None = None

    @property
    def reason(self) -> str:
        """Why band, box and envelope are these."""
        b = self.envelope
        return self.extent.reason + ("" if b is None else OF_ENVELOPE + b.reason)

    @property
    def b_factor(self) -> tuple[float, float]:
        """B-factor and its error, NaN if it is not fitted."""
        b = self.envelope
        return (0.0, np.nan) if b is None else (b.b_factor_angstrom2, b.error)

    def amplitude_and_level(self, grid: PolarGrid) -> tuple[float, float]:
        """Amplitude of the signal over the standard deviation of the noise, and the variance of the
        noise where particles are, both of an image whose level is 1."""
        weights = grid.weights * (grid.spatial_frequencies <= self.extent.band_limit)
        mean = np.exp(np.average(np.log(self.spectrum.variance), weights=weights))
        # the power of rings is that of noise in the whole box, which a mask has taken some of
        level = float(mean / (4 if np.isnan(self.extent.share) else 4 * self.extent.share))
        return float(np.sqrt(max(self.spectrum.signal, 0) / level)), level


@dataclass(frozen=True, eq=False)
class _Signal:
    """Images and the structures that they may show."""

    stacks: list[ImageStack]
    structures: list[TemplateStack]
    looked_at: RingPower
    shape: FloatArray | None
    b_factor: float
    client: Client | None
    progress: bool

    def taken_out(self, groups: list[_Group], grid: PolarGrid) -> list[_Group]:
        """The same groups, their spectra from what the posterior leaves of some images; of groups
        that hold a signal."""
        sure = [g for g in groups if g.spectrum.signal > SURE * g.spectrum.signal_error]
        refined = [g for g in sure if g.name != ALL_IMAGES] or sure
        if not refined:
            return groups
        rng, most = np.random.default_rng(0), max(LEAST_OF_MANY, REFINED_IN_ALL // len(refined))
        model = _model(groups, grid)
        n_images = sum(min(REFINED_OF_GROUP, most, len(g.rows)) for g in refined)
        logger.info(
            "taking out of %s what %s explain",
            counted(n_images, "image"),
            counted(len(self.structures), "structure"),
        )
        with watch_comparisons(
            self.client,
            n_images,
            "images compared for the noise",
            shown=self.progress,
            # an image is compared with all structures, and then some poses of it are looked at
            weight=lambda name: 0.5 if name.startswith(SIGNAL) else 0.5 / len(self.structures),
        ) as anew:
            left = {}
            for group in refined:
                anew()
                left[group.name] = self._left(group, model, rng, most)
        left.setdefault(ALL_IMAGES, np.concatenate(list(left.values())))
        return [
            replace(g, spectrum=_smoothed(left[g.name], g, grid)) if g.name in left else g
            for g in groups
        ]

    def _left(
        self, group: _Group, model: NoiseModel, rng: np.random.Generator, most: int
    ) -> FloatArray:
        """Power of rings that is left of some images of a group, at level 1."""
        some = some_stacks(self.stacks, group.rows)
        n_images = min(REFINED_OF_GROUP, most)
        chosen = [evenly_spread(len(members), n_images // len(some)) for _, members, _ in some]
        images = joined(
            [self.stacks[i][there[c]] for (i, _, there), c in zip(some, chosen, strict=True)]
        )
        members = [members[c] for (_, members, _), c in zip(some, chosen, strict=True)]
        rings = self.looked_at.take(group.rows[np.concatenate(members)])
        amplitude, variance = group.amplitude_and_level(images.grid)
        levels = levels_of(rings, group.spectrum, images.grid, self.shape, group.extent.band_limit)
        known = np.stack([np.full(len(levels), amplitude), variance * levels], axis=1)
        settings = Settings(noise=model, b_factor=self.b_factor)
        explained = explained_power(images, self.structures, settings, known, rng, self.client)
        left: FloatArray = (rings.power - explained) / levels[:, None]
        return left


def _smoothed(left: FloatArray, group: _Group, grid: PolarGrid) -> Spectrum:
    """The spectrum of what is left, with all else that was known; the same as before where next to
    nothing is left beside a strong signal."""
    inside = grid.spatial_frequencies <= group.extent.band_limit
    inside &= grid.radii >= LOWEST_SHELL
    if (left.mean(axis=0)[inside] <= 0).any():
        logger.warning(
            "the signal of %s is so strong that its noise is known from the power of rings alone",
            group.name,
        )
        return group.spectrum
    rings = RingPower(left, np.zeros_like(left))
    found = fit_spectrum(rings, grid, None, group.extent.band_limit)
    return replace(group.spectrum, variance=found.variance, relative_error=found.relative_error)


def _group(
    name: str,
    rows: Rows,
    extent: Extent,
    looked_at: RingPower,
    grid: PolarGrid,
    shape: FloatArray | None,
) -> _Group:
    """A group with the spectrum that the rings of its images have; white where next to all of their
    power is signal."""
    rings = looked_at.take(rows[evenly_spread(len(rows), MOST_OF_GROUP)])
    spectrum = fit_spectrum(rings, grid, shape, extent.band_limit)
    part = part_of_noise(rings, spectrum, grid, extent.band_limit)
    if shape is None or part >= LEAST_OF_NOISE:
        return _Group(name, rows, spectrum, extent)
    reason = f"{TAKEN_AS_WHITE}: the signal is {1 - part:.0%} of the power of images"
    white = np.ones(grid.n_shells)
    flat = Spectrum(white, white, white, spectrum.levels)
    return _Group(name, rows, flat, Extent(np.nan, np.inf, reason, 0))


def _under_envelopes(looked_at: RingPower, groups: list[_Group], grid: PolarGrid) -> RingPower:
    """The same with the envelope of each group in the contrast transfer."""
    b_factor = np.zeros(len(looked_at))
    for group in groups:  # all images come first, and groups of their own after them
        b_factor[group.rows] = group.b_factor[0]
    return looked_at.under(b_factor, grid)


def shape_of(structures: list[TemplateStack]) -> FloatArray | None:
    """Mean power of rings of templates."""
    some = [one.source for one in _some(structures)]
    return power_of_templates(some, TEMPLATES_LOOKED_AT) if some else None


def _some(structures: list[TemplateStack]) -> list[TemplateStack]:
    """The structures for which the posterior is computed."""
    return [structures[i] for i in evenly_spread(len(structures), REFINED_STRUCTURES)]


def _listed(given: Any, kind: type) -> list[Any]:
    listed = one_or_several(given, kind)
    if not listed or not all(isinstance(one, kind) for one in listed):
        raise InputError(f"{given!r:.200} is no {kind.__name__}, nor several")
    return listed


def _micrographs(
    groups: list[_Group],
    names: NDArray[np.str_],
    looked_at: RingPower,
    grid: PolarGrid,
    of_templates: FloatArray | None,
) -> list[_Group]:
    """Spectra of micrographs, each shrunk towards that of its group by how much micrographs differ;
    none where they differ no more than chance has it."""
    splines = deviation_splines(grid)
    signal = np.zeros(grid.n_shells) if of_templates is None else of_templates
    found = []
    done = np.zeros(len(names), np.bool_)
    for group in reversed(groups):  # all images come first, and take those that are left
        spectrum = group.spectrum
        rows = group.rows[~done[group.rows]]
        if not len(rows):  # of all images, where each is of a group
            continue
        done[rows] = True
        present, which = np.unique(names[rows, 0], return_inverse=True)
        ends = np.cumsum(np.bincount(which.ravel(), minlength=len(present)))[:-1]
        parts = np.split(np.argsort(which.ravel(), kind="stable"), ends)
        members = [
            (name, m)
            for name, m in zip(present.tolist(), parts, strict=True)
            if name and len(m) >= FEWEST_OF_GROUP
        ]
        if len(members) < 2 or group.extent.reason.startswith(TAKEN_AS_WHITE):
            continue
        limit = group.extent.band_limit
        each = []
        for _, m in members:
            rings = looked_at.take(rows[m])
            expected = spectrum.power + rings.contrast * spectrum.signal * signal
            each.append(deviation(rings.power, expected, grid, limit))
        coefficients, variances = (np.stack(parts) for parts in zip(*each, strict=True))
        chi2 = (coefficients**2 / variances).mean()
        if chi2 < 1 + SURE * np.sqrt(2 / coefficients.size):
            continue
        between = np.maximum((coefficients**2 - variances).mean(axis=0), 0)
        kept = between / (between + variances)
        errors = np.sqrt(spectrum.relative_error**2 + (kept * variances) @ splines.T**2)
        logs = (kept * coefficients) @ splines.T
        found += [
            replace(
                group,
                name=MICROGRAPH + name,
                rows=rows[m],
                spectrum=replace(
                    spectrum, variance=spectrum.variance * np.exp(log), relative_error=error
                ),
            )
            for (name, m), log, error in zip(members, logs, errors, strict=True)
        ]
    return found


def _model(groups: list[_Group], grid: PolarGrid) -> NoiseModel:
    b_factor, b_factor_error = np.array([group.b_factor for group in groups]).T
    return NoiseModel(
        groups=tuple(group.name for group in groups),
        n_pixels=grid.n_pixels,
        pixel_size_angstrom=grid.pixel_size_angstrom,
        frequencies=grid.spatial_frequencies,
        variance=np.stack([group.spectrum.variance for group in groups]),
        relative_error=np.stack([group.spectrum.relative_error for group in groups]),
        n_images=np.array([len(group.rows) for group in groups]),
        band_limit=np.array([group.extent.band_limit for group in groups]),
        share=np.array([group.extent.share for group in groups]),
        reasons=tuple(group.reason for group in groups),
        b_factor_angstrom2=b_factor,
        b_factor_error=b_factor_error,
    )
