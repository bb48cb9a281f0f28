"""What images of known structures tell of shares: against integrals, brute force, and what must
hold exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

import cryolike_dask as cld
from cryolike_dask.analysis.populations.design import (
    KnownImages,
    design_of,
    root_of_covariance,
)
from cryolike_dask.analysis.populations.maximum import maximum_likelihood
from cryolike_dask.analysis.populations.passes import Images
from cryolike_dask.errors import InputError
from tests.analysis.populations.mixtures import log_likelihoods, relative

X = np.linspace(-12, 12, 24001)
"""Where integrals are taken: of normal densities, to rounding."""


def known_images(rng, points, shares, n):
    """As many images of each structure, which are points seen through unit noise."""
    truth = np.arange(n) % len(points)
    points = np.asarray(points, float).reshape(len(points), -1)
    seen = points[truth] + rng.normal(size=(n, points.shape[1]))
    values = -0.5 * ((seen[:, None] - points) ** 2).sum(axis=-1)
    return KnownImages(values, truth, np.asarray(shares, float))


def integral(values):
    return float(np.trapezoid(values, X))


@pytest.mark.parametrize(("distance", "share"), [(0.7, 0.5), (2.0, 0.2), (4.0, 0.6)])
def test_two_structures_whose_ratios_are_normal(rng, distance, share):
    """Log-likelihood ratios of two points at a distance d are normal, of variance d^2."""
    shares = np.array([share, 1 - share])
    density = norm.pdf(X, [[0.0], [distance]])
    mixture = shares @ density
    posterior = shares[:, None] * density / mixture
    design = design_of(known_images(rng, [0, distance], shares, 6000), 0.01, 1000, 0)

    def near(name, expected, at=()):
        found, error = float(design[name].values[at]), float(design[f"{name}_error"].values[at])
        assert 0 < error < 0.3 * expected
        assert abs(found - expected) < 5.5 * error, name

    threshold = distance / 2 + np.log(shares[0] / shares[1]) / distance
    taken = norm.cdf(threshold, [0, distance])
    for j in range(2):
        for k in range(2):
            near("confusion", integral(density[j] * posterior[k]), (j, k))
        near("confusion_best", [taken[j], 1 - taken[j]][0], (j, 0))
    near(
        "mutual_information",
        sum(w * integral(f * np.log2(f / mixture)) for w, f in zip(shares, density, strict=True)),
    )
    curvature = integral((density[0] - density[1]) ** 2 / mixture)
    for j in range(2):
        near("particles_needed", 1 / curvature / 0.01**2, j)
    near("particles_needed_worst", 1 / curvature / 0.01**2)
    sd = design.population_sd.sel(n_particles=10_000).values
    np.testing.assert_allclose(sd, np.sqrt(design.particles_needed / 10_000) * 0.01)


def test_standard_errors_are_those_of_other_simulations(rng, monkeypatch):
    monkeypatch.setattr("cryolike_dask.analysis.populations.design.N_BOOTSTRAP", 20)
    names = ("confusion", "confusion_best", "mutual_information", "particles_needed")
    made = [
        design_of(known_images(rng, [0, 1.5], [0.4, 0.6], 300), 0.05, 100, seed)
        for seed in range(80)
    ]
    for name in names:
        spread = np.std([one[name].values for one in made], axis=0)
        said = np.mean([one[f"{name}_error"].values for one in made], axis=0)
        # of 80 the spread is known to 8%
        np.testing.assert_allclose(said, spread, rtol=0.45, err_msg=name)


def test_shares_of_other_images_scatter_as_is_said(rng):
    points, shares, n = np.array([[0.0], [1.0], [3.0]]), np.array([0.5, 0.3, 0.2]), 2000
    design = design_of(known_images(rng, points, shares, 9000), 0.01, 1000, 0)
    found = []
    for _ in range(100):
        likelihoods = relative(log_likelihoods(rng, points, shares, n)[0])
        found.append(maximum_likelihood(Images(likelihoods, np.ones(n)), shares).shares)
    said = 0.01 * np.sqrt(design.particles_needed.values / n)
    np.testing.assert_allclose(np.std(found, axis=0), said, rtol=0.4)


def test_images_that_tell_all():
    """Errors are those of counting, and a structure that is never mistaken is not known to be so
    beyond one in so many."""
    shares, n = np.array([0.5, 0.3, 0.2]), 60
    truth = np.arange(n) % 3
    known = KnownImages(1e4 * np.eye(3)[truth], truth, shares)
    design = design_of(known, 0.02, 100, 0)
    np.testing.assert_allclose(design.confusion, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(design.particles_needed, shares * (1 - shares) / 0.02**2, rtol=1e-6)
    entropy = -(shares * np.log2(shares)).sum()
    assert float(design.mutual_information) == pytest.approx(entropy)
    assert float(design.mutual_information_bound) == pytest.approx(entropy)
    assert float(design.mutual_information_error) == pytest.approx(0, abs=1e-9)
    assert 0.01 < float(design.confusion_best_error[0, 0]) < 1 / 20
    assert design.group.values.tolist() == [0, 1, 2]
    np.testing.assert_allclose(design.group_confusion, np.eye(3), atol=1e-12)


def test_structures_that_are_alike_are_one_group_and_spoil_no_other(rng):
    shares = np.array([0.25, 0.5, 0.25])
    known = known_images(rng, [0, 0, 12], shares, 600)
    design = design_of(known, 0.01, 5000, 0)
    assert design.group.values.tolist() == [0, 0, 1]
    assert np.isinf(design.particles_needed.values[:2]).all()
    assert np.isnan(design.particles_needed_error.values[:2]).all()
    assert np.isinf(design.particles_needed_worst)
    assert float(design.particles_needed[2]) == pytest.approx(0.25 * 0.75 / 1e-4, rel=1e-3)
    np.testing.assert_allclose(design.group_particles_needed, 0.25 * 0.75 / 1e-4, rtol=1e-3)
    # nothing is lost: equal structures have no information between them
    for name in ("mutual_information", "mutual_information_error"):
        np.testing.assert_allclose(design[name], design[f"group_{name}"], atol=1e-9)
    np.testing.assert_allclose(design.group_confusion, np.eye(2), atol=1e-4)
    np.testing.assert_allclose(design.confusion[:2, :2], [[1 / 3, 2 / 3]] * 2, atol=1e-4)


def test_what_is_told_apart_depends_on_how_many_there_are(rng):
    """At half of its share: of two of 0.5 each at a distance of 0.5, at some 70 images."""
    known = known_images(rng, [0, 0.5], [0.5, 0.5], 4000)
    found = [design_of(known, 0.01, n, 0).group.values.tolist() for n in (30, 1000)]
    assert found == [[0, 0], [0, 1]]


def test_one_between_others_takes_most_particles(rng):
    known = known_images(rng, [0, 0.8, 1.6], np.full(3, 1 / 3), 3000)
    needed = design_of(known, 0.01, 100, 0).particles_needed.values
    assert needed.argmax() == 1
    assert needed[1] > 2 * needed[[0, 2]].max()


def test_probabilities_that_are_wrong_tell_less(rng):
    known = known_images(rng, [0, 1, 2], np.full(3, 1 / 3), 900)
    told = [
        float(
            design_of(
                KnownImages(slope * known.log_likelihood, known.truth, known.shares), 0.01, 100, 0
            ).mutual_information
        )
        for slope in (0.3, 1, 3)
    ]
    assert told[1] > max(told[0], told[2])


def test_no_image_tells_more_than_there_is_to_tell(rng):
    """Whatever likelihoods are: also where the truth is what is least likely by far."""
    shares = rng.dirichlet(np.ones(5)) * 0.9 + 0.02
    truth = np.arange(100) % 5
    values = rng.normal(scale=500, size=(100, 5))
    design = design_of(KnownImages(values, truth, shares / shares.sum()), 0.01, 1000, 0)
    assert np.isfinite(design.mutual_information)
    assert float(design.mutual_information) <= float(design.mutual_information_bound) <= np.log2(5)
    np.testing.assert_allclose(design.confusion.sum("structure_other"), 1)
    np.testing.assert_allclose(design.confusion_best.sum("structure_other"), 1)


def test_a_sum_that_is_held_is_not_unknown(rng):
    """What is known of shares whose sum is held, by eliminating the last of them."""
    root = rng.normal(size=(50, 4))
    information = root.T @ root / 50
    free = np.vstack([np.eye(3), -np.ones(3)])
    expected = free @ np.linalg.inv(free.T @ information @ free) @ free.T
    spread = root_of_covariance(information)
    np.testing.assert_allclose(spread @ spread.T, expected, rtol=1e-8)


@pytest.mark.parametrize("n_structures", [2, 13])
def test_the_figure(rng, n_structures, tmp_path):
    points = rng.normal(size=(n_structures, 3))
    known = known_images(rng, points, np.full(n_structures, 1 / n_structures), 3 * n_structures)
    names = [f"a $structure_ of a long name {j}" for j in range(n_structures)]
    design = design_of(known, 0.01, 1000, 0).assign_coords(structure=names)
    design = design.assign_attrs(error=0.01, n_particles=1000)
    figure = cld.plot_design(design)
    cld.save_figure(figure, tmp_path / "figure.png")
    left, right, *_ = figure.axes
    assert len(right.get_lines()) >= n_structures
    assert len(left.texts) == (4 if n_structures == 2 else 0)
    with pytest.raises(InputError, match="no design"):
        cld.plot_design(design.drop_vars("confusion"))
