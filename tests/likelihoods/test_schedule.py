"""What workers do while a run goes on, on paper: stacks in flight, their blocks taken by whoever is
done first. None waits long in the end."""

from __future__ import annotations

import heapq
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest

from cryolike_dask.compute.stream import IN_FLIGHT_PER_WORKER
from cryolike_dask.likelihoods.cutting import PREPARED, Cut, Work, even_chunks, largest_first
from cryolike_dask.runs.run import Run

STANDARD = 2370, 257
"""Templates, displacements."""


def jobs_of(sizes, cut, n_templates=STANDARD[0], n_displacements=STANDARD[1]):
    """What the blocks of each stack take, and what settling poses takes after them."""
    jobs = []
    for n_images in sizes:
        work = Work(n_images, n_templates, n_displacements)
        parts = cut.parts(work)
        chunks = [
            even_chunks(n, -(-n // p)) for n, p in zip((n_images, n_templates), parts, strict=True)
        ]
        one = np.ones(1, np.int64)
        blocks = [
            Work(m, s, n_displacements).of_block(one, one).item()
            for m in chunks[0]
            for s in chunks[1]
        ]
        jobs.append((blocks, work.of_settling(one).item() / len(chunks[0])))
    return jobs


def played(jobs, n_workers):
    """When all is done: as `stream` and the scheduler do it, the next block to the first that is
    free, stacks in flight few at a time."""
    free = [0.0] * n_workers
    waiting, ready, left, running = list(jobs), [], {}, []
    n_started = n_done = 0
    now = 0.0
    while n_done < len(jobs):
        while n_started - n_done < IN_FLIGHT_PER_WORKER * n_workers and waiting:
            blocks, last = waiting.pop(0)
            left[n_started] = len(blocks), last
            ready += [(n_started, block) for block in blocks]
            n_started += 1
        while ready and min(free) <= now:
            job, block = ready.pop(0)
            worker = free.index(min(free))
            free[worker] = now + block
            heapq.heappush(running, (now + block, job))
        now, job = heapq.heappop(running)
        n_left, last = left[job]
        if n_left == 1:
            ready.insert(0, (job, last))
        n_done += n_left == 0
        left[job] = n_left - 1, last
    return now


def waits(jobs, n_workers):
    """The part of their time that workers wait."""
    work = sum(sum(blocks) + last for blocks, last in jobs)
    return 1 - work / (n_workers * played(jobs, n_workers))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("n_workers", [2, 4, 8, 16])
def test_no_worker_waits_for_longer_than_a_block(n_workers, device):
    """Graham's bound of a schedule that lets nobody wait while there is work: all of it over the
    workers, and the largest piece."""
    for n_stacks in (1, 2, 3, 5, 8, 9, 17, 33, 100):
        for last in (1024, 300):
            cut = Cut(n_workers, n_stacks, device)
            jobs = jobs_of([1024] * (n_stacks - 1) + [last], cut)
            work = sum(sum(blocks) + last for blocks, last in jobs)
            largest = max(chain.from_iterable(blocks for blocks, _ in jobs))
            settling = max(last for _, last in jobs)
            assert played(jobs, n_workers) <= work / n_workers + largest + settling
            if n_stacks >= 4 * n_workers:
                assert waits(jobs, n_workers) < 0.1


def test_large_stacks_first_leave_nobody_waiting(rng):
    """One stack that is much larger than the others, last and first."""
    sizes = [*rng.integers(50, 60, 15), 1000]
    cut = Cut(4, len(sizes), "cuda")
    first = [sizes[k] for k in largest_first({k: range(n) for k, n in enumerate(sizes)})]
    assert first[0] == 1000
    small = {"n_templates": 200, "n_displacements": 81}
    as_given, sorted_ = (played(jobs_of(some, cut, **small), 4) for some in (sizes, first))
    assert sorted_ < 0.9 * as_given


def test_a_run_takes_large_ones_first_and_keeps_the_order_of_equal_ones():
    run = SimpleNamespace(
        templates={0: range(5), 1: range(9), 2: range(5)},
        images={0: range(3), 1: range(8), 2: range(8), 3: range(9)},
    )
    pairs = list(Run.pairs(run))
    assert [i for i, _ in pairs[::4]] == [1, 0, 2]
    assert [k for _, k in pairs[:4]] == [3, 1, 2, 0]


@pytest.mark.parametrize("n_workers", [2, 8, 16])
def test_chunks_of_a_search_of_some_templates_keep_all_busy(n_workers, build):
    images, _ = build.stacks()
    images = images[np.zeros(1024, int)]
    for n_stacks in (1, 3, 10, 40, 200):
        chunks = Cut(n_workers, n_stacks, "cuda").images_alone(images).chunks
        n_tasks = len(chunks) * n_stacks
        assert n_tasks >= min(n_workers, n_stacks * 1024)
        fewest = -(-n_workers // n_stacks)
        as_few = -(-fewest * n_stacks // n_workers) * (-(-1024 // fewest) + PREPARED)
        as_cut = -(-n_tasks // n_workers) * (max(chunks) + PREPARED)
        assert as_cut <= as_few
        assert n_stacks < 10 or as_cut < 1.4 * n_stacks * (1024 + PREPARED) / n_workers
        if n_stacks >= 10 * n_workers:
            assert len(chunks) == 1
