"""The first section of the report: what its numbers rest on, and whether that is known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis.report import about_belief
from cryolike_dask.analysis.report.about_belief import (
    basis_of,
    lights_of_belief,
    noise_section,
)
from cryolike_dask.analysis.search_of_results import search_of_results
from cryolike_dask.analysis.search_steps import Step
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.io.calibration import write_calibration
from cryolike_dask.io.noise import noise_checksum, read_noise, write_noise
from tests.analysis.making import make_results, rewritten
from tests.analysis.report.test_report import Parsed
from tests.conftest import Builder
from tests.io.test_calibration import MADE

PARAMETERS = cld.ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=3.0, precision="single")
SEARCH = cld.configure_displacement(1.5, 3, 2)
F = np.linspace(0, 1.01 * PARAMETERS.grid.spatial_frequencies[-1], 20)
STEPS = [Step("displacements", 1.0, 0.4), Step("views", 0.1, 2.0)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of two structures."""
    folder = tmp_path_factory.mktemp("run")
    files = cld.configure_likelihood_files(
        folder / "t", folder / "p", folder / "out", i_template="all"
    )
    Builder(np.random.default_rng(0)).write_files(
        files, PARAMETERS, ("closed", "open"), (6, 5), frame=lambda k, n: "xy"
    )
    cld.run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, noise="white", progress=False)
    return folder / "out"


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


def lights_of(summary, steps=STEPS):
    return lights_of_belief(summary, steps, basis_of(summary))


def lights_in(folder, steps=STEPS):
    return lights_of(summarise_results(cld.open_results(folder)), steps)


def noise_in(folder):
    return noise_section(basis_of(summarise_results(cld.open_results(folder))))


def with_noise(folder, **changes):
    """The same results, as if they were computed with a noise model of two groups."""
    groups = ["optics group a", "optics group b"]
    spectra = np.stack([1 / (1 + (8 * F) ** 2), np.ones(len(F))])
    model = NoiseModel.of_spectrum(F, spectra, PARAMETERS.grid, groups)
    model = replace(
        model,
        relative_error=np.full(spectra.shape, 0.03),
        n_images=np.array([700, 800]),
        reasons=("masked at 0.45 of the box", "not masked"),
        share=np.array([0.64, 1.0]),
        b_factor_angstrom2=np.array([60.0, 80.0]),
        b_factor_error=np.array([5.0, 6.0]),
    )
    write_noise(folder / "noise.npz", replace(model, **changes))
    rewritten(folder, noise=noise_checksum(folder / "noise.npz"))


def test_of_white_noise_nothing_is_known(folder):
    lights = lights_in(folder)
    assert [light.colour for light in lights.values()] == [
        "unsure",
        "unsure",
        "unsure",
        "good",
        "unsure",
    ]
    assert "white" in lights["Noise"].text
    assert "--degrees-of-freedom" in lights["Degrees of freedom"].text
    assert f"cryolike-dask calibrate {folder}" in lights["Calibration"].text
    assert noise_in(folder) is None


def test_a_noise_model_is_drawn_and_told(folder):
    with_noise(folder)
    lights = lights_in(folder)
    assert [lights[name].colour for name in list(lights)[:3]] == ["good"] * 3
    assert "1,500 images" in lights["Noise"].text
    assert "dB" in lights["Noise"].text
    assert "3.0%" in lights["Noise"].text
    band = 4 * np.pi * PARAMETERS.radius_max**2
    few, many = sorted(read_noise(folder / "noise.npz").degrees_of_freedom(PARAMETERS.grid))
    assert f"{few:,.0f} to {many:,.0f} of {band:,.0f}" in lights["Degrees of freedom"].text
    assert "masked at 0.45 of the box" in lights["Degrees of freedom"].text
    assert "60 ± 5, 80 ± 6" in lights["Envelope"].text
    (drawn,) = noise_in(folder).panels
    assert drawn.key == "noise"


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("Noise", {"relative_error": np.full((2, len(F)), 0.3)}, "30.0%"),
        ("Degrees of freedom", {"share": np.array([np.nan, 1])}, "--degrees-of-freedom"),
        (
            "Envelope",
            {"b_factor_angstrom2": np.zeros(2), "b_factor_error": np.full(2, np.nan)},
            "--b-factor",
        ),
    ],
)
def test_what_is_not_known_is_not_called_fine(folder, name, changes, told):
    with_noise(folder, **changes)
    light = lights_in(folder)[name]
    assert light.colour == "unsure"
    assert told in light.text


def test_given_numbers_are_told(folder):
    rewritten(folder, degrees_of_freedom=55.0, b_factor=40.0)
    lights = lights_in(folder)
    assert "55 of" in lights["Degrees of freedom"].text
    assert "40 Å², given" in lights["Envelope"].text
    assert lights["Degrees of freedom"].colour == lights["Envelope"].colour == "good"


def test_a_damaged_noise_model_is_told(folder):
    with_noise(folder)
    (folder / "noise.npz").write_bytes(b"spoilt")
    light = lights_in(folder)["Noise"]
    assert light.colour == "unsure"
    assert "noise.npz" in light.text


def test_a_coarse_search_and_none(folder):
    coarse = lights_in(folder, [*STEPS, Step("rotations", 0.2, 31.0)])["Search"]
    assert coarse.colour == "bad"
    assert "31 nat" in coarse.text
    assert lights_in(folder, [])["Search"].colour == "unsure"


def test_a_coarse_search_that_changes_few_assignments_is_not_called_wrong(rng):
    """Where images are ahead by more than is lost."""
    results = make_results(rng)
    results.log_likelihood_integrated[0] += 100
    step = Step("displacements", 2.0, 31.0)
    for n_less, colour in ((1, "unsure"), (20, "bad")):
        results.log_likelihood_integrated[1] = results.log_likelihood_integrated[0] - 50
        results.log_likelihood_integrated[1, :n_less] += 45  # of 50; 31 nat are 10 on average
        light = lights_of_belief(summarise_results(results), [step], basis_of(results))["Search"]
        assert light.colour == colour
        verb = "is" if n_less == 1 else "are"
        assert (
            f"{n_less} of 40 images {verb} ahead by less than what is lost on average" in light.text
        )


def test_a_b_factor_of_a_coarse_search_is_not_called_fine(folder):
    """It is of the blur of the search in part; one that was given is not."""
    coarse = [*STEPS, Step("rotations", 0.2, 31.0)]
    with_noise(folder)
    light = lights_in(folder, coarse)["Envelope"]
    assert light.colour == "unsure"
    assert "60 ± 5, 80 ± 6" in light.text
    assert "too coarse in rotations" in light.text
    with_noise(folder, b_factor_error=np.full(2, np.nan))
    assert lights_in(folder, coarse)["Envelope"].colour == "good"


@pytest.mark.parametrize(
    ("change", "colour", "told"),
    [
        ({}, "good", "350 of 400"),
        ({"slope": 0.4}, "bad", "too large"),
        ({"slope": 1.9}, "bad", "too small"),
        ({"slope_error": 0.5}, "unsure", "--images"),
        ({"slope": np.nan, "slope_error": np.nan}, "unsure", "no slope"),
        ({"results": "others"}, "unsure", "again"),
    ],
)
def test_a_calibration_is_shown(folder, change, colour, told):
    results = search_of_results(cld.open_results(folder)).checksum
    write_calibration(folder / "calibration.json", replace(MADE, **{"results": results, **change}))
    light = lights_in(folder)["Calibration"]
    assert light.colour == colour
    assert told in light.text


def test_no_calibration_is_asked_for_that_is_refused(folder, monkeypatch):
    told = search_of_results(cld.open_results(folder))
    by_poses = replace(told, settings=replace(told.settings, search="recorded"))
    monkeypatch.setattr(about_belief, "search_of_results", lambda _: by_poses)
    light = lights_in(folder)["Calibration"]
    assert light.text == "Not tried: particles that are simulated have no recorded poses."


def test_a_wrong_calibration_is_warned_of(folder):
    results = search_of_results(cld.open_results(folder)).checksum
    write_calibration(folder / "calibration.json", replace(MADE, results=results, slope=0.4))
    page = Parsed(cld.write_report(folder, n_examples=0, progress=False))
    assert page.text.count("probabilities are too large") == 2  # in the warnings, and at the light
    # only the light says more
    assert ("a", {"href": "#trust"}) not in page.elements


def test_a_damaged_calibration_is_told(folder):
    write_calibration(folder / "calibration.json", MADE)
    content = json.loads((folder / "calibration.json").read_text())
    (folder / "calibration.json").write_text(json.dumps({**content, "slope": "<b>steep</b>"}))
    light = lights_in(folder)["Calibration"]
    assert light.colour == "unsure"
    assert "calibration.json" in light.text
    page = Parsed(cld.write_report(folder, n_examples=0, progress=False))
    assert "<b>steep</b>" in page.text
    assert not [tag for tag, _ in page.elements if tag == "b"]


def test_it_comes_right_after_the_shares_and_needs_no_folder(rng, tmp_path):
    results = make_results(rng)
    results = results.assign(optimal_displacement_x=0 * results.optimal_displacement_x)
    results = results.assign(optimal_displacement_y=0 * results.optimal_displacement_y)
    page = Parsed(cld.write_report(results, tmp_path / "x.html", n_examples=0, progress=False))
    sections = [of["id"] for tag, of in page.elements if tag == "section" and "id" in of]
    assert sections[:2] == ["populations", "trust"]
    assert "Can these numbers be believed?" in page.text
    lights = [of["class"] for tag, of in page.elements if "light" in of.get("class", "").split()]
    assert lights == ["light unsure"] * 2 + ["light good"] + ["light unsure"] * 2
    alone = lights_of(summarise_results(make_results(rng, ("alone",), folder="x")))
    assert "one structure" in alone["Calibration"].text


def test_the_other_conventions_are_not_believed(rng):
    summary = summarise_results(make_results(rng, conventions="cryolike"))
    colours = [light.colour for light in lights_of(summary).values()]
    assert colours == ["bad", "bad", "bad", "good", "unsure"]


@pytest.mark.parametrize(
    ("method", "radius_max", "told"),
    [
        (None, 3.0, "Every pose was compared (exhaustive)."),
        ("adaptive", 3.0, "too narrow for levels (adaptive)"),
        ("adaptive", 16.0, "It was coarse to fine (adaptive)"),
    ],
)
@pytest.mark.parametrize("steps", [STEPS, []])
def test_the_method_of_search_is_told(folder, steps, method, radius_max, told):
    parameters = {**record(folder)["settings"]["parameters"], "radius_max": radius_max}
    rewritten(folder, search_method=method, parameters=parameters)
    assert told in lights_in(folder, steps)["Search"].text
    assert (method or "exhaustive") in cld.open_results(folder).attrs["search"]


def test_of_results_that_do_not_say_how_they_were_searched_nothing_is_told(rng):
    text = lights_of(summarise_results(make_results(rng)))["Search"].text
    assert text.endswith("apart).")


def test_what_a_search_leaves_out_is_told(rng):
    results = make_results(rng, search="adaptive", radius_max=16.0)
    lacking = xr.zeros_like(results.log_likelihood_integrated)
    lacking[:] = np.linspace(0, 0.4, 40)
    lights = lights_of(summarise_results(results.assign(log_likelihood_error=lacking)))
    told = "estimated to lack 0.4 nat at most, and up to 0.38 nat in 95% of the images."
    assert told in lights["Search"].text


def record(folder):
    return json.loads((folder / "template0/done/stack_000000.json").read_text())
