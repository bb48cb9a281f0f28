"""From open inputs to written outputs: the items of a run, one after the other, each written by
its last task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from dask.delayed import Delayed
from distributed import Client

from cryolike_dask.compute.device import count_workers, device_of_workers, real_dtype
from cryolike_dask.compute.local import memory_of_a_worker
from cryolike_dask.compute.log import logging_to, page_of_report, reporting_to
from cryolike_dask.compute.run_log import run_log
from cryolike_dask.compute.stream import WorkItem, stream, task
from cryolike_dask.io.claims import Claim
from cryolike_dask.io.jobs import KEPT, Job, job_states, make_room
from cryolike_dask.io.layout import RUN_LOG
from cryolike_dask.io.results import write_results
from cryolike_dask.io.stores import begin_store, finish_store, write_region
from cryolike_dask.io.tensors import save_tensor
from cryolike_dask.likelihoods.comparable import name_of
from cryolike_dask.likelihoods.cutting import Cut
from cryolike_dask.runs.capacity import refuse_what_cannot_fit
from cryolike_dask.runs.folder import (
    has_displacements,
    holds_results,
    output_folder,
    remove_others,
    settled,
)
from cryolike_dask.runs.kinds import Kind
from cryolike_dask.runs.noise_of_run import keep_noise, why_not_kept
from cryolike_dask.runs.options import RunOptions
from cryolike_dask.runs.origins import Description, describe_images, describe_structure
from cryolike_dask.runs.run import Run
from cryolike_dask.runs.sizes import describe, find_done

logger = logging.getLogger("cryolike_dask")

Details = Mapping[str, str]
"""By what results were made, for their records."""


def compute_run(
    run: Run,
    kind: Kind,
    client: Client | None,
    options: RunOptions,
    *,
    claimed: Callable[[], None] = lambda: None,
) -> xr.Dataset:
    """Claim the output folder, stream all stacks under all structures, and open what was written.

    What is done is left out on the way. `claimed` is called when nothing speaks against the run any
    more, before anything is computed.
    """
    # before the folder is claimed, and results of others are removed for these
    page_of_report(options.performance_report, client)
    run = run.in_memory(memory_of_a_worker(client))
    run = settled(run, kind, starts_anew=options.starts_anew)
    n_stores = 0
    if kind.keeps_every_pose:
        jobs = {key: run.job(kind, *key) for key in run.pairs()}
        refuse_what_cannot_fit(run, jobs, client)
        n_stores = sum(job.is_store for job in jobs.values())
    outputs = output_folder(run).claimed(
        partial(_to_do, run, kind), skip_exist=options.skip_exist, overwrite=options.overwrite
    )
    log = run.files.folder_output / RUN_LOG
    with logging_to(options.log_file), outputs as own_claim:
        if own_claim is None:
            return kind.open(run.files)
        with (
            run_log(log, kind.name) as begin_log,
            reporting_to(options.performance_report, client),
        ):
            # before the first result, for all of them are of it
            run = keep_noise(
                run,
                client,
                remove_others if options.overwrite else None,
                # a model of no results that are left is one of other images, perhaps
                starts_anew=options.starts_anew or (options.overwrite and not holds_results(run)),
                progress=options.progress,
            )
            # before the first result: results are of no use without the search that they count
            _write_displacements(run, kind, has_results=holds_results(run))
            claimed()
            begin_log()
            n_workers = 0 if client is None else count_workers(client)
            cut = run.cut(n_workers, device_of_workers(client, run.settings.device))
            run.note_left_out()
            logger.info(describe(run, kind, cut))
            done = _kept(run, kind) if options.skip_exist else frozenset()
            if n_stores:
                what = (
                    "%d full cross-correlation(s) take more memory than a worker has, and are "
                    "written as Zarr stores"
                )
                logger.info(what, n_stores)
            stream(
                _items(run, kind, cut, own_claim, options, done),
                client,
                n_images=len(run.templates) * sum(len(images) for images in run.images.values()),
                progress=options.progress,
                title="images" if len(run.templates) == 1 else "images x structures",
                on_error=options.on_error,
                table=run.files.block_table,
            )
    return kind.open(run.files)


def _write_displacements(run: Run, kind: Kind, *, has_results: bool) -> None:
    """Write the search of a run, unless it stands there beside results."""
    if has_results and has_displacements(run):
        return
    path = run.files.displacements
    if has_results:
        logger.info("%s is written again: it is missing or damaged", path.name)
    precision = run.job(kind, *next(run.pairs())).precision
    save_tensor(path, run.displacements.astype(real_dtype(precision)))


def _kept(run: Run, kind: Kind) -> frozenset[tuple[int, int]]:
    """Stacks under structures that are complete, which is said before anything is computed."""
    done = frozenset(find_done(run, kind))
    if done:
        logger.info(KEPT, len(done), len(run.images) * len(run.templates), "stacks are complete")
    return done


def _to_do(run: Run, kind: Kind) -> list[str]:
    """Results, and files beside them, that are not there, or not as they should be."""
    done = _kept(run, kind)
    beside = {one.path: one for pair in run.pairs() for one in _descriptions(run, *pair)}
    to_do = [
        f"{run.job(kind, *pair).name} is to be computed" for pair in run.pairs() if pair not in done
    ]
    to_do += [reason for one in beside.values() if (reason := one.why_not_there())]
    if not has_displacements(run):
        to_do.append(f"{run.files.displacements.name} is missing or damaged")
    if why_not_kept(run):
        to_do.append(f"{run.files.noise.name} is missing or another")
    return to_do


def _items(
    run: Run,
    kind: Kind,
    cut: Cut,
    own_claim: Claim,
    options: RunOptions,
    known: frozenset[tuple[int, int]],
) -> Iterator[WorkItem]:
    """Work items of a run, one after the other: a list of all would be as long as the run. Those
    that are known to be done are not looked at again."""
    details = options.recorded(run.settings.device)
    described = set[Path]()
    jobs = (((i, k), replace(run.job(kind, i, k), claim=own_claim)) for i, k in run.pairs())
    for (i, k), job, is_done in job_states(
        jobs,
        skip_exist=options.skip_exist,
        becomes="computed",
        done="stacks are complete",
        replaces="results that are there are replaced; skip_exist=True keeps complete ones",
        known=known,
    ):
        images, templates = run.images[k], run.templates[i]
        about, graph, name = _descriptions(run, i, k), None, name_of(images, templates)
        if is_done:
            _describe_again(job, [one for one in about if one.path not in described])
            described |= {description.path for description in about}
        else:
            results = partial(_results, run, kind, i, k, cut)
            graph = partial(_graph, name, results, job, details, about)
        yield WorkItem(job.name, len(images), graph, name)


def _results(run: Run, kind: Kind, i_template: int, i_stack: int, cut: Cut) -> xr.Dataset:
    """The lazy results of one stack under one structure."""
    return kind.compute(run.graph(kind, i_template, i_stack, cut))


def _descriptions(run: Run, i: int, k: int) -> tuple[Description, Description]:
    """The descriptions beside the results of stack k under structure i."""
    return (
        describe_images(run.files.origins(k), run.images[k], run.inputs.images[k]),
        describe_structure(run.files.structure(i), run.templates[i], run.inputs.templates[i]),
    )


def _describe_again(job: Job, descriptions: Sequence[Description]) -> None:
    """Write what lies beside results that are done, where it is missing or damaged."""
    for description in descriptions:
        if reason := description.why_not_there():
            logger.info("%s is written again: %s", description.path.name, reason)
            make_room(job)
            description.write()


def _graph(
    name: str,
    results: Callable[[], xr.Dataset],
    job: Job,
    details: Details,
    about: Sequence[Description],
) -> Delayed:
    """The graph of one stack under one structure, by whose name its steps are called, its last
    task writing the files."""
    dataset, name = results(), f"{job.kind.replace('_', '-')}-{name}"
    if job.is_store:
        return _store_graph(dataset, name, job, details, about)
    whole = {name: variable.data.rechunk(-1) for name, variable in dataset.data_vars.items()}
    values = {name: array.to_delayed(optimize_graph=False).item() for name, array in whole.items()}
    return task(f"write-{name}", _write, about, job, write_results, values, job, details)


def _store_graph(
    full: xr.Dataset, name: str, job: Job, details: Details, about: Sequence[Description]
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
