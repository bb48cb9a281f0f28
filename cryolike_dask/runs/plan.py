"""The cost of a run, found out beforehand: its tasks, bytes and memory, and its time from a block
that is computed.

Stacks that cost the same are counted, not listed: the plan of a million images under a thousand
structures is as small as that of two.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from distributed import Client

from cryolike_dask.compute.device import active_client, count_workers, device_of_workers, real_dtype
from cryolike_dask.compute.gpu_rates import GpuRates, gpu_named
from cryolike_dask.compute.local import memory_of_a_worker
from cryolike_dask.compute.progress import progress_bar
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import CannotFitError, counted, number
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.search_method import AskedSearch
from cryolike_dask.io.layout import LikelihoodFiles, Templates, covering
from cryolike_dask.io.sources import innermost
from cryolike_dask.labels import BFactorWord, Device, KindName, NoiseWord, Precision
from cryolike_dask.likelihoods.graph import image_rows, template_rows
from cryolike_dask.likelihoods.settings import Settings, Tiling
from cryolike_dask.particles.images import REMEMBERED_BYTES, ParticleImages
from cryolike_dask.runs.capacity import (
    BLOCK_COPIES,
    existing,
    refuse_what_cannot_fit,
)
from cryolike_dask.runs.comparing import (
    Comparing,
    comparing_everything,
    searching,
    seconds_per_pair,
)
from cryolike_dask.runs.cost import LikelihoodPlan, size_of
from cryolike_dask.runs.folder import output_folder, settled
from cryolike_dask.runs.kinds import Kind, kind_named
from cryolike_dask.runs.noise_cost import NoiseWork, work_of_noise
from cryolike_dask.runs.noise_of_run import noise_said, with_known_noise
from cryolike_dask.runs.on_paper import try_on_paper
from cryolike_dask.runs.options import NoiseRequest
from cryolike_dask.runs.run import FULL_CORRELATION_COPIES, Displacer, Run, open_run
from cryolike_dask.runs.search_trial import (
    SearchTrial,
    mean_trial,
    some_images,
    try_search,
    worth_a_trial,
)
from cryolike_dask.runs.sizes import (
    Group,
    described_bytes,
    find_done,
    group_jobs,
    read_bytes,
    written_bytes,
)
from cryolike_dask.runs.trial import Trial, try_block
from cryolike_dask.stacks import ImageStack, TemplateStack

Tried = TypeVar("Tried")

PROCESS_BYTES = {"cpu": 750_000_000, "cuda": 3_000_000_000}
"""Memory of a process besides its block: Python, torch, compiled loops, and memory that is kept
from one block to the next. On a CPU the sum is within a third of what small runs take
(benchmarks/planning.py); with a GPU it is a guess."""
JOB_SECONDS = 0.1
"""Time of one stack under one structure besides its blocks: its graph, its files, its record."""
WRITTEN_BYTES_PER_SECOND = 1e8
"""Rate at which results are put together, written, and read again for their checksums."""
UNCERTAINTY = 1.3
"""A run takes the time of its plan but for this factor, on a machine with nothing else to do
(benchmarks/planning)."""


def plan_likelihood(
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
    kind: KindName = "optimal_pose",
    images: ImageStack | None = None,
    templates: TemplateStack | Sequence[TemplateStack] | None = None,
    overwrite: bool = False,
    client: Client | None = None,
    n_workers: int | None = None,
    gpu: str | None = None,
    device: Device = "auto",
    precision: Precision = "default",
    tolerance: float | None = None,
    conventions: ConventionsName = "standard",
    noise: NoiseWord | str | Path | NoiseModel | None = None,
    b_factor: BFactorWord | float | None = None,
    degrees_of_freedom: float | None = None,
    search: AskedSearch | None = None,
    pose_posteriors: bool = False,
    measure: bool = True,
    progress: bool = True,
) -> LikelihoodPlan:
    """Say what a run will cost; nothing is written. A block of its first stack and structure is
    computed and timed; of an adaptive search some images, evenly spread over the run, are searched
    under the first structure.

    The other parameters are those of `run_likelihood_optimal_pose`.

    Parameters
    ----------
    kind : "optimal_pose" | "full_cross_correlation"
        Of the run.
    n_workers : int, optional
        Plan for so many workers on this machine, as `local_cluster` starts them; 0: for this
        process alone. Default: the workers of the client, or else this process alone.
    gpu : str, optional
        Plan for workers that have this GPU each, such as "H100" or "RTX 4090", whether there is one
        here or not: time is an estimate by the rates that its maker states, of a search of every
        pose, and reading as on this machine with one thread.
    measure : bool
        False leaves the time out, and computes nothing.

    Returns
    -------
    LikelihoodPlan
        Print it, or its `line()`.

    Raises
    ------
    CannotFitError
        If results do not fit on the disk, or one image and one template not into memory; says what
        would fit.
    InputError, InputFileError, GridMismatchError, OutputError
        As the run would.
    """
    chosen, rates = kind_named(kind), None if gpu is None else gpu_named(gpu)
    client = active_client(client) if n_workers is None and rates is None else None
    n = (
        count_workers(client)
        if client is not None
        else number("n_workers", n_workers or 0, whole=True, at_least=0)
    )
    files = covering(file_config, i_template, n_stacks)
    settings = Settings(conventions, device, precision, tolerance, pose_posteriors=pose_posteriors)
    tiling = Tiling(n_images_per_batch, n_templates_per_batch, discover_batch_size)
    asked = NoiseRequest(noise, b_factor, degrees_of_freedom)
    run = open_run(files, params_input, displacer, settings, images, templates, asked, search)
    run = run.in_batches(tiling).in_memory(memory_of_a_worker(client, n))
    starts_anew = overwrite and not skip_exist
    run = settled(run, chosen, starts_anew=starts_anew)
    run.note_left_out()
    if not overwrite:
        output_folder(run).refuse()
    if not starts_anew:
        run = with_known_noise(run)
    done = find_done(run, chosen) if skip_exist else []
    tries = (
        measure
        and rates is None
        and len(done) < len(run.images) * len(run.templates)
        and worth_a_trial(run, chosen)
    )
    where = "cuda" if rates else device_of_workers(client, device)
    with progress_bar(3 + tries, "steps of the plan", shown=progress) as show:
        groups = group_jobs(run, chosen, done, run.cut(n, where))
        show(1)
        noise_work = work_of_noise(run)
        of_everything = measure and not (tries and noise_work == NoiseWork())
        trials = _trials(groups, chosen, client or rates, n, measure=of_everything)
        show(2)
        plan = _without_time(run, chosen, groups, len(done), trials[0], client, n)
        _refuse_what_cannot_fit(run, plan, groups, trials[0], client, is_here=rates is None)
        show(3)
        if not measure:
            return plan
        comparing = comparing_everything(groups, trials)
        if tries:
            tried = _try_search(run, client, n)
            comparing = searching(groups, tried)
            plan = replace(plan, parts_compared=tuple(tried.parts_compared.tolist()))
            show(4)
    return _with_time(plan, groups, trials, noise_work, comparing)


def _trials(
    groups: Sequence[Group],
    kind: Kind,
    where: Client | GpuRates | None,
    n_workers: int,
    *,
    measure: bool,
) -> list[Trial]:
    """Try the first block of the largest job here; or, with a client, on all workers of one host
    at the same time; or on paper, on a GPU whose rates are known."""
    largest = max(groups, key=lambda group: (group.n_jobs > 0, group.n_pairs_of_block)).graph
    measure &= any(group.n_jobs for group in groups)
    comparison = largest.comparison
    images = image_rows(largest.images, comparison.conventions)[: max(largest.image_chunks)]
    templates = template_rows(largest.templates, comparison.conventions)
    block = comparison, images, templates[: max(largest.template_chunks)], kind
    if isinstance(where, GpuRates):
        return [try_on_paper(*block, where, measure=measure)]
    return _tried(partial(try_block, measure=measure), block, where, n_workers)


def _try_search(run: Run, client: Client | None, n_workers: int) -> SearchTrial:
    """Search some images under the first structure, here or on all workers of one host."""
    trial = partial(try_search, discover_tiles=run.discover_tiles)
    given = some_images(run), next(iter(run.templates.values())), run.settings
    return mean_trial(_tried(trial, given, client, n_workers))


def _tried(
    trial: Callable[..., Tried], given: Sequence[object], client: Client | None, n_workers: int
) -> list[Tried]:
    """Call a trial here, with one thread if workers will have one; or, with a client, on all
    workers of one host at the same time."""
    if client is None:
        return [trial(*given, n_threads=1 if n_workers else None)]
    workers = client.scheduler_info(n_workers=-1)["workers"]
    host = next(iter(workers.values()))["host"]
    futures = [
        client.submit(partial(trial, n_threads=None), *given, workers=[address], pure=False)
        for address, worker in workers.items()
        if worker["host"] == host
    ]
    return list(client.gather(futures))


def _without_time(
    run: Run,
    kind: Kind,
    groups: Sequence[Group],
    n_done: int,
    trial: Trial,
    client: Client | None,
    n_workers: int,
) -> LikelihoodPlan:
    templates = list(run.templates.values())
    n_displacements, n_rotations = len(templates[0].displacements), templates[0].grid.n_inplanes
    n_templates = sum(map(len, templates))
    host = PROCESS_BYTES[trial.device] + max(_held_bytes(g, kind) for g in groups)
    memory = memory_of_a_worker(client, n_workers)
    n_jobs = len(run.images) * len(templates)
    described = described_bytes(run) * (n_jobs - n_done) // n_jobs
    return LikelihoodPlan(
        kind=kind.name,
        n_structures=len(templates),
        n_stacks=len(run.images),
        n_images=sum(map(len, run.images.values())),
        n_templates=n_templates,
        n_poses_per_image=n_templates * n_displacements * n_rotations,
        n_jobs=n_jobs,
        n_jobs_done=n_done,
        n_tasks=sum(g.n_jobs * g.n_blocks for g in groups),
        n_workers=max(1, n_workers),
        device=trial.device,
        read_bytes=sum(g.n_jobs * read_bytes(g, trial.n_images_at_a_time) for g in groups),
        written_bytes=sum(g.n_jobs * written_bytes(g) for g in groups) + described,
        free_disk_bytes=shutil.disk_usage(existing(run.files.folder_output)).free,
        block_bytes=trial.memory.total,
        device_free_bytes=trial.free_bytes if client or trial.device == "cuda" else memory,
        gpu=trial.gpu,
        worker_bytes=host + (trial.memory.total if trial.device == "cpu" else 0),
        worker_memory_bytes=memory,
        tile=trial.tile,
        noise=noise_said(run),
        search=str(run.settings.search),
    )


def _held_bytes(group: Group, kind: Kind) -> int:
    """Bytes that a worker holds besides a block: images that are remembered; full correlations
    while they are written."""
    remembered = isinstance(innermost(group.graph.images.source), ParticleImages)
    n_pairs = (
        group.n_pairs_of_block * BLOCK_COPIES
        if group.job.is_store
        else group.n_pairs * FULL_CORRELATION_COPIES
    )
    whole = n_pairs * math.prod(group.job.shape[2:]) * real_dtype(group.job.precision).itemsize
    return REMEMBERED_BYTES * remembered + (int(whole) if kind.keeps_every_pose else 0)


def _refuse_what_cannot_fit(
    run: Run,
    plan: LikelihoodPlan,
    groups: Sequence[Group],
    trial: Trial,
    client: Client | None,
    *,
    is_here: bool,
) -> None:
    """Refuse what fits neither the device, nor a worker if it runs here, nor the disk, with the
    number and what would fit."""
    _refuse_tile(plan, trial, len(groups[0].graph.templates.displacements))
    if kind_named(plan.kind).keeps_every_pose:
        jobs = {
            (int(g.job.about["i_template"]), int(g.job.about["i_stack"])): g.job
            for g in groups
            if g.n_jobs
        }
        refuse_what_cannot_fit(run, jobs, client)
    in_worker = (
        plan.worker_bytes - plan.block_bytes + trial.memory.least
        if plan.device == "cpu"
        else plan.worker_bytes
    )
    if is_here and in_worker > plan.worker_memory_bytes:
        fitting = plan.worker_memory_bytes * plan.n_workers // in_worker
        raise CannotFitError(
            f"a worker takes {size_of(in_worker)}, but may use {size_of(plan.worker_memory_bytes)}",
            remedy=f"The memory of all is enough for {counted(fitting, 'worker')}."
            if fitting
            else "Make smaller image stacks.",
        )
    if plan.written_bytes > plan.free_disk_bytes:
        images = plan.n_images * plan.free_disk_bytes // plan.written_bytes
        raise CannotFitError(
            f"the results take {size_of(plan.written_bytes)}, but "
            f"{existing(run.files.folder_output)} has {size_of(plan.free_disk_bytes)} free",
            remedy=f"That is enough for {images:,} of {plan.n_images:,} images; use fewer stacks, "
            f"or another disk.",
        )


def _refuse_tile(plan: LikelihoodPlan, trial: Trial, n_displacements: int) -> None:
    if trial.memory.least <= plan.device_free_bytes:
        return
    left = plan.device_free_bytes - (trial.memory.least - trial.memory.each)
    fitting = max(0, left * n_displacements // trial.memory.each)
    raise CannotFitError(
        f"one image and one template at {n_displacements:,} displacements take "
        f"{size_of(trial.memory.least)} on the "
        f"{plan.device}, but {size_of(plan.device_free_bytes)} are free",
        remedy=f"At most {counted(fitting, 'displacement')} would fit."
        if fitting
        else "Use a smaller grid.",
    )


def _with_time(
    plan: LikelihoodPlan,
    groups: Sequence[Group],
    trials: Sequence[Trial],
    noise: NoiseWork,
    comparing: Comparing,
) -> LikelihoodPlan:
    """Add up what all jobs and the noise before them take, and share it among the workers, some of
    which wait for the last blocks."""
    basis = statistics.fmean(trial.basis_seconds for trial in trials)
    n_jobs = sum(g.n_jobs for g in groups)
    # each worker makes one for each structure, and keeps it
    bases = comparing.basis * min(n_jobs, plan.n_workers * plan.n_structures)
    writing = n_jobs * JOB_SECONDS + plan.written_bytes / WRITTEN_BYTES_PER_SECOND
    reading, per_pair = seconds_per_pair(trials)
    # reading a pair is a part of reading an image, and of its templates, which is less
    of_image = reading * plan.n_templates / plan.n_structures
    of_noise = noise.n_images * of_image + noise.n_pairs * per_pair + noise.n_bases * basis
    work = writing + bases + comparing.seconds + of_noise
    alone = noise.seconds * (1 - 1 / plan.n_workers)
    work += noise.seconds
    waiting = (1 - 1 / plan.n_workers) * (comparing.basis + comparing.block) if n_jobs else 0.0
    shortest, longest = comparing.factors
    return replace(
        plan,
        basis_seconds=bases,
        read_seconds=comparing.read,
        compare_seconds=comparing.compare,
        noise_seconds=of_noise + noise.seconds,
        seconds=work / plan.n_workers + alone + waiting / 2,
        least_seconds=(work / plan.n_workers + alone) / UNCERTAINTY * shortest,
        most_seconds=(work / plan.n_workers + alone + waiting) * UNCERTAINTY * longest,
    )
