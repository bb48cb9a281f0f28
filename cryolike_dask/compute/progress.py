"""Progress of a run: how much is done, at what rate, and the time that is left."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from cryolike_dask.compute.block_reports import (
    BlockReport,
    PartReport,
    Report,
    block_table,
    listening_to_blocks,
)
from cryolike_dask.compute.log import EVENTS

logger = logging.getLogger("cryolike_dask")

SECONDS_BETWEEN_LINES = 60.0
"""Between two lines of progress, where there is neither a terminal nor a notebook."""

SLOWEST_RATE = 0.1
"""A second: of what is slower, the time that each takes says more."""

Show = Callable[..., None]
T = TypeVar("T")


class Meter:
    """Count of what is done of a run: whole items, and parts of those that are in work.

    Parameters
    ----------
    n_images : int
        Images of all items.
    show : callable
        Gets the number of images that are done, which may be a fraction, and how many of them were
        done before.
    """

    def __init__(self, n_images: int, show: Show) -> None:
        self.n_images, self.show = n_images, show
        self.done, self.kept, self.in_work = 0, 0, 0.0
        self.parts = dict[str, dict[tuple[int, ...], float]]()
        self.lock = threading.Lock()
        """Items finish in one thread, and events of their parts come in another."""

    def finished(
        self, name: str, n_images: int, error: BaseException | None = None, *, kept: bool = False
    ) -> None:
        """Count a whole item, or one that failed, or one that was done before."""
        fields = {"name": name, "n_images": n_images} | (
            {} if error is None else {"error": str(error)}
        )
        EVENTS.info("finished" if error is None else "failed", extra={"fields": fields})
        with self.lock:
            self.done += n_images
            self.kept += n_images if kept else 0
            self.in_work -= sum(self.parts.pop(name, {}).values())
        self._show()

    def started(self, name: str) -> None:
        """Count what is done of an item from now on; what was done of it when its worker died
        stays."""
        with self.lock:
            self.parts.setdefault(name, {})

    def part(self, name: str, at: Iterable[int], n_images: float) -> bool:
        """Count what is done of a part of an item, and say whether the item is in work.

        A part that is computed again, since its worker is gone, counts as much as it did.
        """
        with self.lock:
            if name not in self.parts:
                return False
            parts, key = self.parts[name], tuple(at)
            more = max(0.0, n_images - parts.get(key, 0.0))
            parts[key] = parts.get(key, 0.0) + more
            self.in_work += more
        self._show()
        return True

    def block(self, block: BlockReport) -> bool:
        """Count a block, and say whether it belongs to an item that is in work."""
        return self.part(block.name, block.at, block.n_images_done)

    def _show(self) -> None:
        self.show(min(self.done + self.in_work, self.n_images), self.kept)


@contextmanager
def watch(
    client: Client | None, n_images: int, title: str, *, progress: bool, table: Path | None = None
) -> Iterator[Meter]:
    """Show progress while the body runs, and write every block to a table.

    Parameters
    ----------
    client : Client or None
        The client whose workers tell of their blocks.
    n_images : int
        Images of the whole run.
    title : str
        Name of what is counted.
    progress : bool
        Show a bar on a terminal or in a notebook, and otherwise log a line from time to time.
    table : Path, optional
        Table of blocks; rows are appended.
    """
    with ExitStack() as stack:
        show = stack.enter_context(progress_bar(n_images, title, shown=progress))
        meter = Meter(n_images, show)
        write = stack.enter_context(block_table(table)) if table is not None else _nothing

        def heard(report: Report) -> None:
            if isinstance(report, PartReport):
                meter.part(report.name, report.at, report.n_done)
            elif meter.block(report):
                if report.tile != report.first_tile:
                    logger.warning(
                        "%s: out of memory with tiles of %d x %d (images x templates); went on "
                        "with %d x %d",
                        report.name,
                        *report.first_tile,
                        *report.tile,
                    )
                write(report)
                EVENTS.info("block", extra={"fields": asdict(report)})

        stack.enter_context(listening_to_blocks(client, heard))
        yield meter


@contextmanager
def watch_comparisons(
    client: Client | None,
    total: float,
    title: str,
    *,
    shown: bool,
    weight: Callable[[str], float] = lambda _: 1.0,
) -> Iterator[Callable[[], None]]:
    """Show progress while the body runs, by what tasks tell of themselves. Blocks that are compared
    again count again.

    Gives what to call before parts of tasks begin anew under the same names.

    Parameters
    ----------
    client : Client or None
        The client whose workers tell of their blocks.
    total : float
        All that is to be done, or what it will be about.
    title : str
        Name of what is counted.
    shown : bool
        Whether to show anything.
    weight : callable
        By the name in a report: how much an image counts there that is compared with all templates.
    """
    parts, done, lock = dict[tuple[str, tuple[int, ...]], float](), 0.0, threading.Lock()
    with progress_bar(round(total), title, shown=shown) as show:

        def heard(report: Report) -> None:
            nonlocal done
            place, is_part = (report.name, report.at), isinstance(report, PartReport)
            n_done = report.n_done if isinstance(report, PartReport) else report.n_images_done
            with lock:
                before = parts.pop(place, 0.0)
                done += weight(report.name) * max(0.0, n_done - before)
                if is_part:
                    parts[place] = max(before, n_done)
                so_far = min(done, total)
            show(so_far)

        with listening_to_blocks(client, heard):
            yield parts.clear
        show(total)


def _nothing(*_: Any) -> None:
    """Show nothing."""


@contextmanager
def progress_bar(total: int, title: str, *, shown: bool = True) -> Iterator[Show]:
    """Show how much is done: a bar on a terminal or in a notebook, elsewhere a line of the log now
    and then.

    Gives a function that takes how much is done of the total, and how much of that was done before.
    """
    console = Console(file=sys.stderr)
    if not shown or not total:
        yield _nothing
    elif not (console.is_terminal or console.is_jupyter):
        yield _lines(total, title)
    else:
        unbroken = (
            kind(table_column=Column(no_wrap=True)) for kind in (MofNCompleteColumn, _Rate, _Times)
        )
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), *unbroken)
        with Progress(*columns, console=console, expand=True) as bar:
            task = bar.add_task(title, total=total, done=0.0, kept=0.0)

            def show(done: float, kept: float = 0.0) -> None:
                bar.update(task, completed=int(done), done=done, kept=kept)

            yield show
            bar.refresh()  # in a notebook the last state is not drawn otherwise


def counted(things: Sequence[T], title: str, *, shown: bool = True) -> Iterator[T]:
    """Give things one by one, and show how many are dealt with."""
    with progress_bar(len(things), title, shown=shown) as show:
        for n, thing in enumerate(things, start=1):
            yield thing
            show(n)


class _Rate(ProgressColumn):
    """Column of what is done in a second."""

    def render(self, task: Task) -> Text:
        """Rate of what was not done before."""
        rate = _rate(task.fields["done"], task.fields["kept"], task.elapsed or 0.0)
        if not rate:
            return Text("")
        return Text(f"{rate:.3g}/s" if rate >= SLOWEST_RATE else f"{1 / rate:.3g} s each")


class _Times(ProgressColumn):
    """Column of the time that it has taken, and will take."""

    def render(self, task: Task) -> Text:
        """As the log says it."""
        return Text(
            _times(task.total or 0, task.fields["done"], task.fields["kept"], task.elapsed or 0.0)
        )


def _rate(done: float, kept: float, seconds: float) -> float:
    """What is done in a second; 0 before one is done, when processes that start are most of it."""
    return (done - kept) / max(seconds, 1e-3) if done - kept >= 1 else 0.0


def _pace(rate: float) -> str:
    """A rate as a line says it; of what takes long, the time of each."""
    if not rate:
        return ""
    return f"{rate:.3g} per second, " if rate >= SLOWEST_RATE else f"{1 / rate:.3g} seconds each, "


def _times(total: float, done: float, kept: float, seconds: float) -> str:
    """Time that has passed, and that is left if it goes on so."""
    rate = _rate(done, kept, seconds)
    left = f", left {_clock((total - done) / rate)}" if rate else ""
    return f"elapsed {_clock(seconds)}{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _lines(total: int, title: str) -> Show:
    """Log a line of progress, not too often."""
    start = last = time.monotonic()

    def show(done: float, kept: float = 0.0) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            pace = _pace(_rate(done, kept, now - start))
            times = _times(total, done, kept, now - start)
            logger.info("%d of %d %s, %s%s", done, total, title, pace, times)

    return show
