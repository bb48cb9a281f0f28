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

import dask
import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.compute.device import active_client
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.geometry.noise import ALL_IMAGES, MICROGRAPH, OPTICS_GROUP, NoiseModel
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.signal import power_of_rings, power_of_templates
from cryolike_dask.particles.noise import (
    RingPower,
    Spectrum,
    deviation,
    deviation_splines,
    fit_spectrum,
)
from cryolike_dask.runs.noise_refinement import computed, explained_power
from cryolike_dask.stacks import ImageStack, TemplateStack

logger = logging.getLogger("cryolike_dask")

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]

FEWEST_OF_GROUP = 30
"""Images of a group that has a spectrum of its own."""
FEWEST_KNOWN_WELL = 50
ROWS_OF_TASK = 512
TEMPLATES_LOOKED_AT = 64
REFINED_OF_GROUP, REFINED_STACKS, REFINED_STRUCTURES = 256, 4, 4
"""Images of a group, from so many stacks, and structures, for which the posterior is computed."""
SURE = 3.0
"""Standard errors from which on a signal, or a difference of micrographs, is one."""


def estimate_noise(
    images: ImageStack | Sequence[ImageStack],
    templates: TemplateStack | Sequence[TemplateStack] | None = None,
    *,
    fit_b_factor: bool = False,
    client: Client | None = None,
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
    client : distributed.Client, optional
        Where to compute; default: the current client, or else the threaded scheduler.

    Returns
    -------
    NoiseModel
        A group with too few images has the spectrum of all of them. Below a frequency of one cycle
        per half box spectra are continued, not estimated: images have been brought to mean 0.

    Raises
    ------
    InputError, GridMismatchError
        If there are no images, or they lie on different grids.
    """
    client, stacks = active_client(client), _listed(images, ImageStack)
    structures = [] if templates is None else _listed(templates, TemplateStack)
    grid = stacks[0].grid
    for other in [*stacks, *structures]:
        if other.grid != grid:
            raise GridMismatchError(f"images lie on {grid}, and others on {other.grid}")
    if len(stacks) == 1 and len(stacks[0]) == 1:
        raise InputError(
            "noise cannot be estimated from one image", remedy='Give a noise model, or "white".'
        )
    looked_at, names = _looked_at(stacks, client), _names(stacks)
    structures = _spread(structures, REFINED_STRUCTURES)
    shape = None
    if structures:
        shape = power_of_templates([one.source for one in structures], TEMPLATES_LOOKED_AT)
    groups = [
        _Group(name, rows, fit_spectrum(looked_at.take(rows), grid, shape))
        for name, rows in _optics_groups(names)
    ]
    if structures:
        signal = _Signal(stacks, structures, looked_at, client)
        groups = signal.taken_out(groups, grid)
    everything = [*groups, *_micrographs(groups, names, looked_at, grid, shape)]
    return _model(everything, grid)


@dataclass(frozen=True, eq=False)
class _Group:
    """Images of one group, by their numbers among all, and their spectrum."""

    name: str
    rows: Rows
    spectrum: Spectrum

    def amplitude_and_level(self, grid: PolarGrid) -> tuple[float, float]:
        """Amplitude of the signal over the standard deviation of the noise, and the variance of the
        noise, both of an image whose level is 1."""
        mean = np.exp(np.average(np.log(self.spectrum.variance), weights=grid.weights))
        return 2 * float(np.sqrt(max(self.spectrum.signal, 0) / mean)), float(mean / 4)


@dataclass(frozen=True, eq=False)
class _Signal:
    """Images and the structures that they may show."""

    stacks: list[ImageStack]
    structures: list[TemplateStack]
    looked_at: RingPower
    client: Client | None

    def taken_out(self, groups: list[_Group], grid: PolarGrid) -> list[_Group]:
        """The same groups, their spectra from what the posterior leaves of some images; of groups
        that hold a signal."""
        sure = [g for g in groups if g.spectrum.signal > SURE * g.spectrum.signal_error]
        refined = [g for g in sure if g.name != ALL_IMAGES] or sure
        if not refined:
            return groups
        model, rng = _model(groups, grid), np.random.default_rng(0)
        left = {g.name: self._left(g, model, rng) for g in refined}
        left.setdefault(ALL_IMAGES, np.concatenate(list(left.values())))
        return [
            replace(g, spectrum=_smoothed(left[g.name], g.spectrum, grid)) if g.name in left else g
            for g in groups
        ]

    def _left(self, group: _Group, model: NoiseModel, rng: np.random.Generator) -> FloatArray:
        """Power of rings that is left of some images of a group, at level 1."""
        starts = np.cumsum([0, *(len(stack) for stack in self.stacks)])
        of_stack = np.searchsorted(starts, group.rows, side="right") - 1
        used = _spread(np.unique(of_stack).tolist(), REFINED_STACKS)
        amplitude, variance = group.amplitude_and_level(self.stacks[0].grid)
        left = []
        for i in used:
            members = np.flatnonzero(of_stack == i)
            members = np.array(_spread(members.tolist(), REFINED_OF_GROUP // len(used)))
            rows, levels = group.rows[members], group.spectrum.levels[members]
            known = np.stack([np.full(len(rows), amplitude), variance * levels], axis=1)
            images = self.stacks[i][rows - starts[i]]
            explained = explained_power(
                images, self.structures, Settings(noise=model), known, rng, self.client
            )
            left.append((self.looked_at.power[rows] - explained) / levels[:, None])
        return np.concatenate(left)


def _smoothed(left: FloatArray, known: Spectrum, grid: PolarGrid) -> Spectrum:
    """The spectrum of what is left, with all else that was known."""
    found = fit_spectrum(RingPower(left, np.zeros_like(left)), grid, None)
    return replace(known, variance=found.variance, relative_error=found.relative_error)


def _listed(given: Any, kind: type) -> list[Any]:
    listed = [given] if isinstance(given, kind) else list(given)
    if not listed or not all(isinstance(one, kind) for one in listed):
        raise InputError(f"{given!r:.200} is no {kind.__name__}, nor several")
    return listed


def _spread(items: Sequence[Any], n: int) -> list[Any]:
    """At most `n` of the items, evenly spread."""
    at = np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int)
    return [items[i] for i in np.unique(at)]


def _looked_at(stacks: list[ImageStack], client: Client | None) -> RingPower:
    """Power of rings of all images: they are read once, a part of a stack for each task."""
    tasks = []
    for stack in stacks:
        for start in range(0, len(stack), ROWS_OF_TASK):
            part = stack[start : start + ROWS_OF_TASK]
            name = f"noise-rings-{dask.base.tokenize(part)}"
            look = dask.delayed(power_of_rings, pure=False)
            tasks.append(look(part, STANDARD, dask_key_name=name))
    power, contrast = zip(*computed(tasks, client), strict=True)
    return RingPower(np.concatenate(power), np.concatenate(contrast))


def _names(stacks: list[ImageStack]) -> NDArray[np.str_]:
    """Micrograph and optics group of each image, (image, 2)."""
    unknown = [np.full((len(stack), 2), "") for stack in stacks]
    return np.concatenate(
        [one if s.groups is None else s.groups for s, one in zip(stacks, unknown, strict=True)]
    )


def _optics_groups(names: NDArray[np.str_]) -> list[tuple[str, Rows]]:
    """All images; and each optics group with images enough, unless it is all of them."""
    found = [(ALL_IMAGES, np.arange(len(names)))]
    for name in np.unique(names[:, 1]).tolist():
        rows = np.flatnonzero(names[:, 1] == name)
        if name and FEWEST_OF_GROUP <= len(rows) < len(names):
            found.append((OPTICS_GROUP + name, rows))
    return found


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
        done[rows] = True
        expected = spectrum.variance + looked_at.contrast[rows] * spectrum.signal * signal
        members = [
            (name, np.flatnonzero(names[rows, 0] == name))
            for name in np.unique(names[rows, 0]).tolist()
            if name
        ]
        members = [(name, m) for name, m in members if len(m) >= FEWEST_OF_GROUP]
        if len(members) < 2:
            continue
        each = [deviation(looked_at.power[rows[m]], expected[m], grid) for _, m in members]
        coefficients, variances = (np.stack(parts) for parts in zip(*each, strict=True))
        chi2 = (coefficients**2 / variances).mean()
        if chi2 < 1 + SURE * np.sqrt(2 / coefficients.size):
            continue
        between = np.maximum((coefficients**2 - variances).mean(axis=0), 0)
        kept = between / (between + variances)
        errors = np.sqrt(spectrum.relative_error**2 + (kept * variances) @ splines.T**2)
        logs = (kept * coefficients) @ splines.T
        found += [
            _Group(
                MICROGRAPH + name,
                rows[m],
                replace(spectrum, variance=spectrum.variance * np.exp(log), relative_error=error),
            )
            for (name, m), log, error in zip(members, logs, errors, strict=True)
        ]
    return found


def _model(groups: list[_Group], grid: PolarGrid) -> NoiseModel:
    few = len(groups[0].rows) < FEWEST_KNOWN_WELL
    model = NoiseModel.of_spectrum(
        grid.spatial_frequencies,
        np.stack([group.spectrum.variance for group in groups]),
        grid,
        [group.name for group in groups],
    )
    if few:
        logger.warning(
            "noise is estimated from %d images, and is known to %.0f%% only",
            len(groups[0].rows),
            100 * np.median(groups[0].spectrum.relative_error),
        )
    return replace(
        model,
        relative_error=np.stack([group.spectrum.relative_error for group in groups]),
        n_images=np.array([len(group.rows) for group in groups]),
    )
