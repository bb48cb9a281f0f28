"""Log-likelihood ratios of the kernels against an exact judge: sums over pixels, whose products
over the disc of the band are integrals, for white noise and for noise with a spectrum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import j0, logsumexp

from cryolike_dask import (
    ImageParameters,
    ImageStack,
    NoiseModel,
    TemplateStack,
    compute_integrated_log_likelihood,
)
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.sources import InMemory
from cryolike_dask.particles.transform import normalised_stack, stack_and_rings
from tests.likelihoods.test_real_space import (
    CLOSED,
    OPEN,
    PIXEL_SIZE,
    Search,
    highest_frequency,
    same_optics,
    some_directions,
)
from tests.real_space import (
    PADDING,
    apply_filter,
    band,
    crop,
    disc_metric,
    frequencies,
    log_likelihood_in_disc,
    project,
    relion_ctf,
)

N, N_IMAGES, SIGNAL_TO_NOISE, DEFOCUS = 36, 48, 0.16, 6000.0
PARAMETERS = ImageParameters(N, PIXEL_SIZE, viewing_distance=1.0, precision="double")
BOUND = 0.008
"""Of the standard deviation of ratios."""


def white(f):
    return np.ones_like(f)


def coloured(f):
    return 1 / (1 + (20 * f) ** 2)


def bump(f):
    return 1 + 20 * np.exp(-(((f - 0.05) / 0.012) ** 2) / 2)


def metric_of(spectrum):
    """Inner product of images as that of their transforms over the disc of the band, divided by the
    power of the noise: (pixel, pixel). Two pixels r apart have the integral of 2 pi k J0(2 pi k r)
    over the spectrum, by Gauss and Legendre."""
    highest = PARAMETERS.radius_max
    nodes, weights = np.polynomial.legendre.leggauss(160)
    k = (nodes + 1) * highest / 2
    weights = weights * highest / 2 * 2 * np.pi * k
    weights /= spectrum(2 * k / (N * PIXEL_SIZE))
    x, y = (a.ravel() for a in np.meshgrid(np.arange(N), np.arange(N)))
    squared, where = np.unique((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2, return_inverse=True)
    apart = np.sqrt(squared) * 2 / N
    values = j0(2 * np.pi * np.outer(apart, k)) @ weights
    return (4 * np.pi / N) ** 2 * values[where.reshape(N**2, N**2)]


def test_the_judge_is_the_integral_that_is_known_in_closed_form():
    closed = disc_metric(N, PARAMETERS.radius_max)
    np.testing.assert_allclose(metric_of(white), closed, rtol=0, atol=1e-9 * closed.max())


@pytest.fixture(scope="module")
def models():
    """Both structures at each pose of a search, on pixels, with the logarithms of priors; the
    scale is in units of the template before optics and box."""
    search = Search(
        PARAMETERS, some_directions(3, np.random.default_rng(1)), DisplacementSearch(1, 2, 2)
    )
    poses, log_prior = search.poses()
    wide = PADDING * N
    whole = band(wide, PIXEL_SIZE, highest_frequency(PARAMETERS))
    transfer = relion_ctf(same_optics(1, DEFOCUS)[0], *frequencies(wide, PIXEL_SIZE))
    both = []
    for atoms in (CLOSED, OPEN):
        made = np.empty((len(poses), N, N))
        for start in range(0, len(poses), 256):
            part = slice(start, start + 256)
            projections = project(atoms, poses[part], wide, PIXEL_SIZE)
            power = (apply_filter(projections, whole) ** 2).sum(axis=(1, 2), keepdims=True)
            made[part] = crop(apply_filter(projections / np.sqrt(power), transfer), N)
        both.append(made)
    return search, both, log_prior


def particles(models, spectrum, rng):
    """Images of either structure at poses of the search, in noise that is cut out of a field."""
    _, both, _ = models
    drawn, closed = rng.integers(0, len(both[0]), N_IMAGES), rng.random(N_IMAGES) < 0.5
    clean = np.where(closed[:, None, None], *(made[drawn] for made in both))
    field = rng.standard_normal((N_IMAGES, PADDING * N, PADDING * N))
    amplitude = np.sqrt(spectrum(np.hypot(*frequencies(PADDING * N, PIXEL_SIZE))))
    noise = crop(apply_filter(field, amplitude), N)
    return clean + noise * np.sqrt(clean.var() / SIGNAL_TO_NOISE / noise.var())


def model_of(spectrum, grid: PolarGrid):
    """The noise model of a spectrum that is known."""
    f = np.linspace(0, 0.5 / PIXEL_SIZE, 400)
    return NoiseModel.of_spectrum(f, spectrum(f), grid)


def ratios_of(stack, search, noise):
    """By the kernels."""
    first, second = (
        compute_integrated_log_likelihood(
            stack,
            search.displacer(
                TemplateStack.from_array(search.templates(atoms), PARAMETERS, search.viewing)
            ),
            noise=noise,
            device="cpu",
        )
        .log_likelihood_integrated.compute(scheduler="sync")
        .values
        for atoms in (CLOSED, OPEN)
    )
    return first - second


@pytest.mark.parametrize("spectrum", [white, coloured, bump])
def test_ratios_are_those_of_the_exact_judge(models, spectrum, rng):
    """At 36 pixels and W = 2 N, full resolution; by sums over the rings of a stack as CryoLike has
    it, they are not."""
    search, both, log_prior = models
    pixels, grid = particles(models, spectrum, rng), PARAMETERS.grid
    noise = model_of(spectrum, grid)
    metric = metric_of(spectrum)
    n_dof = float(noise.degrees_of_freedom(grid)[0])
    first, second = (
        logsumexp(log_likelihood_in_disc(pixels, made, metric, n_dof) + log_prior, axis=1)
        for made in both
    )
    exact = first - second
    values, rings = stack_and_rings(pixels, grid, "double")
    optics = same_optics(N_IMAGES, DEFOCUS)
    known = ImageStack.from_array(values, PARAMETERS, optics)
    known = replace(known, source=InMemory(values, rings))
    stored = ImageStack.from_array(normalised_stack(pixels, grid, "double"), PARAMETERS, optics)
    off, off_by_stored = (
        float(np.sqrt(((ratios_of(stack, search, noise) - exact) ** 2).mean()) / exact.std())
        for stack in (known, stored)
    )
    print(f"{exact.std():.2f} nat, off by {off:.2%}, by sums over 2 N angles {off_by_stored:.2%}")
    assert off < BOUND
    assert off < off_by_stored / 2
