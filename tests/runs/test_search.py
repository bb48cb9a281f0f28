"""The method of search of a run: asked for, kept in records, the same for all best poses of a
folder."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import cryolike_dask as cld
from cryolike_dask import labels
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.io.records import checksum
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.projection import project
from tests.optics import microscope
from tests.real_space import StarPoses, render, two_lobes

TINY = cld.ImageParameters(
    n_pixels=12, pixel_size_angstrom=1.5, n_inplanes=20, viewing_distance=3.0
)
SEARCH = cld.configure_displacement(1.5, 3, 2)
RECORD = "template0/done/stack_000000.json"
ADAPTIVE = {"search": "adaptive"}
OF_SEARCH = ("log_likelihood_error", "n_poses_compared")
HALF_PIXELS = "cryolike_dask.likelihoods.search.adaptive.HALF_PIXELS"


@pytest.fixture
def files(tmp_path, build):
    """Two structures and two stacks, in a band too narrow for levels."""
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out", i_template="all"
    )
    build.write_files(files, TINY, sizes=(4, 3))
    return files


def run(files, kind=cld.run_likelihood_optimal_pose, **options):
    """A run as a user's."""
    parameters = files.folder_templates / "parameters.npz"
    options = {"progress": False, "device": "cpu", "noise": "white", **options}
    return kind(files, parameters, SEARCH, **options)


def full(files, **options):
    return run(files, cld.run_likelihood_full_cross_correlation, **options)


def record(folder, name=RECORD):
    return json.loads((folder / name).read_text())


def test_a_band_too_narrow_is_searched_whole_and_recorded_as_asked(files, tmp_path):
    found = run(files, **ADAPTIVE)
    everything = run(replace(files, folder_output=tmp_path / "whole"))
    assert found.drop_attrs().drop_vars(OF_SEARCH).identical(everything.drop_attrs())
    assert (found.log_likelihood_error == 0).all()
    assert (found.attrs["search"], everything.attrs["search"]) == ("adaptive", "exhaustive")
    assert record(files.folder_output)["settings"]["search_method"] == "adaptive"
    assert "search_method" not in record(tmp_path / "whole")["settings"]


@pytest.mark.parametrize("method", ["adaptive", "exhaustive"])
def test_what_nobody_names_goes_on_as_it_was(files, caplog, method):
    run(files, n_stacks=1, search=method)
    before = record(files.folder_output)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        run(files, skip_exist=True)
    assert f"search: as of the results that are there, {method}" in caplog.text
    settings = record(files.folder_output, "template1/done/stack_000001.json")["settings"]
    assert settings == before["settings"]
    assert cld.open_results(files.folder_output).attrs["search"] == method


@pytest.mark.parametrize(
    ("half_pixels", "conventions", "method"),
    [(4, "standard", "adaptive"), (32, "standard", "exhaustive"), (4, "cryolike", "exhaustive")],
)
def test_a_new_folder_is_searched_coarse_to_fine_where_that_is_possible(
    files, monkeypatch, half_pixels, conventions, method
):
    monkeypatch.setattr(HALF_PIXELS, half_pixels)
    found = run(files, n_stacks=1, i_template=0, search="auto", conventions=conventions)
    assert found.attrs["search"] == method
    shutil.rmtree(files.folder_output)
    # as results are, whatever a new folder would be
    run(files, n_stacks=1, i_template=0, conventions=conventions)
    kept = run(files, skip_exist=True, search="auto", conventions=conventions)
    assert kept.attrs["search"] == "exhaustive"
    assert full(files, i_template=0, search="auto", conventions=conventions).image.size == 7


@pytest.mark.parametrize("skip_exist", [True, False])
@pytest.mark.parametrize(
    ("first", "second"), [("adaptive", "exhaustive"), ("exhaustive", "adaptive")]
)
def test_results_of_the_other_method_are_refused_or_replaced(files, first, second, skip_exist):
    run(files, n_stacks=1, search=first)
    parameters = files.folder_templates / "parameters.npz"
    options = {"search": second, "skip_exist": skip_exist}
    message = rf"holds results of another search .*: {first} there, {second} here"
    with pytest.raises(OutputError, match=message):
        run(files, **options)
    with pytest.raises(OutputError, match=message):
        cld.plan_likelihood(
            files, parameters, SEARCH, noise="white", measure=False, progress=False, **options
        )
    run(files, n_stacks=1, i_template=1, overwrite=True, **options)
    assert not (files.folder_output / RECORD).exists()
    assert cld.open_results(files.folder_output).attrs["search"] == second


def test_one_that_begins_beside_a_run_of_the_other_method(files, monkeypatch):
    from cryolike_dask.runs import writing

    stream, said = writing.stream, []

    def beside(*arguments, **options):
        monkeypatch.setattr(writing, "stream", stream)
        with pytest.raises(OutputError, match="search method: adaptive there, exhaustive here"):
            run(files, search="exhaustive")
        said.append(True)
        return stream(*arguments, **options)

    monkeypatch.setattr(writing, "stream", beside)
    run(files, **ADAPTIVE)
    assert said


def test_full_correlations_keep_every_pose(files):
    with pytest.raises(InputError, match="full cross-correlations keep every pose"):
        full(files, i_template=0, **ADAPTIVE)
    assert not files.folder_output.exists()
    run(files, **ADAPTIVE)
    correlations = full(files, i_template=0, search="exhaustive")
    assert correlations.attrs["search"] == "exhaustive"
    # and best poses go on beside them
    run(files, skip_exist=True, **ADAPTIVE)
    checked = cld.verify_likelihood(
        files.folder_output,
        templates=files.folder_templates,
        images=files.folder_particles,
        n_samples=30,
        progress=False,
    )
    assert checked.findings == ()
    assert set(checked.sample.kind.values) == {"optimal_pose", "full_cross_correlation"}


def test_posteriors_over_poses_are_written_where_they_are_asked_for(files, tmp_path, caplog):
    run(files, n_stacks=1)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        run(files, skip_exist=True, pose_posteriors=True)
    assert "best_pose_probability_stack_000000.pt is missing" in caplog.text
    results = cld.open_results(files.folder_output)
    assert set(labels.OF_POSTERIOR) <= set(cld.open_optimal_pose(files))
    assert results.n_significant_poses.dtype == np.int64
    assert (results.n_significant_poses >= 1).all()
    probability = results.best_pose_probability
    assert bool(((probability > 0) & (probability <= 1)).all())
    assert results.orientation_radius_95.notnull().all()
    inputs = {"templates": files.folder_templates, "images": files.folder_particles}
    checked = cld.verify_likelihood(files.folder_output, **inputs, n_samples=3, progress=False)
    assert checked.findings == ()
    run(files, skip_exist=True)
    assert set(labels.OF_POSTERIOR) <= set(cld.open_results(files.folder_output))
    # none that are not of the results that lie there
    run(files, n_stacks=1)
    left = cld.open_results(files.folder_output).best_pose_probability
    assert left.isnull().values.tolist() == [[True] * 4 + [False] * 3] * 2
    with pytest.raises(InputError, match="posteriors of poses are asked for, but full"):
        full(files, i_template=0, pose_posteriors=True)


def recorded(rng):
    """Entries of stacks: any poses, particles near the middle."""

    def angles(_, n):
        return rng.uniform(0, np.pi, n)

    def origins(_, n):
        return rng.uniform(-0.5, 0.5, n)

    entries = dict.fromkeys(("angleRotation", "angleTilt", "anglePsi"), angles)
    return {**entries, "originX": origins, "originY": origins}


AROUND = {
    "around 40 degrees 1 pixels": cld.Around(40, 1),
    "gaussian around 90 degrees 1 pixels": cld.Around(90, 1, prior="gaussian"),
    "recorded": "recorded",
    "recorded, refined": cld.Around(0, 0, refine=True),
}


@pytest.mark.parametrize("name", AROUND)
def test_around_recorded_poses(tmp_path, build, name, monkeypatch):
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out", i_template="all"
    )
    build.write_files(files, TINY, sizes=(4, 3), **recorded(build.rng))
    # of images that are of none of these templates
    monkeypatch.setattr("cryolike_dask.likelihoods.search.known_rows.LARGEST_MEDIAN", 180)
    found = run(files, n_stacks=1, search=AROUND[name])
    assert found.attrs["search"] == name
    assert record(files.folder_output)["settings"]["search_method"] == name
    for other in (cld.Around(40, 1.5), cld.Around(40, 1.5, prior="gaussian"), "exhaustive"):
        with pytest.raises(OutputError, match=f"{name} there, {other} here"):
            run(files, search=other)
    run(files, skip_exist=True)
    opened = cld.open_results(files.folder_output)
    assert opened.attrs["search"] == name
    assert (opened.n_poses_compared.isel(image=slice(4)) > 0).all()
    # what a single pose leaves out of the integral is not known
    errors = opened.log_likelihood_error.isel(image=slice(4))
    assert bool(errors.isnull().all() if "recorded" in name else errors.notnull().all())
    assert ("refined_polar" in opened) == ("refined" in name)
    if "refined" in name:
        gain = opened.refined_log_likelihood - opened.log_likelihood_optimal
        assert (gain.isel(image=slice(4)) > -1e-2).all()
    again = cld.verify_likelihood(
        files.folder_output,
        templates=files.folder_templates,
        images=files.folder_particles,
        n_samples=10,
        progress=False,
    )
    assert again.findings == ()


def test_recorded_poses_are_compared_with_those_found_once_for_each_structure(
    tmp_path, build, monkeypatch
):
    from cryolike_dask.likelihoods.search import known

    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out", i_template="all"
    )
    build.write_files(files, TINY, sizes=(4, 3), **recorded(build.rng))
    compared = []

    def check(found, *_, **__):
        compared.append(len(found))
        return np.ones(1, bool)

    monkeypatch.setattr(known, "check_poses", check)
    run(files, search="recorded")
    assert compared == [4, 4]


def test_best_poses_are_searched_as_is_asked_beside_full_correlations(files):
    full(files, i_template=0)
    run(files, **ADAPTIVE)
    assert record(files.folder_output)["settings"]["search_method"] == "adaptive"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"search": "fast"}, "search='fast' is not known"),
        ({**ADAPTIVE, "conventions": "cryolike"}, "compare everything"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(files, given, problem):
    with pytest.raises(InputError, match=problem):
        run(files, **given)
    assert not files.folder_output.exists()


def test_a_record_of_an_unknown_method_is_believed_by_nobody(files):
    run(files, n_stacks=1, **ADAPTIVE)
    path = files.folder_output / RECORD
    path.write_text(path.read_text().replace('"adaptive"', '"guessed"'))
    checked = cld.verify_likelihood(files.folder_output, n_samples=0, progress=False)
    (found,) = checked.findings
    assert "guessed" in found


def test_structures_searched_by_different_methods_are_not_compared(files, tmp_path):
    other = replace(files, folder_output=tmp_path / "other")
    run(files, i_template=0)
    run(other, i_template=1, **ADAPTIVE)
    both = [cld.open_results(f.folder_output) for f in (files, other)]
    mixed = xr.concat(both, "structure", combine_attrs="override")
    # a folder that was put together by hand
    shutil.copytree(other.folder_output / "template1", files.folder_output / "template1")
    for results in (mixed, cld.open_results(files.folder_output)):
        for compare in (
            lambda results: cld.log_likelihood_ratio(results, "a"),
            cld.structure_probability,
            lambda results: cld.write_likelihood_matrix(results, tmp_path / "matrix"),
            summarise_results,
        ):
            with pytest.raises(InputError, match=r"different methods of search .*; exhaustive"):
                compare(results)
        cld.structure_probability(results.sel(structure=["b"]))
    checked = cld.verify_likelihood(files.folder_output, n_samples=0, progress=False)
    assert len(checked.findings) == 2
    assert "has other settings than most" in checked.findings[0]


def test_a_plan_says_that_it_is_that_of_the_whole_search(files):
    parameters = files.folder_templates / "parameters.npz"
    options = {"noise": "white", "measure": False, "progress": False}
    plans = [
        cld.plan_likelihood(files, parameters, SEARCH, search=method, **options)
        for method in ("exhaustive", "adaptive")
    ]
    assert [plan.search for plan in plans] == ["exhaustive", "adaptive"]
    for name in ("n_poses_per_image", "n_tasks", "block_bytes"):
        assert getattr(plans[1], name) == getattr(plans[0], name)
    assert ["search" in str(plan) for plan in plans] == [False, True]
    assert "those of an exhaustive search" in str(plans[1])


PARAMETERS = cld.ImageParameters(64, 1.5, n_inplanes=64, viewing_distance=0.7, precision="single")
STEPS = cld.configure_displacement(2, 5, 5)
SIZES = (2, 1)


@pytest.fixture(scope="module")
def wide():
    """Clear images of a structure in a band that is worth levels, in stacks of different sizes, and
    it among structures."""
    rng = np.random.default_rng(11)
    viewing, n = PARAMETERS.viewing_angles(), sum(SIZES)
    u, radii = np.full(n, 6000.0), np.full(48, 2.0)
    structures = []
    for name, lobes in (("a", two_lobes(20)), ("b", 0.9 * two_lobes(20))):
        atoms = Atoms(lobes, np.full(48, 62.0), radii)
        values = project(atoms, PARAMETERS.grid, viewing).astype(np.complex64)
        one = cld.TemplateStack.from_array(values, PARAMETERS, viewing)
        structures.append(replace(one, structure=name))
    optics = microscope(n, u)
    polar = np.arccos(rng.uniform(-1, 1, n))
    turns, at = rng.uniform(0, 2 * np.pi, (2, n)), rng.uniform(-1, 1, (2, n))
    poses = StarPoses.of_template(turns[0], polar, turns[1], *at)
    atoms = Atoms(two_lobes(20), np.full(48, 62.0), radii)
    clean = render(atoms, poses, optics, PARAMETERS.n_pixels, PARAMETERS.pixel_size_angstrom)
    pixels = clean + clean.std() * rng.standard_normal(clean.shape)
    values = normalised_stack(pixels, PARAMETERS.grid).astype(np.complex64)
    return cld.ImageStack.from_array(values, PARAMETERS, optics).chunk(SIZES), structures


def run_wide(folder, wide, **options):
    images, structures = wide
    files = cld.configure_likelihood_files(None, None, folder, i_template="all")
    options = {"progress": False, "device": "cpu", "noise": "white", **options}
    return cld.run_likelihood_optimal_pose(
        files, PARAMETERS, STEPS, images=images, templates=structures, **options
    )


@pytest.fixture(scope="module")
def adaptive(wide, tmp_path_factory):
    """The folder of an adaptive run."""
    folder = tmp_path_factory.mktemp("adaptive") / "out"
    run_wide(folder, wide, search="adaptive")
    return folder


VALUES = ("cross_correlation", "log_likelihood_integrated", "log_likelihood_optimal")
INDICES = ("optimal_template", "optimal_displacement_x", "optimal_inplane_rotation")


def assert_alike(found, expected):
    for name in INDICES:
        np.testing.assert_array_equal(found[name], expected[name])
    for name in VALUES:  # results in files are of single precision
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_a_run_gives_what_the_function_gives(wide, adaptive):
    images, structures = wide
    results = cld.open_results(adaptive)
    for i, structure in enumerate(structures):
        expected, everything = (
            cld.compute_optimal_pose(images, STEPS(structure), device="cpu", search=method)
            for method in ("adaptive", "exhaustive")
        )
        assert_alike(results.isel(structure=i), expected.compute())
        assert_search_alike(results.isel(structure=i), expected.compute())
        assert (results.n_poses_compared > 0).all()
        off = results.isel(structure=i) - everything
        assert abs(off.log_likelihood_integrated).max() > 0.1, "the methods cannot be told apart"
    assert results.attrs["search"] == "adaptive"
    assert list(results.search_method.values) == ["adaptive"] * 2


def assert_search_alike(found, expected):
    np.testing.assert_array_equal(found.n_poses_compared, expected.n_poses_compared)
    np.testing.assert_allclose(
        found.log_likelihood_error, expected.log_likelihood_error.astype(np.float32), atol=1e-6
    )


def test_results_that_do_not_say_what_was_left_out_are_opened_all_the_same(
    wide, adaptive, tmp_path
):
    folder = shutil.copytree(adaptive, tmp_path / "out")
    before = cld.open_results(folder).compute()
    files = cld.configure_likelihood_files(None, None, folder, i_template="all")
    assert set(OF_SEARCH) <= set(cld.open_optimal_pose(files))
    for path in folder.glob("template1/log_likelihood/[ln]o*_error_*"):
        path.unlink()
    (folder / "template0/log_likelihood/n_poses_compared_stack_000001.pt").unlink()
    some = cld.open_results(folder)
    assert some.n_poses_compared.dtype == np.int64
    assert some.n_poses_compared.values[0, -1] == -1
    assert some.log_likelihood_error.isnull().values.tolist() == [[False] * 3, [True] * 3]
    assert not set(OF_SEARCH) & set(cld.open_optimal_pose(files))
    for name in OF_SEARCH:
        for path in folder.glob(f"template*/log_likelihood/{name}_*"):
            path.unlink()
        for path in folder.glob("template*/done/*.json"):
            said = json.loads(path.read_text())
            del said["outputs"][name]
            path.write_text(json.dumps(said))
    assert cld.open_results(folder).compute().identical(before.drop_vars(OF_SEARCH))
    images, structures = wide
    checked = cld.verify_likelihood(
        folder, PARAMETERS, templates=structures, images=images, n_samples=1, progress=False
    )
    assert checked.findings == ()


def test_a_run_that_was_stopped_goes_on_the_same(wide, adaptive, tmp_path, caplog):
    shutil.copytree(adaptive, tmp_path / "out")
    (tmp_path / "out" / "template1" / "done" / "stack_000001.json").unlink()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        found = run_wide(tmp_path / "out", wide, skip_exist=True)
    assert "3 of 4 stacks are complete" in caplog.text
    assert_alike(found, cld.open_results(adaptive))


def test_workers_give_the_same(wide, adaptive, cluster, tmp_path):
    found = run_wide(tmp_path / "out", wide, client=cluster, **ADAPTIVE)
    assert_alike(found, cld.open_results(adaptive))


def test_verify_searches_as_the_records_say(wide, adaptive, tmp_path):
    images, structures = wide

    def findings(folder):
        return cld.verify_likelihood(
            folder,
            PARAMETERS,
            templates=structures,
            images=images,
            n_samples=2,
            progress=False,
        ).findings

    assert findings(adaptive) == ()
    shutil.copytree(adaptive, tmp_path / "out")
    for path in (tmp_path / "out").glob("template*/done/*.json"):
        path.write_text(path.read_text().replace('"search_method": "adaptive"', '"note": ""'))
    found = findings(tmp_path / "out")
    assert any("log_likelihood_integrated of image" in one for one in found)


@pytest.mark.parametrize("name", ["log_likelihood_error", "n_poses_compared"])
def test_verify_compares_what_a_search_says_of_itself(wide, adaptive, tmp_path, name):
    folder = shutil.copytree(adaptive, tmp_path / "out")
    for path in folder.glob(f"template*/log_likelihood/{name}_*"):
        values = torch.load(path, weights_only=True)
        torch.save(values * 2 if name == "n_poses_compared" else values + 0.1, path)
        k, record_file = path.stem[-6:], path.parents[1] / "done"
        record_file /= f"stack_{k}.json"
        said = json.loads(record_file.read_text())
        said["outputs"][name]["sha256"] = checksum(path)
        record_file.write_text(json.dumps(said))
    images, structures = wide
    found = cld.verify_likelihood(
        folder, PARAMETERS, templates=structures, images=images, n_samples=1, progress=False
    )
    (finding,) = found.findings
    assert f"{name} of image" in finding
