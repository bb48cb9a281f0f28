"""Shares of structures carried back to frames: weights, means and free energies, against closed
forms, loops and draws."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cryolike_dask import expectation, frame_weight, free_energy, plot_free_energy, populations
from cryolike_dask.errors import InputError
from cryolike_dask.structures.trajectories.subset import FrameAssignment, read_assignment
from tests.analysis.populations.mixtures import as_results, log_likelihoods

NAMES = ["a", "b", "c"]


def assignment_of(structure, names=NAMES):
    structure = np.asarray(structure)
    n = len(structure)
    return FrameAssignment(np.array(names), np.arange(n) * 10, structure, np.zeros(n), "angstrom")


def shares(mean, draws=None, covariance=None, sd=None):
    """What `populations` gives, as far as it is needed."""
    variables = {"population": ("structure", np.asarray(mean, float))}
    if draws is not None:
        variables["population_draws"] = (("chain", "draw", "structure"), draws)
    if covariance is not None:
        variables["population_covariance"] = (("structure", "structure_other"), covariance)
    if sd is not None:
        variables["population_sd"] = ("structure", np.asarray(sd, float))
    names = np.array(NAMES[: len(mean)], object)
    return xr.Dataset(variables, coords={"structure": names})


@pytest.fixture
def known(rng):
    """Draws of three shares, and the same by their covariance."""
    draws = rng.dirichlet([20, 50, 30], (4, 500))
    flat = draws.reshape(-1, 3)
    mean, covariance = flat.mean(axis=0), np.cov(flat, rowvar=False)
    return shares(mean, draws, covariance), shares(mean, covariance=covariance)


def test_weights_add_up_and_are_shared_among_frames(rng, known):
    structure = rng.permutation(np.repeat([0, 1, 2], [5, 2, 3]))
    prior = rng.uniform(0.5, 2, 10)
    for weights in (None, prior):
        found = frame_weight(known[0], assignment_of(structure), weights)
        before = np.ones(10) if weights is None else weights
        for k, share in enumerate(known[0].population.values):
            its = structure == k
            np.testing.assert_allclose(
                found.values[its], share * before[its] / before[its].sum(), rtol=1e-12
            )
        assert found.sum() == pytest.approx(1)
        assert found.frame.values.tolist() == [10 * k for k in range(10)]
        assert found.structure.values.tolist() == [NAMES[k] for k in structure]


def test_shares_that_are_those_of_the_clusters_change_nothing(rng):
    structure = np.repeat([0, 1, 2], [50, 20, 30])
    found = shares([0.5, 0.2, 0.3], sd=[0, 0, 0])
    np.testing.assert_allclose(frame_weight(found, assignment_of(structure)), 0.01)
    values = rng.normal(0, 1, 100)
    energy = free_energy(found, assignment_of(structure), values, 5)
    np.testing.assert_allclose(energy.free_energy, energy.free_energy_of_frames, atol=1e-12)
    np.testing.assert_allclose(energy.free_energy_interval[0], energy.free_energy, atol=1e-12)


def test_expectations_are_those_of_a_loop_over_draws(rng, known):
    structure = rng.permutation(np.repeat([0, 1, 2], [5, 2, 3]))
    values = xr.DataArray(rng.normal(0, 1, (2, 10)), dims=("q", "frame"), coords={"q": [0.1, 0.2]})
    drawn, by_covariance = (expectation(p, assignment_of(structure), values) for p in known)
    each = []
    for draw in known[0].population_draws.values.reshape(-1, 3):
        weight = np.array([draw[k] / np.sum(structure == k) for k in structure])
        each.append(values.values @ weight)
    each = np.array(each)
    np.testing.assert_allclose(drawn.expectation, each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(drawn.expectation_sd, each.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(
        drawn.expectation_interval, np.quantile(each, [0.025, 0.975], axis=0), rtol=1e-9
    )
    np.testing.assert_allclose(drawn.expectation_of_frames, values.mean("frame"))
    assert (drawn.expectation.dims, drawn.q.values.tolist()) == (("q",), [0.1, 0.2])
    np.testing.assert_allclose(by_covariance.expectation_sd, drawn.expectation_sd, rtol=1e-3)
    assert [drawn.errors, by_covariance.errors] == ["draws", "covariance"]


def test_what_is_the_share_of_a_structure_has_its_error(known):
    """The mean of whether a frame is of a structure is its share."""
    structure = np.repeat([0, 1, 2], [5, 2, 3])
    found = expectation(known[0], assignment_of(structure), structure == 1)
    assert found.expectation.ndim == 0
    assert float(found.expectation) == pytest.approx(float(known[0].population[1]))
    draws = known[0].population_draws.values[..., 1]
    assert float(found.expectation_sd) == pytest.approx(draws.std())


def test_without_draws_and_covariance_shares_are_taken_as_independent(rng):
    structure = np.repeat([0, 1], [4, 6])
    found = expectation(
        shares([0.4, 0.6], sd=[0.1, 0.2]), assignment_of(structure, NAMES[:2]), structure
    )
    assert float(found.expectation_sd) == pytest.approx(0.2)
    assert "independent" in found.errors


def test_a_harmonic_well_is_found_from_its_populations(rng):
    """Frames that are everywhere alike, structures that are bins, shares by Boltzmann: x^2 / 2."""
    x = rng.uniform(-2, 2, 20_000)
    edges = np.linspace(-2, 2, 4)
    structure = np.clip(np.digitize(x, edges) - 1, 0, 2)
    middles = (edges[:-1] + edges[1:]) / 2
    share = np.exp(-(middles**2) / 2)
    share /= share.sum()
    sd = np.array([0.01, 0.02, 0.03])
    found = free_energy(
        shares(share, covariance=np.diag(sd**2)), assignment_of(structure), x, edges
    )
    np.testing.assert_allclose(found.free_energy, middles**2 / 2, atol=1e-9)
    np.testing.assert_allclose(found.free_energy_sd, sd / share, rtol=1e-9)
    expected = [-np.log(1 + 1.959964 * sd / share), -np.log(1 - 1.959964 * sd / share)]
    np.testing.assert_allclose(found.free_energy_interval - found.free_energy, expected, rtol=1e-6)
    np.testing.assert_allclose(found.free_energy_of_frames, 0, atol=0.15)
    assert int(found.n_frames.sum()) == 20_000


def test_bands_of_free_energies_are_those_of_a_loop_over_draws(rng, known):
    structure = rng.permutation(np.repeat([0, 1, 2], [50, 20, 30]))
    x, prior = rng.normal(structure, 0.7), rng.uniform(0.5, 2, 100)
    edges = np.array([-1.0, 0.0, 0.5, 2.5, 9.0, 10.0])
    found = free_energy(known[0], assignment_of(structure), x, edges, prior)
    draws = known[0].population_draws.values.reshape(-1, 3)
    total = np.bincount(structure, prior)
    weight = draws[:, structure] * (prior / total[structure])
    each = np.array(
        [np.histogram(x, edges, weights=w, density=False)[0] / np.diff(edges) for w in weight]
    )
    mean = each.mean(axis=0)
    np.testing.assert_allclose(found.probability, mean * np.diff(edges), rtol=1e-12)
    full = mean > 0
    assert full.tolist()[-1] is False
    assert np.isnan(found.free_energy[~full]).all()
    zero = np.min(-np.log(mean[full]))
    np.testing.assert_allclose(found.free_energy[full], -np.log(mean[full]) - zero, atol=1e-9)
    low, high = np.quantile(each[:, full], [0.975, 0.025], axis=0)
    np.testing.assert_allclose(found.free_energy_interval[0][full], -np.log(low) - zero, atol=1e-9)
    np.testing.assert_allclose(found.free_energy_interval[1][full], -np.log(high) - zero, atol=1e-9)
    assert found.n_frames_left_out == int(np.sum((x < -1) | (x > 10)))
    assert found.n_frames.values.tolist() == np.histogram(x, edges)[0].tolist()


def test_populations_of_a_mixture_are_carried_to_frames(rng, tmp_path):
    """From likelihoods to weights, by files."""
    points = [[0, 0], [3, 0], [0, 3]]
    results = as_results(log_likelihoods(rng, points, [0.2, 0.5, 0.3], 300)[0])
    names = results.structure.values.tolist()
    text = "".join(f"{k},{names[k % 3]}\n" for k in range(30))
    (tmp_path / "assignment.csv").write_text("frame,structure\n" + text)
    found = populations(results, draw=False, n_bootstrap=0)
    weights = frame_weight(found, tmp_path)
    assert weights.sum() == pytest.approx(1)
    back = weights.groupby("structure").sum().sel(structure=names)
    np.testing.assert_allclose(back, found.population, rtol=1e-9)
    assert read_assignment(tmp_path).structures.tolist() == sorted(names)


def test_what_does_not_fit_is_told(known, tmp_path):
    structure = np.repeat([0, 1, 2], [5, 2, 3])
    ours = assignment_of(structure)
    energy = free_energy(known[0], ours, structure, [0, 1, 2])
    for call, what in [
        (lambda: frame_weight(xr.Dataset(), ours), "no populations"),
        (lambda: frame_weight(known[0], tmp_path / "none.csv"), "there is no such file"),
        (
            lambda: frame_weight(known[0], assignment_of(structure, ["a", "b", "x"])),
            "frames are assigned to 'x', which has no share",
        ),
        (
            lambda: frame_weight(known[0], assignment_of(structure % 2)),
            "'c' has a share, but no frame is assigned to it",
        ),
        (lambda: frame_weight(known[0], ours, -np.ones(10)), "prior_weight is negative"),
        (lambda: frame_weight(known[0], ours, structure == 1), "no frame of 'a' has any"),
        (lambda: frame_weight(known[0], ours, np.ones(9)), r"shape \(9,\), but 10 frames"),
        (lambda: expectation(known[0], ours, np.full(10, np.nan)), "not finite at position 0"),
        (lambda: expectation(known[0], ours, ["x"] * 10), "Give numbers"),
        (lambda: expectation(known[0], ours, 3.0), r"shape \(\), but 10"),
        (lambda: expectation(shares([0.2, 0.5, 0.3]), ours, structure), "have no errors"),
        (lambda: free_energy(known[0], ours, np.ones((10, 2))), "one number a frame"),
        (lambda: free_energy(known[0], ours, np.ones(10)), "is 1 in all frames"),
        (lambda: free_energy(known[0], ours, structure, 0), "bins=0 is not a positive"),
        (lambda: free_energy(known[0], ours, structure, [2, 1]), "edges that rise"),
        (lambda: free_energy(known[0], ours, structure, [8, 9]), "no frame lies between"),
        (lambda: plot_free_energy(known[0]), "no free energy"),
        (
            lambda: plot_free_energy(energy.assign(free_energy=energy.free_energy * np.nan)),
            "of no frame",
        ),
    ]:
        with pytest.raises(InputError, match=what):
            call()


def test_figures_of_free_energies(rng, known):
    structure = rng.permutation(np.repeat([0, 1, 2], [50, 20, 30]))
    variable = xr.DataArray(
        rng.normal(structure, 0.3), dims="frame", name="rg", attrs={"units": "Å"}
    )
    figure = plot_free_energy(free_energy(known[0], assignment_of(structure), variable, 12))
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rg (Å)", "free energy (kT)")
    assert len(figure.legends[0].get_texts()) == 3
    figure.canvas.draw()
