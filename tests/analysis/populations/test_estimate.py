"""Shares of structures from results, with errors, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.analysis.populations import estimate, gibbs
from cryolike_dask.analysis.populations import likelihoods as reading
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError
from tests.analysis.populations.mixtures import as_results, log_likelihoods

PUBLISHED = Path(__file__).parents[4] / "shared" / "reweighting"
POINTS = np.array([[0.0], [1.5], [6.0]])
SHARES = (0.5, 0.2, 0.3)


@pytest.fixture
def made(rng):
    """Results of 600 images of 30 micrographs, and what they show."""
    log_likelihood, truth = log_likelihoods(rng, POINTS, SHARES, 600)
    coords = {
        "micrograph": np.array([f"m{k}" for k in rng.integers(0, 30, 600)], object),
        "random_subset": 1 + rng.integers(0, 2, 600),
        "true_structure": np.array([f"s{j}" for j in truth], object),
    }
    # as far from 0 as likelihoods of images are
    return as_results(log_likelihood - 1e5, **coords), truth


def test_all_that_is_said_agrees(made):
    results, truth = made
    found = cld.populations(results)
    assert found.attrs["n_images"] == 600
    assert found.attrs["prior"] == "Dirichlet(1)"
    assert found.attrs["method"] == "posterior mean"
    assert found.attrs["certificate_nat"] <= 0.01
    assert found.population_draws.dims == ("chain", "draw", "structure")
    draws = found.population_draws.values.reshape(-1, 3)
    np.testing.assert_allclose(found.population, draws.mean(axis=0))
    np.testing.assert_allclose(found.population_sd, draws.std(axis=0))
    np.testing.assert_allclose(found.population_covariance, np.cov(draws.T))
    np.testing.assert_allclose(found.population.sum(), 1)
    # the posterior, the curvature and a bootstrap say nearly the same of shares far from 0
    sd = found.population_sd
    np.testing.assert_allclose(found.population_fisher_sd, sd, rtol=0.15)
    boot = found.population_bootstrap_sd
    assert boot.resampled.values.tolist() == ["image", "micrograph"]
    np.testing.assert_allclose(boot.sel(resampled="image"), sd, rtol=0.35)
    assert (abs(found.population - found.population_maximum_likelihood) < sd).all()
    halves = found.population_of_half_set
    assert halves.half_set.values.tolist() == [1, 2]
    assert (abs(halves.mean("half_set") - found.population_maximum_likelihood) < sd).all()
    counts = np.bincount(truth) / 600
    assert (abs(found.population - counts) < 5 * sd).all()
    # likelihoods are right, so what is expected is found
    np.testing.assert_allclose(found.found_confusion, found.expected_confusion, atol=0.12)
    np.testing.assert_allclose(found.expected_confusion.sum("structure_other"), 1)


def test_intervals_hold_shares_that_are_drawn_from_the_prior(rng, monkeypatch):
    """Of 50 sets of five structures, so that chance explains 5 in 100 within a few."""
    monkeypatch.setattr(gibbs, "ENOUGH_SWEEPS", 600)
    inside = 0
    for _ in range(50):
        shares = rng.dirichlet(np.ones(5))
        results = as_results(log_likelihoods(rng, 1.5 * rng.normal(size=(5, 2)), shares, 150)[0])
        low, high = cld.populations(results, n_bootstrap=0).population_interval.values.T
        inside += ((low <= shares) & (shares <= high)).sum()
    # intervals of one set are not independent: as if there were half as many
    assert abs(inside / 250 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 125)


def test_without_draws_errors_are_those_of_the_curvature(made):
    results, _ = made
    found = cld.populations(results, draw=False, n_bootstrap=0)
    assert found.attrs["method"] == "maximum likelihood"
    np.testing.assert_array_equal(found.population, found.population_maximum_likelihood)
    np.testing.assert_array_equal(found.population_sd, found.population_fisher_sd)
    assert "population_draws" not in found
    assert "population_bootstrap_sd" not in found
    low, high = found.population_interval.values.T
    assert ((low < found.population) & (found.population < high)).all()
    with pytest.raises(InputError, match=r"prior=2\.0.*draw=True"):
        cld.populations(results, prior=2.0, draw=False)


def test_results_are_read_some_images_at_a_time_and_may_exceed_memory(made, monkeypatch):
    results, _ = made
    whole = cld.populations(results, n_bootstrap=0)
    monkeypatch.setattr("cryolike_dask.analysis.matrix.IMAGES_AT_ONCE", 64)
    monkeypatch.setattr(reading, "IN_MEMORY", 100)
    parts = cld.populations(results.chunk({"image": 50}), n_bootstrap=0)
    np.testing.assert_array_equal(parts.population_draws, whole.population_draws)


class Killed(BaseException):
    """As a signal would."""


def test_a_large_matrix_goes_on_where_it_was_killed(made, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO", "cryolike_dask")
    results, _ = made
    whole = cld.populations(results, n_bootstrap=0)
    monkeypatch.setattr("cryolike_dask.analysis.matrix.IMAGES_AT_ONCE", 100)
    monkeypatch.setattr(reading, "IN_MEMORY", 100)
    monkeypatch.setattr(reading, "SECONDS_BETWEEN", -1)
    read, parts_read = reading._read, []

    def killed_at_the_fourth(values, part, array, state):
        if part.start == 300 and not parts_read.count(300):
            parts_read.append(300)
            raise Killed
        parts_read.append(part.start)
        read(values, part, array, state)

    monkeypatch.setattr(reading, "_read", killed_at_the_fourth)
    scratch = tmp_path / "scratch"
    with pytest.raises(Killed):
        cld.populations(results, n_bootstrap=0, scratch=scratch)
    found = cld.populations(results, n_bootstrap=0, scratch=scratch)
    assert parts_read == [0, 100, 200, 300, 300, 400, 500]
    np.testing.assert_array_equal(found.population_draws, whole.population_draws)
    assert not scratch.exists()
    # killed once all was read, and before shares were found: with the shares of then
    monkeypatch.setattr(reading, "_read", read)
    started = []

    def killed(images, start, each):
        started.append(start)
        each(whole_maximum)
        raise Killed

    whole_maximum = estimate.maximum_likelihood(
        estimate.Images(np.exp(results.log_likelihood_integrated.values.T + 1e5), np.ones(600))
    )
    with monkeypatch.context() as patched:
        patched.setattr(estimate, "maximum_likelihood", killed)
        for _ in range(2):
            with pytest.raises(Killed):
                cld.populations(results, n_bootstrap=0, scratch=scratch)
    assert "nat below the largest log-likelihood" in caplog.text
    assert started[0] is None
    np.testing.assert_array_equal(started[1], whole_maximum.shares)
    # that of other results, or of results that were not all there, is no use
    others = results.assign(log_likelihood_integrated=results.log_likelihood_integrated * 0.5)
    xr.testing.assert_allclose(
        cld.populations(others, n_bootstrap=0, scratch=scratch)[["population"]],
        cld.populations(others, n_bootstrap=0)[["population"]],
    )
    assert not scratch.exists()


def test_what_is_left_of_results_that_were_not_all_there_is_read_again(made, monkeypatch, tmp_path):
    results, _ = made
    monkeypatch.setattr(reading, "IN_MEMORY", 100)
    unfinished = results.where(results.image != 5)
    with monkeypatch.context() as patched:
        patched.setattr(estimate, "maximum_likelihood", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cld.populations(unfinished, scratch=tmp_path / "scratch")
    found = cld.populations(results, n_bootstrap=0, scratch=tmp_path / "scratch")
    assert found.attrs["n_images"] == 600


def test_images_that_lack_a_result_are_left_out_and_said(made, caplog):
    results, _ = made
    unfinished = results.where((results.image != 3) | (results.structure != "s1"))
    found = cld.populations(unfinished, n_bootstrap=0)
    assert "1 image without a result under some structure left out: 3" in caplog.text
    assert (found.attrs["n_images"], found.attrs["n_images_left_out"]) == (599, 1)
    rest = cld.populations(results.isel(image=results.image != 3), n_bootstrap=0)
    np.testing.assert_array_equal(found.population_draws, rest.population_draws)
    with pytest.raises(InputError, match=r"1 structure without results: s1.*select"):
        cld.populations(results.where(results.structure != "s1"))
    with pytest.raises(InputError, match="no image has results under all structures"):
        cld.populations(results.where((results.structure == "s0") == (results.image % 2 == 0)))


def test_counts_centre_the_prior_and_say_what_each_weighs(made):
    results, _ = made
    counts = {"s1": 300, "s0": 100, "s2": 600}
    found = cld.populations(results, prior=50, counts=counts, n_bootstrap=0)
    assert found.attrs["prior"] == "Dirichlet(15, 45, 90)"
    np.testing.assert_allclose(found.weight, found.population / [0.1, 0.3, 0.6])
    flat = cld.populations(results, n_bootstrap=0)
    before = xr.DataArray([0.1, 0.3, 0.6], dims="structure")
    towards = (found.population - flat.population) * (before - flat.population)
    assert (towards > 0).all()
    given = cld.populations(results, prior=[15, 45, 90], n_bootstrap=0)
    np.testing.assert_array_equal(given.population_draws, found.population_draws)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prior": 0}, "prior=0 is not positive"),
        ({"prior": [1, 2]}, r"prior=\[1.0, 2.0\] for 3 structures"),
        ({"prior": [1, 2, np.nan]}, "Give one positive number for each structure"),
        ({"prior": ["a", "b", "c"]}, "are no numbers"),
        ({"prior": np.ones(3), "draw": False}, "of a posterior that is not drawn"),
        ({"prior": [1, 1, 1], "counts": [1, 2, 3]}, "both a prior of each structure and counts"),
        ({"counts": {"s0": 1, "s1": 2, "x": 3}}, r"lacks \['s2'\], and names \['x'\]"),
        ({"counts": [1, 2, -3]}, r"counts=\[1.0, 2.0, -3.0\]"),
        ({"n_chains": 0}, "n_chains=0"),
        ({"n_bootstrap": -1}, "n_bootstrap=-1"),
        ({"seed": 0.5}, "seed=0.5"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(made, options, match):
    with pytest.raises(InputError, match=match):
        cld.populations(made[0], **options)


def test_one_image_says_little_and_none_is_refused(made):
    results, _ = made
    found = cld.populations(results.isel(image=7), n_bootstrap=20)
    assert found.attrs["n_images"] == 1
    np.testing.assert_array_equal(
        found.population, cld.populations(results.isel(image=[7]), n_bootstrap=0).population
    )
    with pytest.raises(InputError, match="there are no images"):
        cld.populations(results.isel(image=[]))


def test_micrographs_that_differ_are_warned_of(rng, caplog):
    members = np.repeat(np.arange(20), 30)
    truth = (rng.random(600) < np.where(members < 10, 0.2, 0.8)).astype(int)
    log_likelihood = (1 - 2.0 * truth + rng.normal(size=600))[:, None] * [1, -1]
    coords = {"micrograph": np.array([f"m{k}" for k in members], object)}
    found = cld.populations(as_results(log_likelihood, **coords), draw=False)
    assert "Shares differ between 20 micrographs by more than chance" in caplog.text
    assert found.attrs["micrograph_p_value"] < 0.01
    of_image, of_micrograph = found.population_bootstrap_sd.values[:, 0]
    assert of_micrograph > 1.3 * of_image


def test_shares_are_the_prior_of_probabilities(made):
    results, _ = made
    found = cld.populations(results, n_bootstrap=0)
    turned = found.isel(structure=[2, 0, 1])
    expected = cld.structure_probability(results, found.population.values)
    np.testing.assert_array_equal(cld.structure_probability(results, populations=turned), expected)
    with pytest.raises(InputError, match="both shares and populations"):
        cld.structure_probability(results, SHARES, populations=found)
    with pytest.raises(InputError, match="populations lack 1 structure: s2"):
        cld.structure_probability(results, populations=found.isel(structure=[0, 1]))
    # a share of 0 is no reason for a division by it
    none = found.assign(population=("structure", [1.0, 0.0, 0.0]))
    probability = cld.structure_probability(results, populations=none)
    np.testing.assert_allclose(probability.sum("structure"), 1)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published matrix is not here")
def test_the_published_weights_of_ten_structures():
    """Ten structures, 5277 images: posterior means, standard deviations, quantiles of chains."""
    data = json.loads((PUBLISHED / "Dmat.json").read_text())
    found = cld.populations(as_results(np.array(data["Dmat"])), n_bootstrap=0)
    mean, sd = np.loadtxt(PUBLISHED / "reweighted_prob.txt").T
    large = mean > 0.01
    assert large.sum() == 3
    assert (abs(found.population - mean) < 0.1 * sd)[large].all()
    assert (abs(found.population_maximum_likelihood - mean) < 0.1 * sd)[large].all()
    np.testing.assert_allclose(found.population_sd[large], sd[large], rtol=0.05)
    chains = np.concatenate(
        [
            np.genfromtxt(PUBLISHED / f"chain_{k}.csv", delimiter=",", names=True)
            for k in (1, 2, 3, 4)
        ]
    )
    # their weights are of the frames of each cluster: times its share of all frames they are shares
    theirs = np.stack([chains[f"weights{j + 1}"] for j in range(10)], axis=1)
    theirs = theirs * np.exp(data["logNm"])
    theirs /= theirs.sum(axis=1, keepdims=True)
    at = [0.05, 0.25, 0.5, 0.75, 0.95]
    draws = found.population_draws.values.reshape(-1, 10)
    for j in range(10):
        of_chains = np.quantile(theirs[:, j], at)
        np.testing.assert_allclose(np.quantile(draws[:, j], at), of_chains, atol=0.2 * sd[j])


def test_files_hold_what_was_found(made, tmp_path):
    found = cld.populations(made[0], counts=[1, 2, 3])
    table, store = cld.write_populations(found, tmp_path)
    assert table == tmp_path / "populations/populations.csv"
    lines = table.read_text().splitlines()
    assert lines[0].startswith("structure,population,population_sd,")
    assert [line.split(",")[0] for line in lines[1:]] == ["s0", "s1", "s2"]
    assert float(lines[1].split(",")[1]) == pytest.approx(float(found.population[0]), rel=1e-5)
    again = xr.open_zarr(store).load()
    xr.testing.assert_identical(again, found)
    cld.write_populations(found, tmp_path)  # in place of those of before
    assert sorted(p.name for p in table.parent.iterdir()) == ["populations.csv", "populations.zarr"]


def test_figure_tells_groups_from_single_structures(rng):
    points = np.array([[0], [0], [5], [9]], float)
    found = cld.populations(as_results(log_likelihoods(rng, points, [0.25] * 4, 300)[0]))
    figure = cld.plot_populations(found)
    (axes,) = figure.axes
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["share", "share, not told from others", "all of a group"]
    assert len(axes.get_yticklabels()) == 4
    with pytest.raises(InputError, match="no populations"):
        cld.plot_populations(found[["r_hat"]])


def test_command(build, tmp_path):
    images, templates = build.stacks(6, 2)
    files = cld.configure_likelihood_files(None, None, tmp_path / "out", i_template="all")
    parameters = cld.ImageParameters(12, 1.5, n_inplanes=20)
    options = {"images": images, "templates": [templates, templates], "progress": False}
    cld.run_likelihood_optimal_pose(files, parameters, lambda t: t, **options, noise="white")
    run = CliRunner().invoke
    done = run(app, ["populations", str(tmp_path / "out"), "--seed", "1"])
    assert done.exit_code == 0, done.output
    assert "posterior mean of 6 images, prior Dirichlet(1)" in done.output
    assert "not told from" in done.output
    assert (tmp_path / "out/populations/populations.zarr").is_dir()
    counts = tmp_path / "counts.txt"
    counts.write_text("3\n1 # of the second\n\n")
    done = run(app, ["populations", str(tmp_path / "out"), "--counts", str(counts)])
    assert done.exit_code == 0, done.output
    assert "Dirichlet(1.5, 0.5)" in done.output
    counts.write_text("3\nb\n")
    failed = run(app, ["populations", str(tmp_path / "out"), "--counts", str(counts)])
    assert failed.exit_code == 3
    assert "line 2: 'b' is no positive number" in failed.output
