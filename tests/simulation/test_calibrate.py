"""The probabilities of a small run, tried on particles simulated for it."""

from __future__ import annotations

import shlex
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.analysis.report.about_belief import basis_of, lights_of_belief
from cryolike_dask.analysis.search_of_results import search_of_results
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.cli import calibrate as command
from cryolike_dask.compute import progress
from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.io.calibration import read_calibration
from cryolike_dask.io.noise import noise_checksum, write_noise
from cryolike_dask.simulation.demo import write_hinge
from tests.analysis.making import make_results, rewritten
from tests.commands import in_process, worked

PARAMETERS = cld.ImageParameters(
    20, 5.0, n_inplanes=32, viewing_distance=0.6, precision="single", atom_shape="gaussian"
)
SEARCH = cld.configure_displacement(1.0, 3, 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two conformations, with templates and image stacks in files."""
    folder = tmp_path_factory.mktemp("a run")
    structures = [folder / "closed.pdb", folder / "open.pdb"]
    for path, opening in zip(structures, (0.0, 0.9), strict=True):
        write_hinge(path, opening)
    star = cld.simulate_particles(
        structures,
        PARAMETERS,
        folder / "relion",
        n_images=40,
        signal_to_noise=0.3,
        max_displacement_pixels=1.0,
        project_folder=folder,
        progress=False,
    )
    cld.make_templates(structures, PARAMETERS, folder / "t", progress=False)
    cld.convert_particles(star, PARAMETERS, folder / "p", batch_size=25, progress=False)
    files = cld.configure_likelihood_files(
        folder / "t", folder / "p", folder / "out", i_template="all"
    )
    cld.run_likelihood_optimal_pose(files, folder / "t/parameters.npz", SEARCH, progress=False)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the results that a test may spoil; their inputs stay where they are."""
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def test_the_same_seed_gives_the_same_numbers(folder):
    first = cld.calibrate(folder, n_images=40, seed=7, progress=False)
    path = folder / "calibration.json"
    assert read_calibration(path) == first
    assert not list(folder.glob("*.part"))
    assert (first.n_images, first.n_structures, first.seed) == (40, 2, 7)
    assert first.views_between
    assert 0.3 < first.slope < 3
    assert 20 < first.n_right <= 40
    assert abs(first.n_right - first.n_promised) < 12
    assert abs(first.correlation / first.correlation_of_run - 1) < 0.1
    path.unlink()
    assert cld.calibrate(folder, n_images=40, seed=7, progress=False) == first
    assert cld.calibrate(folder, n_images=40, seed=8, progress=False) != first


def test_noise_degrees_of_freedom_and_b_factor_are_those_of_the_run(folder, monkeypatch):
    grid = PARAMETERS.grid
    f = np.linspace(0, 1.01 * grid.spatial_frequencies[-1], 30)
    model = NoiseModel.of_spectrum(f, 1 / (1 + (30 * f) ** 2), grid)
    model = replace(model, share=np.array([0.7]), b_factor_angstrom2=np.array([80.0]))
    write_noise(folder / "noise.npz", model)
    rewritten(folder, noise=noise_checksum(folder / "noise.npz"), b_factor=20.0)
    told = search_of_results(cld.open_results(folder)).settings
    np.testing.assert_array_equal(told.noise.variance, model.variance)
    assert (told.b_factor, told.degrees_of_freedom) == (20.0, None)
    found = cld.calibrate(folder, n_images=30, progress=False)
    rewritten(folder, noise=None, b_factor=None)
    white = cld.calibrate(folder, n_images=30, progress=False)
    assert found.results != white.results
    assert found.slope != white.slope


def test_progress_counts_every_comparison(folder, monkeypatch):
    """Of those that set the strength of the signal, too, and within them."""
    told = []

    @contextmanager
    def bar(total, title, **_):
        yield lambda done, kept=0.0: told.append((title, done, total))

    monkeypatch.setattr(progress, "progress_bar", bar)
    cld.calibrate(folder, n_images=40)
    done = [n for title, n, _ in told if title == "particles x structures"]
    assert done == sorted(done)
    assert told[-1][1:] == ((40 + 2 * 40) * 2, (40 + 2 * 40) * 2)
    assert len(set(done)) >= 6


def test_workers_find_the_same(folder, cluster):
    here = cld.calibrate(folder, n_images=20, progress=False)
    there = cld.calibrate(folder, n_images=20, progress=False, client=cluster)
    assert there.n_right == here.n_right
    assert there.slope == pytest.approx(here.slope, rel=1e-2)
    assert there.correlation == pytest.approx(here.correlation, rel=1e-4)


def test_command(made, folder):
    said = worked(in_process("calibrate", folder, "--images", 30, "--workers", 0))
    assert "seed" in said
    calibration = read_calibration(folder / "calibration.json")
    assert calibration.n_images == 30
    assert f"{calibration.n_right} of 30" in said
    worked(in_process("report", folder, "--n-examples", 0))
    assert f"{calibration.n_right} of 30" in (folder / "report.html").read_text()
    failed = in_process("calibrate", made / "t", "--workers", 0)
    assert failed.returncode == 3
    assert "templates" in failed.stderr


def test_it_is_refused_before_workers_start(made, folder, monkeypatch):
    """What can be known by what lies beside the results; and it is said which particles these
    were, as the report does."""

    def no_workers(_):
        raise AssertionError("workers were started")

    monkeypatch.setattr(command, "client_in", no_workers)
    files = cld.configure_likelihood_files(made / "t", None, folder / "lazy", i_template="all")
    star = made / "relion" / "particles.star"
    images = cld.open_particles(star, PARAMETERS)
    cld.run_likelihood_optimal_pose(
        files, PARAMETERS, SEARCH, images=images, noise="white", progress=False
    )
    for arguments, told in (
        (
            (folder / "lazy",),
            f"where the particles are. Give them: --particles {shlex.quote(str(star))}",
        ),
        ((folder, "--images", 3), "--images 3"),
    ):
        refused = in_process("calibrate", *arguments)
        assert refused.returncode == 3
        assert told in " ".join(refused.stderr.replace("\n", "").split())
    summary = summarise_results(cld.open_results(folder / "lazy"))
    light = lights_of_belief(summary, [], basis_of(summary))["Calibration"]
    assert f"cryolike-dask calibrate {shlex.quote(str(folder / 'lazy'))} --particles" in light.text
    rewritten(folder, conventions="cryolike", noise=None, b_factor=None)
    assert "whose probabilities are too large" in " ".join(
        in_process("calibrate", folder).stderr.split()
    )


def test_what_cannot_be_tried_is_refused(made, folder, rng, tmp_path):
    def refuse(told, *arguments, kind=InputError, **settings):
        with pytest.raises(kind, match=told):
            cld.calibrate(*arguments, progress=False, **settings)
        assert not (folder / "calibration.json").exists()

    refuse("one structure", make_results(rng, ("alone",)))
    refuse("holds no results", tmp_path, kind=InputFileError)
    refuse("n_images=3", folder, n_images=3)
    refuse("folder", make_results(rng))
    refuse("nowhere", folder, templates=tmp_path / "nowhere")
    refuse("nowhere", folder, particles=tmp_path / "nowhere")
    refuse(
        "no templates of open",
        folder,
        templates=cld.open_structure(made / "closed.pdb", PARAMETERS),
    )
    stacks = cld.configure_likelihood_files(made / "t", made / "p", tmp_path, n_stacks=1)
    refuse("of stack 1", folder, particles=cld.open_images(stacks, PARAMETERS))
    rewritten(folder, noise="0" * 64)
    refuse(r"noise\.npz", folder, kind=OutputError)
    (folder / "noise.npz").write_bytes(b"PK damaged")
    refuse(r"noise\.npz", folder, kind=OutputError)
    rewritten(folder, noise=noise_checksum(folder / "noise.npz"))
    refuse(r"noise\.npz", folder, kind=OutputError)
    rewritten(folder, noise=None, conventions="cryolike")
    refuse("cryolike", folder)
