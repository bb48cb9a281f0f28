"""Clients of schedulers that run already, and what their workers need for our blocks."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from distributed import Client, Scheduler, Security, Worker, WorkerPlugin
from distributed.deploy import Cluster

from cryolike_dask.compute.addresses import address_in, check_scheduler, warn_if_open_to_others
from cryolike_dask.compute.closing import OnceClosingClient
from cryolike_dask.compute.device import take_threads_of_a_worker
from cryolike_dask.compute.local import SATURATION
from cryolike_dask.errors import ClusterError, InputError, missing_files, number
from cryolike_dask.io.identity import regular_file

logger = logging.getLogger("cryolike_dask")


class OneTorchThread(WorkerPlugin):  # type: ignore[misc]
    """One thread of torch in a worker process: blocks of all workers together take as many cores as
    there are workers. Beside a GPU it is the worker's share of the cores of its machine.

    It holds for every task of the process, and for workers that join later, until it is taken off
    (`client.unregister_worker_plugin(OneTorchThread.name)`), which restores the number of before.
    Threads that have used torch already keep theirs until the worker is restarted.
    """

    name = "cryolike_dask-one-torch-thread"

    def setup(self, worker: Worker) -> None:
        """Remember how many threads torch would use, and use as many as a worker may."""
        import torch

        self.before = torch.get_num_threads()
        take_threads_of_a_worker()

    def teardown(self, worker: Worker) -> None:
        """Put the number of threads back."""
        import torch

        torch.set_num_threads(self.before)


def connect(
    where: str | os.PathLike[str] | Client | Cluster,
    security: Security | None = None,
    *,
    tls_ca_file: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    timeout: float = 5.0,
    wait_for_workers: float = 300.0,
) -> Client:
    """Connect to a scheduler that runs already, and make its workers ready.

    Its workers compute with one thread of torch from then on, or beside a GPU with its share of the
    cores (`OneTorchThread`), and blocks that wait do so at the scheduler, not behind another one
    with a worker. Warnings tell when anyone on the network can use the scheduler, and when workers
    have threads that would only wait for each other.

    Parameters
    ----------
    where : str, path, distributed.Client or Cluster
        The scheduler's address, `tcp://host:port` or `tls://host:port`; or its scheduler file; or a
        cluster such as dask-jobqueue's; or a client, which is given back.
    security : distributed.Security, optional
        Certificates; default: those of Dask's configuration, if there are any.
    tls_ca_file, tls_cert, tls_key : path, optional
        The same as three files, as `dask scheduler` and `dask worker` take them.
    timeout : float
        Seconds to wait for an answer of the scheduler.
    wait_for_workers : float
        Seconds to wait for a first worker; 0: do not wait, for clusters that start workers once
        there are tasks.

    Returns
    -------
    distributed.Client
        The current client from now on. Use it in a `with` block, or close it; scheduler and workers
        stay.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached, wants other certificates, or has no worker in time; if
        it, or a worker, cannot import this package.
    InputError
        If `where` is no address, or certificates are given where they cannot be used, or not all of
        them.
    InputFileError
        If the scheduler file or a certificate is missing or damaged.
    """
    timeout = number("timeout", timeout, above=0)
    wait_for_workers = number("wait_for_workers", wait_for_workers, at_least=0)
    security = _security(
        security, {"tls_ca_file": tls_ca_file, "tls_cert": tls_cert, "tls_key": tls_key}
    )
    if security is not None and isinstance(where, Client | Cluster):
        raise InputError(
            "a client or a cluster has its certificates already",
            remedy="Give an address to connect to.",
        )
    logging.getLogger("distributed.client").addFilter(_tells_more_than_our_error)
    client = where if isinstance(where, Client) else _open(where, security, timeout)
    try:
        warn_if_open_to_others(client.scheduler.address)
        _await_a_worker(client, wait_for_workers)
        _prepare(client)
    except BaseException:
        if client is not where:
            client.close()
        raise
    return client


def check_connection(
    where: str | os.PathLike[str],
    *,
    tls_ca_file: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    timeout: float = 5.0,
) -> None:
    """Refuse an address or a scheduler file that `connect` would refuse; parameters and errors
    are the same."""
    security = _security(
        None, {"tls_ca_file": tls_ca_file, "tls_cert": tls_cert, "tls_key": tls_key}
    )
    _answering(where, security, timeout)


def _tells_more_than_our_error(record: logging.LogRecord) -> bool:
    """Whether a record is no traceback of a connection that is lost: a run that loses it says so
    in one line."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, OSError | asyncio.CancelledError)


def _security(
    security: Security | None, files: Mapping[str, str | os.PathLike[str] | None]
) -> Security | None:
    """Certificates that were given, whichever way."""
    given = {name: path for name, path in files.items() if path is not None}
    if not given:
        return security
    if security is not None:
        raise InputError(f"security and {', '.join(given)} exclude each other")
    if len(given) < len(files):
        raise InputError(
            f"{', '.join(given)} alone", remedy="TLS needs tls_ca_file, tls_cert and tls_key."
        )
    remedy = "Give the certificates that the scheduler was started with."
    if missing := [str(path) for path in given.values() if not os.path.exists(path)]:
        raise missing_files(missing, remedy)
    for path in given.values():
        regular_file(str(path), remedy)
    ca, cert, key = (str(path) for path in given.values())
    return Security(
        tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True
    )


def _open(
    where: str | os.PathLike[str] | Cluster, security: Security | None, timeout: float
) -> Client:
    """A client of a cluster, an address or a scheduler file, once something there is known to be
    a scheduler."""
    if isinstance(where, Cluster):
        return OnceClosingClient(where)
    address, shown = _answering(where, security, timeout)
    try:
        return OnceClosingClient(address, security=security, timeout=timeout)
    except (OSError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise ClusterError(
            f"{shown} does not accept this client ({type(error).__name__}: {error})",
            remedy="Give the address of a scheduler, not of a worker, with the same versions of "
            "Python and Dask.",
        ) from error


def _answering(
    where: str | os.PathLike[str], security: Security | None, timeout: float
) -> tuple[str, str]:
    """Address of a scheduler that answers there, and how messages show it."""
    text = os.fspath(where)
    address = text if "://" in text else address_in(Path(text))
    shown = address if address == text else f"{text}: {address}"
    check_scheduler(address, shown, security, timeout)
    return address, shown


def _await_a_worker(client: Client, seconds: float) -> None:
    if not seconds or client.scheduler_info(n_workers=-1)["workers"]:
        return
    address = client.scheduler.address
    start = f"`dask worker {address} --nthreads 1` starts one"
    logger.warning(
        "%s: no worker has joined yet; waiting for one, up to %g s. %s.", address, seconds, start
    )
    try:
        client.wait_for_workers(1, timeout=seconds)
    except OSError as error:  # a timeout too
        raise ClusterError(
            f"{address}: no worker has joined within {seconds:g} s", remedy=f"{start}."
        ) from error


def _prepare(client: Client) -> None:
    """Make sure that scheduler and workers can import this package, and that threads do not
    compete for cores."""
    try:
        client.run_on_scheduler(_one_block_at_a_time)
        client.register_plugin(OneTorchThread())
    except ImportError as error:
        raise ClusterError(
            f"{client.scheduler.address}: the scheduler or a worker cannot import cryolike_dask "
            f"({error})",
            remedy="Start both from an environment in which it is installed, in this version.",
        ) from error
    n_threads = [
        worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()
    ]
    if wide := [n for n in n_threads if n > 1]:
        logger.warning(
            "%d worker(s) have up to %d threads, but a process computes one block at a time, with "
            "one thread of torch. "
            "Start them with `dask worker --nthreads 1 --nworkers %d` to use all of these cores.",
            len(wide),
            max(wide),
            max(wide),
        )


def _one_block_at_a_time(dask_scheduler: Scheduler) -> None:
    """Have a scheduler give its workers no block beside the one that they compute, as those of
    `local_cluster` do. It must import this module in order to run it."""
    dask_scheduler.WORKER_SATURATION = SATURATION
