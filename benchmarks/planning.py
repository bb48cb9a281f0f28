"""Does a run cost what its plan says? Time, memory and bytes of small runs, each beside its plan.

Every case is planned and run in a process of its own, on one thread, then on two worker processes
that the plan measures too. The ratios are actual over planned; other work on the machine between
the two is part of them. Exits with 1 if a process took more than twice or less than half of the
memory that was said.

    python -m benchmarks.planning [--repeats 2] [--only projected]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cryolike_dask as cld
from benchmarks.cases import CASES, Case, make_inputs
from cryolike_dask.io.archives import write_list
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.stacks import write_image_stack, write_template_stack
from cryolike_dask.runs.plan import LikelihoodPlan, plan_likelihood

MEMORY_WITHIN = 2
N_DRAWN = 64
"""Particles that are drawn; more images are these again."""
RUNS = {
    "optimal_pose": cld.run_likelihood_optimal_pose,
    "full_cross_correlation": cld.run_likelihood_full_cross_correlation,
}


@dataclass(frozen=True)
class Small:
    """A run that takes some seconds."""

    name: str
    case: Case
    n_images: int
    n_stacks: int
    n_templates: int
    kind: str = "optimal_pose"
    lazily: bool = False
    in_batches: bool = False

    def files(self, folder: Path) -> LikelihoodFiles:
        """Where its inputs and outputs are."""
        return cld.configure_likelihood_files(
            folder / "templates", folder / "particles", folder / "out"
        )

    def write(self, folder: Path) -> None:
        """Put inputs into files, as a run finds them."""
        files, parameters = self.files(folder), self.case.parameters
        images, templates, _ = make_inputs(self.case, N_DRAWN, self.n_templates, signal=0.1)
        again = np.arange(self.n_images) % len(images)
        for k in range(self.n_stacks):
            write_image_stack(
                files.image_stack(k)[0], images.source.take(again), images.optics[again], parameters
            )
        path = files.folder_templates / "templates_fourier_benchmark.pt"
        write_template_stack(
            path, templates.source.values, templates.viewing, parameters, "standard"
        )
        write_list(files.template_list, [path.name])

    def inputs(self, folder: Path) -> tuple[LikelihoodFiles, dict[str, Any]]:
        """What the run is given."""
        files, options = self.files(folder), {}
        if self.in_batches:
            options = {
                "n_images_per_batch": self.n_images,
                "n_templates_per_batch": self.n_templates,
            }
        if self.lazily:
            viewing = cld.open_templates(files, self.case.parameters).viewing
            positions = np.random.default_rng(0).normal(0, 15, (2000, 3))
            atoms = cld.Atoms(positions, np.ones(2000), np.full(2000, 2.5))
            options = {
                "templates": cld.open_structure(atoms, self.case.parameters, viewing=viewing)
            }
            files = replace(files, folder_templates=None)
        return files, options


SMALL, WIDE, STANDARD = CASES[:3]
RUN_CASES = (
    Small("64 pixels, 4 stacks", SMALL, 500, 4, 40),
    Small("64 pixels, wide search", WIDE, 200, 2, 10),
    Small("132 pixels", STANDARD, 512, 1, 24),
    Small("132 pixels, large batches", STANDARD, 1024, 1, 24, in_batches=True),
    Small("132 pixels, projected", STANDARD, 128, 2, 24, lazily=True),
    Small("64 pixels, full correlation", SMALL, 200, 2, 20, kind="full_cross_correlation"),
)


@dataclass(frozen=True)
class Outcome:
    """A plan, the seconds that it took, those of the run, and the peak of the process or of a
    worker in bytes."""

    plan: LikelihoodPlan
    planning_seconds: float
    seconds: float
    peak_bytes: int


def peak_bytes() -> int:
    """Of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compare(case: Small, folder: Path, n_workers: int) -> Outcome:
    """Plan and run, here or on workers."""
    torch.set_num_threads(1)
    files, options = case.inputs(folder)
    arguments = (
        replace(files, folder_output=folder / f"on-{n_workers}"),
        case.case.parameters,
        case.case.search,
    )
    with cld.local_cluster(n_workers) if n_workers else nullcontext() as client:
        begun = time.perf_counter()
        plan = plan_likelihood(*arguments, kind=case.kind, client=client, noise="white", **options)  # type: ignore[arg-type]
        started = time.perf_counter()
        RUNS[case.kind](*arguments, client=client, progress=False, noise="white", **options)
        ended = time.perf_counter()
        peak = peak_bytes() if client is None else max(client.run(peak_bytes).values())
    return Outcome(plan, started - begun, ended - started, peak)


def show(case: Small, n_workers: int, found: Outcome) -> bool:
    """Print a line, and say whether the memory was as planned."""
    plan, seconds, ratio = found.plan, found.seconds, found.peak_bytes / found.plan.worker_bytes
    said = plan.seconds or 0.0
    inside = (plan.least_seconds or 0) <= seconds <= (plan.most_seconds or 0)
    line = f"{case.name:<29}{f'{n_workers} workers' if n_workers else 'one thread':<11}"
    line += (
        f"{seconds:6.1f} s, said {said:6.1f} s ({found.planning_seconds:.0f} s to say): "
        f"{seconds / said:.2f}"
    )
    line += "" if inside else " (beyond its bounds)"
    line += f"; {found.peak_bytes / 1e9:.2f} GB, said {plan.worker_bytes / 1e9:.2f} GB: {ratio:.2f}"
    print(line, flush=True)
    return bool(1 / MEMORY_WITHIN < ratio < MEMORY_WITHIN)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, whose peak is its own too."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> int:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    options, fits = parser.parse_args(), True
    for case in [case for case in RUN_CASES if options.only in case.name] * options.repeats:
        with tempfile.TemporaryDirectory() as name:
            apart(case.write, Path(name))
            fits &= show(case, 0, apart(compare, case, Path(name), 0))
            if not (case.lazily or case.in_batches):
                fits &= show(case, 2, compare(case, Path(name), 2))
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main())
