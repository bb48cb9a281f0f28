"""A check of everything that a run looks at before it computes; nothing is written, and no workers
start."""

from __future__ import annotations

import errno
import os

from cryolike_dask.compute.local import memory_of_a_worker
from cryolike_dask.compute.remote import check_connection
from cryolike_dask.config.model import RunConfig
from cryolike_dask.config.run_config import opened
from cryolike_dask.io.atomic import writing
from cryolike_dask.io.output_folder import need_folder
from cryolike_dask.runs.capacity import existing, refuse_what_cannot_fit
from cryolike_dask.runs.folder import output_folder, settled
from cryolike_dask.runs.kinds import kind_named
from cryolike_dask.runs.noise_of_run import with_known_noise
from cryolike_dask.runs.run import Run
from cryolike_dask.runs.sizes import find_done


def check_config(config: RunConfig) -> None:
    """Refuse a configuration whose run would be refused.

    Parameters
    ----------
    config : RunConfig
        One whose inputs are there.

    Raises
    ------
    CryolikeError
        As the run would: inputs that do not fit together, results of another run in the output
        folder, an output that cannot be written or is too large, a scheduler that does not answer.
    """
    machine, place = config.machine, config.machine.place
    n_workers = place.n_workers
    kind, starts_anew = kind_named(config.likelihood.kind), machine.run_options.starts_anew
    run = settled(opened(config).run, kind, starts_anew=starts_anew)
    if place.running_scheduler is not None:
        check_connection(place.running_scheduler, **place.certificates)
    elif kind.keeps_every_pose:
        run = run.in_memory(memory_of_a_worker(None, n_workers))
        refuse_what_cannot_fit(run, {key: run.job(kind, *key) for key in run.pairs()}, None)
    need_folder(config.output)
    if not machine.overwrite:
        output_folder(run).refuse()
    if not starts_anew:
        with_known_noise(run)
    _need_room_for_writing(config, run)


def _need_room_for_writing(config: RunConfig, run: Run) -> None:
    """Refuse folders that take no files; results that are complete need not be written again."""
    machine = config.machine
    other_folders = [
        path.parent for path in (machine.log_file, machine.performance_report) if path is not None
    ]
    for folder in (config.output, *other_folders):
        nearest = existing(folder)
        if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
            continue
        if folder == config.output and machine.keeps and _is_done(config, run):
            continue
        reason = errno.EACCES if nearest.is_dir() else errno.ENOTDIR
        if os.statvfs(nearest).f_flag & os.ST_RDONLY:
            reason = errno.EROFS
        with writing(folder):
            raise OSError(reason, os.strerror(reason))


def _is_done(config: RunConfig, run: Run) -> bool:
    return len(find_done(run, kind_named(config.likelihood.kind))) == len(list(run.pairs()))
