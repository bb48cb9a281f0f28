"""Results reduced to the best structure of each image and each structure's share, against loops in
Python."""

from __future__ import annotations

from collections import Counter

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from cryolike_dask.analysis import findings
from cryolike_dask.analysis.summaries import OF_THE_WINNER, summarise_results, summary_of
from cryolike_dask.errors import InputError
from tests.analysis.making import without


def expected_shares(results):
    """Best structure, probability, margin, comparable, of each image; then shares of each
    structure, by loops."""
    values, names = results.log_likelihood_integrated.values, results.structure.values
    some = [s for s in range(len(names)) if np.isfinite(values[s]).any()]
    images, assigned, differences = [], Counter(), {s: [] for s in some}
    for column in values.T:
        known = {s: v for s, v in enumerate(column) if np.isfinite(v)}
        if not known:
            images.append(("", np.nan, np.nan, False))
            continue
        ranked = sorted(known, key=known.get, reverse=True)
        margin = known[ranked[0]] - known[ranked[1]] if len(known) > 1 else np.nan
        probability = 1 / sum(np.exp(v - known[ranked[0]]) for v in known.values())
        comparable = set(known) == set(some)
        images.append((names[ranked[0]], probability, margin, comparable))
        if comparable:
            assigned[ranked[0]] += 1
            for s in some:
                differences[s].append(known[s] - known[ranked[0]])
    mean = [np.mean(differences[s]) if differences.get(s) else np.nan for s in range(len(names))]
    return images, [assigned[s] for s in range(len(names))], mean, np.isfinite(values).sum(axis=1)


def check_shares(results):
    summary = summarise_results(results)
    images, assigned, mean, n_results = expected_shares(results)
    best, probability, margin, comparable = zip(*images, strict=True)
    assert summary.best_structure.values.tolist() == list(best)
    np.testing.assert_allclose(summary.probability, probability, rtol=1e-12)
    np.testing.assert_allclose(summary.margin, margin, atol=1e-9)
    assert summary.comparable.values.tolist() == list(comparable)
    assert summary.n_assigned.values.tolist() == assigned
    np.testing.assert_array_equal(summary.n_results, n_results)
    np.testing.assert_allclose(summary.mean_log_likelihood, mean, rtol=1e-9)
    return summary


@pytest.mark.parametrize(
    "chunks", [None, {}, {"structure": 1, "image": 7}, {"structure": 2, "image": (1, 30, 9)}]
)
def test_the_best_structure_and_its_pose_however_results_are_chunked(results, chunks):
    summary = check_shares(results if chunks is None else results.chunk(chunks))
    own = results.sel(structure=xr.DataArray(summary.best_structure.values, dims="image"))
    for name in {*OF_THE_WINNER} & {*results}:
        np.testing.assert_array_equal(summary[name], own[name])
    assert summary.attrs == results.attrs
    np.testing.assert_array_equal(summary["stack"], results["stack"])


@pytest.mark.parametrize("whole_stacks", [True, False])
def test_missing_results_are_left_out_of_what_compares_structures(
    rng, results, whole_stacks, monkeypatch
):
    monkeypatch.setattr("cryolike_dask.analysis.summaries.BLOCK_BYTES", 3 * 8 * 11)
    missing = (
        rng.random((3, 3))[:, results["stack"].values] < 0.4
        if whole_stacks
        else rng.random((3, 40)) < 0.2
    )
    for gone in (missing, missing | (np.arange(3) == 1)[:, None]):
        check_shares(without(results, gone).chunk({"structure": 1, "image": 15}))


def test_ensembles_stopped_in_the_middle_have_no_shares(results):
    gone = (results["stack"].values == 2) & (np.arange(3) == 2)[:, None] | (
        results["stack"].values < 2
    ) & (np.arange(3) == 1)[:, None]
    summary = check_shares(without(results, gone))
    assert not summary.comparable.any()
    assert summary.mean_log_likelihood.isnull().all()
    (finding,) = findings.warnings_about(summary)[:1]
    assert "40 images have results under some structures only" in finding.text


def test_only_what_is_needed_is_read_and_only_once(results):
    read = Counter()

    def counted(name, values):
        def block(part, block_id=None):
            read[name, block_id] += 1
            return part

        lazy = da.from_array(values, chunks=(1, 10), asarray=True)
        return lazy.map_blocks(block, dtype=values.dtype, meta=np.empty((0, 0), values.dtype))

    lazy = results.map(lambda values: values.copy(data=counted(values.name, values.values)))
    best = summarise_results(lazy).best_structure.values
    assert set(read.values()) == {1}
    where = {(list("abc").index(name), m // 10) for m, name in enumerate(best)}
    names = {*OF_THE_WINNER} & {*results}
    assert {key for key in read if key[0] in names} == {
        (name, place) for name in names for place in where
    }
    assert {name for name, _ in read} == {*names, "log_likelihood_integrated"}
    assert len([key for key in read if key[0] == "log_likelihood_integrated"]) == 3 * 4


def test_one_structure(results):
    alone = results.sel(structure="b")
    for summary in (summarise_results(alone), summarise_results(results, "b")):
        assert set(summary.best_structure.values) == {"b"}
        np.testing.assert_array_equal(summary.optimal_polar, alone.optimal_polar)
        assert summary.probability.values.tolist() == [1] * 40
        assert summary.margin.isnull().all()


def test_images_that_are_indexed_by_more_than_their_number(results):
    indexed = (
        results.assign_coords(micrograph=("image", ["m1", "m2"] * 20))
        .set_xindex("micrograph")
        .chunk()
    )
    assert summarise_results(indexed.sel(micrograph="m2")).sizes["image"] == 20


def test_what_are_no_results_is_refused(results):
    with pytest.raises(
        InputError, match=r"structure='x' is not among the results.*There are a, b, c"
    ):
        summarise_results(results, "x")
    with pytest.raises(InputError, match="there is no log_likelihood_integrated"):
        summarise_results(results.drop_vars("log_likelihood_integrated"))
    with pytest.raises(InputError, match="of a summary"):
        summary_of(summarise_results(results), "a")
