"""The jobs of a run, and the files that they read and write: counted by groups of equal ones,
never listed."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cryolike_dask import labels
from cryolike_dask.compute.device import real_dtype
from cryolike_dask.io.jobs import Job, why_not_done
from cryolike_dask.io.layout import FULL_CORRELATION_FILES, OPTIMAL_POSE_FILES, STORE_SUFFIX
from cryolike_dask.io.sources import ArraySource, Files, innermost
from cryolike_dask.likelihoods.graph import Pair, spread_templates
from cryolike_dask.likelihoods.setup import SAMPLED_TEMPLATES
from cryolike_dask.particles.images import ParticleImages
from cryolike_dask.runs.run import Run

Kind = Literal["optimal_pose", "full_cross_correlation"]
Key = tuple[int, int]

NUMBERS_PER_IMAGE = 6
"""Pose, half-set, row: what of an image's origin hardly gets smaller when it is compressed."""
FRAME_OF_ARCHIVE, FRAME_OF_STORE = 2500, 24000
"""Bytes of such a file, and of a store of correlations with its record, besides values."""


@dataclass(frozen=True)
class Group:
    """Jobs that cost the same, and one of them."""

    pair: Pair
    job: Job
    n_jobs: int

    @property
    def n_blocks(self) -> int:
        """Of one job."""
        return len(self.pair.image_chunks) * len(self.pair.template_chunks)

    @property
    def n_pairs(self) -> int:
        """(image, template) pairs of one job."""
        return len(self.pair.images) * len(self.pair.templates)

    @property
    def n_pairs_of_block(self) -> int:
        """(image, template) pairs of the largest block."""
        return max(self.pair.image_chunks) * max(self.pair.template_chunks)


def find_done(run: Run, kind: Kind) -> list[Key]:
    """What `skip_exist` leaves alone; only what has a record is looked at."""
    done = []
    for i in run.templates:
        there = {path.name for path in run.files.record(i, 0, kind).parent.glob("*.json")}
        for k in run.images if there else ():
            if (
                run.files.record(i, k, kind).name in there
                and why_not_done(job_of(run, kind, i, k)) is None
            ):
                done.append((i, k))
    return done


def job_of(run: Run, kind: Kind, i: int, k: int) -> Job:
    """What stack k under structure i reads and writes."""
    n_images, tried = len(run.images[k]), run.templates[i]
    if kind == "optimal_pose":
        return run.job(kind, OPTIMAL_POSE_FILES, (n_images,), i, k)
    shape = (n_images, len(tried), len(tried.displacements), tried.grid.n_inplanes)
    job = run.job(kind, FULL_CORRELATION_FILES, shape, i, k)
    if math.prod(shape) * real_dtype(job.precision).itemsize <= run.largest_file_bytes:
        return job
    return replace(
        job, outputs={name: path.with_suffix(STORE_SUFFIX) for name, path in job.outputs.items()}
    )


def describe(run: Run, kind: Kind, n_parts: int, device: str) -> str:
    """Say in one line what a run will do, all of it counted."""
    groups = group_jobs(run, kind, (), n_parts, device)
    n_images, n_tasks = (
        sum(map(len, run.images.values())),
        sum(g.n_jobs * g.n_blocks for g in groups),
    )
    n_bytes = sum(g.n_jobs * written_bytes(g) for g in groups)
    stacks = f"{len(run.images):,} stack(s)"
    what = f"{len(run.templates):,} structure(s) x {n_images:,} images in {stacks}"
    return f"{what}: {n_tasks:,} task(s) on the {device}, {n_bytes / 1e6:,.3g} MB of results"


def group_jobs(
    run: Run, kind: Kind, done: Sequence[Key], n_parts: int, device: str, discover: bool = False
) -> list[Group]:
    """Jobs that cost the same, together; those that are done left out."""
    stacks: dict[int, Hashable] = {
        k: (s.chunks, _row_bytes(s.source)) for k, s in run.images.items()
    }
    structures: dict[int, Hashable] = {
        i: (t.source.shape, t.source.dtype, t.chunks, _row_bytes(t.source))
        for i, t in run.templates.items()
    }
    n_done = Counter((structures[i], stacks[k]) for i, k in done)
    groups = []
    for structure, (i, n_structures) in _alike(structures).items():
        for stack, (k, n_stacks) in _alike(stacks).items():
            images, templates = run.images[k], run.templates[i]
            spread = spread_templates(images, templates, n_parts, device)
            pair = Pair(
                images,
                spread,
                discover_batch_size=discover,
                by_batch=kind != "optimal_pose",
                **run.options,
            )
            groups.append(
                Group(
                    pair,
                    job_of(run, kind, i, k),
                    n_structures * n_stacks - n_done[structure, stack],
                )
            )
    return groups


def _alike(costs: Mapping[int, Hashable]) -> dict[Hashable, tuple[int, int]]:
    """The first of those that cost the same, and how many there are."""
    first: dict[Hashable, int] = {}
    for key, cost in costs.items():
        first.setdefault(cost, key)
    counts = Counter(costs.values())
    return {cost: (key, counts[cost]) for cost, key in first.items()}


def _row_bytes(source: ArraySource) -> int:
    """Bytes of files that are read for one row; a structure that is projected is read once,
    which is little."""
    source = innermost(source)
    if isinstance(source, Files):
        return math.prod(source.shape[1:]) * np.dtype(source.dtype).itemsize
    if isinstance(source, ParticleImages):
        return max(
            math.prod(file.shape[1:]) * np.dtype(file.dtype).itemsize for file in source.files
        )
    return 0


def read_bytes(group: Group, n_images_at_a_time: int) -> int:
    """What the blocks of a job read: each its images once, and its templates for each turn of
    images; and the sample that the basis is made from."""
    images, templates = (
        _row_bytes(stack.source) for stack in (group.pair.images, group.pair.templates)
    )
    turns = sum(-(-n // n_images_at_a_time) for n in group.pair.image_chunks)
    sampled = (
        min(SAMPLED_TEMPLATES, len(group.pair.templates)) if group.pair.comparison.tolerance else 0
    )
    of_images = images * len(group.pair.images) * len(group.pair.template_chunks)
    return of_images + templates * (len(group.pair.templates) * turns + sampled)


def written_bytes(group: Group) -> int:
    """What a job writes: its outputs, each with the frame of a `.pt` file, and its record."""
    job = group.job
    if job.is_store:
        return _store_bytes(group)
    n_values, real = math.prod(job.shape), real_dtype(job.precision).itemsize
    of_values = sum(
        n_values * (8 if name == labels.OPTIMAL_TEMPLATE else real) for name in job.outputs
    )
    outputs = {name: {"file": path.name, "sha256": "0" * 64} for name, path in job.outputs.items()}
    said = {**job.about, "settings": job.settings, "inputs": job.inputs, "outputs": outputs}
    return of_values + len(job.outputs) * _frame_bytes() + len(json.dumps(said, indent=1))


def _store_bytes(group: Group) -> int:
    """Of a store all of whose chunks are whole, each with its checksum; and its coordinates,
    roughly."""
    shape = group.job.shape
    chunk = group.n_pairs_of_block * math.prod(shape[2:]) * real_dtype(group.job.precision).itemsize
    coordinates = 8 * (3 * shape[0] + 4 * shape[1] + 3 * shape[2] + shape[3])
    return group.n_blocks * (chunk + 4) + coordinates + FRAME_OF_STORE


def described_bytes(run: Run) -> int:
    """What is said of the images and structures beside the results: numbers; text is compressed
    to little."""
    of_images = sum(NUMBERS_PER_IMAGE * 8 * len(images) for images in run.images.values())
    of_templates = sum(3 * 8 * len(templates) for templates in run.templates.values())
    return of_images + of_templates + FRAME_OF_ARCHIVE * (len(run.images) + len(run.templates))


def _frame_bytes() -> int:
    """Of a `.pt` file besides its values."""
    import torch

    file = io.BytesIO()
    torch.save(torch.zeros(0), file)
    return file.tell()
