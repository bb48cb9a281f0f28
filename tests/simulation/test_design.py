"""What more particles like those of a small run would tell, by particles simulated for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis.calibration import Regression
from cryolike_dask.analysis.search_of_results import search_of_results
from cryolike_dask.cli import calibrate as command
from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.geometry.known_poses import Around
from cryolike_dask.simulation import calibrate as calibrating
from cryolike_dask.simulation.demo import write_hinge
from cryolike_dask.simulation.design import _warn_if_wrong
from tests.analysis.making import make_results
from tests.commands import in_process, worked

PARAMETERS = cld.ImageParameters(
    20, 5.0, n_inplanes=32, viewing_distance=0.6, precision="single", atom_shape="gaussian"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two conformations, and of one of them under another name."""
    folder = tmp_path_factory.mktemp("a run")
    structures = [folder / f"{name}.pdb" for name in ("closed", "open", "open-again")]
    for path, opening in zip(structures, (0.0, 0.9, 0.9), strict=True):
        write_hinge(path, opening)
    star = cld.simulate_particles(
        structures[:2],
        PARAMETERS,
        folder / "relion",
        n_images=30,
        signal_to_noise=0.3,
        max_displacement_pixels=1.0,
        project_folder=folder,
        progress=False,
    )
    cld.make_templates(structures, PARAMETERS, folder / "t", progress=False)
    cld.convert_particles(star, PARAMETERS, folder / "p", progress=False)
    cld.run_likelihood_optimal_pose(
        cld.configure_likelihood_files(
            folder / "t", folder / "p", folder / "out", i_template="all"
        ),
        folder / "t/parameters.npz",
        cld.configure_displacement(1.0, 3, 3),
        progress=False,
    )
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return cld.design(
        folder / "out",
        shares={"open-again": 1, "closed": 2, "open": 1},
        n_particles=5000,
        error=0.02,
        n_images=45,
        progress=False,
    )


def test_the_command_writes_what_is_found_in_python(folder, found, tmp_path):
    assert not (folder / "out/design").exists()
    shares = tmp_path / "shares.txt"
    shares.write_text("open-again 1\nclosed 2\nopen 1  # as many\n")
    options = ["--shares", shares, "--n-particles", 5000, "--error", 0.02, "--images", 45]
    said = worked(in_process("design", folder / "out", *options, "--plots", "--workers", 0))
    assert "45 simulated particles, 3 structures; an image tells" in said
    assert "5,000 particles: 2 of 3 structures are worth keeping" in said
    assert "open, open-again:" in said
    written = xr.open_zarr(folder / "out/design/design.zarr").load()
    xr.testing.assert_identical(written, found)
    assert (folder / "out/design/design.png").read_bytes().startswith(b"\x89PNG")
    assert not list((folder / "out").rglob("*.part"))
    # results, and what looks at them, do not mind
    assert cld.open_results(folder / "out").sizes["image"] == 30


def test_a_structure_under_two_names_is_one(found):
    assert found.structure.values.tolist() == ["closed", "open", "open-again"]
    assert found.n_simulated.values.tolist() == [15, 15, 15]
    assert found.group.values.tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.share, [0.5, 0.25, 0.25])
    # of its two shares nothing is known, of both together as much as of the other
    needed = found.particles_needed.values
    assert np.isinf(needed).tolist() == [False, True, True]
    np.testing.assert_allclose(found.group_particles_needed, needed[0], rtol=1e-3)
    assert 0.25 / 0.02**2 <= needed[0] < 40 * 0.25 / 0.02**2
    confusion = found.confusion
    np.testing.assert_allclose(confusion.sum("structure_other"), 1)
    np.testing.assert_allclose(confusion[:, 1], confusion[:, 2], rtol=1e-3)
    assert float(confusion[0, 0]) > 0.5 > float(confusion[1, 0])
    # of 1.5 bit 0.5 are between the two
    bits = float(found.mutual_information)
    assert bits <= 1
    assert float(found.mutual_information_bound) == pytest.approx(1.5)
    assert float(found.group_mutual_information) == pytest.approx(bits, abs=1e-3)


def test_all_that_is_said_has_a_meaning_and_a_unit(found, tmp_path):
    for name, variable in found.data_vars.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"] == ("bit" if "information" in name else "1")
        assert name in cld.design.__doc__ or name.endswith("_error"), name
    assert set(found.attrs) == {name for name in found.attrs if f"`{name}`" in cld.design.__doc__}
    (tmp_path / "design").write_text("a file in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        cld.write_design(found, tmp_path)


@pytest.mark.parametrize(
    ("slope", "told"), [(0.5, "too sure"), (0.9, ""), (np.nan, ""), (2.0, "too unsure")]
)
def test_probabilities_that_do_not_keep_what_they_promise_are_told(slope, told, caplog):
    _warn_if_wrong(Regression(slope, np.nan if np.isnan(slope) else 0.1, np.nan, np.nan))
    assert told in caplog.text
    assert bool(told) == bool(caplog.text)


def test_what_cannot_be_meant_is_refused(folder, rng, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("particles were simulated")

    monkeypatch.setattr("cryolike_dask.simulation.design.simulate_for", never)
    out = folder / "out"
    for told, results, asked in (
        ("error=0 is not positive", out, {"error": 0}),
        ("error=nan", out, {"error": float("nan")}),
        ("error='x' is not a number", out, {"error": "x"}),
        ("error=1.5 is no error of a share", out, {"error": 1.5}),
        ("n_particles=0", out, {"n_particles": 0}),
        ("n_particles=1000000.0 is not a whole number", out, {"n_particles": 1e6}),
        ("n_images=29 is not a whole number, 30 or more", out, {"n_images": 29}),
        ("n_images=1000000000.* is too many", out, {"n_images": 10**20}),
        ("for 3 structures", out, {"shares": [0.5, 0.5]}),
        ("for 3 structures", out, {"shares": [0.5, 0.5, 0]}),
        ("for 3 structures", out, {"shares": [0.5, 0.5, np.nan]}),
        ("lacks", out, {"shares": {"closed": 1, "opened": 1, "open-again": 1}}),
        ("are no numbers", out, {"shares": ["a", "b", "c"]}),
        ("one structure", make_results(rng, ("alone",)), {}),
        ("folder", make_results(rng), {}),
    ):
        with pytest.raises(InputError, match=told):
            cld.design(results, progress=False, **asked)
    with pytest.raises(InputFileError, match="holds no results"):
        cld.design(tmp_path, progress=False)
    told = search_of_results(cld.open_results(out))
    for search in ("recorded", Around(10, 2)):
        by_poses = replace(told, settings=replace(told.settings, search=search))
        monkeypatch.setattr(calibrating, "search_of_results", lambda _, is_so=by_poses: is_so)
        for command_of in (cld.design, cld.calibrate, cld.fit_residuals):
            with pytest.raises(InputError, match="searched by recorded poses alone"):
                command_of(out, progress=False)
    assert not (tmp_path / "design").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "says no number"), ("closed -1", "no positive number"), ("1\n2\n", "--shares")],
)
def test_a_command_that_cannot_be_meant_starts_no_workers(
    folder, tmp_path, monkeypatch, text, told
):
    def no_workers(_):
        raise AssertionError("workers were started")

    monkeypatch.setattr(command, "client_in", no_workers)
    shares = tmp_path / "shares.txt"
    shares.write_text(text)
    refused = in_process("design", folder / "out", "--shares", shares)
    assert refused.returncode == 3
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_was_not_run_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    worked(in_process("config", "init", "run.yaml"))
    for given, told in (
        ([folder / "t"], "templates"),
        (["nowhere"], "nowhere"),
        (["run.yaml"], "Run it first: cryolike-dask run run.yaml"),
        ([folder / "out", "--seed", -1], "--seed -1"),
    ):
        refused = in_process("design", *given)
        assert refused.returncode == 3
        assert told in " ".join(refused.stderr.split())
        assert "starting" not in refused.stderr
