"""The jobs of a run, and the files that they read and write: counted by groups of equal ones,
never listed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cryolike_dask import labels
from cryolike_dask.compute.device import real_dtype
from cryolike_dask.io.jobs import Job, why_not_done
from cryolike_dask.io.sources import ArraySource, Files, innermost
from cryolike_dask.likelihoods.cutting import Cut
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.setup import SAMPLED_TEMPLATES
from cryolike_dask.particles.images import ParticleImages
from cryolike_dask.runs.kinds import Kind
from cryolike_dask.runs.run import Run

Key = tuple[int, int]

NUMBERS_PER_IMAGE = 6
"""Numbers of an image's origin that hardly get smaller when they are compressed: pose, half-set,
row."""
FRAME_OF_ARCHIVE, FRAME_OF_STORE = 2500, 24000
"""Bytes of a file of origins, and of a store of correlations with its record, besides values."""
FRAME_OF_RECORD, FRAME_OF_OUTPUT = 650, 1640
"""Bytes of a record besides inputs and outputs; of an output besides its values, in its `.pt` file
and in the record."""


@dataclass(frozen=True)
class Group:
    """Jobs that cost the same, and one of them."""

    graph: ComparisonGraph
    job: Job
    n_jobs: int

    @property
    def n_blocks(self) -> int:
        """Blocks of one job."""
        return len(self.graph.image_chunks) * len(self.graph.template_chunks)

    @property
    def n_pairs(self) -> int:
        """(image, template) pairs of one job."""
        return len(self.graph.images) * len(self.graph.templates)

    @property
    def n_pairs_of_block(self) -> int:
        """(image, template) pairs of the largest block."""
        return max(self.graph.image_chunks) * max(self.graph.template_chunks)


def find_done(run: Run, kind: Kind) -> list[Key]:
    """Jobs that `skip_exist` leaves alone; only those that have a record are looked at."""
    done = []
    for i in run.templates:
        names_there = {
            path.name for path in run.files.record(i, 0, kind.name).parent.glob("*.json")
        }
        for k in run.images if names_there else ():
            job = run.job(kind, i, k)
            if job.record.name in names_there and why_not_done(job) is None:
                done.append((i, k))
    return done


def describe(run: Run, kind: Kind, cut: Cut) -> str:
    """Say in one line what a run will do, all of it counted."""
    groups = group_jobs(run, kind, (), cut)
    n_images = sum(map(len, run.images.values()))
    n_tasks = sum(group.n_jobs * group.n_blocks for group in groups)
    n_bytes = sum(group.n_jobs * written_bytes(group) for group in groups)
    stacks = f"{len(run.images):,} stack(s)"
    what = f"{len(run.templates):,} structure(s) x {n_images:,} images in {stacks}"
    return f"{what}: {n_tasks:,} task(s) on the {cut.device}, {n_bytes / 1e6:,.3g} MB of results"


def group_jobs(run: Run, kind: Kind, done: Sequence[Key], cut: Cut) -> list[Group]:
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
            n_jobs = n_structures * n_stacks - n_done[structure, stack]
            groups.append(Group(run.graph(kind, i, k, cut), run.job(kind, i, k), n_jobs))
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
    """Bytes that the blocks of a job read: each its images once, and its templates for each turn of
    images; and the sample that the basis is made from."""
    images, templates = (
        _row_bytes(stack.source) for stack in (group.graph.images, group.graph.templates)
    )
    turns = sum(-(-n // n_images_at_a_time) for n in group.graph.image_chunks)
    sampled = (
        min(SAMPLED_TEMPLATES, len(group.graph.templates))
        if group.graph.comparison.tolerance
        else 0
    )
    of_images = images * len(group.graph.images) * len(group.graph.template_chunks)
    return of_images + templates * (len(group.graph.templates) * turns + sampled)


def written_bytes(group: Group) -> int:
    """Bytes that a job writes: its outputs and its record."""
    job = group.job
    if job.is_store:
        return _store_bytes(group)
    n_values, real = math.prod(job.shape), real_dtype(job.precision).itemsize
    of_values = sum(
        n_values * (8 if name == labels.OPTIMAL_TEMPLATE else real) for name in job.outputs
    )
    record = FRAME_OF_RECORD + len(json.dumps(job.inputs, indent=1))
    return of_values + len(job.outputs) * FRAME_OF_OUTPUT + record


def _store_bytes(group: Group) -> int:
    """Bytes of a store all of whose chunks are whole, each with its checksum; and its coordinates,
    roughly."""
    shape = group.job.shape
    chunk = group.n_pairs_of_block * math.prod(shape[2:]) * real_dtype(group.job.precision).itemsize
    coordinates = 8 * (3 * shape[0] + 4 * shape[1] + 3 * shape[2] + shape[3])
    return group.n_blocks * (chunk + 4) + coordinates + FRAME_OF_STORE


def described_bytes(run: Run) -> int:
    """Bytes that describe images and structures beside the results: numbers; text is compressed
    to little."""
    of_images = sum(NUMBERS_PER_IMAGE * 8 * len(images) for images in run.images.values())
    of_templates = sum(3 * 8 * len(templates) for templates in run.templates.values())
    return of_images + of_templates + FRAME_OF_ARCHIVE * (len(run.images) + len(run.templates))
