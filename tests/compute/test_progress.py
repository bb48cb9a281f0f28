"""What a run tells of its progress: in blocks and their parts, the same in a terminal, a
notebook and a log."""

from __future__ import annotations

import io
import logging
import re
import sys
from dataclasses import replace

import msgpack
import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.compute import block_reports, progress
from cryolike_dask.compute.block_reports import (
    BLOCKS,
    BlockReport,
    PartReport,
    Teller,
    announce,
    announce_part,
)
from cryolike_dask.compute.progress import (
    Meter,
    _clock,
    _times,
    counted,
    progress_bar,
    watch_comparisons,
)

COMPUTATIONS = [
    cld.compute_optimal_pose,
    cld.compute_optimal_displacement_and_rotation,
    cld.compute_optimal_displacement,
    cld.compute_optimal_rotation,
    cld.compute_cross_correlation_complete,
]
BLOCK = BlockReport(
    name="a",
    first_image=0,
    n_images=30,
    first_template=0,
    n_templates=2,
    of_templates=5,
    device="cpu",
    dtype="float32",
    tile=(8, 2),
    first_tile=(8, 2),
    seconds=1.0,
)


@pytest.mark.parametrize("report", [BLOCK, PartReport("a", (0, 5), 2.5)])
def test_reports_arrive_as_they_were_sent(report):
    sent = msgpack.packb(block_reports._event_of(report))
    assert block_reports._report_of(msgpack.unpackb(sent)) == report


@pytest.fixture
def shown():
    """What a meter of 100 images shows."""
    values = []
    return values, Meter(100, lambda done, kept: values.append((done, kept)))


def test_parts_count_as_they_come_and_never_twice(shown):
    values, meter = shown
    meter.started("a")
    meter.started("b")
    assert meter.part("a", [0, 0], 10)
    assert meter.part("a", [0, 5], 5)
    assert meter.part("b", (0, 0), 20)
    assert meter.part("a", (0, 0), 4)  # computed again, by another worker
    meter.started("a")  # again, after its worker was lost
    assert not meter.part("c", (0, 0), 50)
    assert meter.block(BLOCK)
    meter.finished("a", 30)
    meter.finished("b", 70, ValueError("no"))
    assert [done for done, _ in values] == [10, 15, 35, 35, 37, 50, 100]
    assert not meter.parts


def test_the_order_of_events_does_not_matter(rng, shown):
    values, meter = shown
    events = [(f"{i}", (j,), n) for i in range(4) for j in range(5) for n in (1, 3, 5)]
    for name in "0123":
        meter.started(name)
    for k in rng.permutation(len(events)):
        meter.part(*events[k])
    assert values[-1][0] == pytest.approx(100)
    assert np.all(np.diff([done for done, _ in values]) >= 0)


def test_what_was_done_before_is_no_speed(shown):
    values, meter = shown
    meter.finished("a", 60, kept=True)
    meter.finished("b", 20)
    assert values == [(60, 60), (80, 60)]
    assert _times(100, 80, 60, 10.0) == "elapsed 0:10, left 0:10"
    assert _times(100, 60, 60, 10.0) == "elapsed 0:10"
    assert _times(100, 60.2, 60, 300.0) == "elapsed 5:00"  # of one that is begun nothing follows


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (3.6, "0:04"), (86, "1:26"), (3599.7, "1:00:00"), (360000, "100:00:00")],
)
def test_times_are_read_in_one_way(seconds, text):
    assert _clock(seconds) == text


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self):
        return True


def test_a_terminal_and_a_log_say_the_same(monkeypatch, caplog):
    # and not what commands have left there
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    times = r"elapsed \d:\d\d, left \d:\d\d"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(900, "images x structures") as show:
        show(128.4, 100)
    *_, last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sys.stderr.getvalue()).strip().splitlines()
    assert re.fullmatch(rf"images x structures \S+ +128/900 \S+/s {times}", last)
    assert len(last) <= 80
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO), progress_bar(900, "images") as show:
        show(128.4, 100)
    assert re.fullmatch(rf"128 of 900 images, \S+ per second, {times}", caplog.messages[-1])
    assert not sys.stderr.getvalue()


@pytest.mark.parametrize(
    ("seconds", "pace"),
    [(1, "8 per second"), (80, "0.1 per second"), (160, "20 seconds each")],
)
def test_what_is_slow_is_told_by_the_time_of_each(monkeypatch, caplog, seconds, pace):
    clock = iter([0.0, seconds, seconds])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        show = progress._lines(12, "images")
        show(10, 2)
        show(10, 10)
    assert caplog.messages[0].startswith(f"10 of 12 images, {pace}, elapsed ")
    assert caplog.messages[1].startswith("10 of 12 images, elapsed ")


def test_comparisons_are_counted_by_what_tasks_tell(monkeypatch, caplog):
    """Whatever comes again counts again: parts of a block that is done, and after a new start."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with (
        caplog.at_level(logging.INFO),
        watch_comparisons(
            None, 60, "images", shown=True, weight=lambda name: 0.5 if name == "b" else 1
        ) as anew,
    ):
        announce_part("a", (0, 0), 4)
        announce(BLOCK)  # 30 images under 2 of 5 templates: 12
        announce(BLOCK)
        announce_part("b", (0,), 10)
        announce_part("b", (0,), 10)
        anew()
        announce_part("b", (0,), 20)
        for _ in range(3):
            announce(BLOCK)
    done = [int(message.split()[0]) for message in caplog.messages]
    assert done == [4, 12, 24, 29, 29, 39, 51, 60, 60, 60]


def test_things_are_counted_as_they_are_dealt_with(monkeypatch, caplog):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO):
        assert list(counted("abc", "letters")) == list("abc")
        assert list(counted("abc", "silent letters", shown=False)) == list("abc")
        assert not list(counted("", "no letters"))
    assert [message.split(",")[0] for message in caplog.messages] == [
        f"{n} of 3 letters" for n in (1, 2, 3)
    ]


class Hearing(logging.Handler):
    """Keeps the parts that are told."""

    def __init__(self):
        super().__init__()
        self.parts = []

    def emit(self, record):
        if isinstance(record.report, PartReport):
            self.parts.append(record.report)


@pytest.fixture
def hearing(monkeypatch):
    handler, log = Hearing(), logging.getLogger(BLOCKS)
    monkeypatch.setattr(log, "level", logging.DEBUG)
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


@pytest.mark.parametrize("compute", COMPUTATIONS, ids=lambda f: f.__name__)
def test_a_block_tells_how_far_it_is(compute, build, hearing, monkeypatch):
    monkeypatch.setattr(block_reports, "SECONDS_BETWEEN_PARTS", 0.0)
    images, templates = build.stacks(n_images=5, n_templates=7)
    images, templates = replace(images, n_per_batch=2), replace(templates, n_per_batch=3)
    compute(images, templates, device="cpu").compute(scheduler="synchronous")
    by_place = {}
    for part in hearing.parts:
        by_place.setdefault(part.at, []).append(part.n_done)
    assert sum(max(done) for done in by_place.values()) == pytest.approx(5)
    assert all(np.all(np.diff(done) > 0) for done in by_place.values())
    assert len(hearing.parts) > 1


def test_parts_are_told_seldom(hearing):
    tell = Teller("a", (0,))
    for i in range(1000):
        tell(i)
    assert not hearing.parts
    tell.last -= 1.0
    tell(7)
    tell(8)
    assert [part.n_done for part in hearing.parts] == [7]
