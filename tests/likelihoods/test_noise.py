"""Noise with a spectrum: the kernels against sums over points, and what they must not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from cryolike_dask import compute_cross_correlation_complete, compute_optimal_pose
from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.io.sources import InMemory
from cryolike_dask.likelihoods import interface
from tests.likelihoods.test_kernels import BruteForce, contrast_of

OF_TWO_GROUPS = ["optics group 1", "micrograph m"]


class WithRings(InMemory):
    """Images whose rings are known to have other sums than those on the angles of the grid."""

    def rings(self, rows):
        return ring_sums(self.values[rows])


def ring_sums(values):
    """Any sums will do that are no less than those of the images: no pose explains more."""
    n = np.arange(values.shape[1])
    return np.stack([(2 + np.cos(n)) * (abs(v) ** 2).sum(1) * [[1], [0.01]] for v in values])


def model_of(grid, rng, band_limit=np.inf):
    """Two groups, the first of which has no noise beyond a frequency."""
    frequencies = np.linspace(0, grid.spatial_frequencies[-1] * 1.01, 40)
    spectra = np.exp(rng.uniform(-1, 1, (2, 1)) + rng.standard_normal((2, 40)).cumsum(1) / 4)
    model = NoiseModel.of_spectrum(frequencies, spectra, grid, OF_TWO_GROUPS)
    return replace(
        model,
        band_limit=np.array([band_limit, np.inf]),
        share=np.array([0.6, np.nan]),
        b_factor_angstrom2=np.array([20.0, -5.0]),
    )


def sums_over_points(images, templates, model, b_factor=0.0, with_rings=False):
    """Correlation and log-likelihood of every pose, and the latter with the offset of the pose;
    image by image, with everything divided by sigma first."""
    grid = templates.grid
    shifts = 2 * templates.displacements.table() / grid.box_size_angstrom
    f, values = grid.spatial_frequencies, images.source.values
    found = []
    for m, (micrograph, _) in enumerate(images.groups):
        g = int(micrograph == "m")
        log_variance = np.interp(f, model.frequencies, np.log(model.variance[g]))
        inside = f <= model.band_limit[g]
        log_variance -= np.average(log_variance[inside], weights=grid.weights[inside])
        factor = (inside * np.exp(-log_variance / 2))[:, None]
        b = model.b_factor_angstrom2[g] + b_factor
        contrast = contrast_of(images.optics[m], grid, "standard") * np.exp(-b * f**2 / 4)[:, None]
        brute = BruteForce(
            values[m : m + 1] * factor,
            contrast[None] * factor,
            templates.source.values,
            shifts,
            grid,
            grid.mask(exact=True) * factor,
        )
        if with_rings:
            power, mask = (ring_sums(values[m : m + 1])[0] * factor.T**2).sum(1)
            brute.image_power, brute.image_mask = np.full(
                (2, 1, 1, 1, 1), [[[[[power]]]], [[[[mask]]]]]
            )
        n_dof = model.degrees_of_freedom(grid)[g]
        template_mask, _ = brute.template_mask_for(0.95)
        found.append(
            (
                brute.zero_normalised(template_mask),
                brute.log_likelihood(template_mask, n_dof),
                brute.log_likelihood(brute.template_mask, n_dof),
            )
        )
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


@pytest.mark.parametrize("with_rings", [False, True])
@pytest.mark.parametrize("limited", [False, True])
def test_is_a_sum_over_points_divided_by_sigma(build, limited, with_rings):
    images, templates = build.stacks(
        4, 5, n_pixels=8, n_inplanes=12, search=(1.0, 3, 2), b_factor_angstrom2=[0, 30, 60, 10]
    )
    grid = templates.grid
    limit = grid.spatial_frequencies[-3] if limited else np.inf
    model = model_of(grid, build.rng, limit)
    groups = np.array([["", "1"], ["m", "1"], ["other", "1"], ["m", "2"]])
    images = replace(images, groups=groups)
    if with_rings:
        images = replace(images, source=WithRings(images.source.values))
    full, of_poses, exact = sums_over_points(images, templates, model, 7.0, with_rings)
    options = {"noise": model, "b_factor": 7.0, "device": "cpu"}

    def computed(name, **more):
        lazy = getattr(interface, name)(images, templates, **options, **more)
        return lazy.compute(scheduler="sync")

    near = {"rtol": 0, "atol": 1e-9}
    correlations = computed("compute_cross_correlation_complete").cross_correlation
    np.testing.assert_allclose(correlations, full, **near)
    pairs = computed("compute_optimal_displacement_and_rotation")
    summed = np.logaddexp.reduce(of_poses.reshape(4, 5, -1), axis=2)
    np.testing.assert_allclose(pairs.log_likelihood, summed, **near)
    poses, best = computed("compute_optimal_pose"), full.reshape(4, -1).argmax(1)
    np.testing.assert_allclose(poses.cross_correlation, full.reshape(4, -1).max(1), **near)
    wanted = exact.reshape(4, -1)[np.arange(4), best]
    np.testing.assert_allclose(poses.log_likelihood_optimal, wanted, **near)
    single = computed("compute_optimal_pose", precision="single")
    np.testing.assert_allclose(
        single.log_likelihood_integrated, poses.log_likelihood_integrated, atol=2e-3
    )
    lost = abs(single.cross_correlation - poses.cross_correlation)
    assert (lost <= single.correlation_error_bound + 2e-6).all()
    assert float(single.correlation_error_bound.max()) < 1e-5


def test_white_noise_of_any_level_is_none(build):
    images, templates = build.stacks()
    grid = templates.grid
    frequencies = np.array([0.0, 1.0])
    model = NoiseModel.of_spectrum(frequencies, [7.0, 7.0], grid)
    for precision in ("single", "double"):
        plain, white = (
            compute_optimal_pose(images, templates, precision=precision, noise=noise).compute()
            for noise in (None, model)
        )
        # correlations round in parts of 1, however small they are
        rtol, atol = {"single": (1e-6, 1e-7), "double": (1e-13, 1e-13)}[precision]
        xr.testing.assert_allclose(plain, white, rtol=rtol, atol=atol)


def test_the_level_of_noise_tells_nothing(build):
    """Ratios are the same whatever the unit of the variance is."""
    images, templates = build.stacks()
    model = model_of(templates.grid, build.rng)
    images = replace(images, groups=np.full((len(images), 2), "m"))
    found = [
        compute_optimal_pose(images, templates, noise=one).compute()
        for one in (model, replace(model, variance=model.variance * 1e6))
    ]
    np.testing.assert_allclose(
        found[0].log_likelihood_integrated, found[1].log_likelihood_integrated, rtol=1e-12
    )


def test_chunks_of_many_groups_are_as_their_images_alone(build):
    images, templates = build.stacks(6)
    model = model_of(templates.grid, build.rng)
    groups = np.array([["m", ""], ["", "1"]] * 3)
    images = replace(images, groups=groups)
    whole = compute_optimal_pose(images, templates, noise=model).compute()
    for m in range(6):
        alone = compute_optimal_pose(images[[m]], templates, noise=model).compute()
        np.testing.assert_allclose(
            alone.log_likelihood_integrated,
            whole.log_likelihood_integrated[m : m + 1],
            rtol=1e-11,
        )


def test_degrees_of_freedom_are_those_asked_for(build):
    """The likelihood of a pose falls off with them."""
    images, templates = build.stacks(3)
    asked = {"images": images, "templates": templates, "device": "cpu"}
    few, many = (
        compute_optimal_pose(**asked, degrees_of_freedom=n).log_likelihood_optimal.values
        for n in (20, 40)
    )
    correlation = compute_cross_correlation_complete(**asked).cross_correlation.values
    assert np.isfinite(correlation).all()
    assert (few != many).all()


BAD = {
    "no groups": {"groups": ()},
    "one group twice": {"groups": ("all images",) * 2},
    "zeros": {"variance": np.zeros((1, 3))},
    "NaN": {"variance": np.full((1, 3), np.nan)},
    "negative": {"variance": np.full((1, 3), -1.0)},
    "other shape": {"variance": np.ones((1, 2))},
    "frequencies that fall": {"frequencies": np.array([0.2, 0.1, 0.3])},
    "frequency NaN": {"frequencies": np.array([0.0, np.nan, 0.3])},
    "band below": {"band_limit": np.zeros(1)},
    "share of 0": {"share": np.zeros(1)},
    "share of 2": {"share": np.full(1, 2.0)},
    "absurd B": {"b_factor_angstrom2": np.full(1, 1e4)},
    "B NaN": {"b_factor_angstrom2": np.full(1, np.nan)},
    "reasons": {"reasons": ()},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_a_spectrum_that_is_none_is_refused(build, change):
    _, templates = build.stacks()
    model = NoiseModel.of_spectrum([0.0, 0.2, 0.4], [1.0, 2.0, 3.0], templates.grid)
    with pytest.raises(InputError):
        replace(model, **change)


def test_images_of_another_grid_or_of_no_group_are_refused(build):
    images, templates = build.stacks()
    grid = templates.grid
    compute = {"images": images, "templates": templates}
    too_few = NoiseModel.of_spectrum([0.0, 0.1], [1.0, 2.0], grid)
    with pytest.raises(GridMismatchError, match="ends at 10 angstrom, but images reach"):
        compute_optimal_pose(**compute, noise=too_few)
    other = replace(NoiseModel.of_spectrum([0.0, 1], [1.0, 2.0], grid), n_pixels=14)
    with pytest.raises(GridMismatchError, match="is for images of 14 pixels"):
        compute_optimal_pose(**compute, noise=other)
    named = NoiseModel.of_spectrum([0.0, 1], [1.0, 2.0], grid, ["optics group 3"])
    with pytest.raises(InputError, match=r"image\(s\) 0, 1.* belong to no group"):
        compute_optimal_pose(**compute, noise=named)
    assert named.strangers(np.array([["", "3"], ["m", "4"], ["", ""]])).tolist() == [1]
    images = replace(images, groups=np.full((len(images), 2), ["m", "4"]))
    with pytest.raises(InputError, match="of m and 4, belong to no group"):
        compute_optimal_pose(images, templates, noise=named)


@pytest.mark.parametrize(
    "given", [{"noise": True}, {"b_factor": 20.0}, {"degrees_of_freedom": 100.0}]
)
def test_conventions_that_know_no_noise_refuse_it(build, given):
    images, templates = build.stacks()
    if "noise" in given:
        given = {"noise": NoiseModel.of_spectrum([0.0, 1], [1.0, 2.0], templates.grid)}
    with pytest.raises(InputError, match='conventions="cryolike" knows none'):
        compute_optimal_pose(images, templates, conventions="cryolike", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"noise": "white"},
        {"b_factor": 501},
        {"b_factor": float("nan")},
        {"degrees_of_freedom": 4},
        {"degrees_of_freedom": float("inf")},
    ],
)
def test_settings_that_say_nothing_are_refused(build, given):
    images, templates = build.stacks()
    with pytest.raises(InputError, match=next(iter(given))):
        compute_optimal_pose(images, templates, **given)
