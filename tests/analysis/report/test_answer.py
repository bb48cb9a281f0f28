"""What the report says first: the answer, whether to trust it, and what to do next."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import yaml

import cryolike_dask as cld
from cryolike_dask.analysis.decoys.of_results import competition_if_any
from cryolike_dask.analysis.findings import Finding
from cryolike_dask.analysis.lights import Light, Lights
from cryolike_dask.analysis.report.about_belief import basis_of
from cryolike_dask.analysis.report.about_populations import how_much
from cryolike_dask.analysis.report.next_steps import next_steps
from cryolike_dask.analysis.report.report import write_report
from cryolike_dask.analysis.report.sentence import sentence
from cryolike_dask.analysis.report.trust import edge_light, trust
from cryolike_dask.analysis.run_file import RunFile, run_file
from cryolike_dask.analysis.search_steps import Step
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.errors import OutputError
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.io.export_names import REPORT
from tests.analysis.making import make_results, without
from tests.analysis.report.test_report import Parsed

DESCRIBED = RunFile("run.yaml", "", {})
FINE = [Step("displacements", 2.0, 0.4), Step("views", 0.1, 2.0)]


def lights_of(results, steps=FINE):
    summary = summarise_results(results)
    return trust(summary, steps, basis_of(summary))


def steps_of(results, steps=FINE, described=None, *, has_decoys=True):
    summary = summarise_results(results)
    lights = trust(summary, steps, basis_of(summary))
    return next_steps(summary, steps, lights, described, has_decoys=has_decoys)


def inside(results):
    """The same, no best displacement being on the edge."""
    middle = {f"optimal_displacement_{axis}": results.optimal_displacement_x * 0 for axis in "xy"}
    return results.assign(middle)


def changes(found):
    """What the run.yaml should say otherwise."""
    (text,) = [step.changes for step in found if step.changes]
    return yaml.safe_load(text)


def test_there_is_a_light_for_each_of_five_things(rng):
    lights = lights_of(make_results(rng))
    assert list(lights) == ["Noise", "Search", "Edge", "Calibration", "Fit"]
    for light in lights.values():
        assert all(part.text.endswith((".", "results")) for part in light.parts.values())


def test_several_lights_have_the_colour_of_the_worst():
    for colours, worst in (("good good", "good"), ("good unsure", "unsure"), ("bad unsure", "bad")):
        parts = {str(i): Light(colour, "") for i, colour in enumerate(colours.split())}
        assert Lights(parts).colour == worst


def test_the_edge(rng):
    results = make_results(rng)
    results.optimal_displacement_x[:] = 6
    assert edge_light(summarise_results(results)).colour == "bad"
    results.optimal_displacement_x[:] = 0
    results.optimal_displacement_y[:] = 0
    light = edge_light(summarise_results(results))
    assert light.colour == "good"
    assert light.text.startswith("0 of 40 images")
    unknown = results.assign_attrs(displacements_x_angstrom=[], displacements_y_angstrom=[])
    assert "Not known" in edge_light(summarise_results(unknown)).text
    none = results.assign_attrs(displacements_x_angstrom=[0.0], displacements_y_angstrom=[0.0])
    assert "centred" in edge_light(summarise_results(none)).text


@pytest.mark.parametrize(
    ("n_small", "colour"), [(0, "good"), (1, "good"), (3, "unsure"), (20, "bad")]
)
def test_residuals_are_part_of_the_fit(rng, n_small, colour):
    results = make_results(rng)
    assert lights_of(results)["Fit"].parts["Residuals"].colour == "unsure"
    p = np.where(np.arange(40) < n_small, 1e-4, 0.5)
    fitted = results.assign_coords(residual_p_value=("image", p))
    assert lights_of(fitted)["Fit"].parts["Residuals"].colour == colour


def test_an_inverted_contrast_is_seen(rng):
    results = make_results(rng)
    results["cross_correlation"] *= -1
    assert lights_of(results)["Fit"].colour == "bad"
    assert changes(steps_of(results, described=DESCRIBED))["particles"] == {"invert_contrast": True}


def test_the_sentence_says_shares_what_is_undecided_and_what_it_rests_on(rng):
    results = make_results(rng)
    results.log_likelihood_integrated[0, :30] += 40
    summary = summarise_results(results)
    found = how_much(results, summary, None)
    text = sentence(summary, found, lights_of(results))
    share = cld.populations(results, n_bootstrap=0)
    low, high = share.population_interval.values[0]
    n = int((summary.probability.values <= 0.95).sum())
    for said in (
        "Of 40 particles compared with closed and open",
        f"{float(share.population[0]):.0%} show closed (95% interval {low:.0%} to {high:.0%})",
        f"{n} of 40 are undecided (none above 95%)",
        "ot yet known: noise, calibration, fit and how many show none of them",
    ):
        assert said in text
    assert text.count(". ") == 1  # what was found, and how far to rely on it
    rows = dict(found.section.rows)
    assert rows["undecided"].startswith(f"{n} of 40 images")
    fine = {"noise": Lights({"": Light("good", "")})}
    differ = Finding("groups", "Half-set 1 and half-set 2 differ (p 0.001 or less): look. More.")
    assert "). Half-set 1 and half-set 2 differ (p 0.001 or less). Not yet known:" in sentence(
        summary, found, fine, [differ]
    )
    assert sentence(summary, found, fine).endswith("Not yet known: how many show none of them.")


def test_of_many_structures_the_sentence_names_few(rng):
    results = make_results(rng, [f"frame_{i}" for i in range(30)])
    summary = summarise_results(results)
    text = sentence(summary, how_much(results, summary, None), lights_of(results))
    assert "compared with 30 structures" in text
    assert "26 others" in text
    assert len(text) < 700


def test_images_of_none_are_in_the_sentence(rng):
    names = ("a", "b", "a~decoy1", "b~decoy1")
    results = make_results(rng, names, n_images=60)
    results.log_likelihood_integrated[0, :50] += 30
    decoyed = results.assign_coords(decoy_of=("structure", np.array(["", "", "a", "b"], object)))
    summary = summarise_results(decoyed)
    found = how_much(decoyed, summary, competition_if_any(decoyed))
    text = sentence(summary, found, {})
    assert f"{float(found.found.population_of_none):.0%} (" in text
    assert "show none of them" in text
    one = decoyed.isel(structure=[0, 2])
    summary = summarise_results(one)
    text = sentence(summary, how_much(one, summary, competition_if_any(one)), {})
    assert text.startswith("Of 60 particles compared with a, ")
    assert "show none of it" in text


def test_a_wider_search_keeps_its_steps(rng):
    """As the search itself makes a grid of these numbers."""
    results = make_results(rng)
    results.optimal_displacement_x[:] = 6
    search = changes(steps_of(results, described=DESCRIBED))["search"]
    assert search["max_displacement_pixels"] == 8.0
    before = DisplacementSearch(4.0, 4, 3).grid(1.5)
    after = DisplacementSearch.in_steps(
        search["max_displacement_pixels"], search["displacement_step_pixels"]
    ).grid(1.5)

    def steps(grid):
        return [
            np.diff(np.unique(np.round(v, 3)[:-1])).min()
            for v in (grid.x_angstrom, grid.y_angstrom)
        ]

    np.testing.assert_allclose(np.minimum(steps(after), steps(before)), steps(after), atol=1e-3)


def test_a_finer_search_loses_little(rng):
    results = inside(make_results(rng))
    coarse = [
        Step("displacements", 4.0, 20.0),
        Step("rotations", 0.26, 20.0),
        Step("views", 0.3, 20.0),
    ]
    described = RunFile("run.yaml", "", {"parameters": {"view_step_degrees": 17.2}, "output": "a"})
    found = steps_of(results, coarse, described)
    new = changes(found)
    step = new["search"]["displacement_step_pixels"] * results.attrs["pixel_size_angstrom"]
    assert coarse[0].loss * (step / 4.0) ** 2 <= 2.5 * (1 + 1e-3)
    assert new["parameters"]["view_step_degrees"] == 6.0
    n = new["parameters"]["n_inplanes"]
    assert n % 2 == 0
    assert coarse[1].loss * (2 * np.pi / n / 0.26) ** 2 <= 2.5
    assert new["output"] == "a-2"
    (again,) = [s for s in found if s.changes]
    assert "view_step_degrees: 6.0  # was 17.2; 20 nat are lost between views" in again.changes
    times = (4 / step) ** 2 * (17.2 / 6) ** 2 * n * 0.26 / (2 * np.pi)
    said = float(re.search(r"compares (\S+) times as much", again.why)[1])
    assert said == pytest.approx(times, rel=0.05)
    assert again.commands == "cryolike-dask run run.yaml --plan\ncryolike-dask run run.yaml"
    older = RunFile("run.yaml", "", {"parameters": {"viewing_distance": 0.3}})
    assert "in place of viewing_distance" in "".join(
        step.changes for step in steps_of(results, coarse, older)
    )
    healpix = RunFile("run.yaml", "", {"structures": {"healpix_order": 2}})
    assert changes(steps_of(results, coarse, healpix))["structures"]["healpix_order"] == 4


def test_every_key_is_one_of_the_run_yaml(rng):
    """The file with all changes is one that is read."""
    results = make_results(rng).assign_attrs(conventions="cryolike")
    results["cross_correlation"] *= -1
    results.optimal_displacement_x[:] = 6
    coarse = [Step(name, 0.3, 20.0) for name in ("displacements", "rotations", "views")]
    given = {
        "structures": {"files": "a.pdb"},
        "particles": {"metadata": "particles.star"},
        "parameters": {"n_pixels": 24, "pixel_size_angstrom": 5.0},
        "output": "results",
    }
    found = steps_of(results, coarse, RunFile("run.yaml", "", given), has_decoys=False)
    new = changes(found)
    assert set(new) == {"structures", "particles", "parameters", "search", "likelihood", "output"}
    merged = dict(given)
    for section, its in new.items():
        merged[section] = {**given.get(section, {}), **its} if isinstance(its, dict) else its
    config = cld.read_config(merged)
    assert config.search.max_displacement_pixels == 8.0
    assert config.particles.invert_contrast
    summary = summarise_results(inside(make_results(rng)))
    lights = trust(summary, FINE, basis_of(summary))
    white = Lights({"Noise": Light("unsure", "Supposed to be white.")})
    found = next_steps(summary, FINE, {**lights, "Noise": white}, DESCRIBED, has_decoys=True)
    assert cld.read_config({**given, **changes(found)}).noise.spectrum == "estimate"


def test_without_a_run_yaml_they_are_options(rng):
    results = make_results(rng, folder="/a folder/out")
    results.optimal_displacement_x[:] = 6
    first = steps_of(results, has_decoys=False)[0]
    assert not first.changes
    assert "--max-displacement-pixels 8.0" in first.commands
    assert "--decoys 1" in first.commands


def test_what_is_fine_needs_no_other_run(rng):
    found = steps_of(inside(make_results(rng, folder="/a folder/out")))
    assert [step.commands.split()[1] for step in found if step.changes] == []
    assert any(
        shlex.split(step.commands)[:3] == ["cryolike-dask", "residuals", "/a folder/out"]
        for step in found
    )


def test_partial_results_go_on_first(rng):
    gone = np.zeros((2, 40), bool)
    gone[:, 30:] = True
    described = RunFile("/x y/run.yaml", "", {})
    first = steps_of(without(make_results(rng), gone), described=described)[0]
    assert first.commands == "cryolike-dask run '/x y/run.yaml'"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"[1, 2]", b"a: [", b"!!python/object:os.x {}", b"output: 3\n"],
)
def test_a_run_yaml_that_is_spoilt_is_shown_as_it_is(rng, tmp_path, content):
    results = make_results(rng, folder=str(tmp_path))
    results.optimal_displacement_x[:] = 6
    assert run_file(results) is None
    (tmp_path / "run.yaml").write_bytes(content)
    described = run_file(results)
    assert described.path == str(tmp_path / "run.yaml")
    write_report(results, n_examples=0, progress=False)
    page = Parsed(tmp_path / REPORT)
    assert "What was run" in page.text
    assert f"cryolike-dask run {tmp_path / 'run.yaml'}" in page.text


def test_the_run_yaml_and_the_command_come_last(rng, tmp_path):
    source = tmp_path / "mine.yaml"
    source.write_text("output: results\n")
    results = tmp_path / "results"
    results.mkdir()
    copy = f"# Copied from '{source}', cryolike-dask 0.1.0\nfolder: {tmp_path}\noutput: results\n"
    (results / "run.yaml").write_text(copy)
    page = Parsed(
        write_report(make_results(rng, folder=str(results)), n_examples=0, progress=False)
    )
    assert page.text.index("Particles") < page.text.index("What was run")
    assert f"cryolike-dask run {source}" in page.text.partition("What was run")[2]
    assert "output: results" in page.text.partition("What was run")[2]


def test_figures_in_files(rng, tmp_path):
    page = write_report(
        make_results(rng), tmp_path / "r.html", figures=tmp_path / "f", n_examples=0, progress=False
    )
    names = set(Parsed(page).figures)
    assert {path.name for path in (tmp_path / "f").iterdir()} == {
        f"{name}.{suffix}" for name in names for suffix in ("svg", "pdf", "png")
    }
    assert (tmp_path / "f/ratio.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "f/ratio.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "f/ratio.svg").read_text()
    assert "log-likelihood ratio" in svg
    assert "var(" not in svg  # black on white, for papers
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file"):
        write_report(
            make_results(rng), tmp_path / "s.html", figures=tmp_path / "file", progress=False
        )
    assert not (tmp_path / "s.html").exists()
