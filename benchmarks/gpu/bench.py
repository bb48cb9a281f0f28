"""What the stages share: where they run, how they tell what they find, inputs, and time."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import CASES, Case, make_inputs
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.labels import Precision
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.tiled_block import Block, open_block

STRONG = 0.13
"""Ratio of signal to noise amplitudes."""
DRY = Case("dry", 32, 64, 1.0, DisplacementSearch(2, 3, 3))
"""In place of every case, on a CPU."""


@dataclass(frozen=True)
class Bench:
    """Where a stage runs.

    Attributes
    ----------
    stage : str
    out : Path
        Folder of its findings, `STAGE.jsonl`.
    dry : bool
        Small, on the CPU: whether it works, and nothing of how fast.
    """

    stage: str
    out: Path
    dry: bool

    @property
    def device(self) -> str:
        """Where."""
        return "cpu" if self.dry else "cuda"

    def say(self, **values: Any) -> None:
        """Print a finding, and keep it."""
        values = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in values.items()}
        line = json.dumps({"stage": self.stage, **values})
        print(line, flush=True)
        with open(self.out / f"{self.stage}.jsonl", "a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def needs_cuda(self, what: str) -> bool:
        """Say that a dry run leaves something out."""
        if self.dry:
            self.say(left_out=what, because="it needs CUDA")
        return self.dry

    def attempt(self, function: Callable[[], Any], **about: Any) -> Any:
        """Call a function; what it fails with is a finding as well. None then."""
        try:
            return function()
        except Exception as error:
            self.say(**about, failed=f"{type(error).__name__}: {error}"[:300])
            return None

    def synchronize(self) -> None:
        """Wait until the device is done."""
        if not self.dry:
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], Any], n: int = 7) -> float:
        """Median of times, of calls that the device is done with."""
        times = []
        for k in range(1 if self.dry else n + 2):
            self.synchronize()
            started = time.perf_counter()
            function()
            self.synchronize()
            if self.dry or k >= 2:
                times.append(time.perf_counter() - started)
        return statistics.median(times)

    def case(self, name: str = "standard") -> Case:
        """A case of the benchmarks."""
        return DRY if self.dry else next(case for case in CASES if case.name == name)


@dataclass(frozen=True)
class Setting:
    """A block that is open: rows of images and of templates, and what they are compared by."""

    comparison: Comparison
    rows: tuple[Rows, Rows]
    basis: Any
    block: Block

    @property
    def n_triples(self) -> int:
        """(image, template, displacement)."""
        return len(self.rows[0]) * len(self.rows[1]) * self.block.pose_shape[0]

    def search(self) -> Any:
        """Best poses and likelihoods of the block."""
        return blocks.optimal_poses(*self.rows, self.basis, comparison=self.comparison)

    def in_tiles(self, n_images: int, n_templates: int) -> Setting:
        """The same in other tiles."""
        comparison = replace(
            self.comparison, n_images_per_tile=n_images, n_templates_per_tile=n_templates
        )
        return replace(
            self,
            comparison=comparison,
            block=open_block(*self.rows, self.basis, comparison),
        )


def setting(
    bench: Bench,
    n_images: int,
    n_templates: int,
    *,
    case: str = "standard",
    device: str = "",
    precision: Precision = "single",
    tolerance: float | None = None,
    conventions: ConventionsName = "standard",
) -> Setting:
    """Images and templates of a case, and a block of all of them; fewer in a dry run."""
    if bench.dry:
        n_images, n_templates = min(n_images, 6), min(n_templates, 4)
    images, templates, _ = make_inputs(bench.case(case), n_images, n_templates, signal=STRONG)
    settings = Settings(conventions, device or bench.device, precision, tolerance)
    graph = ComparisonGraph(images, templates, settings)
    rows = (
        image_rows(images, settings.rules, graph.group_of_image),
        template_rows(templates, settings.rules),
    )
    basis = blocks.radial_basis_of(graph.comparison)
    with torch.inference_mode():
        block = open_block(*rows, basis, graph.comparison)
    return Setting(graph.comparison, rows, basis, block)
