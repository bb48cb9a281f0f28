"""What the report says of half-sets, micrographs and other groups of images."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import cryolike_dask as cld
from cryolike_dask.analysis.image_names import Called
from cryolike_dask.analysis.report import about_groups
from cryolike_dask.analysis.report.about_groups import KEY, groups_section
from cryolike_dask.analysis.summaries import summarise_results
from tests.analysis.making import make_results
from tests.analysis.report.test_report import Parsed

N = 240


@pytest.fixture
def rng():
    """Always the same: words are tested here; one sample in a hundred would differ by chance."""
    return np.random.default_rng(11)


def results_of(rng, shows_open, fit=0.0, decoys=False, **groups):
    """Of images that show one of two structures, and fit so much better than others."""
    names = ["closed", "open", *(["a decoy"] if decoys else [])]
    results = make_results(rng, names, N)
    ll = results.log_likelihood_integrated
    ll[:] = rng.normal(0, 1, ll.shape)
    ll[0] += np.where(shows_open, -8, 8)
    results.cross_correlation[:] = rng.normal(0.2, 0.02, ll.shape) + fit
    if decoys:
        results = results.assign_coords(decoy_of=("structure", ["", "", "closed"]))
        ll = results.log_likelihood_integrated
        ll[2] = -9.0
        ll[2, :30] = 20.0
    coords = {name: ("image", np.asarray(of, object)) for name, of in groups.items()}
    if "random_subset" in coords:
        coords["random_subset"] = ("image", np.asarray(groups["random_subset"]))
    return results.assign_coords(coords)


def section_of(results):
    competition = cld.decoy_competition(results) if "decoy_of" in results.coords else None
    found = cld.populations(results, draw=False, n_bootstrap=0)
    images = Called(np.array([str(i) for i in range(N)], object))
    return groups_section(results, summarise_results(results), found, images, competition)


HALVES = 1 + np.arange(N) % 2


def test_of_two_groups_that_differ_neither_is_called_the_odd_one(rng):
    shows_open = rng.random(N) < np.where(HALVES == 1, 0.2, 0.7)
    section, (finding,) = section_of(results_of(rng, shows_open, random_subset=HALVES))
    assert section.title == "Half-sets"
    assert finding.section == section.key == KEY
    assert finding.text.startswith(
        "Half-set 1 and half-set 2 differ in their shares by more than chance (p 0.001 or less): "
        "shares alone cannot say which of the two is odd. Their fit is alike (median correlation "
    )
    assert finding.text.endswith("they differ in what they show, not in how well it fits.")
    (table,) = section.tables
    assert table.columns == (
        *("half-set", "images", "closed", "open", "p of shares", "correlation", "lead (nat)"),
        "p of fit",
    )
    assert all(row[4] == "0.001 or less" for row in table.rows)
    assert "odd" not in str(table)


@pytest.mark.parametrize("shares_differ", [True, False])
def test_the_half_set_that_fits_worse_is_named(rng, shares_differ):
    share = np.where(HALVES == 1, 0.2, 0.7) if shares_differ else 0.5
    results = results_of(
        rng, rng.random(N) < share, fit=-0.03 * (HALVES == 2), random_subset=HALVES
    )
    section, (finding,) = section_of(results)
    assert "Half-set 2 fits worse (median correlation 0.1" in finding.text
    assert ("look there first" in finding.text) == shares_differ
    assert section.tables[0].rows[1][-1].endswith("worse")
    assert not section.tables[0].rows[0][-1].endswith("worse")


def test_of_many_groups_those_that_fit_worse_are_named(rng):
    micrograph = np.array([f"m{i % 8}.mrc" for i in range(N)], object)
    results = results_of(
        rng,
        (rng.random(N) < 0.5) | (micrograph == "m5.mrc"),
        fit=-0.04 * np.isin(micrograph, ["m5.mrc", "m6.mrc"]),
        micrograph=micrograph,
        random_subset=HALVES[rng.permutation(N)],
    )
    section, (finding,) = section_of(results)
    assert section.title == "Half-sets and micrographs"
    assert finding.text == (
        "Of 8 micrographs the shares differ by more than chance in m5.mrc. The images of m5.mrc, "
        "m6.mrc fit worse than those of the others by more than chance: look there first."
    )
    assert [row[0] for row in section.tables[1].rows if row[4].endswith("odd")] == ["m5.mrc"]


def test_shares_of_none_stand_beside_them(rng):
    results = results_of(rng, rng.random(N) < 0.5, decoys=True, random_subset=HALVES)
    section, findings = section_of(results)
    assert findings == []
    columns = section.tables[0].columns
    none = [row[columns.index("none")] for row in section.tables[0].rows]
    assert none == ["38%", "38%"]  # decoys win 15 of 120; two structures, one decoy
    assert "by no more than chance" in section.tables[0].before


def test_groups_that_say_nothing_make_no_warning(rng):
    alone = np.where(np.arange(N) < 1, "b", "a")
    results = results_of(rng, rng.random(N) < 0.5, micrograph=alone)
    results.cross_correlation[:] = np.nan
    section, findings = section_of(results)
    assert findings == []
    assert section.tables[0].before == (
        "Of micrographs there are too few images to compare their shares. How well they fit "
        "cannot be compared."
    )
    assert section.tables[0].rows[1][1] == "1"
    assert "nan" not in str(section.tables)


def test_without_groups_nothing_is_read(rng, monkeypatch):
    def read(*_):
        raise AssertionError("read")

    monkeypatch.setattr(about_groups, "relative_likelihoods", read)
    assert section_of(results_of(rng, rng.random(N) < 0.5)) == (None, [])
    one = np.full(N, "a", object)
    assert section_of(results_of(rng, rng.random(N) < 0.5, micrograph=one)) == (None, [])
    assert groups_section(xr.Dataset(), xr.Dataset(), None, Called(one), None) == (None, [])


def test_the_warning_leads_to_its_section_before_the_figures(rng, tmp_path):
    shows_open = rng.random(N) < np.where(HALVES == 1, 0.2, 0.7)
    results = results_of(rng, shows_open, random_subset=HALVES)
    page = cld.write_report(
        results, tmp_path / "page.html", figures=tmp_path / "figures", progress=False
    )
    parsed = Parsed(page)
    assert ("a", {"href": f"#{KEY}"}) in parsed.elements
    assert "More on this: Half-sets." in parsed.text
    ids = [attributes.get("id") for name, attributes in parsed.elements if name == "section"]
    assert ids.index("trust") < ids.index(KEY) < ids.index("figures")
    assert "half-set 1" in (tmp_path / "figures/by-half-set.svg").read_text()
    with Image.open(tmp_path / "figures/by-half-set.png") as image:
        assert image.width == 1620  # 5.4 inches at 300 dots
