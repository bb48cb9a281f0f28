"""The contraction over operands that are split into parts of 11 bits: against float64, within its
bound, and through whole blocks, as on a GPU and on a CPU that multiplies the same parts."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.cases import CASES, make_inputs
from benchmarks.pretended_gpu import pretended_gpu, product_of_halves
from cryolike_dask import compute_optimal_pose
from cryolike_dask.compute.gpu import float32_products
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows
from cryolike_dask.likelihoods.kernels import split
from cryolike_dask.likelihoods.kernels.compressed import (
    ImageTerms,
    correlate,
    prepare_images,
    prepare_templates,
)
from cryolike_dask.likelihoods.kernels.rotations import Scratch, fold, rotate
from cryolike_dask.likelihoods.kernels.split import LARGEST_NORM, LEAST, Way
from cryolike_dask.likelihoods.reading import read_images, read_templates
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.setup import find_basis, make_constants
from cryolike_dask.likelihoods.tiles import Footprint, ranks_of
from tests.conftest import Builder
from tests.likelihoods.test_compressed import complete, computed

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SPLIT = [Way.HALVES, Way.TF32]
UNIT = 2.0**-11
"""Half a unit in the last of 11 bits."""


@pytest.fixture
def build():
    """Always the same inputs: of others two poses might be as good to rounding."""
    return Builder(np.random.default_rng(3))


def take(monkeypatch, way):
    """Contract float32 in this way on a CPU too, which multiplies the same parts."""
    monkeypatch.setattr(
        split, "way_on", lambda device, dtype: way if dtype == torch.float32 else Way.WHOLE
    )
    monkeypatch.setattr(
        split,
        "multiply_halves",
        lambda a, b, out: product_of_halves(a, b, out_dtype=torch.float32, out=out),
    )


# Operands


def parts_of(values, way):
    """Low and high parts in float64, as they stand in both operands; the same in each."""
    n, columns = values.shape[2], split.columns_of_images(values, way)
    rows = split.rows_of_templates(values.mT.contiguous(), way).mT
    assert columns.dtype == rows.dtype == way.dtype(torch.float32)
    assert columns.shape == rows.shape == (*values.shape[:2], way.length(n))
    assert way.length(n) % 8 == 0
    assert way.length(n) - 3 * n < 8
    assert not columns[..., 3 * n :].any()
    assert not rows[..., 3 * n :].any()
    low, high, again = columns[..., : 3 * n].double().split(n, 2)
    for one, other in zip(rows[..., : 3 * n].double().split(n, 2), (high, low, high), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(high, again)
    return low, high


@pytest.mark.parametrize("way", SPLIT)
@pytest.mark.parametrize("n", [1, 8, 13])
def test_numbers_are_the_sums_of_their_parts(rng, way, n):
    """To 22 bits, as far as float16 goes; each part has 11."""
    sizes = 2.0 ** rng.uniform(-45, 14, (2, 5, n)) * rng.choice([-1, 1], (2, 5, n))
    values = torch.from_numpy(sizes.astype(np.float32))
    values[0, 0, 0] = LARGEST_NORM
    low, high = parts_of(values, way)
    left = (values.double() - low - high).abs()
    least = LEAST / 2 if way is Way.HALVES else 0
    assert (left <= UNIT**2 * values.abs() + least).all()
    for part in (low, high):
        mantissa, _ = torch.frexp(part)
        assert torch.equal(mantissa * 2**11, (mantissa * 2**11).round())


@pytest.mark.parametrize("way", SPLIT)
def test_nothing_and_what_is_no_number_stay_so(way):
    low, high = parts_of(torch.zeros(1, 2, 3), way)
    assert not low.any()
    assert not high.any()
    none = torch.full((1, 2, 3), math.nan)
    assert split.columns_of_images(none, way)[..., :9].isnan().all()


def test_norms_are_scaled_by_powers_of_two(rng):
    norms = torch.from_numpy(10.0 ** rng.uniform(-18, 18, 100))
    norms[:3] = torch.tensor([1, LARGEST_NORM, LARGEST_NORM / 2])
    scales = split.scales(norms)
    assert torch.equal(torch.frexp(scales)[0], torch.full_like(scales, 0.5))
    assert (scales * norms >= LARGEST_NORM / 2).all()
    assert (scales * norms < LARGEST_NORM).all()
    useless = torch.tensor([0, math.inf, math.nan], dtype=torch.float64)
    assert split.scales(useless).tolist() == [1, 1, 1]


def some_operands(rng, kind, shape):
    """Real and imaginary parts of one side, (q, k, x), float32."""
    values = rng.standard_normal(shape)
    if kind == "huge ratios":
        values *= 10.0 ** rng.uniform(-12, 6, shape)
    elif kind == "few":
        values[rng.random(shape) < 0.95] = 0
    elif kind == "one large value":
        values *= 1e-6
        values[0, 0] = 1e3
    elif kind == "a single value":
        values[:] = 0
        values[-1, -1] = -3
    elif kind == "nothing":
        values[:] = 0
    elif kind == "tiny":
        values *= 1e-17
    elif kind == "large":
        values *= 1e17
    elif kind == "all rounded as far as can be":
        # rounded to 1, they leave the most, and all of it has the same sign
        values[:] = 1 + UNIT - 2 * UNIT**2
    return torch.from_numpy(values.astype(np.float32))


KINDS = [
    "noise",
    "huge ratios",
    "few",
    "one large value",
    "a single value",
    "nothing",
    "tiny",
    "large",
    "all rounded as far as can be",
]


def contracted(a, b, way):
    """Split (q, k, image) and (q, k, template), complex products of both in float64, by parts that
    are multiplied in float32 and in float64, and operands of the templates."""
    norms = [x.double().square().sum((0, 1)).sqrt() for x in (a, b)]
    scales = [split.scales(norm) for norm in norms]
    scaled_a, scaled_b = (x * scale.float() for x, scale in zip((a, b), scales, strict=True))
    assert all(x.isfinite().all() for x in (scaled_a, scaled_b))
    half = a.shape[1] // 2
    real, imaginary = scaled_a[:, :half], scaled_a[:, half:]
    images = torch.cat([torch.cat([real, imaginary], 1), torch.cat([-imaginary, real], 1)], 2)
    columns = split.columns_of_images(images.mT.contiguous(), way)
    rows = split.rows_of_templates(scaled_b, way)
    out = torch.empty(len(a), columns.shape[1], rows.shape[2])
    with split.multiplying(way):
        split.multiply(columns, rows, out)
    in_both = [
        torch.complex(*x.double().chunk(2, 1)) for x in (out, columns.double() @ rows.double())
    ]
    unit = scales[0][:, None] * scales[1]
    return [x / unit for x in in_both], norms[0][:, None] * norms[1], rows


@pytest.mark.parametrize("way", SPLIT)
@pytest.mark.parametrize("of_images", KINDS)
@pytest.mark.parametrize("of_templates", KINDS)
def test_products_are_within_their_bound(rng, monkeypatch, way, of_images, of_templates):
    """Of operands that are made to be rounded badly too; parts multiplied in float32, and, without
    what the bound takes for sums, in float64."""
    take(monkeypatch, way)
    a = some_operands(rng, of_images, (3, 22, 4))
    b = some_operands(rng, of_templates, (3, 22, 5))
    found, norms, operand = contracted(a, b, way)
    half = torch.complex(*a.double().chunk(2, 1)).mT.conj() @ torch.complex(*b.double().chunk(2, 1))
    most = split.relative_error([operand])
    of_sums = math.sqrt(2) * operand.shape[1] * 2.0**-23
    for products, bound in zip(found, (most, most - of_sums), strict=True):
        assert products.isfinite().all()
        # each angular frequency at the angle at which its error is largest
        error = (products - half).abs().sum(0)
        assert (error <= bound * norms).all()
        if of_images == of_templates == KINDS[-1] and bound != most:
            assert (error >= 0.2 * bound * norms).all(), "the bound is about what can be lost"


def test_the_bound_is_the_sum_of_what_can_be_lost():
    """At the standard case, and of so many values that what float16 ends at is seen."""
    standard = [torch.empty(11, 6 * rank, 1, device="meta") for rank in (64, 32, 17)]
    many = [torch.empty(10**12, 48, 1, device="meta")]
    for operands, longest, n_values in (
        (standard, 384, 4 * 11 * (64 + 32 + 17)),
        (many, 48, 4 * 8 * 10**12),
    ):
        products = 3 * 2.0**-22 + n_values**0.5 * 2.0**-37
        wanted = 2**0.5 * (products + longest * 2.0**-23)
        assert split.relative_error(operands) == pytest.approx(wanted, rel=1e-9)


# Blocks


def multiplied(stack, factors):
    """The same images or templates, brighter."""
    return replace(stack, source=type(stack.source)(stack.source.values * factors))


def tile_parts(inputs, tolerance=None, n_templates=2):
    """Constants of a comparison, its images and some templates, in single precision."""
    images, templates = inputs
    settings = Settings(device="cpu", precision="single")
    settings = settings if tolerance is None else replace(settings, tolerance=tolerance)
    comparison = ComparisonGraph(images, templates, settings).comparison
    basis = find_basis(comparison)
    constants = make_constants(comparison, CPU, basis)
    rows = image_rows(images, comparison.conventions)
    (values,) = read_templates([np.arange(n_templates)], comparison, constants)
    footprint = Footprint.of(comparison, ranks_of(basis, comparison))
    return read_images(rows, comparison, constants), values, constants, footprint


def correlations(parts, products_of):
    """Of operands that are multiplied by a function, float64 (2, W/2, image, template,
    displacement); and the largest bound of their error."""
    images, templates, constants, _ = parts
    terms = prepare_images(images, constants), prepare_templates(templates, constants)
    tile = correlate(*terms, constants)
    products = torch.cat(
        [products_of(a, b) for a, b in zip(terms[0].spectra, terms[1].spectra, strict=True)]
    ).double()
    folding = fold(constants.weights.shape[1], torch.float64, CPU)
    sums = rotate(products.view(len(products), 2, -1), folding, Scratch(products.new_empty(0)))
    n_displacements = constants.translation[0].shape[2]
    columns = sums.view(*sums.shape[:2], len(images), -1)[..., : len(templates) * n_displacements]
    found = columns.unflatten(3, (len(templates), -1)) * tile.norm.double()[..., None]
    return found, float(tile.error_bound.max())


def rms(values):
    return float(values.square().mean().sqrt())


@pytest.mark.parametrize("way", SPLIT)
@pytest.mark.parametrize("tolerance", [None, 0.0], ids=["compressed", "all shells"])
def test_parts_are_as_exact_as_float32(monkeypatch, way, tolerance):
    """Particles of the strength of real ones: correlations of rounded operands are within 3e-9 of
    those of float32, both multiplied in float64; summed in float32, they are about as far off, and
    thousands of times less than the bound says."""
    images, templates, _ = make_inputs(CASES[0], 8, 2, signal=0.13)
    parts = tile_parts((images, templates), tolerance)

    def exact(a, b):
        return torch.bmm(a.double(), b.double())

    def summed(a, b):
        return torch.bmm(a.float(), b.float())

    wanted, in_float32 = (correlations(parts, products_of)[0] for products_of in (exact, summed))
    take(monkeypatch, way)
    rounded, _ = correlations(parts, exact)
    in_parts, bound = correlations(parts, summed)
    assert float(wanted.max()) > 0.1
    print(rms(rounded - wanted), rms(in_parts - wanted), rms(in_float32 - wanted))
    assert 0 < rms(rounded - wanted) < 3e-9
    assert rms(in_parts - wanted) < 2 * rms(in_float32 - wanted)
    assert 1000 * float((in_parts - wanted).abs().max()) < bound < 2e-4


@pytest.mark.parametrize("way", SPLIT)
@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
@pytest.mark.parametrize("tolerance", [1e-6, 0.0])
def test_blocks_give_what_float32_gives(build, monkeypatch, way, conventions, tolerance):
    """And no more is wrong with correlations than they say."""
    images, templates = build.stacks(5, 6, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    options = {"conventions": conventions, "precision": "single", "tolerance": tolerance}
    expected = computed("optimal_pose", images, templates, **options)
    exact = complete(images, templates, **{**options, "precision": "double", "tolerance": 0})
    take(monkeypatch, way)
    found = computed("optimal_pose", images, templates, **options)
    for name in ("log_likelihood_integrated", "log_likelihood_optimal", "cross_correlation"):
        within = 1e-4 if "likelihood" in name else 1e-6
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=within, err_msg=name)
    for name in ("optimal_template", "optimal_displacement_x", "optimal_inplane_rotation"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    bound = found.correlation_error_bound.values
    changes = np.abs(complete(images, templates, **options) - exact).max((1, 2, 3))
    assert (changes <= bound).all()
    assert (bound > expected.correlation_error_bound.values + 1e-6).all()


@pytest.mark.parametrize("way", SPLIT)
@pytest.mark.parametrize("brightness", [(1e-12, 1e9), (1e11, 1e-8)])
def test_brightness_changes_what_it_changes_in_float32(build, monkeypatch, way, brightness):
    """Templates are as likely as before they were multiplied, and so are images."""
    images, templates = build.stacks(4, 5, n_pixels=12, n_inplanes=20, search=(1.5, 3, 3))
    images, templates = map(multiplied, (images, templates), brightness)
    options = {"precision": "single", "device": "cpu"}

    def pairs():
        return computed("optimal_displacement_and_rotation", images, templates, **options)

    expected = pairs()
    take(monkeypatch, way)
    np.testing.assert_allclose(pairs().log_likelihood, expected.log_likelihood, rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", [Way.WHOLE, *SPLIT])
def test_each_image_is_split_by_itself(build, monkeypatch, way):
    """Of any sizes together, and then some of them: they are what they are alone."""
    take(monkeypatch, way)
    images, templates = build.stacks(6, 2, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    images = multiplied(images, 10.0 ** np.arange(-6, 6, 2)[:, None, None])
    images, values, constants, _ = tile_parts((images, templates))
    templates = prepare_templates(values, constants)
    joined = ImageTerms.joined(
        [prepare_images(images.take(torch.arange(i, i + 3)), constants) for i in (0, 3)]
    )
    for terms, rows in ((joined, np.arange(6)), (joined.take(np.array([5, 2])), [5, 2])):
        tile = correlate(terms, templates, constants)
        together = tile.products.clone()
        for at, row in enumerate(rows):
            alone = prepare_images(images.take(torch.tensor([row])), constants)
            expected = correlate(alone, templates, constants)
            largest = expected.products.abs().max()
            changed = (together[:, :, at] - expected.products[:, :, 0]).abs().max()
            assert changed < 1e-5 * largest
            for name in ("norm", "scale", "height"):
                found, wanted = getattr(tile, name)[:, at], getattr(expected, name)[:, 0]
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize("way", SPLIT)
@pytest.mark.parametrize("tolerance", [0.0, 1e-3])
def test_footprint_counts_what_operands_take(build, monkeypatch, way, tolerance):
    take(monkeypatch, way)
    inputs = build.stacks(3, 16, n_pixels=16, n_inplanes=24, search=(1.5, 3, 3))
    images, values, constants, footprint = tile_parts(inputs, tolerance, n_templates=16)
    terms = prepare_images(images, constants), prepare_templates(values, constants)
    whole = [sum(operand.nbytes for operand in one.spectra) for one in terms]
    take(monkeypatch, Way.WHOLE)
    least = tile_parts(inputs, tolerance)[3]
    unsplit = prepare_images(images, constants), prepare_templates(values, constants)
    before = [sum(operand.nbytes for operand in one.spectra) for one in unsplit]
    assert whole[0] - before[0] == 3 * (footprint.image - least.image)
    assert whole[1] - before[1] == 16 * (footprint.template - least.template)


# Where


class Old:
    """torch that cannot add up products of float16 in float32."""


@pytest.mark.parametrize(
    ("capability", "is_new", "way"),
    [
        ((9, 0), True, Way.HALVES),
        ((7, 0), True, Way.HALVES),
        ((9, 0), False, Way.TF32),
        ((8, 0), False, Way.TF32),
        ((7, 5), False, Way.WHOLE),
        ((6, 1), True, Way.WHOLE),
    ],
)
def test_the_way_is_chosen_by_what_there_is(monkeypatch, capability, is_new, way):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    if not is_new:
        monkeypatch.setattr(torch.ops.aten, "bmm", Old)
    assert split.way_on(GPU, torch.float32) is way
    assert split.way_on(GPU, torch.float64) is Way.WHOLE
    assert split.way_on(CPU, torch.float32) is Way.WHOLE
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert split.way_on(GPU, torch.float32) is Way.WHOLE


def test_parts_of_tf32_are_multiplied_as_such_and_nothing_else_is(build, monkeypatch):
    take(monkeypatch, Way.TF32)
    real, found = torch.bmm, {}

    def noted(a, b, **options):
        is_split = bool(a.dtype == torch.float32 and (a.view(torch.int32) & 0x1FFF == 0).all())
        found.setdefault(torch.get_float32_matmul_precision(), set()).add(is_split)
        return real(a, b, **options)

    monkeypatch.setattr(torch, "bmm", noted)
    parts = tile_parts(build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(1.5, 3, 3)))
    with float32_products("cuda"):
        correlations(parts, torch.bmm)
    assert found == {"highest": {False, True}, "high": {True}}
    assert torch.get_float32_matmul_precision() == "highest"


def test_torch_has_the_product_of_halves():
    """Tensors without values are taken as those of a GPU would be."""
    a, b = (
        torch.empty(shape, dtype=torch.float16, device="meta")
        for shape in ((2, 8, 24), (2, 24, 16))
    )
    split.multiply_halves(a, b, torch.empty(2, 8, 16, device="meta"))


def test_a_gpu_multiplies_halves(build, monkeypatch):
    """All products over shells, unless they are in double precision."""
    multiplied = []
    real = split.multiply_halves
    monkeypatch.setattr(
        split, "multiply_halves", lambda a, b, out: multiplied.append(a.shape) or real(a, b, out)
    )
    images, templates = build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(1.5, 3, 3))
    for precision, tolerance, n in (("single", 1e-6, 12), ("single", 0, 1), ("double", 0, 0)):
        multiplied.clear()
        lazy = partial(
            compute_optimal_pose, images, templates, precision=precision, tolerance=tolerance
        )
        with pretended_gpu():
            found = lazy(device="cuda").compute(scheduler="sync")
        assert len(multiplied) == n
        assert all(shape[2] % 8 == 0 for shape in multiplied)
        expected = lazy(device="cpu").compute(scheduler="sync").cross_correlation
        np.testing.assert_allclose(found.cross_correlation, expected, rtol=0, atol=1e-6)
