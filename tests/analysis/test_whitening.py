"""Images beside their projections, and how fine a search was, where noise is not white: against
sums over the shells that are written out here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis import matching
from cryolike_dask.analysis.search_steps import search_steps
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.analysis.whitening import settings_of_results, whitening_of_image
from cryolike_dask.errors import CryolikeError, InputError
from cryolike_dask.io.noise import model_checksum

PARAMETERS = cld.ImageParameters(
    n_pixels=12, pixel_size_angstrom=1.5, n_inplanes=20, viewing_distance=3.0
)
FREQUENCIES = np.linspace(0, 0.4, 9)
SEARCH = cld.configure_displacement(1.5, 3, 2)


@pytest.fixture
def noise():
    """Of two groups: the second ends within the band, and has an envelope."""
    variance = 1 / (1 + np.array([[3.0], [9.0]]) * FREQUENCIES)
    model = cld.NoiseModel.of_spectrum(
        FREQUENCIES, variance, PARAMETERS.grid, ("all images", "optics group b")
    )
    return replace(model, band_limit=np.array([np.inf, 0.25]), b_factor_angstrom2=np.array([0, 50]))


def summary_of(images, templates, **options):
    """The summary of their results."""
    options = {"precision": "double", "tolerance": 0, **options}
    return summarise_results(cld.compute_optimal_pose(images, templates, **options).compute())


def test_correlations_are_those_of_whitened_images(build, noise):
    images, templates = build.stacks(4, 3)
    grid = images.grid
    images = replace(images, groups=np.array([["", "a"], ["", "b"]] * 2))
    options = {"noise": noise, "b_factor": 20, "degrees_of_freedom": 44}
    summary = summary_of(images, templates, **options)
    matches = matching.single_matches(summary, images, templates, noise)
    found = [match.correlation for match in matches]
    np.testing.assert_allclose(found, summary.cross_correlation, rtol=1e-6)
    variance = noise.spectra(grid)
    for m, match in enumerate(matches):
        group = m % 2
        envelope = np.exp(-(20, 70)[group] * grid.spatial_frequencies**2 / 4)
        np.testing.assert_allclose(match.whitening.envelope, envelope)
        np.testing.assert_allclose(match.whitening.factors, 1 / np.sqrt(variance[group]))
        assert match.whitening.n_degrees_of_freedom == 44
        weights = (grid.weights / variance[group])[:, None]

        def product(a, b, weights=weights):
            return (weights * (a.conj() * b).real).sum()

        # zero-normalised: the box, displaced or not, is taken out; `unmoved` has the offset
        box, i, p = grid.mask(exact=True), match.particle, match.projection
        unmoved = match.contrast * match.template
        bb, bi, bp = product(box, box), product(box, i), product(box, unmoved)
        expected = product(i, p) - bi * bp / bb
        expected /= np.sqrt((product(i, i) - bi**2 / bb) * (product(p, p) - bp**2 / bb))
        assert match.correlation == pytest.approx(expected, rel=1e-6)
    white = matching.single_matches(summary_of(images, templates), images, templates)
    assert not np.allclose([match.correlation for match in white], found, rtol=1e-3)


def test_the_power_of_images_is_that_of_their_rings(build, noise, monkeypatch):
    images, templates = build.stacks(3, 3)
    weights = images.grid.weights

    def rings(self, rows):
        power = 1.1 * (np.abs(self.values[rows]) ** 2).sum(axis=2) * weights
        return np.stack([power, np.zeros_like(power)], axis=1)

    monkeypatch.setattr(type(images.source), "rings", rings)
    summary = summary_of(images, templates, noise=noise)
    found = matching.single_matches(summary, images, templates, noise)
    correlations = [match.correlation for match in found]
    np.testing.assert_allclose(correlations, summary.cross_correlation, rtol=1e-6)


def test_steps_lose_in_proportion_to_the_degrees_of_freedom(build, noise):
    images, templates = build.stacks(3, 3)
    axes = {"displacements_x_angstrom": [-1.5, 0, 1.5], "displacements_y_angstrom": [0, 0, 0]}
    losses = []
    for n_free in (40.0, 80.0):
        summary = summary_of(images, templates, noise=noise, degrees_of_freedom=n_free)
        summary = summary.assign_attrs(axes)
        losses.append([step.loss for step in search_steps(summary, images, templates, noise)])
    np.testing.assert_allclose(losses[1], 2 * np.array(losses[0]))


def test_the_noise_model_is_found_in_the_folder(tmp_path, build, noise):
    files = cld.configure_likelihood_files(tmp_path / "t", tmp_path / "p", tmp_path / "out")
    build.write_files(files, PARAMETERS, sizes=(3,))
    options = {"noise": noise, "b_factor": 20, "degrees_of_freedom": 44, "progress": False}
    cld.run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, **options)
    results = cld.open_results(tmp_path / "out")
    settings = settings_of_results(results)
    assert (settings.b_factor, settings.degrees_of_freedom) == (20, 44)
    image = cld.open_images(files, PARAMETERS)[[0]]
    found = whitening_of_image(image, settings)
    # the B-factor that was asked for takes the place of those of the model
    n = len(noise)
    alone = replace(noise, b_factor_angstrom2=np.zeros(n), b_factor_error=np.full(n, np.nan))
    given = whitening_of_image(image, settings_of_results(results, alone))
    np.testing.assert_array_equal(found.factors, given.factors)
    np.testing.assert_array_equal(found.envelope, given.envelope)
    files.noise.unlink()
    with pytest.raises(CryolikeError, match=r"noise\.npz"):
        settings_of_results(results)


def test_a_noise_model_that_is_not_that_of_the_results(noise):
    results = xr.Dataset(attrs={"conventions": "standard", "noise": "white"})
    with pytest.raises(InputError, match="take noise as white"):
        settings_of_results(results, noise)
    results.attrs["noise"] = model_checksum(noise)
    with pytest.raises(InputError, match="where their noise model is"):
        settings_of_results(results)
    with pytest.raises(InputError, match="is not that of the results"):
        settings_of_results(results, noise.take(np.array([0])))
