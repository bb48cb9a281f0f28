"""The report: what it says of a real run, and that it believes no name."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.analysis.report.about_poses import Inputs, examples_section
from cryolike_dask.analysis.report.about_structures import (
    structures_section,
    truth_section,
)
from cryolike_dask.analysis.report.report import write_report
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.simulation.demo import write_hinge
from tests.analysis.making import make_results, with_truth, without
from tests.conftest import Builder

PARAMETERS = cld.ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=3.0, precision="single")
SEARCH = cld.configure_displacement(1.5, 3, 2)
EVIL = (
    "<script>alert(1)</script>",
    "a & \"b\" 'c' $x_1$",
    "</style><img src=http://127.0.0.1:9/x.png>",
)


class Parsed(HTMLParser):
    """The elements of a page, its text, and its figures by their names."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.words, self.figures, self.within = [], [], {}, None
        self.feed(Path(path).read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "figure":
            self.within = attributes["id"].removeprefix("figure-")
        if tag == "svg":
            self.figures[self.within] = attributes

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] not in ("script", "style"):
            self.words.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of two structures and two stacks of particles whose poses are recorded."""
    folder = tmp_path_factory.mktemp("results & 'more'")
    files = cld.configure_likelihood_files(
        folder / "t", folder / "p", folder / "out", i_template="all"
    )
    recorded = {
        "metadataFile": lambda k, n: np.array(["/data/particles <b>.star"] * n),
        "angleRotation": lambda k, n: np.linspace(0, 1, n),
        "angleTilt": lambda k, n: np.linspace(0, 1, n),
        "frame": lambda k, n: "xy",
    }
    Builder(np.random.default_rng(0)).write_files(
        files, PARAMETERS, ("closed", "open"), (6, 5), **recorded
    )
    cld.run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, progress=False, noise="white")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may spoil, whose inputs stay where they are."""
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def test_the_report_of_a_run(made, folder):
    page = write_report(folder)
    assert page == folder / "report.html"
    found = Parsed(page)
    names = [
        "populations",
        "ratio",
        "correlation-histogram",
        "displacement-map",
        "directions",
        "rotations",
        "direction-errors",
    ]
    assert list(found.figures) == [*names, "best", "worst", "block-times"]
    for name, attributes in found.figures.items():
        assert attributes["role"] == "img", name
        assert len(attributes["aria-label"]) > 20
    for said in (
        "11 images compared with 2 structures",
        "2: closed, open",
        str(made / "t"),
        "/data/particles <b>.star",
        "12 pixels of 1.5 Å: 18 Å",
        "7 displacements, up to 2.25 Å along x and 2.25 Å along y; 20 in-plane rotations, 18° "
        "apart",
        "standard",
        "single",
        "auto (used: cpu)",
        "4 blocks took",
        f"Written by cryolike_dask {cld.__version__}",
    ):
        assert said in found.text, said
    n_on_edge = re.search(
        r"(\d+) of 11 images \(\d+%\) fit best on the edge of the search", found.text
    )
    x = cld.open_results(folder)
    best = x.log_likelihood_integrated.argmax("structure").values, np.arange(11)
    shifts = np.abs([x.optimal_displacement_x.values[best], x.optimal_displacement_y.values[best]])
    assert int(n_on_edge[1]) == (shifts.max(0) > 2.249).sum()


def test_it_is_alone_and_believes_no_name(rng, tmp_path):
    results = with_truth(
        make_results(rng, EVIL, folder=f"/tmp/{EVIL[0]}", folder_templates=EVIL[1]), rng
    )
    page = write_report(results, tmp_path / "a 'page' & more.html")
    found = Parsed(page)
    drawn = {
        "svg",
        "g",
        "path",
        "defs",
        "use",
        "text",
        "tspan",
        "clippath",
        "rect",
        "image",
        "style",
    }
    tags = (
        "html head meta title style body header h1 h2 h3 p section ul ol li a main table caption "
        "thead tbody tr th td div span figure figcaption footer strong blockquote pre button label "
        "input select option noscript script"
    )
    assert {tag for tag, _ in found.elements} <= {*tags.split()} | drawn
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in {"src", "href", "action", "xlink:href"} & {*attributes}:
            assert attributes[name].startswith(("#", "data:image/png;base64,")), (
                tag,
                attributes[name],
            )
    assert sum(tag == "script" for tag, _ in found.elements) == 2  # ours, and the data
    for name in EVIL:
        assert name in found.text
    page_text = page.read_text()
    assert set(re.findall(r"url\((.)", page_text)) <= {"#"}
    assert "@import" not in page_text


def test_whatever_records_say_is_in_the_table(folder):
    for i, path in enumerate(sorted(folder.glob("template*/done/*.json"))):
        record = json.loads(path.read_text()) | {"note": EVIL[i % 2], "queue": {"name": "gpu"}}
        path.write_text(json.dumps(record))
    page = write_report(folder)
    text = Parsed(page).text
    assert f"Note {EVIL[0]}; {EVIL[1]}" in text
    assert 'Queue {"name": "gpu"}' in text
    assert EVIL[0] not in page.read_text()


def test_what_to_beware_of_comes_first(rng, folder, caplog):
    results = make_results(rng)
    results["cross_correlation"] *= -1
    results["optimal_displacement_x"][:] = 6
    gone = np.zeros((2, 40), bool)
    gone[:, 30:] = True
    found = Parsed(write_report(without(results, gone).chunk(), folder.parent / "report.html"))
    assert "3 warnings" in found.text
    said = ("10 of 40 images have no result yet", "100% of the best", "edge of the search")
    assert max(found.text.index(text) for text in said) < found.text.rindex("What was run")
    assert sum("--invert-contrast" in record.message for record in caplog.records) == 1
    assert "No warnings" not in found.text


def examples(results, **inputs):
    """The names of the figures of examples, and what is said beside them."""
    given = {"templates": None, "particles": None, "parameters": None, **inputs}
    section = examples_section(summarise_results(results), 1, Inputs(**given))
    return [panel.key for panel in section.panels], " ".join(section.paragraphs)


def test_without_inputs_the_rest_is_there(made, folder, rng):
    results = cld.open_results(folder)
    found = Parsed(write_report(results.assign_attrs(folder_templates="")))
    assert {"ratio", "block-times"} <= {*found.figures}
    assert {"best", "worst"}.isdisjoint(found.figures)
    said = (
        "Particles cannot be shown: the results do not say where the templates are. Give "
        "templates (--templates)."
    )
    assert said in found.text
    for name in ("folder_templates", "folder_particles"):
        shown, said = examples(results.assign_attrs({name: str(folder / "nowhere")}))
        assert not shown
        assert "nowhere" in said
    elsewhere = results.assign_attrs(folder_templates="", folder_particles="")
    assert examples(elsewhere, templates=made / "t", particles=made / "p") == (
        ["best", "worst"],
        "",
    )


def test_inputs_that_have_changed_are_noticed(folder, tmp_path):
    results = cld.open_results(folder)
    assert examples(results) == (["best", "worst"], "")
    files = cld.configure_likelihood_files(tmp_path / "t", tmp_path / "p", tmp_path / "other")
    Builder(np.random.default_rng(1)).write_files(files, PARAMETERS, ("closed", "open"), (6, 5))
    assert "have changed since the run" in examples(results, particles=tmp_path / "p")[1]


def test_particles_and_structures_that_were_read_by_the_run(tmp_path):
    path, structures = tmp_path / "parameters.npz", tmp_path / "structures"
    parameters = cld.make_parameters(
        16, 6.0, viewing_distance=2.0, atom_shape="gaussian", path=path
    )
    for name, opening in (("closed", 0.0), ("open", 0.9)):
        write_hinge(structures / f"{name}.pdb", opening)
    star = cld.simulate_particles(
        structures, parameters, tmp_path / "relion", n_images=7, progress=False
    )
    files = cld.configure_likelihood_files(None, None, tmp_path / "out", i_template="all")
    opened = {"images": cld.open_particles(star, parameters, batch_size=3)}
    opened["templates"] = cld.open_structures(structures, parameters)
    search = cld.configure_displacement(1, 3, 3)
    cld.run_likelihood_optimal_pose(
        files, parameters, search, **opened, progress=False, noise="white"
    )
    inputs = {"templates": structures, "particles": star, "parameters": path}
    found = Parsed(write_report(tmp_path / "out", **inputs, n_examples=1))
    assert {"best", "worst", "confusion", "reliability"} <= {*found.figures}
    assert "have changed" not in found.text
    results = cld.open_results(tmp_path / "out")
    assert examples(results, templates=opened["templates"], particles=opened["images"]) == (
        ["best", "worst"],
        "",
    )


def test_one_structure_and_many(rng, tmp_path):
    one = Parsed(
        write_report(make_results(rng, ("open",)).isel(structure=0), tmp_path / "one.html")
    )
    assert "There is one structure" in one.text
    assert {"ratio", "assignment", "populations"}.isdisjoint(one.figures)
    many = with_truth(make_results(rng, [f"frame_{i}" for i in range(50)]), rng)
    found = Parsed(write_report(many.chunk({"structure": 10, "image": 15}), tmp_path / "many.html"))
    assert "assignment" in found.figures
    assert "50: frame_0, frame_1, frame_2, frame_3, frame_4 and 45 more" in found.text
    assert "40 others" in found.text  # of the table of shares
    gone = (np.arange(50)[:, None] + np.arange(40)) % 40 == 0
    apart = without(many, gone)
    section = structures_section(apart, summarise_results(apart))
    assert (section.paragraphs, section.panels) == (
        ("No image has results under all structures yet.",),
        (),
    )
    assert truth_section(summarise_results(apart)) is None
    alone = without(many, np.arange(50)[:, None] * np.ones(40) > 0)
    assert structures_section(alone, summarise_results(alone)) == section
    assert truth_section(summarise_results(alone)) is None


def test_other_files_are_not_replaced(rng, tmp_path):
    results, page = make_results(rng, ("open",)), tmp_path / "report.html"
    page.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(
            OutputError, match=r"report\.html: is there already, and is no web page"
        ):
            write_report(results, page, overwrite=overwrite)
    assert page.read_text() == "mine"
    page.write_text("<!DOCTYPE html>mine")
    with pytest.raises(
        OutputError, match=r"report\.html: is there already, and is no report.*--overwrite"
    ):
        write_report(results, page)
    assert page.read_text() == "<!DOCTYPE html>mine"
    write_report(results, page, overwrite=True, n_examples=0)
    page.write_text(page.read_text().replace("</html>", "earlier"))
    write_report(results, page, n_examples=0)
    assert page.read_text().endswith("</html>\n")
    with pytest.raises(OutputError, match="is a folder"):
        write_report(results, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_wrong_arguments_are_refused(rng, folder, tmp_path):
    results = make_results(rng)
    for n, match in ((-1, "n_examples=-1"), (13, "n_examples=13.*at most 12")):
        with pytest.raises(InputError, match=match):
            write_report(folder, n_examples=n)
    with pytest.raises(InputError, match="do not say in which folder"):
        write_report(results)
    with pytest.raises(InputError, match="no image has a result"):
        write_report(without(results, np.ones((2, 40), bool)), tmp_path / "report.html")
    with pytest.raises(InputError, match="nowhere"):
        write_report(tmp_path / "nowhere")
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_table_of_blocks_costs_its_section_only(folder):
    (folder / "blocks.csv").write_bytes(b"\x00\xff")
    assert "block-times" not in Parsed(write_report(folder, n_examples=0)).figures


def test_command(folder, tmp_path, made):
    done = CliRunner().invoke(
        app, ["report", str(folder), "--n-examples", "0"], env={"COLUMNS": "500"}
    )
    assert done.exit_code == 0, done.output
    assert str(folder / "report.html") in done.output
    options = [
        "--output",
        tmp_path / "x.html",
        "--templates",
        made / "t",
        "--particles",
        made / "p",
        "--n-examples",
        1,
    ]
    done = CliRunner().invoke(app, [str(part) for part in ("report", folder, *options)])
    assert done.exit_code == 0, done.output
    assert "best" in Parsed(tmp_path / "x.html").figures
    failed = CliRunner().invoke(app, ["report", str(tmp_path / "nothing")])
    assert failed.exit_code == 3
    assert "nothing" in failed.output
