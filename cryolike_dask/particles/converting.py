"""Particle sets into image stacks in files: one task per stack."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from distributed import Client

from cryolike_dask import __version__
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputError, OutputError, number
from cryolike_dask.execution import Piece, active_client, stream, task
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.archives import read_archive
from cryolike_dask.io.layout import image_stack_file, image_stack_numbers, pixel_stack_file
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.records import Job, need_folder, read_record, still_to_do, why_not_done, write_record
from cryolike_dask.io.stacks import STACK_OPTIONAL, write_image_stack
from cryolike_dask.io.tensors import save_tensor
from cryolike_dask.likelihoods.telling import Teller
from cryolike_dask.particles.images import AT_ONCE, ParticleImages
from cryolike_dask.particles.opening import PathOrPaths, open_particles
from cryolike_dask.particles.provenance import provenance
from cryolike_dask.particles.resample import Downsampling
from cryolike_dask.particles.transform import scaled
from cryolike_dask.stacks import ImageStack


def convert_particles(
    metadata: PathOrPaths,
    params_input: str | Path | ImageParameters,
    folder_output: str | Path,
    *,
    images: PathOrPaths | None = None,
    folder: str | Path | None = None,
    passthrough: str | Path | None = None,
    pixel_size_angstrom: float | None = None,
    downsample: Downsampling = "fourier",
    invert_contrast: bool = False,
    background_radius_pixels: float | None = None,
    recenter: bool = False,
    batch_size: int = 1024,
    n_stacks_max: int | None = None,
    write_pixels: bool = True,
    conventions: ConventionsName = "standard",
    skip_exist: bool = False,
    overwrite: bool = False,
    client: Client | None = None,
    progress: bool = True,
) -> list[Path]:
    """Convert a RELION or cryoSPARC particle set into image stacks in files.

    Writes `fft/particles_fourier_stack_NNNNNN.pt` and `.npz`, and `phys/particles_phys_stack_NNNNNN.pt`, in the order
    of the metadata. The `.npz` says of every image which file, image and row it is, and its recorded pose.

    Other parameters are those of `open_particles`.

    Parameters
    ----------
    folder_output : path
    n_stacks_max : int, optional
        Convert the first stacks only.
    write_pixels : bool
        Write `phys/` too: the pixels that were transformed, for looking at.
    skip_exist : bool
        Leave stacks alone that are complete and came from these very inputs and settings.
    overwrite : bool
        Replace the stacks in the output folder.
    client : distributed.Client, optional
        Where to run; default: the current client, or else the threaded scheduler of this process.
    progress : bool
        Show a bar on a terminal or in a notebook.

    Returns
    -------
    list of Path
        The stacks, in order.

    Raises
    ------
    InputError, InputFileError, GridMismatchError
        As for `open_particles`; before anything is written.
    OutputError
        If the output folder holds other stacks.
    """
    client = active_client(client)
    parameters, output = read_parameters(params_input), Path(folder_output)
    particles = open_particles(
        metadata,
        parameters,
        images=images,
        folder=folder,
        passthrough=passthrough,
        pixel_size_angstrom=pixel_size_angstrom,
        downsample=downsample,
        invert_contrast=invert_contrast,
        background_radius_pixels=background_radius_pixels,
        recenter=recenter,
        batch_size=batch_size,
        conventions=conventions,
    )
    ends = np.cumsum(particles.chunks)
    stacks = [particles[end - size : end] for end, size in zip(ends, particles.chunks, strict=True)]
    jobs = [_job(stack, k, output, conventions, write_pixels) for k, stack in enumerate(stacks)]
    wanted = len(jobs) if n_stacks_max is None else number("n_stacks_max", n_stacks_max, whole=True, at_least=1)
    n = min(wanted, len(jobs))
    _claim(output, jobs, n, keep=skip_exist, overwrite=overwrite)
    to_do = still_to_do(
        dict(enumerate(jobs[:n])), skip_exist=skip_exist, becomes="converted", done="stacks are complete"
    )
    graphs = [
        Piece(
            jobs[k].name,
            len(stacks[k]),
            partial(task, f"convert-{jobs[k].name}", _convert, stacks[k], parameters, jobs[k]),
            jobs[k].name,
        )
        for k in to_do
    ]
    stream(graphs, client, n_images=sum(p.n_images for p in graphs), progress=progress, title="images")
    return [job.outputs["images"] for job in jobs[:n]]


def _job(stack: ImageStack, k: int, folder: Path, conventions: str, write_pixels: bool) -> Job:
    tensor = image_stack_file(folder, k)
    outputs = {"images": tensor, "metadata": tensor.with_suffix(".npz")}
    if write_pixels:
        outputs["pixels"] = pixel_stack_file(folder, k)
    return Job(
        kind="particles",
        name=f"particles-stack_{k:06d}",
        about={"i_stack": k},
        outputs=outputs,
        shape=stack.source.shape,
        record=_record(folder, k),
        settings={"parameters": asdict(stack.grid), "conventions": conventions},
        precision="single" if stack.source.dtype == "complex64" else "double",
        inputs=stack.source.describe(np.arange(len(stack))),
    )


def _record(folder: Path, k: int) -> Path:
    return folder / "done" / f"stack_{k:06d}.json"


def _claim(folder: Path, jobs: list[Job], n: int, *, keep: bool, overwrite: bool) -> None:
    """Refuse to mix with, or to replace, the stacks of another call; with `overwrite`, remove what it leaves behind."""
    need_folder(folder)
    there = image_stack_numbers(folder)
    beyond = [k for k in there if k >= n and (not keep or k >= len(jobs) or why_not_done(jobs[k]) is not None)]
    if overwrite:
        for k in there:
            tensor = image_stack_file(folder, k)
            stale = [_record(folder, k), pixel_stack_file(folder, k)]
            for path in [*stale, tensor, tensor.with_suffix(".npz")] if k in beyond else stale:
                path.unlink(missing_ok=True)
    elif there and (not keep or beyond or not _are_ours(folder, there, jobs[0])):
        raise OutputError(
            f"holds image stacks already ({len(there)}, the last is number {there[-1]})",
            source=folder,
            remedy="Choose another output folder, pass skip_exist=True (--skip-exist) to go on with the same particles "
            "and settings, or overwrite=True (--overwrite) to replace them.",
        )


def _are_ours(folder: Path, there: list[int], job: Job) -> bool:
    """Whether the stacks in a folder are of these particles and settings, or of a call that was stopped early."""
    records = [record for k in there if (record := read_record(_record(folder, k))) is not None]
    if records:
        names = [one.get("name") for one in job.inputs if "mtime_ns" in one][:1]  # the metadata come first
        return any(
            record.get("settings") == job.settings
            and [one.get("name") for one in record.get("inputs", [])][:1] == names
            for record in records
        )
    metadata = [image_stack_file(folder, k).with_suffix(".npz") for k in there]
    return all("metadataFile" in read_archive(path, optional=STACK_OPTIONAL) for path in metadata if path.is_file())


def _convert(stack: ImageStack, parameters: ImageParameters, job: Job) -> int:
    """Convert one stack and write it, its record last. Images are read and transformed few at a time."""
    source = stack.source
    if not isinstance(source, ParticleImages):
        raise InputError(f"cannot convert {stack!r}")
    n = stack.grid.n_pixels
    values = np.empty(source.shape, source.dtype)
    kept = np.empty((len(stack), n, n), np.float32) if "pixels" in job.outputs else None
    tell = Teller(job.name, ())
    for start in range(0, len(stack), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(stack)))
        pixels = source.pixels(rows)
        values[rows] = source.transform(pixels, rows)
        if kept is not None:
            kept[rows] = scaled(pixels)
        tell(start + len(rows))
    job.record.unlink(missing_ok=True)
    entries = provenance(source) | {"frame": None if stack.frame == "transposed" else stack.frame}
    if kept is not None:
        save_tensor(job.outputs["pixels"], kept)
    write_image_stack(job.outputs["images"], values, stack.optics, parameters, entries)
    write_record(job, {"version": __version__})
    return len(stack)
