"""From open inputs to written outputs: the pieces of a run, one after the other, each written by
its last task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.delayed import Delayed
from distributed import Client

from cryolike_dask import labels
from cryolike_dask.compute.device import count_workers, device_of_workers, real_dtype
from cryolike_dask.compute.local import memory_of_a_worker
from cryolike_dask.compute.log import logging_to, reporting_to
from cryolike_dask.compute.stream import OnError, Piece, stream, task
from cryolike_dask.io.claims import Claim
from cryolike_dask.io.layout import FULL_CORRELATION_FILES, LikelihoodFiles
from cryolike_dask.io.records import (
    KEPT,
    NOTHING_THERE,
    Job,
    make_room,
    nothing_to_do,
    why_not_done,
)
from cryolike_dask.io.results import open_full_cross_correlation, open_optimal_pose, write_results
from cryolike_dask.io.stores import begin_store, finish_store, write_region
from cryolike_dask.io.tensors import save_tensor
from cryolike_dask.likelihoods.graph import name_of, spread_templates
from cryolike_dask.likelihoods.interface import (
    compute_cross_correlation_complete,
    compute_optimal_pose,
)
from cryolike_dask.runs.capacity import refuse_what_cannot_fit
from cryolike_dask.runs.folder import claim, has_displacements, holds_results, refuse_others
from cryolike_dask.runs.origins import Description, describe_images, describe_structure
from cryolike_dask.runs.run import Run
from cryolike_dask.runs.sizes import Kind, describe, find_done, job_of
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.version import __version__

logger = logging.getLogger("cryolike_dask")


def compute_run(
    run: Run,
    kind: Kind,
    client: Client | None,
    *,
    claimed: Callable[[], None] = lambda: None,
    discover_batch_size: bool,
    skip_exist: bool,
    overwrite: bool,
    progress: bool,
    on_error: OnError,
    log_file: str | Path | None,
    performance_report: str | Path | None,
) -> xr.Dataset:
    """Claim the output folder, stream all stacks under all structures, and open what was written.

    What is done is left out on the way. `claimed` is called when nothing speaks against the run any
    more, before anything is computed; the other parameters are those of
    `run_likelihood_optimal_pose`.
    """
    run = run.in_memory(memory_of_a_worker(client))
    n_stores = 0
    if kind == "full_cross_correlation":
        jobs = {key: job_of(run, kind, *key) for key in run.pairs()}
        refuse_what_cannot_fit(run, jobs, client)
        n_stores = sum(job.is_store for job in jobs.values())
    to_do, refuse = partial(_to_do, run, kind), partial(refuse_others, run)
    with logging_to(log_file):
        if skip_exist and not overwrite and nothing_to_do(run.files.folder_output, to_do, refuse):
            return _OPEN[kind](run.files)
        with reporting_to(performance_report, client), claim(run, overwrite=overwrite) as held:
            there = holds_results(run)
            if not there or not has_displacements(run):
                if there:
                    logger.info(
                        "%s is written again: it is missing or damaged",
                        run.files.displacements.name,
                    )
                real = real_dtype(job_of(run, kind, *next(run.pairs())).precision)
                save_tensor(run.files.displacements, run.displacements.astype(real))
            claimed()
            n_parts = run.n_parts(0 if client is None else count_workers(client))
            device = device_of_workers(client, run.options["device"])
            run.note_left_out()
            logger.info(describe(run, kind, n_parts, device))
            if there and not skip_exist:
                logger.info(
                    "results that are there are replaced; skip_exist=True keeps complete ones"
                )
            if n_stores:
                what = (
                    "%d full cross-correlation(s) take more memory than a worker has, and are "
                    "written as Zarr stores"
                )
                logger.info(what, n_stores)
            stream(
                _pieces(run, kind, held, skip_exist, discover_batch_size, n_parts, device),
                client,
                n_images=len(run.templates) * sum(len(images) for images in run.images.values()),
                progress=progress,
                title="images" if len(run.templates) == 1 else "images x structures",
                on_error=on_error,
                table=run.files.block_table,
            )
    return _OPEN[kind](run.files)


def _to_do(run: Run, kind: Kind) -> list[str]:
    """What is not there, or not as it should be: results, and what lies beside them."""
    done = set(find_done(run, kind))
    beside = {one.path: one for pair in run.pairs() for one in _descriptions(run, *pair)}
    to_do = [
        f"{job_of(run, kind, *pair).name} is to be computed"
        for pair in run.pairs()
        if pair not in done
    ]
    to_do += [reason for one in beside.values() if (reason := one.why_not_there())]
    if not has_displacements(run):
        to_do.append(f"{run.files.displacements.name} is missing or damaged")
    if done:
        logger.info(KEPT, len(done), len(run.images) * len(run.templates), "stacks are complete")
    return to_do


def _pieces(
    run: Run,
    kind: Kind,
    held: Claim,
    skip_exist: bool,
    discover_batch_size: bool,
    n_parts: int,
    device: str,
) -> Iterator[Piece]:
    """One after the other, so that no run is too long for the memory of the client."""
    details = {"version": __version__, "device": run.options["device"]}
    build = partial(_COMPUTE[kind], discover_batch_size=discover_batch_size, **run.options)
    n_pieces = len(run.images) * len(run.templates)
    n_done = 0
    described = set[Path]()
    for i, k in run.pairs():
        images, templates, of_piece = (
            run.images[k],
            run.templates[i],
            replace(job_of(run, kind, i, k), claim=held),
        )
        reason = why_not_done(of_piece) if skip_exist else ""
        about, graph = _descriptions(run, i, k), None
        if reason is None:
            n_done += 1
            _describe_again(of_piece, [one for one in about if one.path not in described])
            described |= {one.path for one in about}
        else:
            if skip_exist and reason != NOTHING_THERE:
                logger.info("%s is computed: %s", of_piece.name, reason)
            spread = partial(spread_templates, images, templates, n_parts, device)
            graph = partial(_graph, build, images, spread, of_piece, details, about)
        yield Piece(of_piece.name, len(images), graph, name_of(images, templates))
    if n_done:
        logger.info(KEPT, n_done, n_pieces, "stacks are complete")


def _descriptions(run: Run, i: int, k: int) -> tuple[Description, Description]:
    """What lies beside the results of stack k under structure i."""
    return (
        describe_images(run.files.origins(k), run.images[k], run.inputs["images"][k]),
        describe_structure(run.files.structure(i), run.templates[i], run.inputs["templates"][i]),
    )


def _describe_again(job: Job, descriptions: Sequence[Description]) -> None:
    """Write what lies beside results that are done, where it is missing or damaged."""
    for description in descriptions:
        if reason := description.why_not_there():
            logger.info("%s is written again: %s", description.path.name, reason)
            make_room(job)
            description.write()


def _graph(
    build: Callable[[ImageStack, TemplateStack], xr.Dataset],
    images: ImageStack,
    templates: Callable[[], TemplateStack],
    job: Job,
    details: dict[str, Any],
    about: Sequence[Description],
) -> Delayed:
    """The graph of one stack under one structure, its last task writing the files."""
    dataset = build(images, templates())
    name = f"{job.kind.replace('_', '-')}-{job.name}"
    if job.is_store:
        return _store_graph(dataset, name, job, details, about)
    whole = {name: variable.data.rechunk(-1) for name, variable in dataset.data_vars.items()}
    values = {name: array.to_delayed(optimize_graph=False).item() for name, array in whole.items()}
    return task(f"write-{name}", _write, about, job, write_results, values, job, details)


def _store_graph(
    full: xr.Dataset, name: str, job: Job, details: dict[str, Any], about: Sequence[Description]
) -> Delayed:
    """Each block writes its region of a store; the last task gives the store its name."""
    begun = begin_store(job, full)
    (variable,) = full.data_vars.values()
    blocks = variable.data.to_delayed(optimize_graph=False)
    regions = [
        task(f"write-region-{name}", write_region, blocks[at], begun, at)
        for at in np.ndindex(blocks.shape)
    ]
    return task(f"write-{name}", _write, about, job, finish_store, regions, begun, job, details)


def _write(
    about: Sequence[Description], job: Job, write: Callable[..., int], *arguments: Any
) -> int:
    """Write what the inputs are, once, then the results."""
    make_room(job)
    for description in about:
        description.write()
    return write(*arguments)


def _full(images: ImageStack, templates: TemplateStack, **options: Any) -> xr.Dataset:
    """The full cross-correlation, called as its files are."""
    (variable,) = FULL_CORRELATION_FILES
    full = compute_cross_correlation_complete(images, templates, **options)
    return full.rename({labels.CROSS_CORRELATION: variable})


_COMPUTE: dict[Kind, Callable[..., xr.Dataset]] = {
    "optimal_pose": compute_optimal_pose,
    "full_cross_correlation": _full,
}
_OPEN: dict[Kind, Callable[[LikelihoodFiles], xr.Dataset]] = {
    "optimal_pose": open_optimal_pose,
    "full_cross_correlation": open_full_cross_correlation,
}
