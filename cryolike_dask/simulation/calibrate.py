"""The probabilities of a run, tried on particles that are simulated for it: how often an image is
assigned rightly, and how often it should be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.calibration import probabilities, regress
from cryolike_dask.analysis.coordinates import without_decoys
from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.analysis.matching import open_matching
from cryolike_dask.analysis.search_of_results import (
    SearchOfResults,
    inputs_to_name,
    search_of_results,
)
from cryolike_dask.analysis.summaries import COMPARABLE, are_compared, summarise_results
from cryolike_dask.compute.device import active_client
from cryolike_dask.compute.progress import counted
from cryolike_dask.compute.stream import computed
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.calibration import RunCalibration, write_calibration
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
from cryolike_dask.version import __version__

logger = logging.getLogger("cryolike_dask")

FloatArray = NDArray[np.float64]
Integers = NDArray[np.int64]

N_PILOT, N_PILOTS = 64, 2
"""Particles that the strength of the signal is set by, and how often."""
GAINED = 6.0
"""Degrees of freedom that the best pose explains of noise alone near the true one: direction,
rotation, displacement, and scale."""
LEAST_STRENGTH = 1e-6
AT_A_TIME = 256
"""Particles that are made, and compared, together."""
LARGEST = 1 - 1e-6
"""Largest correlation that an image counts as having."""
LEAST_PER_STRUCTURE = 10
"""Particles of each structure; of fewer no slope is known."""


def calibrate(
    results: str | Path | xr.Dataset,
    *,
    templates: str | Path | Trajectory | TemplateStack | Sequence[TemplateStack] | None = None,
    particles: str | Path | ImageStack | Sequence[ImageStack] | None = None,
    parameters: str | Path | ImageParameters | None = None,
    n_images: int = 400,
    seed: int = 0,
    device: Device = "auto",
    client: Client | None = None,
    progress: bool = True,
) -> RunCalibration:
    """Simulate particles for a run, compare them as it did its images, and see whether
    probabilities keep what they promise.

    Each particle stands for an image of the run that is drawn at random: it has its optics, its
    noise and its degrees of freedom. Its structure and its pose are drawn by the prior of the
    search: between views, rotations and displacements that are tried. Its signal is as strong as
    that image's correlation with its best projection says, less what the best of many poses
    explains of noise alone, which is measured on particles of known strength. Written to
    `calibration.json` beside the results, for the report.

    Parameters
    ----------
    results : path or xarray.Dataset
        The output folder of a run under two structures or more, or what `open_results` gives.
    templates, particles : path, Trajectory, stack or several stacks, optional
        As they were given to the run; default: the folders that the results name.
    parameters : path or ImageParameters, optional
        Default: `parameters.npz` in the folder of templates.
    n_images : int
        Particles of all structures together. With 400 the slope has a standard error of about 0.1
        where a few in ten images can be told apart.
    seed : int
        Same seed, same particles.
    device : "auto" | "cpu" | "cuda"
    client : distributed.Client, optional
        Where to compute; default: the current client, or else this process.
    progress : bool
        Show a bar on a terminal or in a notebook, elsewhere a line of the log now and then.

    Returns
    -------
    RunCalibration

    Raises
    ------
    InputError, InputFileError
        If there are no results under several structures, inputs are not there any more, or the run
        followed conventions that make no noise model.
    OutputError
        If the noise model of the results is not there, or the file cannot be written.
    """
    client = active_client(client)
    given = {"templates": templates is not None, "particles": particles is not None}
    opened = results_to_try(results, n_images, **given)
    names = [str(name) for name in opened[labels.STRUCTURE].values]
    n = number("n_images", n_images, whole=True)
    rng = np.random.default_rng(number("seed", seed, whole=True, at_least=0))
    told = search_of_results(opened, device)
    summary = summarise_results(opened)
    if not are_compared(summary):
        raise InputError(
            "no image has results under all structures", remedy="Run the likelihood first."
        )
    rows = rng.choice(np.flatnonzero(summary[COMPARABLE].values), size=n)
    inputs = open_matching(summary, rows, templates, particles, parameters, names=names)
    originals = find_originals(summary, rows, inputs[0], told.settings)
    again = search_again(inputs, told, client, seed, rng)
    drawn = draw_like(len(names), again.templates[0], n, rng)
    outcome = _outcome(again, drawn, originals, progress=progress)
    calibration = _calibration(outcome, drawn, originals, again, told)
    if told.files is not None:
        write_calibration(told.files.calibration, calibration)
    return calibration


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


def results_to_try(
    results: str | Path | xr.Dataset, n_images: int, *, templates: bool, particles: bool
) -> xr.Dataset:
    """Open results, and refuse those that cannot be calibrated, as far as that can be known before
    anything is read or computed.

    Parameters
    ----------
    results, n_images
        As for `calibrate`.
    templates, particles : bool
        Whether these are given.

    Raises
    ------
    InputError, InputFileError, OutputError
        As `calibrate` does.
    """
    opened = without_decoys(results if isinstance(results, xr.Dataset) else open_results(results))
    names = [str(name) for name in np.atleast_1d(opened[labels.STRUCTURE].values)]
    if len(names) < 2:
        raise InputError(
            f"the results are of one structure, {names[0]}, so that nothing is assigned",
            remedy="Compare the images with two structures or more.",
        )
    number("n_images", n_images, whole=True, at_least=LEAST_PER_STRUCTURE * len(names))
    return need_noise_and_inputs(opened, templates=templates, particles=particles)


def need_noise_and_inputs(opened: xr.Dataset, *, templates: bool, particles: bool) -> xr.Dataset:
    """Refuse results that no particles can be simulated for; parameters and errors are those of
    `results_to_try`."""
    settings = search_of_results(opened).settings
    if not settings.rules.knows_noise:
        raise InputError(
            f'the run used conventions="{settings.conventions}", whose probabilities are too '
            "large, and whose images lie otherwise",
            remedy=f'Run it with conventions="{STANDARD.name}".',
        )
    for kind, is_given in (("templates", templates), ("particles", particles)):
        if not is_given and not opened.attrs.get(f"folder_{kind}"):
            options = inputs_to_name(opened).get(kind, f"--{kind}")
            raise InputError(
                f"the results do not say where the {kind} are", remedy=f"Give them: {options}."
            )
    return opened


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
    """

    templates: list[TemplateStack]
    settings: Settings
    client: Client | None
    seed: int
    slices: list[Slices] | None
    knows_rings: bool

    def compare(self, drawn: Drawn, originals: Originals, strength: FloatArray) -> Outcome:
        """Make particles whose signal is so strong, and compare them with all structures."""
        images = self.images(drawn, originals, strength)
        names = [labels.LOG_LIKELIHOOD_INTEGRATED, labels.CROSS_CORRELATION]
        lazy = [
            optimal_poses(ComparisonGraph(images, one, self.settings))[names]
            for one in self.templates
        ]
        done = computed(lazy, self.client)
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
    strength = strength_like(again, drawn, originals)
    parts = parts_of(len(drawn))
    found = [
        again.compare(drawn.take(part), originals.take(part), strength[part])
        for part in counted(parts, "parts of the calibration", shown=progress)
    ]
    return Outcome(
        np.concatenate([part.log_likelihood for part in found], axis=1),
        np.concatenate([part.correlations for part in found], axis=1),
    )


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


def _calibration(
    outcome: Outcome, drawn: Drawn, originals: Originals, again: Again, told: SearchOfResults
) -> RunCalibration:
    fitted = regress(outcome.log_likelihood, drawn.which)
    return RunCalibration(
        n_images=len(drawn),
        n_structures=len(again.templates),
        seed=again.seed,
        slope=fitted.slope,
        slope_error=fitted.slope_error,
        intercept=fitted.intercept,
        intercept_error=fitted.intercept_error,
        n_right=int((outcome.log_likelihood.argmax(axis=0) == drawn.which).sum()),
        n_promised=float(probabilities(outcome.log_likelihood).max(axis=0).sum()),
        correlation=float(np.median(outcome.correlation())),
        correlation_of_run=float(np.median(originals.correlation)),
        views_between=again.slices is not None,
        results=told.checksum,
        version=__version__,
    )
