"""Whether a run fits: the memory of a worker, and the room on the disk."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from distributed import Client

from cryolike_dask.compute.device import real_dtype
from cryolike_dask.compute.local import memory_of_a_worker
from cryolike_dask.errors import CannotFitError
from cryolike_dask.io.jobs import Job
from cryolike_dask.io.layout import as_stored
from cryolike_dask.likelihoods.graph import chunks_of_correlations
from cryolike_dask.runs.run import Run

BLOCK_COPIES = 4
"""Memory that one block of a store takes, in units of its size: while it is written (two copies),
the next is computed; measured."""


def refuse_what_cannot_fit(
    run: Run, jobs: dict[tuple[int, int], Job], client: Client | None
) -> None:
    """Refuse full cross-correlations whose blocks are too large for the memory of a worker, or all
    for the disk.

    What is there already, done or to be replaced, needs no room.
    """
    sizes = {
        key: math.prod(job.shape) * real_dtype(job.precision).itemsize for key, job in jobs.items()
    }
    i, k = max(sizes, key=lambda key: sizes[key])
    job, memory = jobs[i, k], memory_of_a_worker(client)
    chunks = chunks_of_correlations(run.images[k], run.templates[i], real_dtype(job.precision))
    block = (*map(max, chunks), *job.shape[2:])
    n_bytes = math.prod(block) * real_dtype(job.precision).itemsize
    if job.is_store and n_bytes * BLOCK_COPIES > memory:
        raise CannotFitError(
            f"a block of a full cross-correlation, {' x '.join(map(str, block))} (images x "
            f"templates x displacements x "
            f"rotations), takes {n_bytes / 1e9:.3g} GB, and {BLOCK_COPIES} times that while it is "
            f"written, but {memory / 1e9:.3g} GB of memory are free",
            remedy="Ask for fewer images or templates in a batch, or for fewer displacements.",
        )
    disk = existing(run.files.folder_output)
    free = shutil.disk_usage(disk).free
    needed = sum(
        sizes[key]
        for key, job in jobs.items()
        if not any(as_stored(p).exists() for p in job.outputs.values())
    )
    if needed > free:
        raise CannotFitError(
            f"the full cross-correlations take {needed / 1e9:.3g} GB, but {disk} has "
            f"{free / 1e9:.3g} GB free",
            remedy="Reduce them lazily with compute_cross_correlation_complete, use fewer stacks, "
            "or another disk.",
        )


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
