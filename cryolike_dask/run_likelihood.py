"""From input files to written outputs: open, compute, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xarray as xr
from distributed import Client

from cryolike_dask.compute.device import active_client
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.search_method import AskedSearch
from cryolike_dask.io.layout import LikelihoodFiles, Templates, covering
from cryolike_dask.labels import BFactorWord, Device, NoiseWord, OnError, Precision
from cryolike_dask.likelihoods.settings import Settings, Tiling
from cryolike_dask.runs.kinds import FULL_CROSS_CORRELATION, OPTIMAL_POSE
from cryolike_dask.runs.options import NoiseRequest, RunOptions
from cryolike_dask.runs.run import Displacer, open_run
from cryolike_dask.runs.writing import compute_run
from cryolike_dask.stacks import ImageStack, TemplateStack


def configure_likelihood_files(
    folder_templates: str | Path | None,
    folder_particles: str | Path | None,
    folder_output: str | Path,
    n_stacks: int | None = None,
    i_template: Templates = 0,
) -> LikelihoodFiles:
    """Say where a run reads and writes. Nothing is read or created yet.

    Parameters
    ----------
    folder_templates : path or None
        Holds `template_file_list.npy`. None for a run that is given its templates, as
        `open_structures` gives them.
    folder_particles : path or None
        Holds `fft/particles_fourier_stack_NNNNNN.pt` and `.npz`. None for a run that is given its
        images, as `open_particles` gives them.
    folder_output : path
    n_stacks : int, optional
        Image stacks 0 to n_stacks - 1; None: all that are there.
    i_template : int, sequence of int, or "all"
        Entries of the list of templates, or of the templates given, one structure each.
    """
    return LikelihoodFiles(folder_templates, folder_particles, folder_output, n_stacks, i_template)  # type: ignore[arg-type]


def configure_displacement(
    max_displacement_pixels: float,
    n_displacements_x: int | None = None,
    n_displacements_y: int | None = None,
    *,
    displacement_step_pixels: float | None = None,
) -> DisplacementSearch:
    """Make the search over in-plane displacements.

    Parameters
    ----------
    max_displacement_pixels : float
        Largest displacement along each axis, pixels.
    n_displacements_x, n_displacements_y : int, optional
        Displacements along each axis, ends included. Where one is even, (0, 0) is appended.
    displacement_step_pixels : float, optional
        Instead of these: from one displacement to the next along both axes, pixels; where that does
        not divide the way from end to end, as nearly so as can be.

    Returns
    -------
    DisplacementSearch
        Call it on a TemplateStack to apply it; `.grid(pixel_size_angstrom)` gives the displacements
        alone.

    Raises
    ------
    InputError
        If a value cannot be used; or unless either both numbers or the step are given.
    """
    step, numbers = displacement_step_pixels, (n_displacements_x, n_displacements_y)
    if step is not None and numbers == (None, None):
        return DisplacementSearch.in_steps(max_displacement_pixels, step)
    if step is None and n_displacements_x is not None and n_displacements_y is not None:
        return DisplacementSearch(max_displacement_pixels, n_displacements_x, n_displacements_y)
    raise InputError(
        f"displacement_step_pixels={step}, n_displacements_x={n_displacements_x}, "
        f"n_displacements_y={n_displacements_y}",
        remedy="Give the step, or both numbers.",
    )


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
    noise: NoiseWord | str | Path | NoiseModel | None = None,
    b_factor: BFactorWord | float | None = None,
    degrees_of_freedom: float | None = None,
    search: AskedSearch | None = None,
    pose_posteriors: bool = False,
    progress: bool = True,
    on_error: OnError = "stop",
    log_file: str | Path | None = None,
    performance_report: str | Path | None = None,
    note: str | None = None,
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
        Leave stacks alone whose complete results came from these very inputs, search, parameters,
        conventions and noise model.
    n_templates_per_batch, n_images_per_batch : int, optional
        Tiles inside a task. They change no result beyond rounding; None lets the kernel choose.
    discover_batch_size : bool
        Choose tiles by the device and its free memory instead of taking the batch sizes.
    images : ImageStack, optional
        Images instead of those of the files, as `open_particles` gives them; each chunk is a stack.
    templates : TemplateStack or several, optional
        Structures instead of those of the files, as `open_structures` gives them; `i_template`
        counts them.
    overwrite : bool
        Replace results of another search, parameters, conventions or noise model in the output
        folder; without `skip_exist`, the noise model too.
    client : distributed.Client, optional
        Where to run; default: the current client, or else the threaded scheduler of this process.
    device : "auto" | "cpu" | "cuda"
    precision : "default" | "single" | "double"
        "default" is that of the template file.
    tolerance : float, optional
        Of compression, as in `compute_optimal_pose`.
    conventions : "standard" | "cryolike"
    noise : "estimate" | "white" | path | NoiseModel, optional
        Of all results of the output folder, which keeps it in `noise.npz`: estimated from the
        images, with all structures of the inputs; white; or as a file says (`read_noise`) or a
        model.
        Default: in a new folder "estimate", or "white" for CryoLike's image stacks and conventions;
        in one that holds results, as these are. A model that the folder keeps is not estimated
        again.
    b_factor : "fit" | "auto" | "none" | float, optional
        B-factor that is added to those of optics and noise model, angstrom^2. "fit": one for each
        optics group, fitted where noise is estimated; "auto": the same in a new folder where noise
        is estimated, else as the results that are there; default: none, or as these.
    degrees_of_freedom : float, optional
        Of the noise of an image, in place of what the noise model says.
    search : "exhaustive" | "adaptive" | "recorded" | "auto" | Adaptive | Around, optional
        How poses are searched, of all results of the output folder, as in `compute_optimal_pose`.
        "auto": in a new folder "adaptive", or "exhaustive" where the band is too narrow for it and
        with CryoLike's conventions; in one that holds results, as these are. Default: in a new
        folder "exhaustive"; in one that holds results, as these are.
    pose_posteriors : bool
        Write how the posterior of each image is spread over poses, as `compute_optimal_pose` says,
        but for the best poses beside the best. Complete results without it are computed again.
    progress : bool
        Show a bar on a terminal or in a notebook, elsewhere a line of the log now and then.
    on_error : "stop" | "quarantine"
        Stop at the first image stack that fails; or go on, and raise one error at the end that
        lists those that failed.
    log_file : path, optional
        Append what happens to this file, one JSON object a line.
    performance_report : path, optional
        Write Dask's report to this file, for a browser; needs a client.
    note : str, optional
        Keep this text in the records of results that are computed, from where `open_results` and
        the report have it.

    Returns
    -------
    xarray.Dataset
        What was written, lazily read back: the variables of `compute_optimal_pose`, dims (image),
        or (structure, image) if a list of structures or "all" is asked for.

    Raises
    ------
    InputError, InputFileError, GridMismatchError
        If inputs are missing, damaged, or do not belong together; before anything is written.
    OutputError
        If the output folder holds results of another run, or cannot be written.
    FailedPiecesError
        If stacks failed and `on_error` is "quarantine".
    ClusterError
        If the scheduler is lost, or workers keep dying.
    """
    client = active_client(client)
    options = RunOptions(
        skip_exist, overwrite, on_error, progress, log_file, performance_report, note
    )
    run = open_run(
        covering(file_config, i_template, n_stacks),
        params_input,
        displacer,
        Settings(conventions, device, precision, tolerance, pose_posteriors=pose_posteriors),
        images,
        templates,
        NoiseRequest(noise, b_factor, degrees_of_freedom),
        search,
    )
    tiling = Tiling(n_images_per_batch, n_templates_per_batch, discover_batch_size)
    return compute_run(run.in_batches(tiling), OPTIMAL_POSE, client, options)


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
    noise: NoiseWord | str | Path | NoiseModel | None = None,
    b_factor: BFactorWord | float | None = None,
    degrees_of_freedom: float | None = None,
    search: AskedSearch | None = None,
    pose_posteriors: bool = False,
    progress: bool = True,
    on_error: OnError = "stop",
    log_file: str | Path | None = None,
    performance_report: str | Path | None = None,
    note: str | None = None,
) -> xr.Dataset:
    """Correlate every image with every template at every displacement and rotation, and write all
    of it.

    Parameters are those of `run_likelihood_optimal_pose`; `search="adaptive"`, which leaves out
    poses, is refused, and so is `pose_posteriors`. What takes more memory than a worker has (2.5
    times its size, while it is written) goes to a Zarr store instead of a `.pt` file, block by
    block; its chunks are as large as the batches, and `xarray.open_zarr` opens it.

    Returns
    -------
    xarray.Dataset
        What was written, lazily read back: cross_correlation, dims (image, template, displacement,
        rotation).

    Raises
    ------
    CannotFitError
        If a block does not fit in memory, or the result on the disk, with its size; before anything
        is written. `compute_cross_correlation_complete` reduces it lazily instead.
    InputError, InputFileError, GridMismatchError, OutputError, FailedPiecesError, ClusterError
        As for `run_likelihood_optimal_pose`.
    """
    client = active_client(client)
    options = RunOptions(
        skip_exist, overwrite, on_error, progress, log_file, performance_report, note
    )
    run = open_run(
        covering(file_config, i_template, n_stacks),
        params_input,
        displacer,
        Settings(conventions, device, precision, tolerance, pose_posteriors=pose_posteriors),
        images,
        templates,
        NoiseRequest(noise, b_factor, degrees_of_freedom),
        search,
    )
    tiling = Tiling(n_images_per_batch, n_templates_per_batch, discover_batch_size)
    return compute_run(
        run.in_batches(tiling), FULL_CROSS_CORRELATION, active_client(client), options
    )
