"""Computing: one small graph per item of work, with few of them in flight. The only place that
computes."""

from __future__ import annotations

import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
from dask._task_spec import convert_legacy_graph
from dask.delayed import Delayed
from distributed import Client, Future, KilledWorker, as_completed

from cryolike_dask.compute.device import count_workers
from cryolike_dask.compute.failures import FailedGpus
from cryolike_dask.compute.progress import watch
from cryolike_dask.errors import (
    BrokenGpuError,
    ClusterError,
    CryolikeError,
    FailedPiecesError,
)
from cryolike_dask.labels import OnError

logger = logging.getLogger("cryolike_dask")

IN_FLIGHT_PER_WORKER = 2
"""Items in flight for each worker: while one is computed, the next is with the scheduler, so
that no worker waits."""
MOST_IN_FLIGHT = 1000
"""Items in flight, however many workers there are: the scheduler keeps the graph of each."""

BOOKKEEPING = "bookkeeping-0"
"""Start of the names of tasks that only hand on what others have made: Dask takes what comes before
the number for the name of them all."""


@dataclass(frozen=True)
class WorkItem:
    """An item of work: an image stack under a structure, or an input file of a run.

    Attributes
    ----------
    name : str
        Name in messages.
    n_images : int
        Weight of the item in the progress.
    build : callable or None
        Makes the graph of the item; None: it is done already.
    blocks : str
        Name that its blocks tell progress under, and that is part of the names of its steps.
    """

    name: str
    n_images: int
    build: Callable[[], Delayed] | None
    blocks: str = ""


def task(name: str, function: Callable[..., Any], *arguments: Any) -> Delayed:
    """One task, called `name` on the dashboard; arguments may be tasks, whose results it is
    given."""
    return dask.delayed(function)(*arguments, dask_key_name=f"{name}-{uuid.uuid4().hex}")


def computed(graphs: Sequence[Any], client: Client | None) -> list[Any]:
    """Compute graphs whose results are small, on a client or in threads of this process, and give
    the results."""
    if client is None:
        return list(dask.compute(*graphs, scheduler="threads"))
    futures = client.compute(list(graphs))
    try:
        return list(client.gather(futures))
    finally:
        client.cancel(futures)


def stream(
    items: Iterable[WorkItem],
    client: Client | None,
    *,
    n_images: int,
    progress: bool,
    title: str,
    on_error: OnError = "stop",
    table: Path | None = None,
) -> None:
    """Compute items in order, each graph built only when its turn is near.

    Parameters
    ----------
    items : iterable of WorkItem
        Taken one by one: a run of any length holds few of them at a time.
    client : Client or None
        None: the threaded scheduler of this process.
    n_images : int
        Images of all items, for progress.
    progress : bool
        Show a bar on a terminal or in a notebook, elsewhere a line of the log now and then.
    title : str
        Name of what is counted.
    on_error : "stop" | "quarantine"
        Stop at the first item that fails, or go on and raise one error at the end that lists all
        of them.
    table : Path, optional
        Gets a row for each block.

    Raises
    ------
    Exception
        The error of the first item that fails; what is in flight is cancelled, what is written
        stays.
    FailedPiecesError
        If items failed and were left out.
    ClusterError
        If the scheduler is lost, or an item loses one worker after the other.
    DeviceError
        If one GPU after the other fails under an item, or no worker is left.
    """
    failed = {}
    with watch(client, n_images, title, progress=progress, table=table) as meter:
        outcomes = (
            _in_process(items, meter.started)
            if client is None
            else _on(client, items, meter.started)
        )
        # closed here: who stops cancels what is in flight now, not when Python collects garbage,
        # which it may do in any thread
        with closing(outcomes):
            for item, error in outcomes:
                if error is not None and (on_error == "stop" or not isinstance(error, Exception)):
                    raise error
                if error is not None:
                    logger.error("%s failed, and is left out: %s", item.name, error)
                    failed[item.name] = error
                meter.finished(item.blocks, item.n_images, error, kept=item.build is None)
    if failed:
        raise FailedPiecesError.of(failed)


Outcomes = Generator[tuple[WorkItem, BaseException | None], None, None]


def _in_process(items: Iterable[WorkItem], started: Callable[[str], None]) -> Outcomes:
    """Compute items one after the other in this process, where a block takes all cores."""
    for item in items:
        error = None
        if item.build is not None:
            started(item.blocks)
            try:
                dask.compute(item.build(), scheduler="threads")
            except Exception as failure:  # Ctrl-C is none of these, and ends the run
                error = failure
        yield item, error


def _on(client: Client, items: Iterable[WorkItem], started: Callable[[str], None]) -> Outcomes:
    """Compute items on workers, and give each as it is done."""
    waiting, completed = iter(items), as_completed(loop=client.loop)
    in_flight: dict[Future, WorkItem] = {}
    submitted_again: set[str] = set()
    failed_gpus, again = FailedGpus(client), list[WorkItem]()

    def submit(item: WorkItem) -> CryolikeError | None:
        """Submit an item, or give the error of its inputs: they are opened while graphs are built,
        so that one may be found damaged here."""
        try:
            graph = lean(item.build(), item.blocks, item.name)  # type: ignore[misc]
            # before its blocks can tell of themselves: reports of items not in work are not counted
            started(item.blocks)
            with _connected():
                # those submitted within a moment are of one age otherwise: the first steps of all
                # of them go before any other, and the items that come first are done last
                future = client.compute(graph, fifo_timeout=0)
        except CryolikeError as failure:
            return failure
        in_flight[future] = item
        completed.add(future)
        return None

    try:
        while True:
            # a task that several items share would fail for all of them until all have let go of it
            if not any(future.status == "error" for future in in_flight):
                for failed in again:
                    if (failure := submit(failed)) is not None:
                        yield failed, failure
                again.clear()
            # asked each time: workers may come and go while a run goes on
            with _connected():
                limit = min(IN_FLIGHT_PER_WORKER * count_workers(client), MOST_IN_FLIGHT)
            while len(in_flight) < limit and (item := next(waiting, None)) is not None:
                # nothing to compute, and no place in flight: runs that go on pass these quickly
                if item.build is None:
                    yield item, None
                elif (failure := submit(item)) is not None:
                    yield item, failure
            if not in_flight:
                return
            # whichever is first: one slow item keeps none of the others waiting
            future = next(completed)
            item, error = in_flight.pop(future), _error_of(future)
            # the scheduler forgets the item, or its memory would grow with the run
            future.release()
            if isinstance(error, KilledWorker):
                # it may only have been there when others made their worker die
                if item.name not in submitted_again:
                    submitted_again.add(item.name)
                    error = submit(item)
                    if error is None:
                        continue
                else:
                    error = _killed(item)
            elif isinstance(error, BrokenGpuError):
                with _connected():
                    error = failed_gpus.done_about(error, item.name)
                if error is None:
                    again.append(item)
                    continue
            yield item, error
    finally:
        # an error or Ctrl-C ends the loop: workers shall not go on with what nobody waits for
        if in_flight and client.status == "running":
            client.cancel(list(in_flight))


def lean(graph: Delayed, *names_of_steps: str) -> Delayed:
    """The same graph, its keys text: the scheduler remembers for good what it calls a group, each
    name in a tuple.

    Tasks that only take parts of a value, all of them for the last task, become parts of the last
    task. What is called by none of the names of steps, where there are some, is bookkeeping, and
    has one name, which is one bar on the dashboard.
    """
    nodes = convert_legacy_graph(dict(graph.__dask_graph__()))
    within = _takers(nodes, graph.key)
    nodes[graph.key] = nodes[graph.key].substitute(within)
    names = {key: "-".join(map(str, key)) for key in nodes if isinstance(key, tuple)}
    steps = [graph.key, *filter(None, names_of_steps)]
    if len(steps) > 1:
        others = [key for key in nodes if not any(step in str(key) for step in steps)]
        names |= {key: f"{BOOKKEEPING}-{names.get(key, key)}" for key in others}
    kept = {key: node for key, node in nodes.items() if key not in within}
    return Delayed(
        graph.key,
        {names.get(k, k): node.substitute(names, names.get(k, k)) for k, node in kept.items()},
    )


def _takers(nodes: dict[Any, Any], last: str) -> dict[Any, Any]:
    """Tasks that need one value, which none but such tasks need, and that only the last task
    needs."""
    needed_by: dict[Any, set[Any]] = defaultdict(set)
    for key, node in nodes.items():
        for dependency in node.dependencies:
            needed_by[dependency].add(key)
    takers = {
        key for key in nodes if needed_by[key] == {last} and len(nodes[key].dependencies) == 1
    }
    wholes = {next(iter(nodes[key].dependencies)) for key in takers}
    parted = {key for key in wholes if len(needed_by[key]) > 1 and needed_by[key] <= takers}
    return {key: nodes[key] for key in takers if nodes[key].dependencies <= parted}


def _error_of(future: Future) -> BaseException | None:
    if future.status == "cancelled":
        raise _lost()
    error: BaseException | None = future.exception()
    return error


@contextmanager
def _connected() -> Iterator[None]:
    """Tell of a connection that is lost, in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise _lost() from error


def _lost() -> ClusterError:
    return ClusterError(
        "the connection to the scheduler was lost, or the work was cancelled there",
        remedy="What is written is complete: run again with skip_exist=True.",
    )


def _killed(item: WorkItem) -> ClusterError:
    return ClusterError(
        f"{item.name}: one worker after the other died while computing it, most likely for want "
        f"of memory",
        remedy="Give each worker more memory (fewer workers; `dask worker --memory-limit`), or "
        "make smaller stacks.",
    )
