"""Words of before, which go on being read: a line says the word of today, which means the same."""

from __future__ import annotations

import logging
import re

import pytest
import yaml

import cryolike_dask as cld
from cryolike_dask.cli.options import displacements_of
from cryolike_dask.config.older_words import exactly, words_of_today
from cryolike_dask.config.reading import read_config
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.io.parameters import read_parameters
from tests.commands import in_process, worked

GRID = {"n_pixels": 24, "pixel_size_angstrom": 5.0}
OF_INPUTS = {"structures": {"files": "a.pdb"}, "particles": {"metadata": "p.star"}, "output": "o"}
OLDER = {
    "views": ({"viewing_distance": 0.3}, {}, "parameters.viewing_distance", "view_step_degrees"),
    "band": ({"resolution_factor": 0.7}, {}, "parameters.resolution_factor", "resolution_angstrom"),
    "steps": (
        {},
        {"max_displacement_pixels": 3.0, "n_displacements_x": 13, "n_displacements_y": 13},
        "search.n_displacements_x and search.n_displacements_y",
        "displacement_step_pixels",
    ),
    "steps up to 8 pixels": (
        {},
        {"n_displacements_x": 16, "n_displacements_y": 16},
        "search.n_displacements_x and search.n_displacements_y",
        "displacement_step_pixels",
    ),
}


def read(folder, parameters, search):
    """A configuration that says this of the grid and the search."""
    path = folder / "run.yaml"
    content = {**OF_INPUTS, "parameters": {**GRID, **parameters}, "search": search}
    path.write_text(yaml.safe_dump(content))
    return read_config(path)


@pytest.mark.parametrize("name", OLDER)
def test_an_older_run_is_read_with_a_line_that_says_the_word_of_today(tmp_path, caplog, name):
    caplog.set_level(logging.INFO, "cryolike_dask")
    parameters, search, older, word = OLDER[name]
    before = read(tmp_path, parameters, search)
    (message,) = caplog.messages
    found = re.fullmatch(rf".*run\.yaml: for {older} say {word}: (\S+)", message)
    assert found, message
    # what the line says means the same, in the digits that it has
    caplog.clear()
    key = {word: float(found[1])}
    today = read(
        tmp_path,
        key if parameters else {},
        {k: v for k, v in search.items() if k.startswith("max")} | (key if search else {}),
    )
    assert caplog.messages == []
    old, new = before.parameters.made(), today.parameters.made()
    assert new.radius_max == pytest.approx(old.radius_max, rel=1e-4)
    assert len(new.viewing_angles()) == len(old.viewing_angles())
    assert today.search.displacements == before.search.displacements


def test_searches_that_no_step_says_are_read_as_they_are(tmp_path, caplog):
    caplog.set_level(logging.INFO, "cryolike_dask")
    for search in (
        {"n_displacements_x": 5, "n_displacements_y": 3},
        {"n_displacements_x": 1, "n_displacements_y": 1},
        {"max_displacement_pixels": 0, "n_displacements_x": 4, "n_displacements_y": 4},
    ):
        displacements = read(tmp_path, {}, search).search.displacements
        assert displacements.n_displacements_x == search["n_displacements_x"]
        assert displacements.n_displacements_y == search["n_displacements_y"]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("parameters", "search", "said"),
    [
        ({"viewing_distance": 0.3, "view_step_degrees": 17}, {}, "exclude each other"),
        ({"resolution_factor": 0.5, "resolution_angstrom": 20}, {}, "exclude each other"),
        ({"resolution_angstrom": 3}, {}, "finer than two pixels"),
        ({"view_step_degrees": 200}, {}, "view_step_degrees=200 is not a number above 0"),
        ({"view_step_degrees": "4 degrees"}, {}, "it is text"),
        ({}, {"displacement_step_pixels": 0}, "displacement_step_pixels=0 is not a number above 0"),
        ({}, {"displacement_step_pixels": 1e-6}, "gives more than 100000000 displacements"),
        ({}, {"displacement_step_pixels": 1, "n_displacements_x": 4}, "excludes displacement_step"),
        ({}, {"displacement_step": 1}, "did you mean search.displacement_step_pixels"),
        ({"view_step": 1}, {}, "did you mean parameters.view_step_degrees"),
    ],
)
def test_what_cannot_be(tmp_path, parameters, search, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, parameters, search)


def test_older_options_are_taken_with_the_line_and_not_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = ["parameters", "--n-pixels", 24, "--pixel-size-angstrom", 5]
    older = ["--viewing-distance", 0.3, "--resolution-factor", 0.5]
    said = in_process(*grid, *older, "--output", "before.npz")
    worked(said)
    assert "for --viewing-distance say --view-step-degrees 17.189" in said.stderr
    assert "for --resolution-factor say --resolution-angstrom 20" in said.stderr
    today = ["--view-step-degrees", 17.189, "--resolution-angstrom", 20]
    made = in_process(*grid, *today, "--output", "today.npz")
    assert "compared up to 20 angstrom" in worked(made)
    assert "17.2 degrees apart" in made.stdout
    assert "say" not in made.stderr
    before, after = (read_parameters(f"{name}.npz") for name in ("before", "today"))
    assert after.viewing_distance == pytest.approx(before.viewing_distance, rel=1e-4)
    assert after.radius_max == before.radius_max
    for command in ("parameters", "optimal-pose", "noise"):
        shown = in_process(command, "--help").stdout
        for word in ("--viewing-distance", "--resolution-factor", "--n-displacements"):
            assert word not in shown


def test_the_search_of_a_command(capsys):
    assert displacements_of(8.0, None, None, None) == DisplacementSearch(8.0, 16, 16)
    assert displacements_of(3.0, 0.5, None, None) == DisplacementSearch(3.0, 13, 13)
    assert capsys.readouterr().err == ""
    assert displacements_of(3.0, None, 13, 13) == DisplacementSearch(3.0, 13, 13)
    said = "for --n-displacements-x and --n-displacements-y say --displacement-step-pixels 0.5\n"
    assert capsys.readouterr().err == said
    with pytest.raises(InputError, match="Give the step, or both numbers"):
        displacements_of(3.0, 0.5, 13, 13)


@pytest.mark.parametrize(("farthest", "step"), [(3.0, 0.7), (8.0, 16 / 15), (0.0, 1.0), (2.0, 9.0)])
def test_steps_go_from_end_to_end_as_nearly_as_can_be(farthest, step):
    search = cld.configure_displacement(farthest, displacement_step_pixels=step)
    n = search.n_displacements_x
    assert search.n_displacements_y == n
    assert abs(2 * farthest / step + 1 - n) <= 0.5
    x, _ = search.grid(1.0).table()
    assert (x.min(), x.max()) == ((-farthest, farthest) if n > 1 else (0, 0))


@pytest.mark.parametrize("given", [{}, {"n_displacements_x": 3}])
def test_a_search_needs_its_steps(given):
    with pytest.raises(InputError, match="Give the step, or both numbers"):
        cld.configure_displacement(3.0, **given)
    with pytest.raises(InputError, match="displacement_step_pixels=0 is not positive"):
        cld.configure_displacement(3.0, displacement_step_pixels=0)


def test_words_that_are_not_given_are_not_told():
    assert list(words_of_today({"viewing_distance": None, "pixel_size_angstrom": 5})) == []
    assert exactly(0.5) == "0.5"
