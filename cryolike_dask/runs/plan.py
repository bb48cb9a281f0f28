"""What a run will cost, said beforehand: its tasks, bytes and memory, and its time from a block
that is computed.

Stacks that cost the same are counted, not listed: the plan of a million images under a thousand
structures is as small as that of two.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client

from cryolike_dask.compute.device import active_client, count_workers, device_of_workers, real_dtype
from cryolike_dask.compute.local import memory_of_a_worker
from cryolike_dask.compute.progress import progress_bar
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import CannotFitError, InputError, counted, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.layout import LikelihoodFiles, Templates
from cryolike_dask.io.sources import innermost
from cryolike_dask.likelihoods.graph import image_rows, template_rows
from cryolike_dask.likelihoods.interface import Device, Precision
from cryolike_dask.particles.images import REMEMBERED_BYTES, ParticleImages
from cryolike_dask.runs.capacity import (
    BLOCK_COPIES,
    existing,
    refuse_what_cannot_fit,
)
from cryolike_dask.runs.folder import refuse_claimed
from cryolike_dask.runs.run import FULL_CORRELATION_COPIES, Displacer, Run, open_run
from cryolike_dask.runs.sizes import (
    Group,
    Kind,
    described_bytes,
    find_done,
    group_jobs,
    read_bytes,
    written_bytes,
)
from cryolike_dask.runs.trial import Trial, try_block
from cryolike_dask.stacks import ImageStack, TemplateStack

PROCESS_BYTES = {"cpu": 750_000_000, "cuda": 3_000_000_000}
"""Of a process besides its block: Python, torch, compiled loops, and memory that is kept from
one block to the next. On a CPU the sum is within a third of what small runs take
(benchmarks/planning.py); with a GPU it is a guess."""
JOB_SECONDS = 0.1
"""Of one stack under one structure besides its blocks: its graph, its files, its record."""
WRITTEN_BYTES_PER_SECOND = 1e8
"""Of results that are put together, written, and read again for their checksums."""
UNCERTAINTY = 1.3
"""A run takes the time of its plan but for this factor, on a machine with nothing else to do
(benchmarks/planning)."""


@dataclass(frozen=True)
class LikelihoodPlan:
    """What a run will cost.

    Attributes
    ----------
    kind : "optimal_pose" | "full_cross_correlation"
    n_structures, n_stacks, n_images, n_templates : int
        Templates of all structures together.
    n_poses_per_image : int
        (template, displacement, rotation) triples that each image is compared with, of all
        structures together.
    n_jobs, n_jobs_done : int
        Stacks under structures; those that `skip_exist` leaves alone. What follows is of the
        others.
    n_tasks : int
        Blocks.
    n_workers : int
    device : "cpu" | "cuda"
    read_bytes : int
        By all blocks; each reads its images and its templates, often from the cache of the system.
    written_bytes, free_disk_bytes : int
    block_bytes, device_free_bytes : int
        On the device, of the largest block; what is free there for one worker.
    worker_bytes, worker_memory_bytes : int
        Of a worker process at its highest; what it may use.
    tile : (int, int)
        Images and templates that are compared at a time.
    basis_seconds, read_seconds, compare_seconds : float or None
        Of all workers together: making radial bases; reading, which projects and transforms what is
        not in files; and comparing. None: not measured.
    seconds, least_seconds, most_seconds : float or None
        From the start of the run to its end.
    """

    kind: Kind
    n_structures: int
    n_stacks: int
    n_images: int
    n_templates: int
    n_poses_per_image: int
    n_jobs: int
    n_jobs_done: int
    n_tasks: int
    n_workers: int
    device: str
    read_bytes: int
    written_bytes: int
    free_disk_bytes: int
    block_bytes: int
    device_free_bytes: int
    worker_bytes: int
    worker_memory_bytes: int
    tile: tuple[int, int]
    basis_seconds: float | None = None
    read_seconds: float | None = None
    compare_seconds: float | None = None
    seconds: float | None = None
    least_seconds: float | None = None
    most_seconds: float | None = None

    def line(self) -> str:
        """Give the plan in one line."""
        where = counted(self.n_workers, "worker")
        about = (
            f"about {_duration(self.seconds)} on {where}"
            if self.seconds is not None
            else f"on {where}"
        )
        what = f"{counted(self.n_structures, 'structure')} x {counted(self.n_images, 'image')}"
        stacks, tasks = counted(self.n_stacks, "stack"), counted(self.n_tasks, "task")
        return f"{what} ({stacks}): {tasks}, {about}, {_size(self.written_bytes)} written"

    def __str__(self) -> str:
        rows = {
            "poses": f"{self.n_poses_per_image:,} per image, of "
            f"{counted(self.n_templates, 'template')}",
            "done": f"{self.n_jobs_done:,} of {self.n_jobs:,} stacks (counted under each "
            f"structure)",
            "disk": f"{_size(self.read_bytes)} read, {_size(self.written_bytes)} written, "
            f"{_size(self.free_disk_bytes)} free",
            "memory": f"{_size(self.worker_bytes)} per worker of "
            f"{_size(self.worker_memory_bytes)}; "
            f"a block takes {_size(self.block_bytes)} on the {self.device}, of "
            f"{_size(self.device_free_bytes)} free, "
            f"in tiles of {self.tile[0]} images x {self.tile[1]} templates",
            "time": self._time(),
        }
        return "\n".join([self.line(), *(f"  {name:<8}{value}" for name, value in rows.items())])

    def _time(self) -> str:
        if self.seconds is None or self.least_seconds is None or self.most_seconds is None:
            return "not measured"
        parts = {
            "bases": self.basis_seconds,
            "reading": self.read_seconds,
            "comparing": self.compare_seconds,
        }
        of_workers = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in parts.items())
        between = f"{_duration(self.least_seconds)} to {_duration(self.most_seconds)}"
        return f"{between}; of all workers together: {of_workers}"


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
    kind: Kind = "optimal_pose",
    images: ImageStack | None = None,
    templates: TemplateStack | Sequence[TemplateStack] | None = None,
    overwrite: bool = False,
    client: Client | None = None,
    n_workers: int | None = None,
    device: Device = "auto",
    precision: Precision = "default",
    tolerance: float | None = None,
    conventions: ConventionsName = "standard",
    measure: bool = True,
    progress: bool = True,
) -> LikelihoodPlan:
    """Say what a run will cost; nothing is written. A block of its first stack and structure is
    computed and timed.

    The other parameters are those of `run_likelihood_optimal_pose`.

    Parameters
    ----------
    kind : "optimal_pose" | "full_cross_correlation"
        Of the run.
    n_workers : int, optional
        Plan for so many workers on this machine, as `local_cluster` starts them; 0: for this
        process alone. Default: the workers of the client, or else this process alone.
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
    if kind not in ("optimal_pose", "full_cross_correlation"):
        raise InputError(f"kind={kind!r} is neither optimal_pose nor full_cross_correlation")
    client = active_client(client) if n_workers is None else None
    n = (
        count_workers(client)
        if client is not None
        else number("n_workers", n_workers or 0, whole=True, at_least=0)
    )
    run = open_run(
        *(
            file_config,
            params_input,
            displacer,
            i_template,
            n_stacks,
            conventions,
            device,
            precision,
            tolerance,
        ),
        *(images, templates),
    ).in_batches(n_templates_per_batch, n_images_per_batch)
    run = run.in_memory(memory_of_a_worker(client, n))
    run.note_left_out()
    if not overwrite:
        refuse_claimed(run)
    with progress_bar(3, "steps of the plan", shown=progress) as told:
        done = find_done(run, kind) if skip_exist else []
        groups = group_jobs(
            run, kind, done, run.n_parts(n), device_of_workers(client, device), discover_batch_size
        )
        told(1)
        trials = _trials(groups, kind, client, n, measure=measure)
        told(2)
        plan = _without_time(run, kind, groups, len(done), trials[0], client, n)
        _refuse_what_cannot_fit(run, plan, groups, trials[0], client)
        told(3)
    return _with_time(plan, groups, trials) if measure else plan


def _trials(
    groups: Sequence[Group], kind: Kind, client: Client | None, n_workers: int, *, measure: bool
) -> list[Trial]:
    """Try the first block of the largest job here; or, with a client, on all workers of one host
    at the same time."""
    pair = max(groups, key=lambda group: (group.n_jobs > 0, group.n_pairs_of_block)).pair
    measure &= any(group.n_jobs for group in groups)
    conventions = pair.comparison.conventions
    rows = image_rows(pair.images, conventions)[: max(pair.image_chunks)]
    tried = template_rows(pair.templates, conventions)[: max(pair.template_chunks)]
    if client is None:
        n_threads = 1 if n_workers else None
        return [try_block(pair.comparison, rows, tried, kind, measure=measure, n_threads=n_threads)]
    workers = client.scheduler_info(n_workers=-1)["workers"]
    host = next(iter(workers.values()))["host"]
    futures = [
        client.submit(
            *(try_block, pair.comparison, rows, tried, kind),
            **{"measure": measure, "n_threads": None, "workers": [address], "pure": False},
        )
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
        kind=kind,
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
        worker_bytes=host + (trial.memory.total if trial.device == "cpu" else 0),
        worker_memory_bytes=memory,
        tile=trial.tile,
    )


def _held_bytes(group: Group, kind: Kind) -> int:
    """What a worker holds besides a block: images that are remembered; full correlations while
    they are written."""
    remembered = isinstance(innermost(group.pair.images.source), ParticleImages)
    n_pairs = (
        group.n_pairs_of_block * BLOCK_COPIES
        if group.job.is_store
        else group.n_pairs * FULL_CORRELATION_COPIES
    )
    whole = n_pairs * math.prod(group.job.shape[2:]) * real_dtype(group.job.precision).itemsize
    return REMEMBERED_BYTES * remembered + (0 if kind == "optimal_pose" else int(whole))


def _refuse_what_cannot_fit(
    run: Run, plan: LikelihoodPlan, groups: Sequence[Group], trial: Trial, client: Client | None
) -> None:
    """Refuse what fits neither the device, nor a worker, nor the disk, with the number and what
    would fit."""
    _refuse_tile(plan, trial, len(groups[0].pair.templates.displacements))
    if plan.kind != "optimal_pose":
        whole = {
            (int(g.job.about["i_template"]), int(g.job.about["i_stack"])): g.job
            for g in groups
            if g.n_jobs
        }
        refuse_what_cannot_fit(run, whole, client)
    in_worker = (
        plan.worker_bytes - plan.block_bytes + trial.memory.least
        if plan.device == "cpu"
        else plan.worker_bytes
    )
    if in_worker > plan.worker_memory_bytes:
        fitting = plan.worker_memory_bytes * plan.n_workers // in_worker
        raise CannotFitError(
            f"a worker takes {_size(in_worker)}, but may use {_size(plan.worker_memory_bytes)}",
            remedy=f"The memory of all is enough for {counted(fitting, 'worker')}."
            if fitting
            else "Make smaller image stacks.",
        )
    if plan.written_bytes > plan.free_disk_bytes:
        images = plan.n_images * plan.free_disk_bytes // plan.written_bytes
        raise CannotFitError(
            f"the results take {_size(plan.written_bytes)}, but "
            f"{existing(run.files.folder_output)} has "
            f"{_size(plan.free_disk_bytes)} free",
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
        f"{_size(trial.memory.least)} on the "
        f"{plan.device}, but {_size(plan.device_free_bytes)} are free",
        remedy=f"At most {counted(fitting, 'displacement')} would fit."
        if fitting
        else "Use a smaller grid.",
    )


def _with_time(
    plan: LikelihoodPlan, groups: Sequence[Group], trials: Sequence[Trial]
) -> LikelihoodPlan:
    """Add up what all jobs take, and share it among the workers, some of which wait for the last
    blocks."""
    turns = [seconds for trial in trials for seconds in trial.compare_seconds_per_pair]
    basis = statistics.fmean(trial.basis_seconds for trial in trials)
    reading = statistics.fmean(trial.read_seconds_per_pair for trial in trials)
    comparing = statistics.median(turns) if turns else 0.0
    shortest, longest = (end(turns) / comparing if comparing else 1.0 for end in (min, max))
    n_jobs, n_pairs = sum(g.n_jobs for g in groups), sum(g.n_jobs * g.n_pairs for g in groups)
    block = (reading + comparing) * max((g.n_pairs_of_block for g in groups if g.n_jobs), default=0)
    writing = n_jobs * JOB_SECONDS + plan.written_bytes / WRITTEN_BYTES_PER_SECOND
    work = writing + n_jobs * basis + n_pairs * (reading + comparing)
    waiting = (1 - 1 / plan.n_workers) * (basis + block) if n_jobs else 0.0
    return replace(
        plan,
        basis_seconds=n_jobs * basis,
        read_seconds=n_pairs * reading,
        compare_seconds=n_pairs * comparing,
        seconds=work / plan.n_workers + waiting / 2,
        least_seconds=work / plan.n_workers / UNCERTAINTY * shortest,
        most_seconds=(work / plan.n_workers + waiting) * UNCERTAINTY * longest,
    )


def _size(n_bytes: int) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes / 1e3:.3g} kB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    return f"{days:,} d {hours_of_day} h" if days else f"{hours} h {minutes} min"
