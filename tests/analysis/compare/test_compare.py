"""Two runs held against each other: images by their names, whatever their rows."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.analysis.compare import compare as comparing
from cryolike_dask.analysis.pose_errors import angles_degree, directions
from cryolike_dask.analysis.report.about_comparison import sentence_of
from cryolike_dask.analysis.report.comparison_page import write_page
from cryolike_dask.analysis.report.page import OURS
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.geometry.symmetry import point_group
from tests.analysis.making import make_results, named, without
from tests.conftest import Builder

PARAMETERS = cld.ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=3.0, precision="single")


@pytest.fixture
def pair(rng):
    """Two runs of the same images under the same structures, of other numbers."""
    names = ("closed", "open", "ajar")
    return (
        named(make_results(rng, names, folder="/runs/one")),
        named(make_results(rng, names, folder="/runs/two", precision="double")),
    )


def test_assignments_are_counted_as_a_loop_does(pair):
    first, second = pair
    found = cld.compare_runs(first, second)
    best = [r.log_likelihood_integrated.values.argmax(axis=0) for r in pair]
    names = first.structure.values
    counts = np.zeros((3, 3), int)
    for a, b in zip(*best, strict=True):
        counts[a, b] += 1
    np.testing.assert_array_equal(found.n_images_both, counts)
    np.testing.assert_array_equal(found.changed, best[0] != best[1])
    assert found.attrs["agreement"] == pytest.approx(np.trace(counts) / 40)
    assert found.attrs["n_changed"] == (best[0] != best[1]).sum()
    np.testing.assert_array_equal(found.best_structure.values, names[np.array(best)])
    reference = names[counts.sum(axis=1).argmax()]
    assert found.attrs["reference"] == reference
    for run, results in enumerate(pair):
        ratio = cld.log_likelihood_ratio(results, reference)
        np.testing.assert_allclose(found.log_likelihood_ratio[run], ratio)
    sure = (found.probability > 0.95).all("run").values
    assert found.attrs["n_changed_sure"] == (sure & found.changed.values).sum()


def test_a_run_agrees_with_a_copy_of_itself(pair):
    found = cld.compare_runs(pair[0], pair[0].assign_attrs(folder="/elsewhere"))
    assert (found.attrs["agreement"], found.attrs["n_changed"]) == (1.0, 0)
    np.testing.assert_allclose(found.direction_difference, 0, atol=1e-6)
    assert found.sizes["setting"] == 0


@pytest.mark.parametrize("elsewhere", [False, True])
def test_rows_may_be_others(pair, rng, elsewhere):
    """By path, or where the images have moved by the names of their files."""
    first, second = pair
    order = rng.permutation(40)[:25]
    moved = second.isel(image=order).assign_coords(image=np.arange(25))
    if elsewhere:
        moved = moved.assign_coords(
            image_file=("image", np.array(["/other/place/a.mrcs"] * 25, object))
        )
    found = cld.compare_runs(first, moved)
    whole = cld.compare_runs(first, second).isel(image=np.sort(order))
    np.testing.assert_array_equal(found.rlnImageName.str.slice(0, 6), whole.rlnImageName.str[:6])
    np.testing.assert_array_equal(found.changed, whole.changed)
    assert (found.attrs["n_only_first"], found.attrs["n_only_second"]) == (15, 0)
    assert ("name of the file" in found.attrs["matched_by"]) == elsewhere


def test_only_common_structures_compete(pair):
    first, second = pair
    found = cld.compare_runs(first, second.sel(structure=["open", "closed"]))
    assert found.structure.values.tolist() == ["closed", "open"]
    best = first.log_likelihood_integrated[:2].values.argmax(axis=0)
    np.testing.assert_array_equal(found.best_structure[0], np.array(["closed", "open"])[best])


def test_decoys_are_left_out_and_missing_results_not_compared(pair):
    first, second = (
        r.assign_coords(decoy_of=("structure", np.array(["", "", "open"], object))) for r in pair
    )
    gone = np.zeros((3, 40), bool)
    gone[1, :10] = True
    found = cld.compare_runs(without(first, gone), second)
    assert found.structure.values.tolist() == ["closed", "open"]
    assert found.attrs["n_images"] == 30
    assert not found.changed[:10].any()
    gone[1] = True
    alone = without(first, gone | np.array([[True], [False], [False]]))
    with pytest.raises(InputError, match="no image has results under all"):
        cld.compare_runs(alone, second)


def test_directions_that_look_the_same_are_the_same(pair, rng):
    """Moved by a rotation of the group, and by brute force over it."""
    symmetric = [r.assign_attrs(symmetry="D3") for r in pair]
    group = point_group("D3")
    first = directions(
        symmetric[0].optimal_azimuth.values.ravel(), symmetric[0].optimal_polar.values.ravel()
    )
    turned = np.stack([group.rotations[rng.integers(6)] @ v for v in first.T], axis=1)
    again = symmetric[0].assign_attrs(folder="/elsewhere")
    again["optimal_azimuth"].values[:] = np.arctan2(turned[1], turned[0]).reshape(3, 40)
    again["optimal_polar"].values[:] = np.arccos(turned[2]).reshape(3, 40)
    found = cld.compare_runs(symmetric[0].copy(deep=True), again)
    np.testing.assert_allclose(found.direction_difference, 0, atol=1e-5)
    other = rng.standard_normal(first.shape)
    other /= np.linalg.norm(other, axis=0)
    cosines = [
        [v @ (r @ w) for r in group.rotations] for v, w in zip(first.T, other.T, strict=True)
    ]
    expected = np.degrees(np.arccos(np.clip(np.max(cosines, axis=1), -1, 1)))
    np.testing.assert_allclose(angles_degree(first, other, "D3"), expected, atol=1e-5)
    unlike = pair[1].assign_attrs(symmetry="C2")
    assert "direction_difference" not in cld.compare_runs(symmetric[0], unlike)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (
            lambda r: r.assign_coords(structure=["x", "y", "z"]),
            "no structure in common.*ajar.*x, y",
        ),
        (lambda r: named(r, "/data/b.mrcs"), "no image in common: 000001@/data/run/a.mrcs"),
        (lambda r: r.drop_vars("image_file").isel(image=slice(9)), "40 and 9 images"),
        (lambda r: r.isel(image=[0, 1, 1]), "000002@/data/run/a.mrcs is there 2 times"),
        (lambda r: r.drop_vars("log_likelihood_integrated"), "no results"),
        (lambda r: r.assign_attrs(folder="/runs/one"), "both runs are /runs/one"),
        (lambda r: "/no/such/folder", "/no/such/folder"),
    ],
)
def test_what_cannot_be_compared_is_refused(pair, spoil, match):
    with pytest.raises(InputError, match=match):
        cld.compare_runs(pair[0], spoil(pair[1]))


def test_where_files_are_not_recorded_the_order_counts(rng):
    first, second = make_results(rng), make_results(rng)
    found = cld.compare_runs(first, second)
    assert found.attrs["matched_by"] == "order"
    assert found.run.values.tolist() == ["run 1", "run 2"]


def test_figures_say_what_was_compared(pair):
    found = cld.compare_runs(*pair)
    axes = cld.plot_ratios(found).axes[0]
    shown = sum(len(dots.get_offsets()) for dots in axes.collections)
    assert shown == 40
    cells = [int(text.get_text()) for text in cld.plot_changes(found).axes[0].texts]
    assert cells == found.n_images_both.values.ravel().tolist()
    with pytest.raises(InputError, match="no comparison"):
        cld.plot_changes(pair[0])
    with pytest.raises(InputError, match="one structure"):
        cld.plot_ratios(cld.compare_runs(*(r.isel(structure=[0]) for r in pair)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same files, the second of a wider search."""
    folder = tmp_path_factory.mktemp("runs")
    first, second = (
        cld.configure_likelihood_files(folder / "t", folder / "p", folder / name, i_template="all")
        for name in ("one", "two")
    )
    recorded = {
        "idxs": lambda k, n: np.arange(n),
        "files": lambda k, n: np.array([f"{k}.mrcs"] * n),
    }
    Builder(np.random.default_rng(0)).write_files(
        first, PARAMETERS, ("closed", "open"), (6, 5), frame=lambda k, n: "xy", **recorded
    )
    for files, n in ((first, 3), (second, 5)):
        search = cld.configure_displacement(1.5, n, n)
        cld.run_likelihood_optimal_pose(files, PARAMETERS, search, noise="white", progress=False)
    (folder / "one/run.yaml").write_text("search: {n_displacements_x: 3}\noutput: one\n")
    (folder / "two/run.yaml").write_text("search: {n_displacements_x: 5}\noutput: two\n")
    return folder


def test_settings_are_those_of_records_and_of_the_run_yaml(runs):
    found = cld.compare_runs(runs / "one", runs / "two")
    differ = {
        str(name): tuple(map(str, values))
        for name, *values in zip(found.setting.values, *found.setting_value.values, strict=True)
    }
    assert differ["n displacements"] == ("9", "25")
    assert differ["run.yaml: search.n_displacements_x"] == ("3", "5")
    assert not [name for name in differ if "folder" in name or "output" in name]


def test_command_and_page(runs, tmp_path):
    shutil.copytree(runs / "two", tmp_path / "two")
    done = CliRunner().invoke(
        app, ["compare", str(runs / "one"), str(tmp_path / "two")], env={"COLUMNS": "300"}
    )
    assert done.exit_code == 0, done.output
    comparison = cld.compare_runs(runs / "one", tmp_path / "two")
    assert sentence_of(comparison) in done.output
    assert "n displacements" in done.output
    page = tmp_path / "two/comparison.html"
    assert str(page) in done.output
    text = page.read_text()
    assert OURS.decode() in text
    table = json.loads(re.search(r'id="particles-data">(.*?)</script>', text)[1])
    assert table["n"] == 11
    changed = table["columns"][1]
    flags = [changed["words"][i] for i in changed["values"]]
    assert flags == sorted(flags, reverse=True)
    assert flags.count("yes") == comparison.attrs["n_changed"]
    shown = " ".join(re.sub("<[^>]*>", " ", text).split())
    of_each = comparison.n_images_both.values
    first, second = of_each.sum(axis=1)[0], of_each.sum(axis=0)[0]
    assert f"closed {first} ({first / 11:.1%}) {second} ({second / 11:.1%})" in shown
    assert cld.write_comparison(runs / "one", tmp_path / "two") == page
    page.write_text("mine")
    with pytest.raises(OutputError, match="no web page"):
        write_page(comparison, page)
    failed = CliRunner().invoke(app, ["compare", str(runs / "one"), str(runs / "one")])
    assert failed.exit_code == 3
    assert "both runs are" in " ".join(failed.output.split())


def test_names_of_runs_tell_them_apart():
    assert comparing._names(["/a/x/results", "/a/y/results"]) == ["x/results", "y/results"]
    assert comparing._names(["", ""]) == ["run 1", "run 2"]


def test_the_page_of_names_that_are_code_is_text(pair, tmp_path):
    evil = "<script>alert(1)</script>"
    spoilt = [r.assign_coords(structure=[evil, "a & b", "c"]) for r in pair]
    page = cld.write_comparison(*spoilt, tmp_path / "c.html")
    assert evil not in page.read_text()
    assert isinstance(cld.compare_runs(*spoilt), xr.Dataset)
