"""Whether what is left of each image is noise, by particles simulated for a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import without_decoys
from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.analysis.decoys.residuals import (
    MOST_BINS,
    PER_BIN,
    NoiseShape,
    bins_of,
    residual_power,
    shape_of,
)
from cryolike_dask.analysis.matching import open_matching, single_matches
from cryolike_dask.analysis.search_of_results import search_of_results
from cryolike_dask.analysis.summaries import BEST_STRUCTURE, NO_STRUCTURE, summarise_results
from cryolike_dask.compute.device import active_client
from cryolike_dask.compute.progress import counted
from cryolike_dask.compute.stream import computed
from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.export_names import RESIDUALS
from cryolike_dask.io.residuals import Residuals, write_residuals
from cryolike_dask.labels import Device
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.interface import optimal_poses
from cryolike_dask.simulation.again import (
    Again,
    number_to_simulate,
    parts_of,
    search_again,
    strength_like,
)
from cryolike_dask.simulation.calibrate import need_noise_and_inputs
from cryolike_dask.simulation.resembling import Drawn, Originals, draw_like, find_originals
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.trajectories.trajectory import Trajectory

FloatArray = NDArray[np.float64]
Integers = NDArray[np.int64]
Inputs = tuple[list[ImageStack], list[TemplateStack]]

OF_POSES = (
    labels.OPTIMAL_TEMPLATE,
    labels.OPTIMAL_DISPLACEMENT_X,
    labels.OPTIMAL_DISPLACEMENT_Y,
    labels.OPTIMAL_INPLANE_ROTATION,
)
LEAST_IMAGES = PER_BIN * MOST_BINS
AT_ONCE = 32
"""Images that are matched together: each is some arrays on the whole grid."""


def fit_residuals(
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
) -> xr.DataArray:
    """See of each image of a run whether what its best projection leaves of it is noise.

    The best projection is taken out of each image, with the amplitude that leaves least, and what
    is left divided by the noise of the run. How its power is spread over shells is held against
    particles that are simulated for the run as for `calibrate`, right structures all of them, and
    compared as its images were. The level of the noise is each image's own: only the shape counts.

    Parameters
    ----------
    results : path or xarray.Dataset
        The output folder of a run, or what `open_results` gives.
    templates, particles : path, stack or several stacks, optional
        As they were given to the run; default: the folders that the results name.
    parameters : path or ImageParameters, optional
        Default: `parameters.npz` in the folder of templates.
    n_images : int
        Particles to simulate, 80 or more.
    seed : int
        Same seed, same particles.
    device : "auto" | "cpu" | "cuda"
    client : distributed.Client, optional
        Where to compute; default: the current client, or else this process.
    progress : bool
        Show a bar on a terminal or in a notebook, elsewhere a line of the log now and then.

    Returns
    -------
    xarray.DataArray
        residual_p_value, (image): the probability of a shape as far from the mean of simulated
        particles, or farther; NaN without a result. Written to `residuals.npz` beside the results,
        from where `open_results` has it.

    Raises
    ------
    InputError, InputFileError, OutputError
        As for `calibrate`.

    Notes
    -----
    Blind to images of nothing but noise, which are what the noise model says, and to a structure
    that is little off or weak: what a wrong projection leaves has to stand out of the noise of a
    whole range of shells. Small values may also mean that noise or envelope are others than
    supposed.
    """
    client = active_client(client)
    rng = np.random.default_rng(number("seed", seed, whole=True, at_least=0))
    opened = results_to_fit(
        results, n_images, templates=templates is not None, particles=particles is not None
    )
    n = int(n_images)
    names = [str(name) for name in np.atleast_1d(opened[labels.STRUCTURE].values)]
    told, summary = search_of_results(opened, device), summarise_results(opened)
    known = np.flatnonzero(summary[BEST_STRUCTURE].values != NO_STRUCTURE)
    if not len(known):
        raise InputError("no image has a result", remedy="Run the likelihood first.")
    inputs = open_matching(summary, known, templates, particles, parameters, names=names)
    rows = rng.choice(known, size=n)
    originals = find_originals(summary, rows, inputs[0], told.settings)
    again = search_again(inputs, told, client, seed, rng)
    drawn = draw_like(len(names), again.templates[0], n, rng)
    simulated = _simulated(again, drawn, originals, summary, progress=progress)
    grid = again.templates[0].grid
    bins = bins_of(simulated, grid)
    noise = NoiseShape.of(shape_of(simulated, bins, grid))
    p = np.full(summary.sizes[labels.IMAGE], np.nan)
    for part in counted(parts_of(len(known)), "parts of the images", shown=progress):
        of_part = summary.isel({labels.IMAGE: known[part]})
        power = _powers(of_part, inputs, told.settings.noise)
        p[known[part]] = noise.p_values(shape_of(power, bins, grid))
    stack, image = (summary[name].values for name in (labels.STACK, labels.IMAGE_IN_STACK))
    path = told.files.folder_output / RESIDUALS
    write_residuals(path, Residuals(stack, image, p, told.checksum))
    coords = {name: c for name, c in summary.coords.items() if c.dims == (labels.IMAGE,)}
    return xr.DataArray(
        p,
        coords,
        (labels.IMAGE,),
        labels.RESIDUAL_P_VALUE,
        labels.ATTRIBUTES[labels.RESIDUAL_P_VALUE],
    )


def results_to_fit(
    results: str | Path | xr.Dataset, n_images: int, *, templates: bool, particles: bool
) -> xr.Dataset:
    """Open results, and refuse those whose residuals cannot be fitted, as far as that can be known
    before anything is computed; parameters and errors are those of `results_to_try`."""
    number_to_simulate(n_images, LEAST_IMAGES)
    opened = results if isinstance(results, xr.Dataset) else open_results(results)
    return need_noise_and_inputs(without_decoys(opened), templates=templates, particles=particles)


def _powers(summary: xr.Dataset, inputs: Inputs, noise: NoiseModel | None) -> FloatArray:
    """Power of what is left of each image, (image, shell), few at a time."""
    n = summary.sizes[labels.IMAGE]
    return np.stack(
        [
            residual_power(match)
            for start in range(0, n, AT_ONCE)
            for match in single_matches(
                summary.isel({labels.IMAGE: slice(start, start + AT_ONCE)}), *inputs, noise
            )
        ]
    )


def _simulated(
    again: Again, drawn: Drawn, originals: Originals, summary: xr.Dataset, *, progress: bool
) -> FloatArray:
    """The same of simulated particles, beside the projections that are found to match them."""
    strength, found = strength_like(again, drawn, originals), list[FloatArray]()
    for part in counted(parts_of(len(drawn)), "parts of the simulation", shown=progress):
        images = again.images(drawn.take(part), originals.take(part), strength[part])
        of_part = _summary(again, images, summary)
        found.append(_powers(of_part, ([images], again.templates), again.settings.noise))
    return np.concatenate(found)


def _summary(again: Again, images: ImageStack, of_run: xr.Dataset) -> xr.Dataset:
    """The best structure and pose of each particle, as the summary of a run says it."""
    names = [labels.LOG_LIKELIHOOD_INTEGRATED, *OF_POSES]
    lazy = [
        optimal_poses(ComparisonGraph(images, one, again.settings))[names]
        for one in again.templates
    ]
    every = xr.concat(computed(lazy, again.client), labels.STRUCTURE)
    best = every[labels.LOG_LIKELIHOOD_INTEGRATED].argmax(labels.STRUCTURE)
    chosen = every[list(OF_POSES)].isel({labels.STRUCTURE: best})
    structures = np.array([one.structure for one in again.templates], object)
    summary: xr.Dataset = chosen.assign_coords(
        {
            labels.IMAGE: images.image_in_stack,
            labels.STACK: (labels.IMAGE, images.stack),
            labels.IMAGE_IN_STACK: (labels.IMAGE, images.image_in_stack),
            BEST_STRUCTURE: (labels.IMAGE, structures[best.values]),
        }
    ).assign_attrs(of_run.attrs)
    return summary
