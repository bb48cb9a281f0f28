"""Will data tell? What particles simulated for a run say of confusion, of information, and of how
many particles are needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from distributed import Client

from cryolike_dask import labels
from cryolike_dask.analysis.calibration import Regression, regress
from cryolike_dask.analysis.calibration_light import is_off
from cryolike_dask.analysis.populations.design import KnownImages, design_of
from cryolike_dask.analysis.populations.priors import OfEach, one_of_each
from cryolike_dask.analysis.populations.written import write_store
from cryolike_dask.compute.device import active_client
from cryolike_dask.errors import InputError, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.export_names import DESIGN_STORE
from cryolike_dask.labels import Device
from cryolike_dask.simulation.again import simulate_for
from cryolike_dask.simulation.calibrate import results_to_try
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.trajectories.trajectory import Trajectory
from cryolike_dask.version import __version__

logger = logging.getLogger("cryolike_dask")


def design(
    results: str | Path | xr.Dataset,
    *,
    shares: OfEach | None = None,
    error: float = 0.01,
    n_particles: int | None = None,
    templates: str | Path | Trajectory | TemplateStack | Sequence[TemplateStack] | None = None,
    particles: str | Path | ImageStack | Sequence[ImageStack] | None = None,
    parameters: str | Path | ImageParameters | None = None,
    n_images: int = 400,
    seed: int = 0,
    device: Device = "auto",
    client: Client | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Say beforehand what more particles like those of a run will tell of its structures.

    Particles of every structure are simulated for the run as for `calibrate`, with its optics,
    noise and poses and as strong a signal, and compared with all structures as it did its images.
    What each is taken for says how structures are confused, how much an image tells, and how well
    the shares of structures will be known from so many particles.

    Parameters
    ----------
    results : path or xarray.Dataset
        The output folder of a run under two structures or more, or what `open_results` gives. A
        run of a few hundred images is enough: they say how strong the signal is.
    shares : one for each structure, optional
        Shares that structures are supposed to have among the particles, above 0, in any unit; a
        mapping goes by names. Default: all the same.
    error : float
        Standard error of a share that is to be reached, such as 0.01.
    n_particles : int, optional
        Particles of the data set that is planned, for `group`; default: the images of the run.
    templates, particles, parameters, device, client, progress
        As for `calibrate`.
    n_images : int
        Particles to simulate, as many of each structure; ten of each or more.
    seed : int
        Same seed, same particles.

    Returns
    -------
    xarray.Dataset
        In memory; `write_design` writes it. Shares and probabilities are between 0 and 1, and
        errors standard errors, of the number of simulated particles.

        (structure): `share` and `n_simulated`; `particles_needed` and its error, the particles of
        which the share of the structure has the standard error `error`, infinite where a billion
        are not enough; `group`, the same number for structures that `n_particles` particles do
        not tell apart, as `populations` would say of them.

        (structure, structure_other), images that show the one, and are taken for the other:
        `confusion`, mean probability; `confusion_best`, part of which it is the most probable;
        with `confusion_error` and `confusion_best_error`.

        (n_particles, structure): `population_sd`, the standard error of the share of so many, at
        most 0.5.

        (): `mutual_information`, bit an image, with its error and `mutual_information_bound`, the
        entropy of the shares; `particles_needed_worst` and its error, for all structures.

        The same of groups in place of structures, (structure_group, structure_group_other):
        `group_confusion`, `group_confusion_best`, `group_mutual_information`,
        `group_mutual_information_bound`, `group_particles_needed`.

        Attributes: `error`, `n_particles`, `n_images`, `seed`, `slope` and `slope_error` (as
        `calibrate` has them), `folder`, `results` (checksum of the settings of the run), `version`.

    Raises
    ------
    InputError, InputFileError, OutputError
        As for `calibrate`; and if shares do not fit the structures, or a number cannot be meant.

    Notes
    -----
    Errors of shares are those of largest likelihood by its curvature (Fisher), where each image
    shows one of the structures and likelihoods are right. A warning says where probabilities do
    not keep what they promise. Mutual information is the mean of how much more probable the true
    structure is by the image than by its share: at most what an image could tell, less where
    probabilities are wrong, and below 0 where the shares alone would tell more.
    """
    client = active_client(client)
    opened = results_to_design(
        results,
        n_images,
        shares=shares,
        error=error,
        n_particles=n_particles,
        templates=templates is not None,
        particles=particles is not None,
    )
    names = [str(name) for name in opened[labels.STRUCTURE].values]
    planned = opened.sizes[labels.IMAGE] if n_particles is None else n_particles
    tried = simulate_for(
        opened,
        (templates, particles, parameters),
        n_images,
        seed,
        device=device,
        client=client,
        progress=progress,
        as_many_of_each=True,
    )
    share = np.ones(len(names)) if shares is None else one_of_each("shares", shares, names)
    known = KnownImages(tried.outcome.log_likelihood.T, tried.drawn.which, share / share.sum())
    fitted = regress(tried.outcome.log_likelihood, tried.drawn.which)
    _warn_if_wrong(fitted)
    structures = np.array(names, object)
    return (
        design_of(known, float(error), int(planned), seed)
        .assign_coords(
            {labels.STRUCTURE: structures, labels.STRUCTURE_OTHER: structures},
        )
        .assign_attrs(
            error=float(error),
            n_particles=int(planned),
            n_images=int(n_images),
            seed=int(seed),
            slope=fitted.slope,
            slope_error=fitted.slope_error,
            folder=str(opened.attrs["folder"]),
            results=tried.told.checksum,
            version=__version__,
        )
    )


def results_to_design(
    results: str | Path | xr.Dataset,
    n_images: int,
    *,
    shares: OfEach | None,
    error: float,
    n_particles: int | None,
    templates: bool,
    particles: bool,
) -> xr.Dataset:
    """Open results, and refuse what `design` refuses, as far as that can be known before anything
    is computed; parameters and errors are those of `design` and `results_to_try`."""
    if not number("error", error, above=0) < 1:
        raise InputError(f"error={error!r} is no error of a share: shares are between 0 and 1")
    if n_particles is not None:
        number("n_particles", n_particles, whole=True, at_least=1)
    opened = results_to_try(results, n_images, templates=templates, particles=particles)
    if shares is not None:
        one_of_each("shares", shares, [str(name) for name in opened[labels.STRUCTURE].values])
    return opened


def _warn_if_wrong(fitted: Regression) -> None:
    """What is said of particles that are needed holds if probabilities keep what they promise."""
    if is_off(fitted.slope, fitted.slope_error):
        logger.warning(
            "probabilities are too %s (slope %.2f ± %.2f, where 1 is right): shares will be off by "
            "more than is said, and no number of particles mends that. Search finer, first of all",
            "sure" if fitted.slope < 1 else "unsure",
            fitted.slope,
            fitted.slope_error,
        )


def write_design(design: xr.Dataset, folder_output: str | Path) -> Path:
    """Write what a design says, as a Zarr store.

    Parameters
    ----------
    design : xarray.Dataset
        As `design` gives it.
    folder_output : path
        Gets `design/design.zarr`, which `xarray.open_zarr` opens; that of before is replaced.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    OutputError
        If the folder or the disk does not take it.
    """
    store = Path(folder_output) / DESIGN_STORE
    write_store(design, store)
    return store
