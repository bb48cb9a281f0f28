"""What the demo shows at its end, and a look at particles of one's own."""

from __future__ import annotations

import webbrowser

import numpy as np
import psutil
import pytest
from dask.system import CPU_COUNT
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.cli import app, showing
from cryolike_dask.cli.showing import N_BINS, WIDTH, histogram, open_page
from cryolike_dask.simulation import own_particles
from cryolike_dask.simulation.demo import write_hinge

STRUCTURES = {"closed": 0.0, "open": 0.9}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two small structures, and six particles of both in more pixels than the demo takes."""
    folder = tmp_path_factory.mktemp("own")
    structures = [folder / f"{name}.pdb" for name in STRUCTURES]
    for path, opening in zip(structures, STRUCTURES.values(), strict=True):
        write_hinge(path, opening, n_residues=30)
    parameters = cld.ImageParameters(30, 4.0, viewing_distance=0.9, atom_shape="scattering")
    star = cld.simulate_particles(
        structures,
        parameters,
        folder / "relion",
        n_images=6,
        signal_to_noise=0.5,
        progress=False,
    )
    return star, structures


@pytest.fixture
def coarse(monkeypatch):
    """A look that takes a second."""
    monkeypatch.setattr(own_particles, "MOST_PIXELS", 20)
    monkeypatch.setattr(own_particles, "MOST_IMAGES", 5)
    monkeypatch.setattr(own_particles, "VIEWING_DISTANCE", 0.9)
    monkeypatch.setattr(own_particles, "SEARCH", cld.configure_displacement(1.0, 3, 3))


def demo(*arguments):
    return CliRunner().invoke(app, ["demo", *map(str, arguments)], env={"COLUMNS": "80"})


def test_a_look_at_own_particles(inputs, coarse, tmp_path):
    star, structures = inputs
    given = [word for path in structures for word in ("--structures", path)]
    place = ["--output", tmp_path / "look", "--workers", 0, "--no-open"]
    done = demo("--data", "small-real", "--particles", star, *given, *place)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "look" / "small-real"
    assert f"The report: {folder / 'report.html'}" in done.stdout
    assert "below 0 they show closed, above it open" in done.stdout
    assert "opened in your browser" not in done.stdout
    found = cld.open_results(folder)
    assert found.sizes["image"] == 5
    assert found.attrs["n_pixels"] == 20
    np.testing.assert_allclose(found.attrs["pixel_size_angstrom"], 6.0)
    assert (
        "<svg" in (folder / "report.html").read_text()
        or "image/png" in (folder / "report.html").read_text()
    )
    assert len((folder / "particles.csv").read_text().splitlines()) == 6
    assert len((folder / "classes.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--data", "small-real"], "--data small-real needs --particles and --structures"),
        (["--particles", "a.star"], "are for --data small-real"),
        (["--invert-contrast"], "are for --data small-real"),
        (
            ["--data", "small-real", "--particles", "no.star", "--structures", "no.pdb"],
            "no.star: there is no such file",
        ),
    ],
)
def test_what_is_unclear_is_one_line_and_nothing_is_written(tmp_path, given, told):
    failed = demo(*given, "--output", tmp_path / "out")
    assert failed.exit_code == 3
    assert told in failed.stderr
    assert not (tmp_path / "out").exists()


def test_a_histogram_counts_every_particle_and_fits_into_80_columns(rng):
    groups = {"of a": rng.normal(-50, 10, 20), "of b": rng.normal(50, 10, 25)}
    groups["of a"][0] = np.nan
    lines = histogram(groups)
    assert len(lines) == N_BINS + 1
    assert max(map(len, lines)) <= 80
    bars = [line.partition("|")[2] for line in lines[:-1]]
    assert sum(bar.count("█") for bar in bars) == 19
    assert sum(bar.count("░") for bar in bars) == 25
    edges = np.linspace(np.nanmin(groups["of a"]), groups["of b"].max(), N_BINS + 1)
    counts = np.histogram(groups["of b"], edges)[0]
    assert [bar.count("░") for bar in bars] == counts.tolist()
    assert lines[-1].split() == ["█", "of", "a", "░", "of", "b"]


@pytest.mark.parametrize("values", [[1.0], [3.0, 3.0], np.r_[np.zeros(10_000), 1e6]])
def test_histograms_of_odd_values(values):
    lines = histogram({"particles": np.array(values)}, ascii_only=True)
    assert max(len(line) for line in lines) <= 80
    assert max(line.count("#") for line in lines[:-1]) <= WIDTH
    assert all(line.isascii() for line in lines)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 37.0, 1e5])
def test_lines_of_a_histogram_are_told_apart(scale, rng):
    lines = histogram({"particles": scale * rng.normal(0, 1, 50)})
    middles = [line.partition("|")[0].strip() for line in lines[:-1]]
    assert len(set(middles)) == N_BINS
    assert not {"-0", "-0.0", "-0.00"} & set(middles)


def test_nothing_is_drawn_of_nothing():
    assert histogram({"particles": np.array([np.nan])}) == []


def test_a_page_is_opened_where_it_is_asked_for(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    page = tmp_path / "a page.html"
    assert open_page(page, asked=True)
    assert opened == [page.as_uri()]
    assert not open_page(page, asked=False)
    assert not open_page(page, asked=None)  # nobody looks at the output of a test
    assert len(opened) == 1

    def fails(url):
        raise webbrowser.Error("no browser")

    monkeypatch.setattr(webbrowser, "open", fails)
    assert not open_page(page, asked=True)


@pytest.mark.parametrize(("load", "is_said"), [(0.5, False), (2.1, True)])
def test_a_plan_says_that_the_machine_is_busy(monkeypatch, capsys, load, is_said):
    """Its times were measured beside what else runs."""
    monkeypatch.setattr(psutil, "getloadavg", lambda: (load * CPU_COUNT, 0, 0))
    showing.show_plan("[a plan]")
    said = capsys.readouterr().out
    assert said.startswith("[a plan]")
    assert ("Plan again when it is quiet" in said) == is_said
