"""The noise model of a run: estimated once, kept beside the results, the same for all of them."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.errors import CryolikeError, InputError, InputFileError, OutputError
from cryolike_dask.io import output_folder
from cryolike_dask.runs import noise_of_run

PARAMETERS = cld.ImageParameters(
    n_pixels=12, pixel_size_angstrom=1.5, n_inplanes=20, viewing_distance=3.0
)
SEARCH = cld.configure_displacement(1.5, 3, 2)
FREQUENCIES = np.linspace(0, 0.4, 9)


@pytest.fixture
def files(tmp_path, build):
    """Two structures and two stacks."""
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out"
    )
    build.write_files(files, PARAMETERS, sizes=(4, 3))
    return files


def run(files, **options):
    """A run as a user's."""
    parameters = files.folder_templates / "parameters.npz"
    options = {"progress": False, "device": "cpu", **options}
    return cld.run_likelihood_optimal_pose(files, parameters, SEARCH, **options)


def model_of(slope=1.0, **changes):
    """A noise model whose variance falls with the frequency."""
    variance = 1 / (1 + slope * FREQUENCIES)
    return replace(cld.NoiseModel.of_spectrum(FREQUENCIES, variance, PARAMETERS.grid), **changes)


def settings(files, name="template0/done/stack_000000.json"):
    """What a record says."""
    return json.loads((files.folder_output / name).read_text())["settings"]


def checksum(files):
    """Of the noise model beside the results."""
    return hashlib.sha256(files.noise.read_bytes()).hexdigest()


@pytest.fixture
def estimates(monkeypatch):
    """What noise was estimated from: how many stacks and structures, and whether B was fitted."""
    calls = []
    estimate = noise_of_run.estimate_noise

    def spy(images, templates, *, fit_b_factor, **options):
        calls.append((len(images), [t.structure for t in templates], fit_b_factor))
        assert all(t.displacements is not None for t in templates)
        return estimate(images, templates, fit_b_factor=fit_b_factor, **options)

    monkeypatch.setattr(noise_of_run, "estimate_noise", spy)
    return calls


def test_a_new_folder_keeps_an_estimate_of_all_structures(files, estimates, caplog):
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        run(files)
    assert estimates == [(2, ["a", "b"], False)]
    assert "estimating the noise of 7 images, with 2 structures" in caplog.text
    assert settings(files)["noise"] == checksum(files)
    assert not {"b_factor", "degrees_of_freedom"} & set(settings(files))
    assert cld.read_noise(files.noise).n_pixels == 12


@pytest.mark.parametrize("options", [{"skip_exist": True}, {}, {"noise": "estimate"}])
def test_the_same_bytes_go_on(files, estimates, caplog, options):
    run(files, n_stacks=1)
    before = checksum(files), files.noise.stat().st_mtime_ns
    caplog.clear()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        # another structure, and a stack that was not there before
        run(files, i_template="all", **options)
    assert "noise: as kept in noise.npz" in caplog.text
    assert (checksum(files), files.noise.stat().st_mtime_ns) == before
    assert len(estimates) == 1
    for record in ("template1/done/stack_000001.json", "template0/done/stack_000000.json"):
        assert settings(files, record)["noise"] == before[0]


def test_a_run_that_was_stopped_after_the_estimate(files, estimates):
    run(files)
    before = files.noise.stat().st_mtime_ns
    shutil.rmtree(files.folder_output / "template0")
    run(files)
    assert len(estimates) == 1
    assert files.noise.stat().st_mtime_ns == before


def test_images_are_held_against_a_kept_model_if_there_are_others(files, monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        noise_of_run, "warn_of_noise", lambda images, *_: looked_at.append(len(images))
    )
    run(files, n_stacks=1)
    run(files, n_stacks=1, i_template=1)
    assert looked_at == []
    run(files)
    assert looked_at == [2]


def test_models_and_files_are_taken_as_they_are(files, tmp_path, estimates):
    model, path = model_of(), tmp_path / "mine.npz"
    cld.write_noise(path, model)
    run(files, noise=path, b_factor=40, degrees_of_freedom=50)
    assert files.noise.read_bytes() == path.read_bytes()
    assert settings(files)["noise"] == checksum(files)
    assert (settings(files)["b_factor"], settings(files)["degrees_of_freedom"]) == (40, 50)
    # one and the same, whatever it is called; or not named at all
    for same in (model, str(path), "estimate", files.noise, None):
        run(files, noise=same, skip_exist=True)
    assert not estimates
    assert settings(files)["b_factor"] == 40


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"noise": "white"}, {"noise": "estimate"}, "white noise there, a noise model here"),
        ({"noise": "white"}, {"noise": model_of()}, "white noise there, a noise model here"),
        ({"noise": model_of()}, {"noise": "white"}, "a noise model there, white noise here"),
        ({"noise": model_of()}, {"noise": model_of(2)}, "another noise model there"),
        ({}, {"b_factor": "fit"}, "B-factor: none given there, fit here"),
        ({"b_factor": "fit"}, {"b_factor": 0}, "B-factor: fit there, none given here"),
        ({"b_factor": 10}, {"b_factor": 20}, "B-factor: 10.0 there, 20.0 here"),
        ({}, {"degrees_of_freedom": 9}, "degrees of freedom: none given there, 9.0 here"),
    ],
)
def test_another_noise_model_is_refused(files, first, second, message):
    run(files, **first)
    before = {p: p.read_bytes() for p in files.folder_output.rglob("*") if p.is_file()}
    for skip_exist in (False, True):
        with pytest.raises(OutputError, match=message) as refusal:
            run(files, skip_exist=skip_exist, **second)
        assert "holds results of another noise model" in str(refusal.value)
    assert {p: p.read_bytes() for p in files.folder_output.rglob("*") if p.is_file()} == before
    with pytest.raises(OutputError, match=message):
        plan(files, **second)


def plan(files, **options):
    """The plan of a run."""
    parameters = files.folder_templates / "parameters.npz"
    return cld.plan_likelihood(files, parameters, SEARCH, measure=False, progress=False, **options)


def test_overwrite_replaces_results_and_noise(files, estimates):
    run(files, i_template="all", noise=model_of())
    first = checksum(files)
    run(files, overwrite=True, noise="estimate", b_factor="fit")
    assert estimates == [(2, ["a", "b"], True)]
    assert settings(files)["noise"] == checksum(files) != first
    assert settings(files)["b_factor"] == "fit"
    # results of another noise model are gone, and not mixed
    assert not list(files.folder_output.glob("template1/*/*_stack_*"))
    # what is done is kept, whatever else is overwritten
    run(files, overwrite=True, skip_exist=True)
    assert len(estimates) == 1
    run(files, overwrite=True, noise="white")
    assert not files.noise.exists()
    assert "noise" not in settings(files)
    run(files, overwrite=True)
    assert settings(files)["noise"] == checksum(files)


def test_overwrite_may_name_the_file_it_replaces(files):
    run(files, noise=model_of())
    before = checksum(files)
    run(files, noise=files.noise, overwrite=True)
    assert checksum(files) == before


def test_results_without_a_noise_model_go_on_as_white(files, estimates, caplog):
    run(files, n_stacks=1, noise="white")
    record = files.record(0, 0, "optimal_pose")
    assert set(settings(files)) == {"search", "parameters", "conventions", "tolerance"}
    before = record.stat().st_mtime_ns
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        run(files, skip_exist=True, b_factor="auto")
    assert "noise: as of the results that are there, white noise" in caplog.text
    assert record.stat().st_mtime_ns == before
    assert not files.noise.exists()
    assert not estimates


def test_stacks_of_another_program_are_white_unless_asked(tmp_path, build, caplog, estimates):
    files = cld.configure_likelihood_files(tmp_path / "t", tmp_path / "p", tmp_path / "out")
    build.write_files(files, PARAMETERS, sizes=(3,), frame=lambda k, n: None)
    run(files)
    assert caplog.text.count("it is taken as white") == 1
    assert not files.noise.exists()
    asked = replace(files, folder_output=tmp_path / "asked")
    run(asked, noise="estimate")
    assert asked.noise.exists()


def test_conventions_that_know_no_noise(files, estimates):
    rules = {"conventions": "cryolike"}
    run(files, **rules)
    assert not files.noise.exists()
    run(files, noise="white", b_factor="auto", overwrite=True, **rules)
    for asked in (
        {"noise": "estimate"},
        {"noise": model_of()},
        {"b_factor": "fit"},
        {"b_factor": 10},
        {"degrees_of_freedom": 9},
    ):
        with pytest.raises(InputError, match="knows none"):
            run(files, overwrite=True, **rules, **asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"noise": 3}, "noise=3 is no noise model"),
        ({"noise": ""}, "is no noise model"),
        ({"noise": "nowhere.npz"}, "there is no such file"),
        ({"noise": model_of(n_pixels=14)}, "14 pixels"),
        ({"noise": model_of(frequencies=FREQUENCIES / 2)}, "the noise model ends at"),
        ({"noise": model_of(groups=("optics group x",))}, "belong to no group"),
        ({"b_factor": "some"}, "b_factor='some' is not known"),
        ({"b_factor": 1e4}, "b_factor=10000 is not between"),
        ({"b_factor": "fit", "noise": "white"}, "goes with noise"),
        ({"b_factor": "fit", "noise": model_of()}, "goes with noise"),
        ({"degrees_of_freedom": 2}, "degrees_of_freedom=2"),
        ({"degrees_of_freedom": "x"}, "degrees_of_freedom='x'"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(files, asked, message):
    with pytest.raises(InputError, match=message):
        run(files, **asked)
    assert not files.folder_output.exists()


def test_an_estimate_that_fails_leaves_nothing(files, monkeypatch):
    def fail(*arguments, **options):
        raise InputError("too few images")

    monkeypatch.setattr(noise_of_run, "estimate_noise", fail)
    with pytest.raises(InputError, match="too few images"):
        run(files)
    assert not files.folder_output.exists()


def test_a_noise_model_that_was_there_before(files, estimates):
    """As the command `noise` writes it."""
    files.folder_output.mkdir()
    cld.write_noise(files.noise, model_of())
    before = checksum(files)
    with pytest.raises(OutputError, match="but this run takes noise as white"):
        run(files, noise="white")
    with pytest.raises(OutputError, match="is another noise model"):
        run(files, noise=model_of(2))
    run(files)
    assert settings(files)["noise"] == checksum(files) == before
    assert not estimates


@pytest.mark.parametrize("how", ["missing", "changed", "damaged"])
def test_without_its_noise_model_a_folder_takes_nothing(files, how):
    run(files, n_stacks=1)
    if how == "missing":
        files.noise.unlink()
    elif how == "changed":
        cld.write_noise(files.noise, model_of(3))
    else:
        files.noise.write_bytes(b"PK")
    for skip_exist in (False, True):
        with pytest.raises(OutputError, match=r"noise\.npz: .*Restore it"):
            run(files, skip_exist=skip_exist)
    checked = cld.verify_likelihood(files.folder_output, n_samples=0, progress=False)
    assert len(checked.findings) == 1
    assert "noise.npz" in checked.findings[0]


def test_verify_computes_again_with_the_noise_model(files, rng):
    options = {"i_template": "all", "noise": model_of(), "b_factor": 30, "degrees_of_freedom": 40}
    run(files, **options)
    checked = cld.verify_likelihood(
        files.folder_output,
        templates=files.folder_templates,
        images=files.folder_particles,
        n_samples=4,
        progress=False,
    )
    assert checked.findings == ()
    assert checked.sample.sizes["sample"] == 4


def test_verify_sees_results_of_another_noise_model(files):
    """One whose checksum is the recorded one, as if the run had taken the wrong file."""
    run(files, noise=model_of())
    before = checksum(files)
    cld.write_noise(files.noise, model_of(30))
    for record in files.folder_output.glob("template0/done/*.json"):
        record.write_text(record.read_text().replace(before, checksum(files)))
    checked = cld.verify_likelihood(
        files.folder_output,
        templates=files.folder_templates,
        images=files.folder_particles,
        n_samples=2,
        progress=False,
    )
    assert any("differs from the same in double precision" in found for found in checked.findings)


def test_verify_notes_a_noise_model_of_no_results(files):
    run(files, noise="white")
    cld.write_noise(files.noise, model_of())
    checked = cld.verify_likelihood(files.folder_output, n_samples=0, progress=False)
    assert checked.ok
    assert any("is not of these results" in note for note in checked.notes)


def test_of_two_runs_that_begin_at_once_the_first_decides(files, monkeypatch, caplog):
    """Both estimate, and each has an estimate of its own."""
    together, slopes = threading.Barrier(2, timeout=30), iter((1.0, 2.0))

    def estimate(images, templates, **options):
        model = model_of(next(slopes))
        together.wait()
        return model

    monkeypatch.setattr(noise_of_run, "estimate_noise", estimate)
    failed = []

    def start(i):
        try:
            run(files, i_template=i)
        except CryolikeError as error:
            failed.append(error)

    threads = [threading.Thread(target=start, args=(i,)) for i in (0, 1)]
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    assert caplog.text.count("where another run was first") == 1
    names = [settings(files, f"template{i}/done/stack_000001.json")["noise"] for i in (0, 1)]
    assert set(names) == {checksum(files)}


def test_a_run_that_takes_noise_as_white_meanwhile_is_refused(files, monkeypatch):
    def estimate(images, templates, **options):
        # beneath a run that lives
        with pytest.raises(
            OutputError, match=r"another run is writing here .* noise: a noise model"
        ):
            run(files, i_template=1, noise="white")
        return model_of()

    monkeypatch.setattr(noise_of_run, "estimate_noise", estimate)
    run(files)
    assert settings(files)["noise"] == checksum(files)


def test_the_plan_says_what_becomes_of_the_noise(files, estimates):
    assert "estimated first, from 7 images" in plan(files).noise
    assert "and 2 structures" in str(plan(files))
    assert plan(files, noise="white").noise == "white"
    given = plan(files, noise=model_of(), b_factor=30, degrees_of_freedom=44).noise
    assert given == "1 group, as given; B-factor 30 angstrom^2 added; 44 degrees of freedom"
    assert not files.folder_output.exists()
    assert not estimates
    run(files, noise=model_of())
    assert plan(files).noise == "1 group, kept in noise.npz"
    with pytest.raises(InputFileError, match="there is no such file"):
        plan(files, noise="nowhere.npz")


def test_results_say_what_noise_was_taken_for(files):
    run(files, i_template="all", noise=model_of(), b_factor=30)
    results = cld.open_results(files.folder_output)
    assert results.attrs["noise"] == checksum(files)
    assert results.attrs["b_factor"] == 30
    (n_free,) = model_of().degrees_of_freedom(PARAMETERS.grid)
    np.testing.assert_allclose(results.attrs["degrees_of_freedom"], n_free)
    images = cld.open_images(files, PARAMETERS)
    templates = SEARCH(cld.open_templates(files, PARAMETERS))
    computed = cld.compute_optimal_pose(images, templates).attrs
    assert (computed["noise"], computed["b_factor"]) == ("white", 0)
    files.noise.unlink()
    assert cld.open_results(files.folder_output).attrs["noise"] == settings(files)["noise"]


def test_degrees_of_freedom_and_b_factors_of_groups_are_named(files):
    variance = np.ones((2, 9))
    groups = ("optics group a", "all images")
    two = cld.NoiseModel.of_spectrum(FREQUENCIES, variance, PARAMETERS.grid, groups)
    run(files, noise=replace(two, share=np.array([1, 0.5]), b_factor_angstrom2=np.array([0, 9.0])))
    attrs = cld.open_results(files.folder_output).attrs
    np.testing.assert_allclose(attrs["degrees_of_freedom"], 4 * np.pi * 3**2 * np.array([1, 0.5]))
    assert (attrs["b_factor"], attrs["noise_groups"]) == ([0, 9], list(groups))


def test_structures_of_different_noise_models_are_not_compared(files, tmp_path):
    other = replace(files, folder_output=tmp_path / "other")
    run(files, i_template=0, noise="white")
    run(other, i_template=1, noise=model_of())
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
            with pytest.raises(InputError, match="different noise models"):
                compare(results)
        cld.structure_probability(results.sel(structure=["b"]))


def test_a_folder_that_takes_nothing(files, estimates, monkeypatch):
    run(files, n_stacks=1)
    monkeypatch.setattr(output_folder, "takes_nothing", lambda _: True)
    assert run(files, n_stacks=1, skip_exist=True).sizes == {"image": 4}
    assert len(estimates) == 1
    files.noise.unlink()
    with pytest.raises(OutputError, match="cannot be written, and 1 of the results"):
        run(files, n_stacks=1, skip_exist=True)
