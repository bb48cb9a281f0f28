"""Everything that a run looks at before it computes, looked at without writing anything or
starting workers."""

from __future__ import annotations

import errno
import os
from typing import Any

from cryolike_dask.compute.local import memory_of_a_worker
from cryolike_dask.compute.remote import check_connection
from cryolike_dask.config.model import RunConfig
from cryolike_dask.config.run_config import opened
from cryolike_dask.io.atomic import writing
from cryolike_dask.io.records import need_folder
from cryolike_dask.runs.capacity import existing, refuse_what_cannot_fit
from cryolike_dask.runs.folder import refuse_claimed
from cryolike_dask.runs.run import Run
from cryolike_dask.runs.sizes import find_done, job_of


def check_config(config: RunConfig, n_workers: int) -> None:
    """Refuse what a run of this configuration would refuse.

    Parameters
    ----------
    config : RunConfig
        Whose inputs are there.
    n_workers : int
        That the run starts on this machine; 0: none.

    Raises
    ------
    CryolikeError
        As the run would: inputs that do not fit together, results of another run in the output
        folder, an output that cannot be written or is too large, a scheduler that does not answer.
    """
    run, kind, machine = opened(config), config.likelihood.kind, config.machine
    where = machine.scheduler or machine.scheduler_file
    if where is not None:
        tls: dict[str, Any] = {
            "tls_ca_file": machine.tls_ca_file,
            "tls_cert": machine.tls_cert,
            "tls_key": machine.tls_key,
        }
        check_connection(where, **tls)
    elif kind == "full_cross_correlation":
        run = run.in_memory(memory_of_a_worker(None, n_workers))
        refuse_what_cannot_fit(run, {key: job_of(run, kind, *key) for key in run.pairs()}, None)
    need_folder(config.output)
    if not machine.overwrite:
        refuse_claimed(run)
    _need_room_for_writing(config, run)


def _need_room_for_writing(config: RunConfig, run: Run) -> None:
    """Refuse folders that take no files; results that are complete need not be written again."""
    machine = config.machine
    beside = [
        path.parent for path in (machine.log_file, machine.performance_report) if path is not None
    ]
    for folder in (config.output, *beside):
        there = existing(folder)
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            continue
        if folder == config.output and machine.keeps and _is_done(config, run):
            continue
        why = errno.EACCES if there.is_dir() else errno.ENOTDIR
        if os.statvfs(there).f_flag & os.ST_RDONLY:
            why = errno.EROFS
        with writing(folder):
            raise OSError(why, os.strerror(why))


def _is_done(config: RunConfig, run: Run) -> bool:
    return len(find_done(run, config.likelihood.kind)) == len(list(run.pairs()))
