"""From input files to written outputs: open, compute, write."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.delayed import Delayed
from distributed import Client

from cryolike_dask import __version__, labels
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.execution import active_client, count_workers, stream, task
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.layout import FULL_CORRELATION_FILES, OPTIMAL_POSE_FILES, LikelihoodFiles, Templates
from cryolike_dask.io.records import Job, claim_folder, need_folder, still_to_do
from cryolike_dask.io.results import open_full_cross_correlation, open_optimal_pose, write_results
from cryolike_dask.io.tensors import load_displacements, save_tensor
from cryolike_dask.likelihoods.interface import (
    Device,
    Precision,
    compute_cross_correlation_complete,
    compute_optimal_pose,
)
from cryolike_dask.likelihoods.pairs import spread_templates
from cryolike_dask.likelihoods.tiles import real_dtype
from cryolike_dask.plans import Displacer, Run, open_run, refuse_what_cannot_fit
from cryolike_dask.stacks import ImageStack, TemplateStack

TASKS_PER_WORKER = 4
"""Blocks per worker that a run is cut into when there are fewer stacks than that."""


def configure_likelihood_files(
    folder_templates: str | Path | None,
    folder_particles: str | Path | None,
    folder_output: str | Path,
    *,
    n_stacks: int | None = None,
    i_template: Templates = 0,
) -> LikelihoodFiles:
    """Say where a run reads and writes. Nothing is read or created yet.

    Parameters
    ----------
    folder_templates : path or None
        Holds `template_file_list.npy`. None for a run that is given its templates, as `open_structures` gives them.
    folder_particles : path or None
        Holds `fft/particles_fourier_stack_NNNNNN.pt` and `.npz`. None for a run that is given its images, as
        `open_particles` gives them.
    folder_output : path
    n_stacks : int, optional
        Image stacks 0 to n_stacks - 1; None: all that are there.
    i_template : int, sequence of int, or "all"
        Entries of the list of templates, or of the templates given, one structure each.
    """
    return LikelihoodFiles(folder_templates, folder_particles, folder_output, n_stacks, i_template)  # type: ignore[arg-type]


def configure_displacement(
    max_displacement_pixels: float, n_displacements_x: int, n_displacements_y: int
) -> DisplacementSearch:
    """Make the search over in-plane displacements.

    Parameters
    ----------
    max_displacement_pixels : float
        Largest displacement along each axis, pixels.
    n_displacements_x, n_displacements_y : int
        Displacements along each axis, ends included. Where one is even, (0, 0) is appended.

    Returns
    -------
    DisplacementSearch
        Call it on a TemplateStack to apply it; `.grid(pixel_size_angstrom)` gives the displacements alone.
    """
    return DisplacementSearch(max_displacement_pixels, n_displacements_x, n_displacements_y)


def run_likelihood_optimal_pose(
    file_config: LikelihoodFiles,
    params_input: str | Path | ImageParameters,
    displacer: Displacer,
    i_template: Templates | None = None,
    n_stacks: int | None = None,
    skip_exist: bool = False,
    n_templates_per_batch: int | None = None,
    n_images_per_batch: int | None = None,
    discover_batch_size: bool = False,
    *,
    images: ImageStack | None = None,
    templates: TemplateStack | Sequence[TemplateStack] | None = None,
    overwrite: bool = False,
    client: Client | None = None,
    device: Device = "auto",
    precision: Precision = "default",
    tolerance: float | None = None,
    conventions: ConventionsName = "standard",
    progress: bool = True,
) -> xr.Dataset:
    """Find the best pose and the likelihoods of every image, and write them.

    Parameters
    ----------
    file_config : LikelihoodFiles
        As `configure_likelihood_files` gives it.
    params_input : path or ImageParameters
        `parameters.npz`, or its content.
    displacer : callable
        Gives templates their displacements, as `configure_displacement` makes it.
    i_template, n_stacks : optional
        Override the configured ones, for reading and writing alike.
    skip_exist : bool
        Leave stacks alone whose complete results came from these very inputs, search, parameters and conventions.
    n_templates_per_batch, n_images_per_batch : int, optional
        Tiles inside a task. Never change a result; None lets the kernel choose.
    discover_batch_size : bool
        Choose tiles by the device and its free memory instead of taking the batch sizes.
    images : ImageStack, optional
        Images instead of those of the files, as `open_particles` gives them; each chunk is a stack.
    templates : TemplateStack or several, optional
        Structures instead of those of the files, as `open_structures` gives them; `i_template` counts them.
    overwrite : bool
        Replace results of another search, parameters or conventions in the output folder.
    client : distributed.Client, optional
        Where to run; default: the current client, or else the threaded scheduler of this process.
    device : "auto" | "cpu" | "cuda"
    precision : "default" | "single" | "double"
        "default" is that of the template file.
    tolerance : float, optional
        Of compression, as in `compute_optimal_pose`.
    conventions : "standard" | "cryolike"
    progress : bool
        Show a bar on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        What was written, lazily read back: the variables of `compute_optimal_pose`, dims (image), or
        (structure, image) if a list of structures or "all" is asked for.

    Raises
    ------
    InputError, InputFileError, GridMismatchError
        If inputs are missing, damaged, or do not belong together; before anything is written.
    OutputError
        If the output folder holds results of another run.
    """
    client = active_client(client)
    run = open_run(
        file_config,
        params_input,
        displacer,
        i_template,
        n_stacks,
        conventions,
        device,
        precision,
        tolerance,
        images,
        templates,
    )
    run = run.in_batches(n_templates_per_batch, n_images_per_batch)

    def build(images: ImageStack, templates: TemplateStack) -> xr.Dataset:
        return compute_optimal_pose(images, templates, discover_batch_size=discover_batch_size, **run.options)

    jobs = {key: run.job("optimal_pose", OPTIMAL_POSE_FILES, (len(run.images[key[1]]),), *key) for key in run.keys}
    _execute(run, jobs, build, client, skip_exist, overwrite, progress)
    return open_optimal_pose(run.files)


def run_likelihood_full_cross_correlation(
    file_config: LikelihoodFiles,
    params_input: str | Path | ImageParameters,
    displacer: Displacer,
    i_template: Templates | None = None,
    n_stacks: int | None = None,
    skip_exist: bool = False,
    n_templates_per_batch: int | None = None,
    n_images_per_batch: int | None = None,
    discover_batch_size: bool = False,
    *,
    images: ImageStack | None = None,
    templates: TemplateStack | Sequence[TemplateStack] | None = None,
    overwrite: bool = False,
    client: Client | None = None,
    device: Device = "auto",
    precision: Precision = "default",
    tolerance: float | None = None,
    conventions: ConventionsName = "standard",
    progress: bool = True,
) -> xr.Dataset:
    """Correlate every image with every template at every displacement and rotation, and write all of it.

    Parameters are those of `run_likelihood_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        What was written, lazily read back: cross_correlation, dims (image, template, displacement, rotation).

    Raises
    ------
    CannotFitError
        If the result does not fit in memory or on the disk, with its size; before anything is written.
        `compute_cross_correlation_complete` reduces it lazily instead.
    InputError, InputFileError, GridMismatchError, OutputError
        As for `run_likelihood_optimal_pose`.
    """
    client = active_client(client)
    run = open_run(
        file_config,
        params_input,
        displacer,
        i_template,
        n_stacks,
        conventions,
        device,
        precision,
        tolerance,
        images,
        templates,
    )
    run = run.in_batches(n_templates_per_batch, n_images_per_batch)
    (variable,) = FULL_CORRELATION_FILES

    def build(images: ImageStack, templates: TemplateStack) -> xr.Dataset:
        full = compute_cross_correlation_complete(
            images, templates, discover_batch_size=discover_batch_size, **run.options
        )
        return full.rename({labels.CROSS_CORRELATION: variable})

    jobs = {}
    for i, k in run.keys:
        tried = run.templates[i]
        shape = (len(run.images[k]), len(tried), len(tried.displacements), tried.grid.n_inplanes)
        jobs[i, k] = run.job("full_cross_correlation", FULL_CORRELATION_FILES, shape, i, k)
    refuse_what_cannot_fit(run, jobs, client)
    _execute(run, jobs, build, client, skip_exist, overwrite, progress)
    return open_full_cross_correlation(run.files)


def _execute(
    run: Run,
    jobs: dict[tuple[int, int], Job],
    build: Callable[[ImageStack, TemplateStack], xr.Dataset],
    client: Client | None,
    skip_exist: bool,
    overwrite: bool,
    progress: bool,
) -> None:
    """Claim the output folder, leave out what is done, and stream the rest."""
    need_folder(run.files.folder_output)
    _claim_displacements(run, overwrite)
    claim_folder(run.files, run.settings, overwrite=overwrite)
    if not run.files.displacements.is_file():
        real = real_dtype(next(iter(jobs.values())).precision)
        save_tensor(run.files.displacements, run.displacements.astype(real))
    details = {"version": __version__, "device": run.options["device"]}
    n_parts = math.ceil(TASKS_PER_WORKER * count_workers(client) / len(jobs)) if client is not None else 1
    graphs = []
    for i, k in still_to_do(jobs, skip_exist=skip_exist, becomes="computed", done="stacks are done"):
        images, templates = run.images[k], run.templates[i]
        graphs.append((len(images), partial(_graph, build, images, templates, n_parts, jobs[i, k], details)))
    stream(graphs, client, progress=progress, title="images" if len(run.templates) == 1 else "images x structures")


def _graph(
    build: Callable[[ImageStack, TemplateStack], xr.Dataset],
    images: ImageStack,
    templates: TemplateStack,
    n_parts: int,
    job: Job,
    details: dict[str, Any],
) -> Delayed:
    """The graph of one stack under one structure, its last task writing the files."""
    dataset = build(images, spread_templates(images, templates, n_parts))
    whole = {name: variable.data.rechunk(-1) for name, variable in dataset.data_vars.items()}
    values = {name: array.to_delayed(optimize_graph=False).item() for name, array in whole.items()}
    return task(f"write-{job.kind.replace('_', '-')}-{job.name}", write_results, values, job, details)


def _claim_displacements(run: Run, overwrite: bool) -> None:
    """Refuse a folder whose displacements are others; with `overwrite`, remove them."""
    path = run.files.displacements
    if not path.is_file():
        return
    try:
        there = load_displacements(path)
        same = there.shape == run.displacements.shape and bool(np.abs(there - run.displacements).max() < 1e-3)
        what = f"holds results of another search: {there.shape[1]} displacements up to {np.abs(there).max():g} angstrom"
    except InputFileError as error:
        same, what = False, str(error)
    if same:
        return
    if not overwrite:
        ours = f"{run.displacements.shape[1]} up to {np.abs(run.displacements).max():g} angstrom"
        raise OutputError(
            f"{what}; this run has {ours}",
            source=run.files.folder_output,
            remedy="Choose another output folder, or pass overwrite=True (--overwrite) to replace those results.",
        )
    path.unlink()
