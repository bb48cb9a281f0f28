"""Particle sets into image stacks in files: one task per stack."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from distributed import Client

from cryolike_dask.compute.block_reports import Teller
from cryolike_dask.compute.device import active_client
from cryolike_dask.compute.stream import WorkItem, stream, task
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputError, OutputError, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.archives import read_archive
from cryolike_dask.io.jobs import Job, job_states, why_not_done, withdraw_record, write_record
from cryolike_dask.io.layout import (
    image_stack_file,
    image_stack_numbers,
    image_stack_record,
    metadata_file,
    pixel_stack_file,
)
from cryolike_dask.io.noise_entries import PIXEL_VARIANCE, entries_of_rings
from cryolike_dask.io.output_folder import OutputFolder
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.records import readable_record
from cryolike_dask.io.stacks import STACK_OPTIONAL, write_image_stack
from cryolike_dask.io.tensors import save_tensor
from cryolike_dask.labels import Downsampling
from cryolike_dask.particles.images import AT_ONCE, ParticleImages
from cryolike_dask.particles.opening import PathOrPaths, open_particles
from cryolike_dask.particles.provenance import provenance
from cryolike_dask.particles.transform import scaled
from cryolike_dask.particles.variance import sum_of_squares
from cryolike_dask.stacks import ImageStack, note_left_out
from cryolike_dask.version import __version__

KIND = "image-stacks"


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

    Writes `fft/particles_fourier_stack_NNNNNN.pt` and `.npz`, and
    `phys/particles_phys_stack_NNNNNN.pt`, in the order of the metadata. The `.npz` says of every
    image which file, image and row it is, and its recorded pose.

    Other parameters are those of `open_particles`.

    Parameters
    ----------
    folder_output : path
    n_stacks_max : int, optional
        Convert the first stacks only.
    write_pixels : bool
        Write `phys/` too: the pixels that were transformed, for looking at.
    skip_exist : bool
        Leave stacks alone that are complete and came from these very inputs and settings; otherwise
        they are replaced.
    overwrite : bool
        Replace stacks of other particles or settings in the output folder.
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
        If the output folder holds stacks of other particles or settings, or another call writes
        there.
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
    wanted = (
        len(jobs)
        if n_stacks_max is None
        else number("n_stacks_max", n_stacks_max, whole=True, at_least=1)
    )
    n = min(wanted, len(jobs))
    note_left_out(n, len(jobs), sum(map(len, stacks[:n])), len(particles))

    def jobs_to_do() -> list[tuple[ImageStack, Job]]:
        states = job_states(
            zip(stacks[:n], jobs[:n], strict=True),
            skip_exist=skip_exist,
            becomes="converted",
            done="stacks are complete",
        )
        return [(stack, job) for stack, job, is_done in states if not is_done]

    outputs = _output_folder(output, jobs, n)
    with outputs.claimed(jobs_to_do, skip_exist=skip_exist, overwrite=overwrite) as claim:
        if claim is not None:
            items = [
                _item(stack, parameters, replace(job, claim=claim)) for stack, job in jobs_to_do()
            ]
            n_images = sum(item.n_images for item in items)
            stream(items, client, n_images=n_images, progress=progress, title="images")
    return [job.outputs["images"] for job in jobs[:n]]


def _item(stack: ImageStack, parameters: ImageParameters, job: Job) -> WorkItem:
    build = partial(task, f"convert-{job.name}", _convert, stack, parameters, job)
    return WorkItem(job.name, len(stack), build, job.name)


def _job(
    stack: ImageStack, k: int, folder: Path, conventions: ConventionsName, write_pixels: bool
) -> Job:
    tensor = image_stack_file(folder, k)
    outputs = {"images": tensor, "metadata": metadata_file(tensor)}
    if write_pixels:
        outputs["pixels"] = pixel_stack_file(folder, k)
    return Job(
        kind="particles",
        name=f"particles-stack_{k:06d}",
        about={"i_stack": k},
        outputs=outputs,
        shape=stack.source.shape,
        record=image_stack_record(folder, k),
        settings={"parameters": asdict(stack.grid), "conventions": conventions},
        precision="single" if stack.source.dtype == "complex64" else "double",
        inputs=stack.source.describe(np.arange(len(stack))),
    )


def _output_folder(folder: Path, jobs: list[Job], n: int) -> OutputFolder:
    """The folder of the first `n` stacks of all."""
    first = json.dumps([jobs[0].shape, jobs[0].inputs]).encode()
    return OutputFolder(
        folder,
        KIND,
        {**jobs[0].settings, "first stack": hashlib.sha256(first).hexdigest()},
        partial(_refuse_others, folder, jobs, n),
        partial(_remove_others, folder, jobs, n),
    )


def _remove_others(folder: Path, jobs: list[Job], n: int) -> None:
    """Remove what another call left and this one does not write."""
    beyond = _beyond(folder, jobs, n)
    for k in image_stack_numbers(folder):
        tensor = image_stack_file(folder, k)
        stale = [image_stack_record(folder, k), pixel_stack_file(folder, k)]
        for path in [*stale, tensor, metadata_file(tensor)] if k in beyond else stale:
            path.unlink(missing_ok=True)


def _refuse_others(folder: Path, jobs: list[Job], n: int) -> None:
    """Refuse to mix with, or to replace, stacks of other particles or settings."""
    numbers = image_stack_numbers(folder)
    if numbers and (_beyond(folder, jobs, n) or not _are_ours(folder, numbers, jobs[0])):
        raise OutputError(
            f"holds image stacks of other particles or settings already ({len(numbers)}, the last "
            f"is number {numbers[-1]})",
            source=folder,
            remedy="Choose another output folder, or pass overwrite=True (--overwrite) to replace "
            "them.",
        )


def _beyond(folder: Path, jobs: list[Job], n: int) -> list[int]:
    """Stacks that this call does not write, and that are none of its own."""
    numbers = image_stack_numbers(folder)
    return [k for k in numbers if k >= n and (k >= len(jobs) or why_not_done(jobs[k]) is not None)]


def _are_ours(folder: Path, numbers: list[int], job: Job) -> bool:
    """Whether the stacks in a folder are of these particles and settings, or of a call that was
    stopped early."""
    records = [
        record
        for k in numbers
        if (record := readable_record(image_stack_record(folder, k))) is not None
    ]
    if records:
        # the metadata come first
        names = [described.get("name") for described in job.inputs if "mtime_ns" in described][:1]
        return any(
            record["settings"] == job.settings
            and [described.get("name") for described in record["inputs"]][:1] == names
            for record in records
        )
    metadata = [metadata_file(image_stack_file(folder, k)) for k in numbers]
    key, optional = "metadataFile", STACK_OPTIONAL
    return all(
        key in read_archive(path, optional=optional, keys=(key,))
        for path in metadata
        if path.is_file()
    )


def _convert(stack: ImageStack, parameters: ImageParameters, job: Job) -> int:
    """Convert one stack and write it, its record last. Images are read and transformed few at a
    time."""
    source = stack.source
    if not isinstance(source, ParticleImages):
        raise InputError(f"cannot convert {stack!r}")
    n = stack.grid.n_pixels
    values = np.empty(source.shape, source.dtype)
    kept_pixels = np.empty((len(stack), n, n), np.float32) if "pixels" in job.outputs else None
    rings = np.empty((len(stack), 2, stack.grid.n_shells))
    variance, knows_noise = np.zeros((n, n)), stack.frame == "xy"
    tell = Teller(job.name, ())
    for start in range(0, len(stack), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(stack)))
        pixels = source.pixels(rows)
        values[rows], sums = source.transform(pixels, rows)
        if knows_noise:
            rings[rows] = sums
            variance += sum_of_squares(pixels) / len(stack)
        if kept_pixels is not None:
            kept_pixels[rows] = scaled(pixels)
        tell(start + len(rows))
    withdraw_record(job)
    entries = provenance(source) | {"frame": None if stack.frame == "transposed" else stack.frame}
    if knows_noise:
        entries |= entries_of_rings(rings)
        entries[PIXEL_VARIANCE] = variance.astype(np.float32)
    if kept_pixels is not None:
        save_tensor(job.outputs["pixels"], kept_pixels)
    write_image_stack(job.outputs["images"], values, stack.optics, parameters, entries)
    write_record(job, {"version": __version__})
    return len(stack)
