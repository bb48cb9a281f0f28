"""The command that estimates noise, and the options that say what noise is taken for."""

from __future__ import annotations

import json

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.config.reading import read_config
from tests.commands import in_process, worked

PARAMETERS = cld.ImageParameters(
    n_pixels=12, pixel_size_angstrom=1.5, n_inplanes=20, viewing_distance=3.0
)
SEARCH = ["--max-displacement-pixels", 1, "--n-displacements-x", 2, "--n-displacements-y", 2]
HERE = ["--workers", 0]


@pytest.fixture
def files(tmp_path, build):
    """Two structures and two stacks."""
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out"
    )
    build.write_files(files, PARAMETERS, sizes=(60, 40))
    return files


@pytest.fixture
def inputs(files):
    """The options that name them."""
    return ["--templates", files.folder_templates, "--particles", files.folder_particles]


def settings(files):
    """What the record of the first stack says."""
    return json.loads(files.record(0, 0, "optimal_pose").read_text())["settings"]


def test_noise_is_estimated_drawn_and_taken_by_a_run(files, inputs):
    out = ["--output", files.folder_output]
    said = worked(in_process("noise", *inputs, *SEARCH, *HERE, *out))
    assert "degrees of freedom" in said
    assert "all images" in said
    assert (files.folder_output / "noise.png").read_bytes().startswith(b"\x89PNG")
    before = files.noise.read_bytes()
    cld.read_noise(files.noise)
    refused = in_process("noise", *inputs, *HERE, *out)
    assert refused.returncode == 4
    assert "noise.npz: is there already" in " ".join(refused.stderr.split())
    worked(in_process("optimal-pose", *inputs, *SEARCH, *HERE, *out))
    assert files.noise.read_bytes() == before
    assert "noise" in settings(files)
    refused = in_process("noise", *inputs, *SEARCH, *HERE, *out, "--overwrite")
    assert "holds results, whose noise model is not to be replaced" in refused.stderr
    assert files.noise.read_bytes() == before


def test_noise_without_structures_into_a_file(files, inputs, tmp_path):
    particles, parameters = inputs[2:], files.folder_templates / "parameters.npz"
    path = tmp_path / "mine.npz"
    common = ["noise", *particles, "--output", path, *HERE]
    asked = in_process(*common)
    assert "--parameters is needed" in asked.stderr
    asked = in_process(*common, "--parameters", parameters, "--b-factor", "fit")
    assert "--b-factor fit needs --templates" in asked.stderr
    worked(in_process(*common, "--parameters", parameters))
    assert path.is_file()
    assert path.with_suffix(".png").is_file()
    assert not files.folder_output.exists()


def test_options_say_what_noise_is_taken_for(files, inputs, tmp_path):
    model = cld.NoiseModel.of_spectrum([0, 0.4], [2, 1], PARAMETERS.grid)
    cld.write_noise(tmp_path / "mine.npz", model)
    given = ["--noise", tmp_path / "mine.npz", "--b-factor", 25, "--degrees-of-freedom", 60]
    common = [*inputs, *SEARCH, *HERE, "--output", files.folder_output]
    worked(in_process("optimal-pose", *common, *given))
    assert (settings(files)["b_factor"], settings(files)["degrees_of_freedom"]) == (25, 60)
    # what is there goes on, if nothing else is asked for
    worked(in_process("optimal-pose", *common))
    said = worked(in_process("plan", *common[:-4], "--output", files.folder_output, "--no-measure"))
    assert "1 group, kept in noise.npz; B-factor 25 angstrom^2 added; 60 degrees" in said
    for other, message in (
        (["--noise", "white"], "another noise model"),
        (["--b-factor", "fit"], "B-factor: 25.0 there, fit here"),
        (["--b-factor", "none"], "B-factor: 25.0 there, none given here"),
        (["--b-factor", "some"], "--b-factor some is not known. Give auto, fit, none"),
        (["--noise", "nowhere.npz"], "Give estimate, white, or the file of a noise model"),
        (["--degrees-of-freedom", 1], "--degrees-of-freedom"),
    ):
        refused = in_process("optimal-pose", *common, *other)
        assert refused.returncode == (4 if "there" in message or "another" in message else 3), other
        assert message in " ".join(refused.stderr.split())


def test_commands_fit_a_b_factor_where_they_estimate(files, inputs):
    common = [*inputs, *SEARCH, *HERE, "--i-template", 0, "--n-stacks", 1]
    worked(in_process("optimal-pose", *common, "--output", files.folder_output))
    assert settings(files)["b_factor"] == "fit"


def test_a_configuration_says_it_too(files, tmp_path):
    values = {
        "structures": {"templates": str(files.folder_templates)},
        "particles": {"stacks": str(files.folder_particles)},
        "search": {"max_displacement_pixels": 1, "n_displacements_x": 2, "n_displacements_y": 2},
        "machine": {"workers": 0},
        "noise": {"spectrum": "white", "b_factor": 30, "degrees_of_freedom": 70},
        "output": str(files.folder_output),
    }
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(values))
    said = worked(in_process("config", "check", path))
    assert "white, B-factor 30" in said
    worked(in_process("run", path))
    assert (settings(files)["b_factor"], settings(files)["degrees_of_freedom"]) == (30, 70)
    assert "noise" not in settings(files)
    copy = read_config(files.folder_output / "run.yaml")
    assert copy.noise.b_factor == 30
    worked(in_process("run", files.folder_output / "run.yaml"))
    # the default goes on, another is refused, also by the check
    for noise, code in (({}, 0), ("estimate", 4), ({"b_factor": "fit"}, 4)):
        path.write_text(json.dumps({**values, "noise": noise}))
        assert in_process("config", "check", path).returncode == code, noise
        assert in_process("run", path).returncode == code, noise


def test_a_new_folder_of_a_configuration_is_estimated_with_a_b_factor(files, tmp_path):
    values = {
        "structures": {"templates": str(files.folder_templates)},
        "particles": {"stacks": str(files.folder_particles)},
        "search": {"max_displacement_pixels": 1, "n_displacements_x": 2, "n_displacements_y": 2},
        "output": str(files.folder_output),
    }
    cld.run_config(cld.read_config(values))
    assert settings(files)["b_factor"] == "fit"
    assert np.isfinite(cld.read_noise(files.noise).variance).all()
