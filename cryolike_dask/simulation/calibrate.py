"""The probabilities of a run, tried on particles that are simulated for it: how often an image is
assigned rightly, and how often it should be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.calibration import probabilities, regress
from cryolike_dask.analysis.calibration_light import SURE
from cryolike_dask.analysis.coordinates import without_decoys
from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.analysis.search_of_results import (
    inputs_to_name,
    search_of_results,
)
from cryolike_dask.compute.device import active_client
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.calibration import RunCalibration, write_calibration
from cryolike_dask.labels import Device
from cryolike_dask.simulation.again import Simulated, number_to_simulate, simulate_for
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.trajectories.trajectory import Trajectory
from cryolike_dask.version import __version__

logger = logging.getLogger("cryolike_dask")

FloatArray = NDArray[np.float64]
Integers = NDArray[np.int64]
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
        followed conventions that make no noise model, or searched by recorded poses.
    OutputError
        If the noise model of the results is not there, or the file cannot be written.
    """
    client = active_client(client)
    opened = results_to_try(
        results, n_images, templates=templates is not None, particles=particles is not None
    )
    given = (templates, particles, parameters)
    tried = simulate_for(
        opened, given, n_images, seed, device=device, client=client, progress=progress
    )
    calibration = _calibration(tried)
    write_calibration(tried.told.files.calibration, calibration)
    return calibration


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
    number_to_simulate(n_images, LEAST_PER_STRUCTURE * len(names))
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
    if settings.around is not None:
        raise InputError(
            f"the run searched by recorded poses alone ({settings.search}), and particles that are "
            "simulated for it have none",
            remedy="Compare some of its images by a search of all poses, adaptive or exhaustive, "
            "in a folder of its own.",
        )
    for kind, is_given in (("templates", templates), ("particles", particles)):
        if not is_given and not opened.attrs.get(f"folder_{kind}"):
            options = inputs_to_name(opened).get(kind, f"--{kind}")
            raise InputError(
                f"the results do not say where the {kind} are", remedy=f"Give them: {options}."
            )
    return opened


def _calibration(tried: Simulated) -> RunCalibration:
    outcome, drawn, again = tried.outcome, tried.drawn, tried.again
    fitted = regress(outcome.log_likelihood, drawn.which)
    probability = probabilities(outcome.log_likelihood).max(axis=0)
    is_right = outcome.log_likelihood.argmax(axis=0) == drawn.which
    decided = probability > SURE
    return RunCalibration(
        n_images=len(drawn),
        n_structures=len(again.templates),
        seed=again.seed,
        slope=fitted.slope,
        slope_error=fitted.slope_error,
        intercept=fitted.intercept,
        intercept_error=fitted.intercept_error,
        n_right=int(is_right.sum()),
        n_promised=float(probability.sum()),
        correlation=float(np.median(outcome.correlation())),
        correlation_of_run=float(np.median(tried.originals.correlation)),
        views_between=again.slices is not None,
        results=tried.told.checksum,
        version=__version__,
        n_decided=int(decided.sum()),
        n_decided_right=int(is_right[decided].sum()),
        decided_promised=float(probability[decided].sum()),
    )
