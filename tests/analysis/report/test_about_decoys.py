"""What the report says of images of none of the structures."""

from __future__ import annotations

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.analysis.decoys.of_results import competition_if_any
from cryolike_dask.analysis.populations.written import write_populations
from cryolike_dask.analysis.report.about_decoys import none_section
from cryolike_dask.analysis.report.about_populations import NONE_NAME, how_much
from cryolike_dask.analysis.report.report import write_report
from cryolike_dask.analysis.summaries import summarise_results
from tests.analysis.making import make_results, without

NAMES = ("a", "b", "a~decoy1", "b~decoy1")


@pytest.fixture
def results(rng):
    made = make_results(rng, NAMES, n_images=60)
    made.log_likelihood_integrated[0, :50] += 30
    return made.assign_coords(decoy_of=("structure", np.array(["", "", "a", "b"], object)))


def test_the_section_tells_what_competition_says(results):
    section = none_section(results, competition_if_any(results))
    found = cld.decoy_competition(results)
    rows = dict(section.rows)
    assert rows["images compared"] == "60 of 60"
    n = int(found.n_images_shown[1])
    assert n >= 50
    assert rows["shown at a false discovery rate of 5%"] == f"{n} ({n / 60:.1%})"
    share, error = float(found.share_shown), float(found.share_shown_error)
    assert rows["part that shows a structure"] == f"{share:.1%} ± {error:.1%}, or more"
    assert "2 decoys" in section.paragraphs[0]
    assert [panel.key for panel in section.panels] == ["decoys"]


def test_the_shares_at_the_head_count_images_of_none(results):
    found = cld.populations(results, n_bootstrap=0)
    turned = results.isel(structure=[3, 0, 2, 1])  # wherever decoys stand
    for given in (results, turned):
        section = how_much(given, summarise_results(given), competition_if_any(given)).section
        rows = dict(section.rows)
        assert set(rows) == {"a", "b", "undecided", NONE_NAME}
        share = float(found.population_of_none)
        said = f"{60 * share:,.0f} of 60 images: {share:.1%} ("
        assert rows[NONE_NAME].startswith(said)
        assert "those of 60 images that show one of these" in section.paragraphs[0]
        # grey means one thing
        caption = "Shares with intervals of 95%. Square: the part of all images that shows none."
        assert section.panels[0].caption == caption


def test_of_one_structure_the_head_says_how_many_images_show_none(results, tmp_path):
    one = results.isel(structure=[0, 2]).assign_attrs(folder=str(tmp_path))
    # shares that were written without decoys do not tell it
    write_populations(cld.populations(one, decoys=False, n_bootstrap=0), tmp_path)
    section = how_much(one, summarise_results(one), competition_if_any(one)).section
    share = float(cld.populations(one, n_bootstrap=0).population_of_none)
    ((name, said),) = section.rows
    assert name == NONE_NAME
    assert said.startswith(f"{60 * share:,.0f} of 60 images: {share:.1%} (")
    alone = results.isel(structure=[0]).drop_vars("decoy_of")
    nothing = how_much(alone, summarise_results(alone), None)
    assert nothing.found is None
    assert "there are no decoys" in nothing.section.paragraphs[0]


def test_without_decoys_there_is_no_section_and_without_results_no_number(results):
    assert (
        none_section(
            results.drop_vars("decoy_of"), competition_if_any(results.drop_vars("decoy_of"))
        )
        is None
    )
    assert (
        none_section(
            results.isel(structure=[2, 3]), competition_if_any(results.isel(structure=[2, 3]))
        )
        is None
    )
    nothing = without(results, np.array([[False], [False], [True], [True]]) & np.ones(60, bool))
    section = none_section(nothing, competition_if_any(nothing))
    assert not section.rows
    assert "yet" in section.paragraphs[0]


def test_the_page_has_the_section_and_compares_no_decoy(results, tmp_path):
    page = write_report(results, tmp_path / "r.html", n_examples=0, progress=False).read_text()
    assert "Images of none of the structures" in page
    assert "60 images compared with 2 structures" in page
    ratio = cld.log_likelihood_ratio(results, "a~decoy1").sel(structure="a")
    assert (ratio[:50] > 10).all()
