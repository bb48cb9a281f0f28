"""How does the time of a task grow, what does Dask add to it, and how much memory does it take? The
standard case.

Prints the time of one task on one thread while images, templates and displacements each grow by a
decade; then that of a task alone, on Dask's threaded scheduler, and on two worker processes (there:
the part of the workers' time that they are idle between tasks); then the memory of a task of 1024
images with batch sizes that are far too large. Exits with 1 if that is more than 4 GB.

    python -m benchmarks.scaling [--images 320] [--templates 40]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from distributed import get_task_stream

import cryolike_dask as cld
from benchmarks.cases import STANDARD, make_inputs
from benchmarks.contenders import peak_bytes
from cryolike_dask import ImageStack, TemplateStack, compute_optimal_pose
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.io.archives import write_list
from cryolike_dask.io.stacks import write_image_stack, write_template_stack
from cryolike_dask.likelihoods.blocks import optimal_poses, radial_basis_of
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.settings import Settings

MOST_BYTES = 4e9
N_DRAWN = 64
"""Particles that are drawn; more images are these again."""


def write_inputs(
    folder: Path, n_images: int, n_templates: int, *, signal: float = 0.1
) -> tuple[ImageStack, TemplateStack]:
    """Put particles and templates into files, as a run finds them; `signal` as of
    `make_inputs`."""
    images, templates, _ = make_inputs(STANDARD, min(n_images, N_DRAWN), n_templates, signal=signal)
    again = np.arange(n_images) % len(images)
    files = cld.configure_likelihood_files(
        folder / "templates", folder / "particles", folder / "likelihood"
    )
    stack, path = files.image_stack(0)[0], files.folder_templates / "templates_fourier_benchmark.pt"
    for parent in (stack.parent, path.parent):
        parent.mkdir(parents=True)
    write_image_stack(stack, images.source.take(again), images.optics[again], STANDARD.parameters)
    write_template_stack(
        path, templates.source.values, templates.viewing, STANDARD.parameters, "standard"
    )
    write_list(files.template_list, [path.name])
    return cld.open_images(files, STANDARD.parameters), cld.open_templates(
        files, STANDARD.parameters
    )


def task_seconds(
    images: ImageStack, templates: TemplateStack, n_templates: int | None = None
) -> float:
    """Time one task, of the first templates, without the basis that all tasks share."""
    graph = ComparisonGraph(images, templates, Settings(device="cpu"))
    basis, conventions = radial_basis_of(graph.comparison), graph.comparison.conventions
    rows = image_rows(images, conventions), template_rows(templates, conventions)[:n_templates]
    start = time.perf_counter()
    optimal_poses(*rows, basis, comparison=graph.comparison)
    return time.perf_counter() - start


def growth(images: ImageStack, templates: TemplateStack) -> None:
    """Print how the time grows with each of the three sizes."""
    m, s = len(images), len(templates)
    print("  images templates displacements  seconds  ms per image")
    for n_images, n_templates, side in (
        *((n, s, 16) for n in (m // 10, m // 3)),
        *((m, n, 16) for n in (s // 10, s // 3)),
        *((m, s, side) for side in (5, 9, 16)),
    ):
        tried = DisplacementSearch(8, side, side)(templates)
        seconds = task_seconds(images[:n_images], tried, n_templates)
        n_displacements = len(tried.displacements)
        print(
            f"{n_images:>8}{n_templates:>10}{n_displacements:>14}"
            f"{seconds:>9.2f}{seconds / n_images * 1e3:>14.2f}"
        )


def overhead(images: ImageStack, templates: TemplateStack) -> None:
    """Print what Dask adds to the same task."""
    alone, threaded = [], []
    for _ in range(3):
        graph = ComparisonGraph(images, templates, Settings(device="cpu"))
        start = time.perf_counter()
        basis = radial_basis_of(graph.comparison)
        rows = (
            f(x, graph.comparison.conventions)
            for f, x in ((image_rows, images), (template_rows, templates))
        )
        optimal_poses(*rows, basis, comparison=graph.comparison)
        alone.append(time.perf_counter() - start)
        start = time.perf_counter()
        compute_optimal_pose(images, templates, device="cpu").compute(scheduler="threads")
        threaded.append(time.perf_counter() - start)
    added = np.median(threaded) / np.median(alone) - 1
    times = (
        f"basis and task alone {np.median(alone):.2f} s, on the threaded scheduler "
        f"{np.median(threaded):.2f} s"
    )
    print(f"{times}: {added:+.1%}")
    with cld.local_cluster(2) as client:
        # workers have imported everything
        compute_optimal_pose(images[:4], templates, device="cpu").compute()
        lazy = compute_optimal_pose(images.chunk(len(images) // 4), templates, device="cpu")
        with get_task_stream(client) as stream:
            start = time.perf_counter()
            lazy.compute()
            wall = time.perf_counter() - start
    spans = [s for task in stream.data for s in task["startstops"] if s["action"] == "compute"]
    idle = 1 - sum(s["stop"] - s["start"] for s in spans) / (2 * wall)
    print(
        f"two workers, {len(lazy.chunks['image'])} tasks: {wall:.2f} s, idle {idle:.1%} of their "
        f"time"
    )


def main() -> int:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--templates", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        images, templates = write_inputs(Path(folder), 1024, arguments.templates)
        growth(images[: arguments.images], templates)
        displaced = STANDARD.search(templates)
        overhead(images[: arguments.images], displaced)
        asked = (
            replace(images, n_per_batch=len(images)),
            replace(displaced, n_per_batch=len(displaced)),
        )
        taken = peak_bytes(lambda: task_seconds(*asked))
    print(f"1024 images in one batch, all templates in one: {taken / 1e9:.2f} GB at most")
    return 0 if taken < MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
