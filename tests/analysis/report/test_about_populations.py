"""The shares at the head of the report are those that were written, if they are of its results."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.analysis.decoys.of_results import competition_if_any
from cryolike_dask.analysis.populations.written import write_populations
from cryolike_dask.analysis.report.about_populations import how_much
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.io.export_names import POPULATIONS_STORE
from tests.analysis.making import make_results


@pytest.fixture
def results(rng, tmp_path):
    made = make_results(rng, ("a", "b"), n_images=40)
    made.log_likelihood_integrated[0, :10] += 3
    return made.assign_attrs(folder=str(tmp_path))


def head(results):
    return how_much(results, summarise_results(results), competition_if_any(results)).section


def share(section, name):
    return float(dict(section.rows)[name].partition("%")[0]) / 100


def test_shares_that_were_written_are_those_of_the_report(results, tmp_path):
    assert "equally likely" in head(results).paragraphs[0]
    asked = cld.populations(results, counts={"a": 1000, "b": 1}, prior=50.0, n_bootstrap=0)
    write_populations(asked, tmp_path)
    section = head(results)
    assert share(section, "a") == pytest.approx(float(asked.population[0]), abs=6e-4)
    assert f"Their prior is {asked.prior}. They are those in" in section.paragraphs[0]
    write_populations(cld.populations(results, draw=False, n_bootstrap=0), tmp_path)
    assert "shares of largest likelihood" in head(results).paragraphs[0]


@pytest.mark.parametrize("fault", ["of other results", "of some images", "damaged", "no store"])
def test_shares_that_are_not_of_these_results_are_estimated_again(results, tmp_path, fault):
    expected, of = head(results), results
    if fault == "of other results":
        of = results.assign(log_likelihood_integrated=results.log_likelihood_integrated * 2)
    if fault == "of some images":
        of = results.isel(image=slice(20))
    write_populations(cld.populations(of, counts={"a": 9, "b": 1}, prior=9.0), tmp_path)
    store = tmp_path / POPULATIONS_STORE
    if fault == "damaged":
        (store / "zarr.json").write_bytes(b"{")
    if fault == "no store":
        shutil.rmtree(store)
        store.write_bytes(b"")
    assert head(results).rows == expected.rows


def test_a_prior_of_many_structures_is_cut_short(rng, tmp_path):
    names = tuple(f"s{i}" for i in range(30))
    results = make_results(rng, names, n_images=20).assign_attrs(folder=str(tmp_path))
    counts = dict(zip(names, np.arange(1.0, 31), strict=True))
    write_populations(cld.populations(results, counts=counts, n_bootstrap=0), tmp_path)
    assert "...). They are those in" in head(results).paragraphs[0]
