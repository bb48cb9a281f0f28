"""The ways to compare images with templates that the speed benchmark times, each with its inputs
expanded."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psutil
import torch

from benchmarks import fft2, textbook
from benchmarks.cases import Case, make_inputs, operands
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.likelihoods.blocks import radial_basis_of
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.kernels import split
from cryolike_dask.likelihoods.kernels.compressed import (
    correlate,
    prepare_images,
    prepare_templates,
)
from cryolike_dask.likelihoods.kernels.rotations import quarter_turn
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.tiled_block import open_block, slices
from cryolike_dask.stacks import ImageStack, TemplateStack

N_IMAGES, N_TEMPLATES = {"cpu": 96, "cuda": 1024}, {"cpu": 24, "cuda": 64}
BASELINE_IMAGES, BASELINE_TEMPLATES, FFT2_IMAGES = 32, 2, 8


@dataclass
class Contender:
    """One way to do it.

    Attributes
    ----------
    best, integrated : callable
        Do it without and with the likelihood.
    n_poses : int
        (image, template, displacement) triples of a call.
    image_ms, template_ms : float
        To expand one image and one template, before.
    products : callable or None
        The matrix products of a call alone.
    flops : float
        Of these, per triple.
    pairs : callable or None
        Gives correlation and log-likelihood of each (image, template).
    """

    name: str
    device: str
    best: Callable[[], Any]
    integrated: Callable[[], Any]
    n_poses: int
    image_ms: float
    template_ms: float
    products: Callable[[], Any] | None = None
    flops: float = math.nan
    pairs: Callable[[], tuple[torch.Tensor, torch.Tensor]] | None = None
    times: dict[str, list[float]] = field(default_factory=dict)
    megabytes: float = 0.0

    def time(self) -> None:
        """Time each of its calls once, after one that is not timed: others had the memory and
        the caches before."""
        self.best()
        for kind in ("best", "integrated", "products"):
            function = getattr(self, kind)
            if function is not None:
                self.times.setdefault(kind, []).append(seconds(function, self.device))

    def microseconds(self, kind: str) -> float:
        """Median time per (image, template, displacement)."""
        return statistics.median(self.times[kind]) / self.n_poses * 1e6


def seconds(function: Callable[[], Any], device: str) -> float:
    """Time one call, until the device is done."""
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def milliseconds(function: Callable[[], Any], device: str, n: int) -> float:
    """The faster of two calls, for each of n; the first gets memory from the system."""
    return min(seconds(function, device) for _ in range(2)) * 1e3 / n


def peak_megabytes(function: Callable[[], Any], device: str) -> float:
    """Memory that a call adds at its highest."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before = psutil.Process().memory_info().rss
    return max(0, peak_bytes(function) - before) / 1e6


def peak_bytes(function: Callable[[], Any]) -> int:
    """Memory of this process at its highest during a call."""
    process, done, peak = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    function()
    done.set()
    watcher.join()
    return peak[0]


Stacks = tuple[ImageStack, TemplateStack]


def inputs(case: Case, device: str, signal: float) -> Stacks:
    """Images and templates, as many as the kernel of the package is timed with."""
    return make_inputs(case, N_IMAGES[device], N_TEMPLATES[device], signal=signal)[:2]


def baselines(stacks: Stacks, device: str) -> list[Contender]:
    """Textbook, batched and fft2, on the first images and templates."""
    images, templates = stacks
    o = operands(images[:BASELINE_IMAGES], templates)
    o = replace(o, templates=o.templates[:BASELINE_TEMPLATES])
    n_displacements, grid = len(templates.displacements), templates.grid
    table = fft2.whole_pixels(templates.displacements, grid).to(device)
    some = slice(FFT2_IMAGES)
    start = time.perf_counter()
    rotated = _placed(fft2.prepare_templates(o.templates[:1], o.weights, grid, o.mask), device)
    template_ms = (time.perf_counter() - start) * 1e3
    start = time.perf_counter()
    filtered = _placed(
        fft2.prepare_images(o.images[some], o.contrast[some], o.weights, grid, o.mask), device
    )
    image_ms = (time.perf_counter() - start) * 1e3 / FFT2_IMAGES
    by_fft2 = Contender(
        f"fft2 ({table.shape[1]})",
        device,
        partial(fft2.compare, filtered, rotated, table, integrate=False),
        partial(fft2.compare, filtered, rotated, table, integrate=True),
        FFT2_IMAGES * n_displacements,
        image_ms,
        template_ms,
    )
    o = _placed(o, device)
    return [_textbook(o, device, batched=False), _textbook(o, device, batched=True), by_fft2]


def _placed(values: Any, device: str) -> Any:
    """A dataclass of tensors, on the device."""
    return replace(
        values, **{k: v.to(device) for k, v in vars(values).items() if isinstance(v, torch.Tensor)}
    )


def _textbook(o: Any, device: str, *, batched: bool) -> Contender:
    """Everything in memory; not batched, images are expanded anew for each batch of templates."""
    inputs = (o.images, o.contrast, o.templates, o.translation, o.weights)
    m, s = textbook.fastest_batch(*inputs, integrate=False, mask=o.mask, batched=batched)

    def expanded_images(i: slice) -> textbook.Images:
        return textbook.prepare_images(
            o.images[i], o.contrast[i], o.weights, o.mask, batched=batched
        )

    def expanded_templates(i: slice) -> textbook.Templates:
        return textbook.prepare_templates(
            o.templates[i], o.translation, o.weights, o.mask, batched=batched
        )

    of_images = [slice(i, i + m) for i in range(0, len(o.images), m)]
    templates = [expanded_templates(slice(i, i + s)) for i in range(0, len(o.templates), s)]
    kept = [expanded_images(i) for i in of_images]

    def compare(integrate: bool) -> textbook.Best:
        columns = []
        for column in templates:
            batches = kept if batched else (expanded_images(i) for i in of_images)
            parts = [
                textbook.compare(batch, column, integrate=integrate, batched=batched)
                for batch in batches
            ]
            columns.append(textbook.joined(parts, 0))
        return textbook.joined(columns, 1)

    def pairs() -> tuple[torch.Tensor, torch.Tensor]:
        found = compare(True)
        return found.correlation, found.log_likelihood

    return Contender(
        f"{'batched' if batched else 'textbook'} {m}x{s}",
        device,
        partial(compare, False),
        partial(compare, True),
        len(o.images) * len(o.templates) * len(o.translation),
        milliseconds(partial(expanded_images, slice(m)), device, m) if batched else 0.0,
        milliseconds(partial(expanded_templates, slice(s)), device, s),
        pairs=pairs,
    )


def kernel(
    name: str,
    stacks: Stacks,
    device: str,
    tolerance: float | None,
    noise: NoiseModel | None = None,
) -> Contender:
    """The kernel of the package."""
    images, templates = stacks
    settings = Settings(device=device, precision="single", tolerance=tolerance, noise=noise)
    graph = ComparisonGraph(images, templates, settings)
    conventions = graph.comparison.conventions
    basis = radial_basis_of(graph.comparison)
    rows = (
        image_rows(images, conventions, graph.group_of_image),
        template_rows(templates, conventions),
    )
    block = open_block(*rows, basis, graph.comparison)
    constants = block.constants

    def expanded_images(m: slice) -> Any:
        return prepare_images(block.images(m), constants)

    def expanded_templates(s: slice) -> Any:
        (values,) = block.templates([s])
        return prepare_templates(values, constants)

    of_images = [(m, expanded_images(m)) for m in slices(0, len(images), block.tile[0])]
    of_templates = [(s, expanded_templates(s)) for s in slices(0, len(templates), block.tile[1])]

    priors = torch.from_numpy(rows[1]["log_prior"].copy()).to(constants.weights.device)
    reach = math.log(len(templates) * math.prod(block.pose_shape) / constants.rounding)

    def search(integrate: bool) -> None:
        sums = torch.full((len(images),), -math.inf, dtype=torch.float64, device=priors.device)
        for s, t in of_templates:
            for m, i in of_images:
                reference = sums[m, None] - priors[s] - reach if integrate else None
                summed = correlate(i, t, constants).summarise(reference)[2]
                sums[m] = torch.logaddexp(sums[m], torch.logsumexp(summed + priors[s], 1))

    def products() -> None:
        for _, t in of_templates:
            for _, i in of_images:
                _products(i, t, constants)

    def pairs() -> tuple[torch.Tensor, torch.Tensor]:
        everything = -math.inf * torch.ones(
            block.shape, dtype=torch.float64, device=constants.weights.device
        )
        found = [
            [correlate(i, t, constants).summarise(everything[m, s]) for s, t in of_templates]
            for m, i in of_images
        ]
        best, summed = (
            torch.cat([torch.cat([tile[k] for tile in row], 1) for row in found]) for k in (0, 2)
        )
        return best, summed

    n_q, quarter = templates.grid.n_inplanes // 2 + 1, templates.grid.n_inplanes // 4 + 1
    n_coefficients = sum(len(g) * g.shape[1] for g in basis) or n_q * constants.weights.shape[0]
    return Contender(
        name,
        device,
        partial(search, False),
        partial(search, True),
        math.prod(block.shape) * len(templates.displacements),
        milliseconds(partial(expanded_images, of_images[0][0]), device, block.tile[0]),
        milliseconds(partial(expanded_templates, of_templates[0][0]), device, block.tile[1]),
        products,
        8.0 * n_coefficients + (4.0 * quarter * n_q if device == "cuda" else 0),
        pairs,
    )


def _products(images: Any, templates: Any, constants: Any) -> None:
    """The matrix products of a tile alone, in the same shapes and memory; on a CPU the transform
    is none."""
    columns = templates.spectra[0].shape[2]
    n_q = constants.folding.n_inplanes // 2 + 1
    products = constants.scratch.take("products", n_q, 2, len(images) * columns)
    first = 0
    with split.multiplying(split.way_of(products)):
        for a, b in zip(images.spectra, templates.spectra, strict=True):
            of_group = products[first : first + len(a)].view(len(a), 2 * len(images), columns)
            split.multiply(a, b, of_group)
            first += len(a)
    if products.is_cpu:
        return
    step = max(1, constants.piece_bytes // (2 * n_q * columns * products.element_size())) * columns
    for part in products.split(step, 2):
        quarter_turn(part, constants.folding, constants.scratch)
