"""The search of a run, done again for particles that are simulated for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.matching import open_matching
from cryolike_dask.analysis.search_of_results import (
    SearchOfResults,
    search_of_results,
)
from cryolike_dask.analysis.summaries import COMPARABLE, are_compared, summarise_results
from cryolike_dask.compute.progress import Meter, watch
from cryolike_dask.compute.stream import computed
from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.sources import InMemory
from cryolike_dask.labels import Device
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.interface import optimal_poses
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.particles.transform import normalised_stack, stack_and_rings
from cryolike_dask.simulation.resembling import (
    Drawn,
    Originals,
    draw_like,
    find_originals,
    make_particles,
)
from cryolike_dask.simulation.slices import Slices, slices_at, slices_between
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.trajectories.trajectory import Trajectory

logger = logging.getLogger("cryolike_dask")

FloatArray = NDArray[np.float64]
Integers = NDArray[np.int64]
Given = tuple[
    str | Path | Trajectory | TemplateStack | Sequence[TemplateStack] | None,
    str | Path | ImageStack | Sequence[ImageStack] | None,
    str | Path | ImageParameters | None,
]
"""Templates, particles and parameters of a run, where they are named."""

N_PILOT, N_PILOTS = 64, 2
"""Particles that the strength of the signal is set by, and how often."""
GAINED = 6.0
"""Degrees of freedom that the best pose explains of noise alone near the true one: direction,
rotation, displacement, and scale."""
LEAST_STRENGTH = 1e-6
AT_A_TIME = 256
"""Particles that are made, and compared, together."""
MOST_SIMULATED = 10**6
"""Particles: more would take days, and tell nothing more."""
LARGEST = 1 - 1e-6
"""Largest correlation that an image counts as having."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Results of simulated particles under each structure, (structure, particle)."""

    log_likelihood: FloatArray
    correlations: FloatArray

    def correlation(self) -> FloatArray:
        """Correlation with the best projection of the best structure, (particle,)."""
        best = self.log_likelihood.argmax(axis=0)
        return np.asarray(self.correlations[best, np.arange(len(best))])


@dataclass(frozen=True, eq=False)
class Again:
    """The search of a run, done again for other particles.

    Attributes
    ----------
    templates : list of TemplateStack
        Of each structure, with the displacements that were tried.
    settings : Settings
    client : distributed.Client or None
    seed : int
    slices : list of callable, or None
        Slices of each structure in any direction; None: particles are seen from the views of the
        templates.
    knows_rings : bool
        Whether the power of images is that of the rings of their pixels, as it was in the run.
    meter : Meter, optional
        Is told of comparisons that are done, one of a particle with a structure.
    """

    templates: list[TemplateStack]
    settings: Settings
    client: Client | None
    seed: int
    slices: list[Slices] | None
    knows_rings: bool
    meter: Meter | None = None

    def compare(self, drawn: Drawn, originals: Originals, strength: FloatArray) -> Outcome:
        """Make particles whose signal is so strong, and compare them with all structures."""
        images = self.images(drawn, originals, strength)
        names = [labels.LOG_LIKELIHOOD_INTEGRATED, labels.CROSS_CORRELATION]
        graphs = [ComparisonGraph(images, one, self.settings) for one in self.templates]
        if self.meter is not None:
            for graph in graphs:
                self.meter.started(graph.comparison.name)
        done = computed([optimal_poses(graph)[names] for graph in graphs], self.client)
        if self.meter is not None:
            for graph in graphs:
                self.meter.finished(graph.comparison.name, len(drawn))
        values = (np.stack([one[name].values for one in done]) for name in names)
        return Outcome(*(value.astype(np.float64) for value in values))

    def images(self, drawn: Drawn, originals: Originals, strength: FloatArray) -> ImageStack:
        """Particles on the Fourier polar grid, as image stacks hold them."""
        grid, n = self.templates[0].grid, len(drawn)
        series = np.empty((n, *grid.shape), np.complex128)
        for i, templates in enumerate(self.templates):
            ours = np.flatnonzero(drawn.which == i)
            some = drawn.take(ours)
            series[ours] = (
                slices_at(templates, some.view)
                if self.slices is None
                else self.slices[i](some.views)
            )
        at_least = np.maximum(strength, LEAST_STRENGTH)
        pixels = make_particles(series, drawn, originals, at_least, grid, self.seed)
        precision = self.settings.precision_with(self.templates[0])
        source = (
            InMemory(*stack_and_rings(pixels, grid, precision))
            if self.knows_rings
            else InMemory(normalised_stack(pixels, grid, precision))
        )
        return ImageStack(
            source=source,
            grid=grid,
            optics=originals.optics,
            frame="xy",
            stack=np.zeros(n, np.int64),
            image_in_stack=drawn.number,
            chunks=(n,),
            groups=originals.groups,
        )


@dataclass(frozen=True, eq=False)
class Simulated:
    """Particles simulated for a run, and what its search finds of them."""

    outcome: Outcome
    drawn: Drawn
    originals: Originals
    again: Again
    told: SearchOfResults


def simulate_for(
    opened: xr.Dataset,
    given: Given,
    n_images: int,
    seed: int,
    *,
    device: Device,
    client: Client | None,
    progress: bool,
    as_many_of_each: bool = False,
) -> Simulated:
    """Simulate particles for a run, and compare them as it did its images.

    Parameters
    ----------
    opened : xarray.Dataset
        Results that `results_to_try` lets pass.
    given : tuple
        Templates, particles and parameters, as for `calibrate`.
    n_images, seed, device, client, progress
        As for `calibrate`; `results_to_try` has let the number pass, too.
    as_many_of_each : bool
        Whether as many particles are made of each structure, within one; default: structures are
        drawn.

    Raises
    ------
    InputError, InputFileError, OutputError
        As `calibrate` does.
    """
    names = [str(name) for name in opened[labels.STRUCTURE].values]
    n = int(n_images)
    rng = np.random.default_rng(number("seed", seed, whole=True, at_least=0))
    told = search_of_results(opened, device)
    summary = summarise_results(opened)
    if not are_compared(summary):
        raise InputError(
            "no image has results under all structures", remedy="Run the likelihood first."
        )
    rows = rng.choice(np.flatnonzero(summary[COMPARABLE].values), size=n)
    inputs = open_matching(summary, rows, *given, names=names)
    originals = find_originals(summary, rows, inputs[0], told.settings)
    again = search_again(inputs, told, client, seed, rng)
    drawn = draw_like(len(names), again.templates[0], n, rng)
    if as_many_of_each:
        drawn = replace(drawn, which=rng.permutation(np.arange(n) % len(names)))
    outcome = _outcome(again, drawn, originals, progress=progress)
    return Simulated(outcome, drawn, originals, again, told)


def search_again(
    inputs: tuple[list[ImageStack], list[TemplateStack]],
    told: SearchOfResults,
    client: Client | None,
    seed: int,
    rng: np.random.Generator,
) -> Again:
    """The search of results, to be done again for other particles than those of the inputs."""
    stacks, templates = inputs
    displaced = [told.displaced(one) for one in templates]
    return Again(
        displaced,
        told.settings,
        client,
        seed,
        _slices(displaced, rng),
        knows_rings=all(stack.source.knows_rings for stack in stacks),
    )


def _slices(templates: Sequence[TemplateStack], rng: np.random.Generator) -> list[Slices] | None:
    """Slices of all structures between their views, or of none of them."""
    found = []
    for one in templates:
        slices = slices_between(one, rng)
        if slices is None:
            logger.warning(
                "templates of %s do not tell what is between their views: particles are seen from "
                "the views of the search alone, and what the distance of views costs is not seen",
                one.structure,
            )
            return None
        found.append(slices)
    return found


def _outcome(again: Again, drawn: Drawn, originals: Originals, *, progress: bool) -> Outcome:
    """Set the strength of the signal by a few particles, then compare all of them."""
    n_compared = (len(drawn) + N_PILOTS * min(len(drawn), N_PILOT)) * len(again.templates)
    with watch(again.client, n_compared, "particles x structures", progress=progress) as meter:
        again = replace(again, meter=meter)
        strength = strength_like(again, drawn, originals)
        found = [
            again.compare(drawn.take(part), originals.take(part), strength[part])
            for part in parts_of(len(drawn))
        ]
    return Outcome(
        np.concatenate([part.log_likelihood for part in found], axis=1),
        np.concatenate([part.correlations for part in found], axis=1),
    )


def number_to_simulate(n_images: int, at_least: int) -> int:
    """The particles that are asked for.

    Raises
    ------
    InputError
        If they are too few, or more than anybody waits for.
    """
    n: int = number("n_images", n_images, whole=True, at_least=at_least)
    if n > MOST_SIMULATED:
        raise InputError(
            f"n_images={n} is too many", remedy=f"Simulate {MOST_SIMULATED:,} at most."
        )
    return n


def strength_like(again: Again, drawn: Drawn, originals: Originals) -> FloatArray:
    """The strength of the signal at which few particles correlate as the images do that they stand
    for, (particle,)."""
    strength = _odds(originals.correlation) - GAINED / originals.n_free
    pilot = np.arange(min(len(drawn), N_PILOT))
    like = originals.take(pilot)
    for _ in range(N_PILOTS):
        outcome = again.compare(drawn.take(pilot), like, strength[pilot])
        more = (_odds(outcome.correlation()) - _odds(like.correlation)) * like.n_free
        strength = strength - float(np.median(more)) / originals.n_free
    return strength


def parts_of(n: int) -> list[Integers]:
    """Particles that are made, and compared, together."""
    return np.split(np.arange(n), range(AT_A_TIME, n, AT_A_TIME))


def _odds(correlation: FloatArray) -> FloatArray:
    """What a projection explains of an image over what it leaves."""
    square = np.clip(correlation, 0, LARGEST) ** 2
    return np.asarray(square / (1 - square))
