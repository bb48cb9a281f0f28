"""How fast is it? Ceilings of the device, whole blocks, and each step of a tile."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench, Setting, setting
from benchmarks.gpu.ceilings import measured_ceilings, tf32
from cryolike_dask.likelihoods.kernels import with_triton
from cryolike_dask.likelihoods.kernels.compressed import (
    correlate,
    prepare_images,
    prepare_templates,
)

TILES = (
    (128, 4),
    (256, 4),
    (256, 8),
    (512, 4),
    (512, 7),
    (512, 14),
    (1024, 4),
    (1024, 8),
    (1024, 16),
)
"""Images and templates."""
OTHER_SHAPES: tuple[dict[str, int], ...] = (
    {"columns": 16},
    {"columns": 16, "programs": 4},
    {"warps": 8},
    {"columns": 64, "warps": 8, "programs": 1},
    {"depth": 32},
    {"depth": 32, "stages": 2},
    {"depth": 16, "programs": 3},
)
"""What may be changed of the shape of the fused kernel for 256 rotations."""
OPERANDS = ("float32", "tf32", "tf32x3", "float16x3")


def speed(bench: Bench) -> None:
    """Whole blocks, then each step of a tile, beside the ceilings of the device."""
    for name, rate in measured_ceilings(bench.device, bench.seconds, small=bench.dry).items():
        bench.say(ceiling=name, unit="TB/s" if name == "copy" else "TFLOP/s", rate=rate)
    one = setting(bench, 1024, 64)
    for _ in range(1 if bench.dry else 3):
        seconds = bench.seconds(one.search, 1)
        bench.say(
            whole_block_s=seconds,
            G_triples_s=one.n_triples / seconds / 1e9,
            tile=[int(n) for n in one.block.tile],
        )
    with torch.inference_mode():
        for step, (function, n) in _steps(one).items():
            seconds = bench.attempt(lambda f=function: bench.seconds(f, 5), step=step)
            if seconds is not None:
                bench.say(step=step, ms=seconds * 1e3, ns_each=seconds / n * 1e9)


def _steps(one: Setting) -> dict[str, tuple[Callable[[], Any], int]]:
    """Each step of a tile, and of how many images, templates or triples it is."""
    block = one.block
    constants, m, s = block.constants, slice(0, block.tile[0]), slice(0, block.tile[1])
    images = block.images(m)
    (templates,) = block.templates([s])
    of_images, of_templates = (
        prepare_images(images, constants),
        prepare_templates(templates, constants),
    )
    n_triples = len(of_images) * len(of_templates) * block.pose_shape[0]
    tile = correlate(of_images, of_templates, constants)
    everything = torch.full_like(tile.error_bound, -math.inf)

    def whole() -> Any:
        return correlate(of_images, of_templates, constants).summarise(everything)

    return {
        "read images": (lambda: block.images(m), len(of_images)),
        "read templates": (lambda: list(block.templates([s])), len(of_templates)),
        "prepare images": (lambda: prepare_images(images, constants), len(of_images)),
        "prepare templates": (lambda: prepare_templates(templates, constants), len(of_templates)),
        "correlate": (lambda: correlate(of_images, of_templates, constants), n_triples),
        "summarise": (lambda: tile.summarise(everything), n_triples),
        "correlate and summarise": (whole, n_triples),
        "reduce, without triton": (lambda: tile.reduce(everything), n_triples),
    }


def contraction(bench: Bench) -> None:
    """The contraction over shells in operands of several kinds: error against float64, and time."""
    one = setting(bench, 512, 8)
    groups = [(len(g), g.shape[1]) for g in one.basis]
    n_images, n_templates = one.block.tile
    columns = n_templates * one.block.pose_shape[0]
    columns += -columns % 16
    generator = torch.Generator(device=bench.device).manual_seed(1)
    left, right = [], []
    for n_q, rank in groups:
        options = {"generator": generator, "device": bench.device}
        left.append(torch.randn(n_q, 2 * n_images, 2 * rank, **options))
        right.append(torch.randn(n_q, 2 * rank, columns, **options))
    exact = [_few(a, b) for a, b in zip(left, right, strict=True)]
    for operands in OPERANDS:
        bench.attempt(
            lambda: _contracted(bench, operands, left, right, exact, one.block.tile),  # noqa: B023
            operands=operands,
        )


def _few(a: Tensor, b: Tensor) -> Tensor:
    """Some of the products, in float64."""
    return a[:2, :64].double() @ b[:2, :, :256].double()


def _contracted(
    bench: Bench,
    operands: str,
    left: list[Tensor],
    right: list[Tensor],
    exact: list[Tensor],
    tile: tuple[int, int],
) -> None:
    cut = [
        (_parts(a, operands, 2, high_first=False), _parts(b, operands, 1, high_first=True))
        for a, b in zip(left, right, strict=True)
    ]

    def products() -> list[Tensor]:
        return [_product(a, b, bench.dry) for a, b in cut]

    with tf32(operands.startswith("tf32")):
        found = [_product(a[:2, :64], b[:2, :, :256], bench.dry).double() for a, b in cut]
        seconds = bench.seconds(products)
    error = max(float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True))
    flops = sum(2 * a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2] for a, b in cut)
    n_columns = right[0].shape[2] * tile[0]
    bench.say(
        operands=operands,
        relative_error=error,
        ms=seconds * 1e3,
        ns_per_triple=seconds / n_columns * 1e9,
        TF_s=flops / seconds / 1e12,
    )


def _parts(values: Tensor, operands: str, dim: int, *, high_first: bool) -> Tensor:
    """An operand as it is multiplied: whole, or [high; low; high] and [low, high, high] of two
    parts of 11 bits each."""
    if not operands.endswith("x3"):
        return values
    if operands.startswith("float16"):
        high = values.half()
        low = (values - high.float()).half()
    else:
        high, low = _rounded(values), values
        low = _rounded(values - high)
    return torch.cat([high, low, high] if high_first else [low, high, high], dim).contiguous()


def _rounded(values: Tensor) -> Tensor:
    """The nearest numbers of 11 bits."""
    return ((values.view(torch.int32) + 4096) & ~8191).view(torch.float32)


def _product(a: Tensor, b: Tensor, dry: bool) -> Tensor:
    """Sums in float32, whatever is multiplied; a CPU multiplies the same numbers in float32."""
    if a.dtype == torch.float32:
        return torch.bmm(a, b)
    if dry:
        return torch.bmm(a.float(), b.float())
    return torch.bmm(a, b, out_dtype=torch.float32)


def sizes(bench: Bench) -> None:
    """Which tiles are fastest."""
    one = setting(bench, 1024, 32)
    for asked in TILES[:1] if bench.dry else TILES:
        other = one.in_tiles(*asked)
        seconds = bench.attempt(lambda o=other: bench.seconds(o.search, 2), asked=list(asked))
        if seconds is not None:
            rate = one.n_triples / seconds / 1e9
            bench.say(
                asked=list(asked),
                tile=[int(n) for n in other.block.tile],
                s=seconds,
                G_triples_s=rate,
            )


def shapes(bench: Bench) -> None:
    """Ways to cut the work of the fused kernel."""
    if bench.needs_cuda("shapes of the fused kernel") or find_spec("triton") is None:
        return
    from cryolike_dask.likelihoods.kernels import fused_cuda

    one = setting(bench, 512, 8)
    block, n_inplanes = one.block, one.block.pose_shape[1]
    with torch.inference_mode():
        (templates,) = block.templates([slice(0, block.tile[1])])
        images = prepare_images(block.images(slice(0, block.tile[0])), block.constants)
        of_templates = prepare_templates(templates, block.constants)
        tile = correlate(images, of_templates, block.constants)
        everything = torch.full_like(tile.error_bound, -math.inf)
        n_triples = len(images) * len(of_templates) * block.pose_shape[0]
        chosen = fused_cuda.shape_of(n_inplanes)
        for changes in ({}, *OTHER_SHAPES):
            shape = chosen._replace(**changes)
            with mock.patch.object(fused_cuda, "shape_of", return_value=shape):
                fused_cuda._matrices.cache_clear()
                seconds = bench.attempt(
                    lambda: bench.seconds(lambda: tile.summarise(everything)), shape=list(shape)
                )
            with_triton._failed.clear()  # another shape may work
            if seconds is not None:
                ns = seconds / n_triples * 1e9
                bench.say(shape=list(shape), ms=seconds * 1e3, ns_each=ns)
    fused_cuda._matrices.cache_clear()
