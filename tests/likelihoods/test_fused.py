"""The fused kernels against plain sums: that of GPUs on one where there is one, else in Triton's
interpreter."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch

from benchmarks.pretended_gpu import pretended_gpu
from cryolike_dask import compute_optimal_pose
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.kernels import norms, with_triton
from cryolike_dask.likelihoods.kernels.compressed import prepare_images
from cryolike_dask.likelihoods.kernels.fused_cpu import PairTerms, Rotations, Summary, reduce_pairs
from cryolike_dask.likelihoods.kernels.rotations import fold, plan
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.tiled_block import open_block
from cryolike_dask.likelihoods.tiles import columns_of_template

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    # read when triton is imported, which nothing else here does
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="the fused kernel of GPUs needs triton")

from cryolike_dask.likelihoods.kernels import fused_cuda  # noqa: E402
from cryolike_dask.likelihoods.kernels.fused_cuda import (  # noqa: E402
    TileTerms,
    shape_of,
    summarise_fused,
)
from cryolike_dask.likelihoods.kernels.norms_cuda import norms_in_one_kernel  # noqa: E402

ROUNDING = torch.finfo(torch.float32).eps
KERNELS = ["gpu", "cpu", "cpu, double"]
SHAPES = [(4, 1, 1, 1), (6, 3, 2, 1), (10, 5, 2, 3), (12, 7, 3, 2), (32, 33, 2, 2), (128, 17, 1, 2)]
SHAPES += [(18, 65, 2, 2), (24, 150, 1, 3), (94, 2, 2, 40), (8, 1100, 1, 2)]


def arguments(rng, n_inplanes, n_displacements, n_images, n_templates, squared):
    """Random arguments of summarise_fused whose largest squared correlation is as given."""
    by_row = n_inplanes // 2, n_images, n_templates
    products = rng.standard_normal((n_inplanes // 2 + 1, 2, *by_row[1:], n_displacements)).astype(
        np.float32
    )
    products *= 1e10  # as scale is not a float32 number then
    scale = rng.uniform(0.5, 1, by_row)
    largest = squared_correlations(products, scale)[1].max()
    return {
        "products": products,
        "shift": rng.standard_normal(by_row[1:]).astype(np.float32) * 1e10,
        "norm": rng.uniform(1e-11, 2e-11, by_row).astype(np.float32),
        "scale": scale * squared / largest,
        "height": rng.uniform(-1e6, 1e6, by_row[1:]) + rng.uniform(-2, 2, by_row),
        "exponents": rng.uniform(100, 200, by_row[1]),
    }


def squared_correlations(products, scale):
    """From the definition, at every rotation: v (rotation, image, template, displacement), and
    v^2 scale."""
    n_half = len(scale)
    w, q = np.arange(2 * n_half), np.arange(n_half + 1)
    twice = np.where(q % n_half == 0, 1, 2)
    waves = twice * np.exp(2j * np.pi * w[:, None] * q / (2 * n_half))
    v = np.tensordot(waves, products[:, 0].astype(float) + 1j * products[:, 1], 1).real
    return v, v**2 * at_rotations(scale)


def at_rotations(values):
    """Give values by rows, (W/2, image, template), at every rotation: (W, image, template, 1)."""
    rows = fold(2 * len(values), torch.float64, torch.device("cpu")).rotations.numpy()
    placed = np.empty((2 * len(values), *values.shape[1:], 1))
    placed[rows] = values[..., None]
    return placed


def on_gpu(given, reference=-math.inf, repeated=None, **options):
    """Arrays that summarise_fused gives; columns of templates are a multiple of eight where there
    are many, as on a GPU, or as many more as are told."""
    tensors = {k: torch.from_numpy(v).to(DEVICE) for k, v in given.items()}
    n_displacements = given["products"].shape[-1]
    if repeated is None:
        repeated = columns_of_template(n_displacements, "cuda") - n_displacements
    tensors["products"] = padded(given, repeated).to(DEVICE)
    terms = TileTerms(
        **tensors, n_displacements=n_displacements, column_stride=n_displacements + repeated
    )
    if reference is not None:
        reference = np.broadcast_to(np.float64(reference), given["shift"].shape)
        reference = torch.from_numpy(reference.copy()).to(DEVICE)
    results = summarise_fused(terms, reference, **options)
    types = [torch.float32, torch.float64, torch.float64, torch.int32]
    assert [r.dtype for r in results] == types
    return [r.cpu().numpy() for r in results]


def on_cpu(given, dtype=torch.float32, reference=-math.inf):
    """Arrays that reduce_pairs gives, two pairs at a time."""
    n_rows, *shape = given["norm"].shape
    products = padded(given).to(dtype).numpy()
    transform = plan(2 * n_rows, products.dtype.name)
    placed = fold(2 * n_rows, dtype, torch.device("cpu")).rotations.numpy()
    rows = np.empty(2 * n_rows, np.int64)
    rows[placed] = np.arange(n_rows)
    shift, norm = (given[k].astype(products.dtype) for k in ("shift", "norm"))
    terms = PairTerms(
        products,
        given["products"].shape[-1],
        shift,
        norm,
        given["scale"],
        given["height"],
        exponents=given["exponents"],
        floor=1 - ROUNDING,
        reference=np.full(shape, reference),
    )
    rotations = Rotations(transform.radices, transform.waves, rows[transform.rotations])
    found = Summary(*(np.full(shape, np.nan, dtype) for dtype in (products.dtype, float, float)))
    for pair in range(0, math.prod(shape), 2):
        reduce_pairs((pair, min(pair + 2, math.prod(shape))), terms, rotations, found)
    return found


def padded(given, repeated=0):
    """Products in columns, of which the last of each template is repeated so often; what lies
    beside those of templates must not matter."""
    columns = np.pad(given["products"], [(0, 0)] * 4 + [(0, repeated)], mode="edge")
    columns = torch.from_numpy(columns).flatten(3)
    return torch.nn.functional.pad(columns, (0, 5), value=torch.nan)


def reduced(kernel, given):
    """Best, fit and summed log-likelihood."""
    if kernel == "gpu":
        return on_gpu(given)[:3]
    return on_cpu(given, torch.float64 if "double" in kernel else torch.float32)


def check(kernel, given, squared):
    """Compare with plain sums. Likelihoods take twice the relative error of v, times exponent
    v^2 scale / residual."""
    v, fits = squared_correlations(given["products"], given["scale"])
    correlation = (v + given["shift"][..., None]) * at_rotations(given["norm"])
    of_images = given["exponents"][:, None, None]
    log_likelihood = at_rotations(given["height"]) - of_images * np.log1p(
        -fits.clip(max=1 - ROUNDING)
    )
    highest = log_likelihood.max((0, 3))
    expected = highest + np.log(np.exp(log_likelihood - highest[:, :, None]).sum((0, 3)))

    best, fit, summed = reduced(kernel, given)
    assert best == pytest.approx(correlation.max((0, 3)), rel=1e-5, abs=1e-5)
    assert fit == pytest.approx(fits.max((0, 3)), rel=1e-5)
    error = 1e-9 if kernel == "cpu, double" else 1e-5
    tolerance = error * (1 + given["exponents"].max() * squared / max(1 - squared, 0.01))
    assert summed == pytest.approx(expected, rel=0, abs=tolerance)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("squared", [0.003, 0.049, 0.3, 0.99])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_plain_sums(rng, kernel, shape, squared):
    check(kernel, arguments(rng, *shape, squared), squared)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_last_blocks_of_rows_and_displacements_count(rng, kernel):
    given = arguments(rng, 1028, 33, 1, 1, 0.003)
    given["products"][..., :-1] /= 2
    given["height"][-1] += 6
    given["shift"] = -2 * abs(squared_correlations(given["products"], given["scale"])[0]).max(
        (0, 3)
    ).astype(np.float32)
    check(kernel, given, 0.003)


@pytest.mark.parametrize("kernel", KERNELS)
def test_negative_correlations_are_not_taken_for_none(rng, kernel):
    given = arguments(rng, 12, 17, 2, 1, 0.3)
    given["products"][0, 0] = -abs(given["products"]).sum()
    given["scale"] *= 0.3 / squared_correlations(given["products"], given["scale"])[1].max()
    given["shift"] *= 0
    check(kernel, given, 0.3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_correlations_beyond_one_stay_finite(rng, kernel):
    check(kernel, arguments(rng, 12, 3, 2, 1, 2.0), 2.0)


@pytest.mark.parametrize("n_programs", [1, 7])
@pytest.mark.parametrize("shape", [*SHAPES, (516, 33, 1, 1)], ids=str)
def test_where_the_best_pose_is(rng, shape, n_programs):
    """Of pairs that beat what their image has; of poses as good to rounding any."""
    given = arguments(rng, *shape, 0.3)
    v, _ = squared_correlations(given["products"], given["scale"])
    correlation = (v + given["shift"][..., None]) * at_rotations(given["norm"])
    by_pose = correlation.transpose(1, 2, 3, 0).reshape(*given["shift"].shape, -1)
    largest = by_pose.max(2)
    to_beat = (largest.min(1) - 1e-3).astype(np.float32)
    if len(largest) > 1:
        to_beat[1:] = largest[1:].max(1) + 1e-3
    options = {"n_programs": n_programs, "to_beat": torch.from_numpy(to_beat).to(DEVICE)}
    best, *_, poses = on_gpu(given, **options)
    np.testing.assert_allclose(best, largest, rtol=1e-5, atol=1e-5)
    found = by_pose[0, np.arange(largest.shape[1]), poses[0]]
    np.testing.assert_allclose(found, largest[0], rtol=1e-5, atol=1e-5)


def test_of_poses_that_are_alike_it_is_the_first(rng):
    """Displacements that are repeated, as padding is, and in both halves of a turn."""
    given = arguments(rng, 24, 40, 1, 2, 0.3)
    given["products"][..., 1:] = given["products"][..., :1]
    given["products"][1::2] = 0  # even angular frequencies alone: the same half a turn further
    *_, poses = on_gpu(given, to_beat=torch.full((1,), -math.inf).to(DEVICE))
    assert (poses < 12).all()


@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
def test_is_what_tiles_reduce_to(build, conventions):
    """Images and templates of a real comparison, as a task has them."""
    images, templates = build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    graph = ComparisonGraph(
        images, templates, Settings(conventions=conventions, precision="single")
    )
    rows = (
        image_rows(images, graph.comparison.conventions),
        template_rows(templates, graph.comparison.conventions),
    )
    with torch.inference_mode():
        for _, _, tile in open_block(*rows, (), graph.comparison).tiles():
            n_displacements = len(templates.displacements)
            terms = TileTerms(
                tile.products,
                n_displacements,
                n_displacements,
                tile.shift,
                tile.norm,
                tile.scale,
                tile.height,
                tile.exponent,
            )
            everything = torch.full_like(tile.error_bound, -math.inf)
            found = summarise_fused(terms, everything, torch.full_like(tile.shift[:, 0], -2))
            best, fit, summed, _ = tile.reduce(everything)
            pairs = np.indices(best.shape).reshape(2, -1)
            located = tile.locate(*map(torch.from_numpy, pairs))
            np.testing.assert_array_equal(found[3].cpu().flatten(), located.cpu())
            for of_kernel in found, tile.summarise(everything):
                np.testing.assert_allclose(of_kernel[0].cpu(), best.cpu(), rtol=0, atol=2e-6)
                np.testing.assert_allclose(of_kernel[1].cpu(), fit.cpu(), rtol=1e-5)
                np.testing.assert_allclose(of_kernel[2].cpu(), summed.cpu(), rtol=0, atol=2e-3)


@pytest.mark.filterwarnings("ignore:.*encountered in")  # numpy's, of the interpreter, on purpose
@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
def test_norms_of_one_kernel_are_those_of_torch(build, conventions):
    images, templates = build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    settings = Settings(conventions=conventions, precision="single")
    comparison = ComparisonGraph(images, templates, settings).comparison
    rows = (
        image_rows(images, comparison.conventions),
        template_rows(templates, comparison.conventions),
    )
    block = open_block(*rows, (), comparison)
    of_images = prepare_images(block.images(slice(0, 3)), block.constants)
    power = torch.rand(3, 4, 12) + 1
    power[0, 1, 2], power[1, 2, 3] = 0, math.nan
    mask = torch.rand(3, 4) / 100
    given = power, mask, (of_images.power, of_images.mask, of_images.noise), block.constants
    expected, found = norms.norms_by_torch(*given), norms_in_one_kernel(*given)
    assert found.is_empty.tolist() == expected.is_empty.tolist() == [False, True, True, False]
    for name in set(vars(expected)) - {"is_empty"}:
        one, other = (getattr(of, name) for of in (found, expected))
        assert one.dtype == other.dtype
        good = [0, 3]
        rounding = torch.finfo(one.dtype).eps
        pairs = (v[:, good] if v.ndim == 2 else v[:, :, good] for v in (one, other))
        torch.testing.assert_close(*pairs, rtol=4 * rounding, atol=0)


def test_threads_share_the_work_and_change_nothing(build):
    images, templates = build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    graph = ComparisonGraph(images, templates, Settings(device="cpu", precision="single"))
    rows = (
        image_rows(images, graph.comparison.conventions),
        template_rows(templates, graph.comparison.conventions),
    )
    found, n_threads = [], torch.get_num_threads()
    with torch.inference_mode():
        (_, _, tile), *others = open_block(*rows, (), graph.comparison).tiles()
        assert not others
        try:
            for n in 1, 2, 64:  # more than pairs
                torch.set_num_threads(n)
                found.append(tile.summarise(torch.full_like(tile.error_bound, -math.inf)))
        finally:
            torch.set_num_threads(n_threads)
    for alone, *shared in zip(*found, strict=True):
        for of_threads in shared:
            torch.testing.assert_close(of_threads, alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("squared", [0.003, 0.3])
def test_what_is_out_of_reach_is_neglected_on_cpus(rng, squared):
    given = arguments(rng, 12, 5, 2, 3, squared)
    _, fit, everything = on_cpu(given)
    high = on_cpu(given, reference=float(everything.max()) + 1)[2]
    assert (high == -math.inf).all()
    nothing = on_cpu(given, reference=math.inf)
    np.testing.assert_array_equal(nothing[1], fit)
    assert (nothing[2] == -math.inf).all()
    for pair in np.ndindex(fit.shape):
        near = on_cpu(given, reference=float(everything[pair]) - 30)[2]
        assert near[pair] == pytest.approx(everything[pair], rel=0, abs=1e-6)


def test_sums_nothing_unless_asked(rng):
    given = arguments(rng, 12, 3, 2, 2, 0.3)
    with_sum, without = (on_gpu(given, reference) for reference in (-math.inf, None))
    np.testing.assert_array_equal(without[0], with_sum[0])
    np.testing.assert_array_equal(without[1], with_sum[1])
    assert (without[2] == -math.inf).all()


def test_programs_share_pairs_and_blocks_and_change_nothing(rng):
    given = arguments(rng, 12, 70, 1, 2, 0.3)
    expected = on_gpu(given, n_programs=1)  # one after the other
    for n_programs in 2, 50:  # a pair each; parts of pairs, fewer than programs
        found = on_gpu(given, n_programs=n_programs)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[2], expected[2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_displacements", [1, 17, 40])
def test_displacements_that_are_repeated_count_once(rng, n_displacements):
    given = arguments(rng, 12, n_displacements, 1, 2, 0.3)
    best, fit, summed, _ = on_gpu(given, repeated=0)
    width = max(shape_of(12).columns, n_displacements)
    found = on_gpu(given, repeated=-(-width // 8) * 8 - n_displacements)
    np.testing.assert_allclose(found[0], best, rtol=1e-6)
    np.testing.assert_allclose(found[1], fit, rtol=1e-6)
    np.testing.assert_allclose(found[2], summed, rtol=0, atol=1e-4)


@pytest.mark.parametrize("squared", [0.03, 0.3])
def test_what_is_out_of_reach_is_neglected_on_gpus_and_nothing_else(rng, squared):
    """Whole blocks are left out: only poses below the reference, by whatever rounding is."""
    given = arguments(rng, 12, 70, 1, 2, squared)
    # hardly anything is left of the last blocks
    given["products"] *= np.geomspace(1, 0.01, 70).astype(np.float32)
    given["scale"] *= squared / squared_correlations(given["products"], given["scale"])[1].max()
    best, fit, everything, _ = on_gpu(given)
    below = log_likelihoods(given)
    highest, error = below.max((0, 3)), 1e-5 * (1 + given["exponents"].max())
    for away in 20, 1, -0.5, -30, -math.inf:
        found = on_gpu(given, highest - away)
        np.testing.assert_array_equal(found[0], best)
        np.testing.assert_array_equal(found[1], fit)
        relative = np.exp(below - highest[..., None])
        counting = np.where(relative >= np.exp(-away), relative, 0).sum((0, 3))
        summed = np.exp(found[2] - highest)
        if away > 0:  # all that counts is there, and what is left out is less than the reference
            assert (summed >= counting * (1 - error)).all()
            left_out = np.exp(everything - highest) - summed
            assert (left_out <= relative[..., 0, 0, :].size * np.exp(-away) + error).all()
        elif away < -20:  # farther above than slack, and than the bound is
            assert (summed == 0).all()


def log_likelihoods(given):
    """Of every pose, from the definition: (rotation, image, template, displacement)."""
    fits = squared_correlations(given["products"], given["scale"])[1]
    of_images = given["exponents"][:, None, None]
    return at_rotations(given["height"]) - of_images * np.log1p(-fits.clip(max=1 - ROUNDING))


def test_poses_far_below_a_pairs_best_are_not_summed(rng):
    """Without a reference, too: the best so far is one."""
    given = arguments(rng, 12, 70, 1, 1, 0.9)
    given["products"] *= np.geomspace(1, 0.01, 70).astype(np.float32)
    given["exponents"][:] = 1000
    whole = on_gpu(given, n_programs=1)[2]
    given["products"][..., 32:] *= -1  # which changes no likelihood but the rounding of its sum
    np.testing.assert_array_equal(on_gpu(given, n_programs=1)[2], whole)


def test_products_of_any_size_are_in_the_range_of_half_precision(rng):
    given = arguments(rng, 128, 17, 1, 1, 0.3)
    given["shift"] *= 0
    expected = on_gpu(given)
    for size in 1e-30, 1e12:
        of_size = dict(given)
        of_size["products"] = (given["products"].astype(float) * (1e-10 * size)).astype(np.float32)
        of_size["scale"] = given["scale"] / (1e-10 * size) ** 2
        np.testing.assert_allclose(on_gpu(of_size)[1], expected[1], rtol=1e-5)


def test_split_products_are_as_exact_as_single_precision(rng):
    """To rounding of the best |v|, far below that of the products themselves: five steps of single
    precision of its square (3.7 have been seen)."""
    given = arguments(rng, 256, 16, 1, 2, 0.3)
    fits = squared_correlations(given["products"], given["scale"])[1].max((0, 3))
    np.testing.assert_allclose(on_gpu(given)[1], fits, rtol=6e-7)


def test_whole_blocks_on_a_pretended_gpu(build, monkeypatch):
    monkeypatch.setattr(fused_cuda, "_multiprocessors", lambda device: 2)
    images, templates = build.stacks(2, 2, n_pixels=16, n_inplanes=24, search=(2.0, 6, 6))
    assert len(templates.displacements) > 32

    def fields(device):
        lazy = compute_optimal_pose(images, templates, device=device, precision="single")
        return lazy.compute(scheduler="sync")

    on_cpu = fields("cpu")
    with pretended_gpu():
        on_gpu = fields("cuda")
    assert with_triton.is_usable()
    for name, expected in on_cpu.items():
        if name == "correlation_error_bound":
            continue  # a bound, of other arithmetic
        tolerance = 2e-3 if "likelihood" in name else 2e-6
        np.testing.assert_allclose(on_gpu[name], expected, rtol=1e-6, atol=tolerance, err_msg=name)
