"""Is it right? The fused kernel against float64, blocks against the CPU, and what happens where
memory does not suffice."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.bench import Bench, setting
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.kernels.rotations import fold
from cryolike_dask.likelihoods.tiled_block import Block

SHAPES = (
    (256, 257, 6, 3),
    (128, 81, 8, 3),
    (512, 441, 3, 2),
    (256, 257, 5, 1),
    (94, 2, 2, 40),
    (516, 33, 1, 1),
    (100, 49, 3, 3),
    (1024, 65, 2, 1),
    (18, 65, 2, 2),
    (8, 1100, 1, 2),
)
"""Rotations, displacements, images, templates."""
DRY_SHAPES = ((6, 3, 2, 1), (10, 5, 2, 3))
SQUARED = (0.003, 0.3, 0.99)
"""Largest squared correlations."""
POSES = ("template", "displacement", "rotation")
OTHER_KINDS = ("best_of_pairs", "best_displacements", "best_rotations", "all_correlations")


def fused(bench: Bench) -> None:
    """The Triton kernel against sums in float64, in all shapes; and what it was compiled to."""
    if bench.dry:
        os.environ["TRITON_INTERPRET"] = "1"
    if find_spec("triton") is None:
        bench.say(left_out="the fused kernel", because="triton is not installed")
        return
    generator = torch.Generator(device=bench.device).manual_seed(1)
    for shape in DRY_SHAPES if bench.dry else SHAPES:
        for squared in SQUARED[:1] if bench.dry else SQUARED:
            about = {"shape": list(shape), "squared": squared}
            bench.attempt(lambda: _against_sums(bench, shape, squared, generator), **about)  # noqa: B023
    _resources(bench)


def _against_sums(
    bench: Bench, shape: tuple[int, int, int, int], squared: float, generator: torch.Generator
) -> None:
    from cryolike_dask.likelihoods.kernels.fused_cuda import TileTerms, summarise_fused

    device, (w, d, m, s) = torch.device(bench.device), shape
    half, options = w // 2, {"generator": generator, "device": device}
    products = torch.randn(half + 1, 2, m, s * d + (-s * d) % 16, **options)
    scale = 0.5 + 0.5 * torch.rand(half, m, s, **options, dtype=torch.float64)
    norm = 0.01 * torch.rand(half, m, s, **options) + 1e-3
    height = torch.randn(half, m, s, **options, dtype=torch.float64) + 1e5
    shift = torch.randn(m, s, **options)
    exponents = torch.full((m,), 200.5, device=device, dtype=torch.float64)
    v = _rotated(products[..., : s * d].double().unflatten(3, (s, d)), w)
    scale = scale * squared / float((v**2 * _at_rotations(scale, w)).max())
    fits = v**2 * _at_rotations(scale, w)
    best = ((v + shift.double()[..., None]) * _at_rotations(norm.double(), w)).amax((0, 3))
    poses = _at_rotations(height, w) - exponents[:, None, None] * torch.log1p(
        -fits.clamp(max=1 - 1.2e-7)
    )
    summed = torch.logsumexp(poses.permute(1, 2, 0, 3).flatten(2), 2)
    terms = TileTerms(
        products=products,
        n_displacements=d,
        column_stride=d,
        shift=shift,
        norm=norm,
        scale=scale,
        height=height,
        exponents=exponents,
    )
    everything = torch.full((m, s), -math.inf, device=device, dtype=torch.float64)
    started = time.perf_counter()
    found = summarise_fused(terms, everything)
    bench.synchronize()
    bench.say(
        shape=list(shape),
        squared=squared,
        first_call_s=time.perf_counter() - started,
        best=float((found[0].double() - best).abs().max() / best.abs().max()),
        fit=float((found[1] - fits.amax((0, 3))).abs().max() / squared),
        nat=float((found[2] - summed).abs().max()),
        allowed_nat=1e-5 * (1 + 200.5 * squared / max(1 - squared, 0.01)),
    )


def _rotated(products: torch.Tensor, w: int) -> torch.Tensor:
    """The covariance at every rotation, from the definition."""
    q = torch.arange(w // 2 + 1, device=products.device, dtype=torch.float64)
    angle = 2 * math.pi / w * torch.arange(w, device=products.device)[:, None] * q
    twice = torch.where((q == 0) | (q == w // 2), 1.0, 2.0)
    even, odd = (
        torch.einsum("wq,qmsd->wmsd", twice * wave, products[:, k])
        for k, wave in enumerate((angle.cos(), angle.sin()))
    )
    return even - odd


def _at_rotations(values: torch.Tensor, w: int) -> torch.Tensor:
    """Values by rows, at every rotation: (rotation, image, template, 1)."""
    placed = values.new_empty(w, *values.shape[1:])
    placed[fold(w, torch.float64, values.device).rotations.flatten()] = torch.cat([values, values])
    return placed[..., None]


def _resources(bench: Bench) -> None:
    """Registers, spills and shared memory of all that was compiled."""
    import triton

    from cryolike_dask.likelihoods.kernels import norms_cuda, pairs_cuda

    bench.say(triton=triton.__version__, torch=torch.__version__)
    if bench.needs_cuda("what the kernels were compiled to"):
        return
    for function in (*vars(pairs_cuda).values(), *vars(norms_cuda).values()):
        for cache in getattr(function, "device_caches", {}).values():
            for kernel in cache[0].values():
                bench.say(
                    compiled=kernel.name,
                    registers=kernel.n_regs,
                    spills=kernel.n_spills,
                    shared=kernel.metadata.shared,
                    warps=kernel.metadata.num_warps,
                )


def block(bench: Bench) -> None:
    """A block of the standard case against the same on the CPU: poses, likelihoods, time."""
    for conventions in ("standard", "cryolike"):
        for precision, tolerance in (("single", None), ("single", 0.0), ("double", None)):
            about = {"conventions": conventions, "precision": precision, "tolerance": tolerance}
            few = 16 if (conventions, precision, tolerance) != ("standard", "single", None) else 64
            found: dict[str, Any] = {}
            for device in ("cpu", bench.device):
                options = {**about, "device": device}
                one = bench.attempt(lambda: setting(bench, few, 24, **options), **options)  # noqa: B023
                if one is None:
                    return
                started = time.perf_counter()
                found[device] = bench.attempt(one.search, **options)
                seconds = time.perf_counter() - started
                bench.say(**options, images=len(one.rows[0]), first_block_s=seconds)
            if any(poses is None for poses in found.values()):
                continue
            on_cpu, there = (found[device][:, 0] for device in ("cpu", bench.device))
            numbers = [n for n in on_cpu.dtype.names if on_cpu.dtype[n].kind == "f"]
            bench.say(
                **about,
                **{f"off_{name}": _off(on_cpu[name], there[name]) for name in numbers},
                other_poses=int(sum((on_cpu[k] != there[k]).sum() for k in POSES)),
            )


def _off(one: Any, other: Any) -> float:
    """The largest difference of numbers of which some may be unknown on both sides."""
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        return float(np.where(same, 0.0, np.abs(one - other)).max())


def kinds(bench: Bench) -> None:
    """The other kinds of block, every pair compared directly, and running out of memory."""
    for name in OTHER_KINDS:
        found = []
        for device in ("cpu", bench.device):
            one = setting(bench, 6, 4, device=device)
            found.append(getattr(blocks, name)(*one.rows, one.basis, comparison=one.comparison))
        a, b = ((f["cross_correlation"] if f.dtype.names else f) for f in found)
        bench.say(kind=name, off=float(np.abs(a.astype(float) - b).max()))
    one = setting(bench, 6, 4)
    forced = replace(
        one.comparison,
        conventions=replace(one.comparison.conventions, recomputes_offset_above=0.0),
    )
    poses = blocks.optimal_poses(*one.rows, one.basis, comparison=forced)
    finite = bool(np.isfinite(poses["log_likelihood_integrated"]).all())
    bench.say(kind="every pair compared directly", finite=finite)
    if bench.needs_cuda("running out of memory"):
        return
    n_calls, tiles = 0, Block.tiles

    def failing(block: Block) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:
            torch.empty(1 << 45, dtype=torch.uint8, device="cuda")
        return tiles(block)

    Block.tiles = failing  # type: ignore[method-assign]
    try:
        poses = one.search()
    finally:
        Block.tiles = tiles  # type: ignore[method-assign]
    finite = bool(np.isfinite(poses["log_likelihood_integrated"]).all())
    bench.say(kind="out of memory", tries=n_calls, recovered=finite)
