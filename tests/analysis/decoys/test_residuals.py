"""The shape of residuals: what is taken out of images, and how it is held against noise."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import kstest

from cryolike_dask.analysis.decoys.residuals import (
    NoiseShape,
    bins_of,
    residual_power,
    shape_of,
)
from cryolike_dask.analysis.whitening import WhiteningOfImage
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.polar_grid import PolarGrid

GRID = PolarGrid(32, 2.0, 8.0, 64)


def match(particle, projection, factors=None):
    """An image beside a projection, as far as residuals ask for it."""
    factors = np.ones(GRID.n_shells) if factors is None else factors
    return SimpleNamespace(
        particle=particle,
        projection=projection,
        whitening=WhiteningOfImage(factors, np.ones(GRID.n_shells), 100.0),
        templates=SimpleNamespace(grid=GRID),
    )


def test_projection_and_offset_are_taken_out_with_any_amplitude(build, rng):
    projection, noise = build.particles(1, GRID)[0], build.rings(1, GRID)[0]
    factors = rng.uniform(0.5, 2, GRID.n_shells)
    mask = GRID.mask(exact=True)
    expected = residual_power(match(noise, projection, factors))
    for amplitude, offset in ((3.0, -2.0), (-0.1, 5.0)):
        image = noise + amplitude * projection + offset * mask
        np.testing.assert_allclose(
            residual_power(match(image, projection, factors)), expected, rtol=1e-9
        )
    assert residual_power(match(projection - 2 * mask, projection)).max() < 1e-15
    # by brute force: no other amplitudes leave less
    left = [
        GRID.integrate(np.abs((noise - a * projection - b * mask) * factors[:, None]) ** 2)
        for a in np.linspace(-2, 2, 41)
        for b in np.linspace(-2, 2, 41)
    ]
    total = (GRID.weights * expected).sum() * GRID.n_inplanes
    assert total <= min(left)


def test_bins_hold_as_many_values_and_leave_out_shells_without_noise():
    power = np.ones((3, GRID.n_shells))
    bins = bins_of(power, GRID)
    held = np.bincount(bins, GRID.weights)
    assert len(held) == 8
    assert held.max() < 3 * held.min()
    assert (np.diff(bins) >= 0).all()
    power[1, -3:] = 0
    assert (bins_of(power, GRID)[-3:] == -1).all()
    assert bins_of(power, GRID)[:-3].min() == 0
    power[:, 1:] = 0
    with pytest.raises(InputError, match=r"1 shell\(s\) have noise"):
        bins_of(power, GRID)


def test_the_level_of_noise_does_not_count(rng):
    power = rng.uniform(1, 2, (5, GRID.n_shells))
    bins = bins_of(power, GRID)
    shape = shape_of(power, bins, GRID)
    assert shape.shape == (5, bins.max())
    np.testing.assert_allclose(shape_of(power * 7, bins, GRID), shape, atol=1e-12)
    mean = [np.average(power[2, bins == b], weights=GRID.weights[bins == b]) for b in (0, 7)]
    np.testing.assert_allclose(shape[2, 0], np.log(mean[0] / mean[1]))


def test_p_values_are_uniform_for_what_is_distributed_alike(rng):
    mixing = rng.normal(size=(7, 7))
    draws = rng.normal(size=(4000 + 300, 7)) @ mixing + 3
    noise = NoiseShape.of(draws[:4000])
    assert kstest(noise.p_values(draws[4000:]), "uniform").pvalue > 1e-5
    assert noise.p_values(draws[4000:4001] + 100)[0] < 1e-6
    # of one shell against another: the t-test for one more value
    one = NoiseShape.of(draws[:20, :1])
    from scipy.stats import t

    x, known = draws[30, 0], draws[:20, 0]
    z = abs(x - known.mean()) / (known.std(ddof=1) * np.sqrt(1 + 1 / 20))
    np.testing.assert_allclose(one.p_values(draws[30:31, :1]), 2 * t.sf(z, 19))
