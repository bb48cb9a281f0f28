"""The fused kernel against plain sums: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch

from cryolike_dask.likelihoods.blocks import open_block
from cryolike_dask.likelihoods.kernels.rotations import fold
from cryolike_dask.likelihoods.pairs import Pair, image_rows, template_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported, which nothing else here does
pytest.importorskip("triton", reason="the fused kernel needs triton")

from cryolike_dask.likelihoods.kernels.fused import summarise_fused  # noqa: E402

LEAST_RESIDUAL = torch.finfo(torch.float32).eps
SHAPES = [(4, 1, 1, 1), (6, 3, 2, 1), (10, 5, 2, 3), (12, 7, 3, 2), (32, 33, 2, 2), (128, 17, 1, 2)]


def arguments(rng, n_inplanes, n_displacements, n_images, n_templates, squared):
    """Random arguments of summarise_fused whose largest squared correlation is as given."""
    by_row = n_inplanes // 2, n_images, n_templates
    products = rng.standard_normal((n_inplanes // 2 + 1, 2, *by_row[1:], n_displacements)).astype(np.float32)
    products *= 1e10  # as scale is not a float32 number then
    scale = rng.uniform(0.5, 1, by_row)
    largest = squared_correlations(products, scale)[1].max()
    return {
        "products": products,
        "shift": rng.standard_normal(by_row[1:]).astype(np.float32) * 1e10,
        "norm": rng.uniform(1e-11, 2e-11, by_row).astype(np.float32),
        "scale": scale * squared / largest,
        "height": rng.uniform(-1e6, 1e6, by_row[1:]) + rng.uniform(-2, 2, by_row),
        "exponent": 200.5,
    }


def squared_correlations(products, scale):
    """From the definition, at every rotation: v (rotation, image, template, displacement), and v^2 scale."""
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


def fused(arguments, **options):
    """Arrays that summarise_fused gives; what lies in columns beside those of templates must not matter."""
    tensors = {k: torch.from_numpy(v).to(DEVICE) for k, v in arguments.items() if k != "exponent"}
    n_displacements = tensors["products"].shape[-1]
    tensors["products"] = torch.nn.functional.pad(tensors["products"].flatten(3), (0, 5), value=torch.nan)
    folding = fold(2 * len(arguments["norm"]), torch.float32, torch.device(DEVICE))
    settings = {"exponent": arguments["exponent"], "n_displacements": n_displacements, "folding": folding}
    results = summarise_fused(**tensors, **settings, **options)
    assert [r.dtype for r in results] == [torch.float32, torch.float64, torch.float64]
    return [r.cpu().numpy() for r in results]


def check(given, squared):
    """Compare with plain sums. Likelihoods take twice the relative error of v, times exponent v^2 scale / residual."""
    v, fits = squared_correlations(given["products"], given["scale"])
    correlation = (v + given["shift"][..., None]) * at_rotations(given["norm"])
    log_likelihood = at_rotations(given["height"]) - given["exponent"] * np.log1p(-fits.clip(max=1 - LEAST_RESIDUAL))
    highest = log_likelihood.max((0, 3))
    expected = highest + np.log(np.exp(log_likelihood - highest[:, :, None]).sum((0, 3)))

    best, fit, summed = fused(given, integrate=True)
    assert best == pytest.approx(correlation.max((0, 3)), rel=1e-5, abs=1e-5)
    assert fit == pytest.approx(fits.max((0, 3)), rel=1e-5)
    tolerance = 1e-5 * (1 + given["exponent"] * squared / max(1 - squared, 0.01))
    assert summed == pytest.approx(expected, rel=0, abs=tolerance)


@pytest.mark.parametrize("squared", [0.003, 0.049, 0.3, 0.99])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_plain_sums(rng, shape, squared):
    check(arguments(rng, *shape, squared), squared)


def test_the_last_blocks_of_rows_and_displacements_count(rng):
    given = arguments(rng, 516, 33, 1, 1, 0.003)
    given["products"][..., :-1] /= 2
    given["height"][-1] += 6
    given["shift"] = -2 * abs(squared_correlations(given["products"], given["scale"])[0]).max((0, 3)).astype(np.float32)
    check(given, 0.003)


def test_negative_correlations_are_not_taken_for_none(rng):
    given = arguments(rng, 12, 17, 2, 1, 0.3)
    given["products"][0, 0] = -abs(given["products"]).sum()
    given["scale"] *= 0.3 / squared_correlations(given["products"], given["scale"])[1].max()
    given["shift"] *= 0
    check(given, 0.3)


def test_correlations_beyond_one_stay_finite(rng):
    check(arguments(rng, 12, 3, 2, 1, 2.0), 2.0)


@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
def test_is_what_tiles_reduce_to(build, conventions):
    """Images and templates of a real comparison, as a task has them."""
    images, templates = build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    pair = Pair(images, templates, conventions, "auto", "single", False, None)
    rows = image_rows(images, pair.comparison.conventions), template_rows(templates, pair.comparison.conventions)
    with torch.inference_mode():
        for _, _, tile in open_block(*rows, (), pair.comparison).tiles():
            given = tile.products, tile.shift, tile.norm, tile.scale, tile.height, tile.exponent
            found = summarise_fused(*given, len(templates.displacements), tile.frame.folding, integrate=True)
            best, fit, summed = tile.reduce(torch.full_like(tile.error_bound, -math.inf))
    np.testing.assert_allclose(found[0].cpu(), best.cpu(), rtol=0, atol=2e-6)
    np.testing.assert_allclose(found[1].cpu(), fit.cpu(), rtol=1e-5)
    np.testing.assert_allclose(found[2].cpu(), summed.cpu(), rtol=0, atol=2e-3)


def test_sums_nothing_unless_asked(rng):
    given = arguments(rng, 12, 3, 2, 2, 0.3)
    with_sum, without = (fused(given, integrate=integrate) for integrate in (True, False))
    np.testing.assert_array_equal(without[0], with_sum[0])
    np.testing.assert_array_equal(without[1], with_sum[1])
    assert (without[2] == -math.inf).all()
