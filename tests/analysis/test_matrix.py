"""Likelihood matrices: compared, and written for other programs with the sign that each expects."""

from __future__ import annotations

import csv
import importlib

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError, OutputError

N_STRUCTURES, N_IMAGES = 3, 5


@pytest.fixture
def results(rng):
    """As `open_results` gives them."""
    names = ("log_likelihood_integrated", "log_likelihood_optimal", "cross_correlation")
    shape = N_STRUCTURES, N_IMAGES
    data = {
        name: (("structure", "image"), rng.normal(-1e5, 20, shape).astype(np.float32))
        for name in names
    }
    coords = {"structure": np.array(["a b", "c\td", "e"], object), "image": np.arange(N_IMAGES)}
    return xr.Dataset(data, coords=coords).chunk({"image": 2})


def test_ratios_state_their_sign_and_reference(results):
    ratio = cld.log_likelihood_ratio(results, "e")
    values = results.log_likelihood_integrated.values
    np.testing.assert_array_equal(ratio, values - values[2])
    assert ratio.attrs == {
        "long_name": "log_likelihood_integrated, less that of e",
        "units": "nat",
        "reference": "e",
    }
    assert ratio.chunks is not None
    with pytest.raises(
        InputError, match=r"reference='x' is none of the structures.*There are a b, "
    ):
        cld.log_likelihood_ratio(results, "x")
    with pytest.raises(InputError, match="variable='image' is no matrix"):
        cld.log_likelihood_ratio(results, "e", "image")


def test_probabilities_follow_bayes(results):
    shares = [0.5, 0.2, 0.3]
    found = cld.structure_probability(results, shares)
    values = results.log_likelihood_integrated.values.astype(np.float64)
    odds = np.exp(values - values[0]) * np.array(shares)[:, None]
    np.testing.assert_allclose(found, odds / odds.sum(0), rtol=1e-12)
    named = dict(zip(results.structure.values[::-1], shares[::-1], strict=True))
    np.testing.assert_array_equal(cld.structure_probability(results, named), found)
    np.testing.assert_allclose(cld.structure_probability(results).sum("structure"), 1)
    unfinished = results.where(results.image != 3)
    assert np.isnan(cld.structure_probability(unfinished)[:, 3]).all()
    for wrong in ([1, 2], [1, 2, 0], [1, 2, np.nan], {"x": 1}):
        with pytest.raises(InputError, match="shares"):
            cld.structure_probability(results, wrong)


def test_matrices_have_the_names_and_shapes_of_the_published_program(results, tmp_path):
    written = cld.write_likelihood_matrix(results, tmp_path, text=True)
    stems = {
        "integrated_fourier_log_likelihood_matrix": "log_likelihood_integrated",
        "optimal_fourier_log_likelihood_matrix": "log_likelihood_optimal",
        "cross_correlation_matrix": "cross_correlation",
    }
    names = [f"likelihood_matrix/{stem}{suffix}" for stem in stems for suffix in (".pt", ".txt")]
    assert [str(path.relative_to(tmp_path)) for path in written] == names
    for stem, variable in stems.items():
        matrix = torch.load(tmp_path / f"likelihood_matrix/{stem}.pt", weights_only=True).numpy()
        assert matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix, results[variable])
        text = tmp_path / f"likelihood_matrix/{stem}.txt"
        assert text.read_text().splitlines()[0] == "# a b\tc d\te"
        np.testing.assert_array_equal(np.loadtxt(text, dtype=np.float32).T, results[variable])


def test_one_structure_is_a_matrix_of_one_row(results, tmp_path):
    (path, *_) = cld.write_likelihood_matrix(results.sel(structure="e"), tmp_path)
    assert torch.load(path, weights_only=True).shape == (1, N_IMAGES)


def test_reweighting_inputs_give_the_likelihoods_back(results, tmp_path):
    distance, readlikeli, positive = cld.write_reweighting_inputs(results, tmp_path)
    values = results.log_likelihood_integrated.values.astype(np.float64)
    expected = values - values.max(0)
    lmbd = 0.7071067811865476
    np.testing.assert_allclose(-0.5 / lmbd**2 * np.load(distance), expected, rtol=1e-12)
    np.testing.assert_allclose(-np.loadtxt(readlikeli), expected.T, rtol=1e-12)
    np.testing.assert_array_equal(np.load(positive), expected.T)
    for path in (distance, readlikeli):
        assert "minus_log_likelihood" in path.name


def test_tables_name_images_and_structures(results, tmp_path):
    files = np.array(["a.mrcs", "a.mrcs", "", "b, c.mrcs", "b, c.mrcs"], object)
    results = results.assign_coords(
        image_file=("image", files), image_index=("image", [0, 7, -1, 1, 2])
    )
    written = cld.write_likelihood_matrix(results, tmp_path, npy=True, csv=True)
    assert [path.suffix for path in written] == [".pt", ".npy", ".csv"] * 3
    values = results.log_likelihood_integrated.values
    np.testing.assert_array_equal(np.load(written[1]), values)
    with open(written[2], newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "a b", "c\td", "e"]
    named = ["000001@a.mrcs", "000008@a.mrcs", "2", "000002@b, c.mrcs", "000003@b, c.mrcs"]
    assert [row[0] for row in rows] == named
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], np.float32).T, values)


def test_results_have_methods(results, tmp_path):
    importlib.import_module("cryolike_dask.analysis.dataset")  # as open_results does
    its = results.cryolike
    xr.testing.assert_identical(its.ratio("e"), cld.log_likelihood_ratio(results, "e"))
    shares = its.populations(n_bootstrap=0)
    xr.testing.assert_identical(shares, cld.populations(results, n_bootstrap=0))
    xr.testing.assert_identical(
        its.probability(populations=shares), cld.structure_probability(results, populations=shares)
    )
    with pytest.raises(InputError):  # that of export_star
        its.to_star(tmp_path / "particles.star")


def test_unfinished_results_are_refused(results, tmp_path):
    unfinished = results.where((results.image != 3) | (results.structure != "e"))
    for write in (cld.write_likelihood_matrix, cld.write_reweighting_inputs):
        with pytest.raises(OutputError, match="image 3 has no result under some structure"):
            write(unfinished, tmp_path)
    assert not list(tmp_path.rglob("*.*"))


def test_more_images_than_are_taken_at_once(results, tmp_path, monkeypatch):
    monkeypatch.setattr("cryolike_dask.analysis.matrix.IMAGES_AT_ONCE", 2)
    (path, *_) = cld.write_likelihood_matrix(results, tmp_path, text=True)
    np.testing.assert_array_equal(
        torch.load(path, weights_only=True), results.log_likelihood_integrated
    )
    assert len(np.loadtxt(path.with_suffix(".txt"))) == N_IMAGES


def test_command(build, tmp_path):
    images, templates = build.stacks(3, 2)
    files = cld.configure_likelihood_files(None, None, tmp_path / "out")
    parameters = cld.ImageParameters(12, 1.5, n_inplanes=20)
    options = {"images": images, "templates": templates, "progress": False}
    cld.run_likelihood_optimal_pose(files, parameters, lambda t: t, **options, noise="white")
    done = CliRunner().invoke(app, ["matrix", str(tmp_path / "out"), "--text", "--reweighting"])
    assert done.exit_code == 0, done.output
    assert "1 structure(s) x 3 images" in done.output
    assert len(list((tmp_path / "out/likelihood_matrix").iterdir())) == 6
    assert len(list((tmp_path / "out/reweighting").iterdir())) == 3
    failed = CliRunner().invoke(app, ["matrix", str(tmp_path / "nothing")])
    assert failed.exit_code == 3
    assert "nothing: there is no such folder" in failed.output
