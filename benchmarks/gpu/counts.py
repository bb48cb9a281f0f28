"""What a block asks of a GPU, counted without one: launches, waits of the host, bytes and flops for
a million (image, template, displacement) triples, and the rate that follows by stated rates.

Blocks of one and two tiles along images and along templates run on a pretended GPU, of few images,
in the grid and with the templates of a tile of the real case. What they count says what a block of
more tiles, of more images, would: all of it grows in proportion to these numbers, or not at all.
Bytes are those that kernels read and write, each by itself; flops those of products of matrices.
The kernel that sums rotations is counted by its formula (`runs.roofline`): it does not run here.

Nothing of it was measured on a GPU. To be printed before and after a change:

    python -m benchmarks.gpu --count [--case standard] [--gpu H100]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cases import Case, make_inputs
from benchmarks.gpu.bench import STRONG
from benchmarks.pretended_gpu import NO_KERNEL, PretendedGpu, leaves, line, pretended_gpu
from cryolike_dask.compute.gpu_rates import GpuRates
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.cutting import POSES_PER_BLOCK
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.kernels import compressed, with_triton
from cryolike_dask.likelihoods.kernels.norms import norms_by_torch
from cryolike_dask.likelihoods.kernels.tile import Tile
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.tiles import Footprint, Place, first_tile, ranks_of
from cryolike_dask.runs.on_paper import FREE
from cryolike_dask.runs.roofline import OF_BANDWIDTH, OF_MATRICES, OF_SINGLE, stages_on

FEW_IMAGES = 3
"""Of a tile that is counted."""
IMAGES = 1024
"""Of a block."""
SECONDS_OF_LAUNCH, SECONDS_OF_WAIT = 5e-6, 20e-6
"""Of the host, to start a kernel; and until it goes on after the device is done."""
OF_FUSED, OF_NORMS = "likelihoods/kernels/fused_cuda.py", "likelihoods/kernels/norms_cuda.py"
PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "addmm": 1, "baddbmm": 1, "addmv": 1}
"""Products of matrices, and which argument their first factor is."""
CHOOSING = ("index", "index_select", "gather", "take")
KINDS = ("launches", "waits", "sent", "bytes", "single", "half")
"""What is counted: of flops, those of each kind of operands."""

Counts = dict[str, Counter[str]]
"""Of each kind, by line of the package."""


class Traffic(TorchDispatchMode):
    """Counts bytes and flops of what a GPU is told to compute.

    Parameters
    ----------
    gpu : PretendedGpu
    counts : dict
        Of each kind.
    """

    def __init__(self, gpu: PretendedGpu, counts: Counts) -> None:
        super().__init__()
        self.gpu, self.counts = gpu, counts

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if self.gpu.computes and not func.is_view and name not in NO_KERNEL:
            at = line()
            # what is chosen is read, not all that it is chosen from
            moved = (args[1:], made, made) if name in CHOOSING else (args, made)
            self.counts["bytes"][at] += sum(map(bytes_of, leaves(moved)))
            if name in PRODUCTS:
                a, b = args[PRODUCTS[name]], args[PRODUCTS[name] + 1]
                n_columns = 1 if name.endswith("mv") else b.shape[-1]
                self.counts[kind_of(a, at)][at] += 2 * a.numel() * n_columns
        return made


def bytes_of(value: object) -> int:
    """Of a tensor, what is repeated in it once."""
    if not isinstance(value, Tensor):
        return 0
    sizes = (n for n, stride in zip(value.shape, value.stride(), strict=True) if stride)
    return math.prod(sizes) * value.element_size()


def kind_of(operand: Tensor, at: str) -> str:
    """Which units multiply an operand."""
    # a pretended GPU multiplies the parts of split operands in float32
    return "half" if operand.dtype == torch.float16 or "/split.py" in at else "single"


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what a pretended GPU is asked for meanwhile; kernels of Triton are one each, of what
    they read and write."""
    counts: Counts = {kind: Counter() for kind in KINDS}
    with pretended_gpu() as gpu, Traffic(gpu, counts):

        def one(name: str, function: Callable[..., Any], *terms: Any) -> Any:
            before = {kind: counts[kind].copy() for kind in KINDS}
            with gpu.one_kernel():
                found = function(*terms)
            counts.update(before)
            # tensors of a tile, or of tuples and of classes of terms
            moved = leaves([getattr(term, "__dict__", term) for term in (*terms, found)])
            counts["bytes"][name] += sum(map(bytes_of, moved))
            return found

        def reduced(tile: Tile, reference: Tensor | None, _: Tensor | None) -> Any:
            best, fit, summed, _ = tile.reduce(reference)
            return best, fit, summed, torch.zeros_like(best, dtype=torch.int32)

        with (
            mock.patch.object(
                Tile, "_reduce_on_gpu", lambda *terms: one(OF_FUSED, reduced, *terms)
            ),
            mock.patch.object(compressed, "norms", partial(one, OF_NORMS, norms_by_torch)),
            mock.patch.object(with_triton, "is_usable", return_value=True),
        ):
            yield counts
    for kind in ("launches", "waits", "sent"):
        counts[kind] += getattr(gpu, kind)


def combined(*parts: tuple[float, Counts]) -> Counts:
    """The sum of counts, each so many times."""
    found: Counts = {kind: Counter() for kind in KINDS}
    for times, counts in parts:
        for kind in KINDS:
            for place, n in counts[kind].items():
                found[kind][place] += times * n  # type: ignore[assignment]
    return found


def of_more_tiles(counted: Mapping[tuple[int, int], Counts], n_tiles: tuple[int, int]) -> Counts:
    """What a block of so many tiles along images and along templates counts, by what blocks of one
    and two of each do: all of it is of the block, of a tile of images, of one of templates, or of a
    tile."""
    along_images, along_templates = (n - 1 for n in n_tiles)
    one, more_images, more_templates, more_of_both = (
        counted[key] for key in ((1, 1), (2, 1), (1, 2), (2, 2))
    )
    both = along_images * along_templates
    return combined(
        (1 - along_images - along_templates + both, one),
        (along_images - both, more_images),
        (along_templates - both, more_templates),
        (both, more_of_both),
    )


@dataclass(frozen=True)
class Counted:
    """A block as runs have it: its size, and all that it asks for.

    Attributes
    ----------
    tile, n_tiles : (int, int)
        Images and templates of a tile; tiles along both.
    n_triples : int
    n_coefficients : int
    grid_shape : (int, int)
    counts : dict
    """

    tile: tuple[int, int]
    n_tiles: tuple[int, int]
    n_triples: int
    n_coefficients: int
    grid_shape: tuple[int, int]
    counts: Counts

    def total(self, *kinds: str) -> float:
        """All of some kinds, for a million triples."""
        return sum(sum(self.counts[kind].values()) for kind in kinds) / self.n_triples * 1e6

    def of_rooms(self) -> dict[str, dict[str, float]]:
        """The same for each module, of those that ask for most bytes first."""
        found: dict[str, dict[str, float]] = {}
        for kind in KINDS:
            for place, n in self.counts[kind].items():
                module = place.partition(":")[0]
                of_module = found.setdefault(module, dict.fromkeys(KINDS, 0.0))
                of_module[kind] += n / self.n_triples * 1e6
        return dict(sorted(found.items(), key=lambda item: -item[1]["bytes"]))

    def seconds_on(self, gpu: GpuRates) -> dict[str, float]:
        """Seconds of a block by stated rates: of kernels, those that sum rotations apart; of the
        host, which starts kernels while others run, unless it waits for each tile."""
        rates = {
            "single": OF_SINGLE * gpu.single,
            "half": OF_MATRICES * gpu.half,
        }
        kernels = 0.0
        for place in set().union(*self.counts.values()) - {OF_FUSED}:
            of_flops = sum(self.counts[k][place] / rate / 1e12 for k, rate in rates.items())
            of_bytes = self.counts["bytes"][place] / (OF_BANDWIDTH * gpu.bandwidth * 1e12)
            kernels += max(of_flops, of_bytes)
        stages = stages_on(gpu, self.grid_shape, self.n_coefficients, IMAGES)
        rotations = stages.rotations * self.n_triples
        starting = sum(self.counts["launches"].values()) * SECONDS_OF_LAUNCH
        n_waits = sum(self.counts["waits"].values())
        waits_in_tiles = n_waits >= math.prod(self.n_tiles)
        hidden = 0.0 if waits_in_tiles else min(starting, kernels + rotations)
        return {
            "kernels": kernels,
            "rotations": rotations,
            "host": starting - hidden + n_waits * SECONDS_OF_WAIT,
        }

    def rate_on(self, gpu: GpuRates) -> float:
        """G triples per second of a block."""
        return self.n_triples / sum(self.seconds_on(gpu).values()) / 1e9


def count(case: Case, gpu: GpuRates) -> Counted:
    """Count a block of a case, in the tiles that this GPU would have."""
    place = Place("cuda", int(FREE * gpu.memory_gb * 1e9))
    n_displacements = len(case.search.grid(case.parameters.grid.pixel_size_angstrom))
    n_templates = max(1, POSES_PER_BLOCK["cuda"] // (IMAGES * n_displacements))
    comparison, rows, ranks = _inputs(case, 2 * FEW_IMAGES, None)
    with pretended_gpu():  # operands are held as there
        footprint = Footprint.of(comparison, ranks)
    tile = first_tile(IMAGES, n_templates, comparison, footprint, place)
    n_tiles = -(-IMAGES // tile[0]), -(-n_templates // tile[1])
    comparison, rows, ranks = _inputs(case, 4 * FEW_IMAGES, 2 * tile[1])
    basis = _basis_on_gpu(comparison)
    # what tiles of more images have more of, operands of templates are none of
    few, twice = (
        of_more_tiles(
            {
                (m, s): _counts_of(
                    replace(comparison, n_images_per_tile=n, n_templates_per_tile=tile[1]),
                    (rows[0][: m * n], rows[1][: s * tile[1]]),
                    basis,
                )
                for m in (1, 2)
                for s in (1, 2)
            },
            n_tiles,
        )
        for n in (FEW_IMAGES, 2 * FEW_IMAGES)
    )
    beyond = tile[0] / FEW_IMAGES - 1
    return Counted(
        tile=tile,
        n_tiles=n_tiles,
        n_triples=n_tiles[0] * tile[0] * n_tiles[1] * tile[1] * n_displacements,
        n_coefficients=int(ranks.sum()),
        grid_shape=case.parameters.grid.shape,
        counts=combined((1 - beyond, few), (beyond, twice)),
    )


def _inputs(case: Case, n_images: int, n_templates: int | None) -> tuple[Comparison, Any, Any]:
    """A comparison on the pretended GPU, its rows, and ranks of its basis; as few templates as tell
    the ranks, where their number is not known yet."""
    images, templates, _ = make_inputs(case, n_images, n_templates or 16, signal=STRONG)
    settings = Settings(device="cuda", precision="single")
    graph = ComparisonGraph(images, templates, settings)
    rows = (
        image_rows(images, settings.rules, graph.group_of_image),
        template_rows(templates, settings.rules),
    )
    with mock.patch.object(torch.cuda, "is_available", return_value=False):
        on_cpu = ComparisonGraph(images, templates, Settings(device="cpu", precision="single"))
        basis = blocks.radial_basis_of(on_cpu.comparison)
    return graph.comparison, rows, ranks_of(basis, on_cpu.comparison)


def _basis_on_gpu(comparison: Comparison) -> Any:
    with pretended_gpu():
        return blocks.radial_basis_of(comparison)


def _counts_of(comparison: Comparison, rows: tuple[Rows, Rows], basis: Any) -> Counts:
    """Count one block, its basis left out."""
    with counting() as counts:
        blocks.optimal_poses(*rows, basis, comparison=comparison)
    return counts


def print_counts(case: Case, gpu: GpuRates) -> None:
    """Print the table."""
    found = count(case, gpu)
    seconds = found.seconds_on(gpu)
    print(f"{case.name}, counted on a pretended GPU; rates of {gpu}")
    print(
        f"tiles of {found.tile[0]} images x {found.tile[1]} templates, {found.n_tiles[0]} x "
        f"{found.n_tiles[1]} in a block of {found.n_triples / 1e6:.0f} M triples"
    )
    print(f"{'for 1e6 triples':<40}{'launches':>10}{'waits':>8}{'sent':>8}{'MB':>9}{'Gflop':>9}")
    totals = {kind: found.total(kind) for kind in KINDS}
    for name, values in {**found.of_rooms(), "all": totals}.items():
        flops = values["single"] + values["half"]
        print(
            f"{name:<40}{values['launches']:>10.1f}{values['waits']:>8.3f}{values['sent']:>8.3f}"
            f"{values['bytes'] / 1e6:>9.1f}{flops / 1e9:>9.2f}"
        )
    parts = ", ".join(f"{name} {1e9 * s / found.n_triples:.2f}" for name, s in seconds.items())
    print(f"ns for a triple, by stated rates: {parts}")
    print(f"{found.rate_on(gpu):.2f} G triples/s of whole blocks: an estimate")
