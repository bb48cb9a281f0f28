"""Computing: one small graph per image stack, with few of them in flight. The only place that computes."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from dask.delayed import Delayed
from distributed import Client, as_completed, default_client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cryolike_dask.errors import InputError

IN_FLIGHT_PER_WORKER = 2

Build = Callable[[], Delayed]


def active_client(client: Client | None) -> Client | None:
    """The client to use: the one given, or the current one, or none (the threaded scheduler)."""
    if client is not None:
        if not isinstance(client, Client):
            raise InputError(f"client={client!r} is not a Client", remedy="Connect with distributed.Client(address).")
        return client
    try:
        return default_client()
    except ValueError:
        return None


def count_workers(client: Client | None) -> int:
    """Workers that run tasks; 1 without a client, since one block at a time uses all cores."""
    return 1 if client is None else max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def task(name: str, function: Callable[..., Any], *arguments: Any) -> Delayed:
    """One task, called `name` on the dashboard; arguments may be tasks, whose results it is given."""
    return dask.delayed(function)(*arguments, dask_key_name=f"{name}-{uuid.uuid4().hex}")


def stream(jobs: Sequence[tuple[int, Build]], client: Client | None, *, progress: bool, title: str) -> None:
    """Compute jobs in order, building each graph only when its turn is near.

    Parameters
    ----------
    jobs : sequence of (number of images, function that builds the graph)
    client : Client or None
        None: the threaded scheduler of this process.
    progress : bool
        Show a bar on a terminal or in a notebook.

    Raises
    ------
    Exception
        The first error of any job; what is in flight is cancelled, what is written stays.
    """
    with _bar(sum(n for n, _ in jobs), title, progress) as advance:
        if client is None:
            for n_images, build in jobs:
                dask.compute(build(), scheduler="threads")
                advance(n_images)
        else:
            _stream_on(client, jobs, advance)


def _stream_on(client: Client, jobs: Sequence[tuple[int, Build]], advance: Callable[[int], None]) -> None:
    waiting = iter(jobs)
    sizes: dict[Any, int] = {}
    completed = as_completed()

    def submit() -> None:
        for n_images, build in waiting:
            future = client.compute(build())
            sizes[future] = n_images
            completed.add(future)
            return

    try:
        for _ in range(IN_FLIGHT_PER_WORKER * count_workers(client)):
            submit()
        for future in completed:
            future.result()
            advance(sizes.pop(future))
            future.release()
            submit()
    except BaseException:
        client.cancel(list(sizes))
        raise


@contextmanager
def _bar(n_images: int, title: str, wanted: bool) -> Iterator[Callable[[int], None]]:
    console = Console(file=sys.stderr)
    if not (wanted and n_images and (console.is_terminal or console.is_jupyter)):
        yield lambda n: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=n_images)
        yield lambda n: bar.advance(task, n)
        bar.refresh()  # in a notebook the last state is not drawn otherwise
