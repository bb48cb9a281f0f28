"""Decoys among results: who competes, and what is left of them elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis.decoys.competition import compete, q_values
from cryolike_dask.analysis.decoys.of_results import has_decoys
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.errors import InputError
from tests.analysis.making import make_results, without

NAMES = ("a", "b", "a~decoy1", "b~decoy1", "other")


@pytest.fixture
def results(rng):
    made = make_results(rng, NAMES, n_images=50).chunk({"image": 15, "structure": 2})
    return made.assign_coords(decoy_of=("structure", np.array(["", "", "a", "b", ""], object)))


def expected(results, targets, decoys):
    values = results.log_likelihood_integrated.sel(structure=[*targets, *decoys]).values
    margin, score = compete(values, np.arange(len(values)) >= len(targets))
    return margin, q_values(score, margin > 0, len(targets) / len(decoys))


def test_those_compete_that_were_computed_as_decoys(results):
    found = cld.decoy_competition(results)
    margin, q = expected(results, ["a", "b", "other"], ["a~decoy1", "b~decoy1"])
    np.testing.assert_allclose(found.decoy_margin, margin, atol=1e-9)
    np.testing.assert_allclose(found.q_value, q)
    assert found.attrs == {"n_structures": 3, "n_decoys": 2}
    assert found.n_images_shown.values.tolist() == [(q <= 0.01).sum(), (q <= 0.05).sum()]
    assert 0 <= found.share_shown <= 1
    assert found.share_shown_error > 0
    assert {"image", "stack", "image_in_stack"} <= set(found.coords)
    assert "structure" not in found.dims


def test_those_that_are_named_compete_alone(results):
    found = cld.decoy_competition(results, ["other"])
    np.testing.assert_allclose(found.q_value, expected(results, ["a", "b"], ["other"])[1])
    np.testing.assert_allclose(cld.decoy_competition(results, "other").q_value, found.q_value)
    plain = results.drop_vars("decoy_of")
    assert not has_decoys(plain)
    assert has_decoys(results)
    np.testing.assert_allclose(
        cld.decoy_competition(plain, ["other", "b"]).q_value,
        expected(results, ["a", "a~decoy1", "b~decoy1"], ["b", "other"])[1],
    )


def test_an_image_without_a_result_has_no_q_value(results, rng):
    missing = np.zeros((5, 50), bool)
    missing[2, 3] = True
    partial = without(results, missing)
    found = cld.decoy_competition(partial)
    assert np.isnan(found.q_value).values.nonzero()[0].tolist() == [3]
    rest = np.arange(50) != 3
    np.testing.assert_allclose(
        found.q_value[rest], cld.decoy_competition(results.isel(image=rest)).q_value
    )
    # of what does not compete nothing is asked
    assert not np.isnan(cld.decoy_competition(partial, ["other"]).q_value).any()


@pytest.mark.parametrize(
    ("change", "decoys", "message"),
    [
        (lambda r: r.drop_vars("decoy_of"), None, "there are no decoys.*--decoys"),
        (lambda r: r, ["c"], "structure='c' is not among the results.*There are a, b"),
        (lambda r: r.sel(structure=["a~decoy1"]), None, "all 1 structure.* decoys"),
        (lambda r: r, ["a", "b", "other"], "all 5 structure"),
        (lambda r: r[["optimal_template"]], None, "no results"),
        (lambda r: r.log_likelihood_integrated, None, "no results"),
        (lambda r: r, [], "there are no decoys"),
    ],
)
def test_what_cannot_compete_is_refused(results, change, decoys, message):
    with pytest.raises(InputError, match=message):
        cld.decoy_competition(change(results), decoys)


def test_decoys_are_assigned_no_image(results):
    """Nor do they take part of the probability of structures."""
    plain = results.sel(structure=["a", "b", "other"]).drop_vars("decoy_of")
    xr.testing.assert_allclose(summarise_results(results), summarise_results(plain))
    xr.testing.assert_allclose(cld.structure_probability(results), cld.structure_probability(plain))
    alone = summarise_results(results, "a~decoy1")
    assert alone.structure.values.tolist() == ["a~decoy1"]


def test_matrices_are_of_what_images_may_show(results, tmp_path):
    cld.write_likelihood_matrix(results, tmp_path, text=True)
    text = next(tmp_path.glob("likelihood_matrix/integrated*.txt")).read_text()
    assert text.splitlines()[0] == "# a\tb\tother"
    assert np.loadtxt(text.splitlines()).shape == (50, 3)
