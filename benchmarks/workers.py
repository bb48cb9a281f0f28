"""Are two workers twice as fast as one thread? File to file, the standard case.

For each number of stacks: one thread of this process, then two worker processes of one thread each,
which have started and have compared something before. Where other programs use the cores too, times
on a clock say little: the speed is also given by the processor seconds of the worker that has most
of them. Then what the model by which stacks are cut says of sixteen workers, and, for stacks of
fewer images, one thread against the comparison as it is usually programmed (`textbook`, timed on a
few images and templates, and counted for all), reading and writing included: with a radial basis
made anew and kept from a run before, comparing every pose and coarse to fine.

    python -m benchmarks.workers [--images 1024] [--templates 208] [--stacks 1 4 16]
        [--of-textbook 64 256 1024]

Exits with 1 if two workers have less than 90% of twice the speed, in processor seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from distributed import Client

import cryolike_dask as cld
from benchmarks.cases import STANDARD
from benchmarks.contenders import baselines, inputs
from benchmarks.processes import pids_of_workers
from benchmarks.scaling import write_inputs
from cryolike_dask.io.layout import metadata_file
from cryolike_dask.labels import SearchMethod
from cryolike_dask.likelihoods.cutting import Cut, Work

LEAST = 0.9
"""Of twice the speed of one thread."""
N_ON_PAPER = 16
OF_TEXTBOOK = 64, 256, 1024
"""Images of a stack."""
SIGNAL = 0.05**0.5
"""Root of the power of particles over that of noise, in the band."""


def write_stacks(folder: Path, n_images: int, n_templates: int, n_stacks: int) -> None:
    """Put templates and stacks into files; stacks are the same files under several names."""
    write_inputs(folder, n_images, n_templates, signal=SIGNAL)
    files = files_of(folder)
    first = files.image_stack(0)[0]
    for k in range(1, n_stacks):
        for path, other in (
            (first, files.image_stack(k)[0]),
            (metadata_file(first), metadata_file(files.image_stack(k)[0])),
        ):
            os.link(path, other)


def files_of(folder: Path) -> cld.LikelihoodFiles:
    """Where inputs and results are."""
    return cld.configure_likelihood_files(
        folder / "templates", folder / "particles", folder / "likelihood"
    )


def run(
    folder: Path,
    n_stacks: int,
    client: Client | None = None,
    search: SearchMethod = "exhaustive",
) -> float:
    """Run everything anew, and give the seconds on the clock."""
    shutil.rmtree(folder / "likelihood", ignore_errors=True)
    started = time.perf_counter()
    cld.run_likelihood_optimal_pose(
        files_of(folder),
        STANDARD.parameters,
        STANDARD.search,
        n_stacks=n_stacks,
        client=client,
        device="cpu",
        noise="white",
        search=search,
        progress=False,
    )
    return time.perf_counter() - started


def one_thread(
    folder: Path, n_stacks: int, search: SearchMethod = "exhaustive"
) -> tuple[float, float]:
    """Seconds on the clock, and of the processor."""
    before = time.process_time()
    wall = run(folder, n_stacks, search=search)
    return wall, time.process_time() - before


def two_workers(folder: Path, n_stacks: int, client: Client) -> tuple[float, list[float]]:
    """Seconds on the clock, and of the processor for each worker."""
    workers = [psutil.Process(pid) for pid in pids_of_workers(client)]

    def used() -> list[float]:
        return [sum(worker.cpu_times()[:2]) for worker in workers]

    before = used()
    wall = run(folder, n_stacks, client)
    return wall, [after - start for start, after in zip(before, used(), strict=True)]


def on_paper(n_images: int, n_templates: int, n_stacks: int) -> str:
    """What the model says of many workers."""
    n_displacements = len(STANDARD.search.grid(STANDARD.parameters.grid.pixel_size_angstrom))
    work, cut = Work(n_images, n_templates, n_displacements), Cut(N_ON_PAPER, n_stacks, "cpu")
    parts = cut.parts(work)
    rounds = -(-parts[0] * parts[1] * n_stacks // N_ON_PAPER)
    whole, block = (float(work.of_block(*map(np.array, along))) for along in ((1, 1), parts))
    speed = n_stacks * whole / (rounds * block)
    return (
        f"{n_stacks} stack(s), {N_ON_PAPER} workers, on paper: {parts[0]} x {parts[1]} parts each, "
        f"{speed:.1f} times one thread ({speed / N_ON_PAPER:.0%})"
    )


def against_textbook(n_templates: int, of_textbook: Sequence[int]) -> None:
    """Print how much faster one thread is, file to file, for stacks of different sizes: every pose
    with all made anew; again, as for a further stack under the same structure; and coarse to
    fine."""
    textbook = baselines(inputs(STANDARD, "cpu", 0.1), "cpu")[0]
    textbook.time()
    n_displacements = len(STANDARD.search.grid(STANDARD.parameters.grid.pixel_size_angstrom))
    per_pair = textbook.microseconds("integrated") * n_displacements / 1e6
    for n_images in of_textbook:
        usual = n_templates * (n_images * per_pair + textbook.template_ms / 1e3)
        print(f"{n_images} images: textbook {usual:.0f} s of the processor", flush=True)
        with tempfile.TemporaryDirectory() as name:
            write_stacks(Path(name), n_images, n_templates, 1)
            for what, search in (
                ("every pose", "exhaustive"),
                ("every pose, with the basis kept", "exhaustive"),
                ("coarse to fine", "adaptive"),
                ("coarse to fine, with bases kept", "adaptive"),
            ):
                wall, cpu = one_thread(Path(name), 1, search)
                print(
                    f"    {what}: {wall:.1f} s on the clock, {cpu:.1f} of the processor: "
                    f"{usual / cpu:.1f} times",
                    flush=True,
                )


def main() -> int:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--templates", type=int, default=208)
    parser.add_argument("--stacks", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--without-textbook", action="store_true")
    parser.add_argument("--of-textbook", type=int, nargs="*", default=OF_TEXTBOOK)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reached = []
    if arguments.stacks:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            most = max(arguments.stacks)
            write_stacks(folder, arguments.images, arguments.templates, most)
            run(folder, 1)  # this process has what it needs then; and so have both workers below
            for n_stacks in arguments.stacks:
                reached.append(_compared(folder, n_stacks))
    for n_stacks in arguments.stacks:
        print(on_paper(arguments.images, arguments.templates, n_stacks))
    if not arguments.without_textbook:
        against_textbook(arguments.templates, arguments.of_textbook)
    return 0 if min(reached, default=1.0) >= LEAST else 1


def _compared(folder: Path, n_stacks: int) -> float:
    """Print one thread and two workers, one right after the other: what a processor does in a
    second depends on what else the machine does. Give the part of twice the speed."""
    wall, cpu = one_thread(folder, n_stacks)
    with cld.local_cluster(2) as client:
        run(folder, 1, client)
        wall_of_two, of_workers = two_workers(folder, n_stacks, client)
    part = cpu / (2 * max(of_workers))
    print(
        f"{n_stacks} stack(s): one thread {wall:.1f} s on the clock, {cpu:.1f} of the processor; "
        f"two workers {wall_of_two:.1f}, {' + '.join(f'{w:.1f}' for w in of_workers)}: "
        f"{part:.0%} of twice the speed by the processor, {wall / wall_of_two / 2:.0%} by the "
        f"clock; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return part


if __name__ == "__main__":
    sys.exit(main())
