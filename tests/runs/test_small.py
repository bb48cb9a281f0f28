"""Runs that are done while workers would start."""

from __future__ import annotations

import pytest
import yaml
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.cli import app
from cryolike_dask.compute import local
from cryolike_dask.errors import ClusterError
from cryolike_dask.io.parameters import write_parameters
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs import small
from cryolike_dask.runs.kinds import FULL_CROSS_CORRELATION, OPTIMAL_POSE
from cryolike_dask.runs.run import open_run

PARAMETERS = cld.ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=3.0, precision="single")


@pytest.fixture
def files(tmp_path, build):
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out", i_template="all"
    )
    build.write_files(files, PARAMETERS, sizes=(4, 3))
    write_parameters(files.folder_templates / "parameters.npz", PARAMETERS)
    return files


def test_seconds_grow_with_images_templates_and_displacements(files):
    def seconds(n_stacks, structures, side):
        search = cld.configure_displacement(1.5, side, side)
        covered = cld.configure_likelihood_files(
            files.folder_templates,
            files.folder_particles,
            files.folder_output,
            n_stacks,
            structures,
        )
        run = open_run(covered, PARAMETERS, search, Settings(device="cpu"))
        return small.seconds_alone(run), run

    one, run = seconds(1, 0, 3)
    assert 0 < one < 1
    assert seconds(1, "all", 3)[0] == pytest.approx(2 * one)
    assert seconds(2, 0, 3)[0] > 1.3 * one
    assert seconds(1, 0, 9)[0] > 2 * one
    assert small.takes_seconds(run, OPTIMAL_POSE)
    assert not small.takes_seconds(run, FULL_CROSS_CORRELATION)


def commands(files, folder):
    described = {
        "structures": {"templates": str(files.folder_templates)},
        "particles": {"stacks": str(files.folder_particles)},
        "search": {"max_displacement_pixels": 1, "n_displacements_x": 3, "n_displacements_y": 3},
        "output": str(files.folder_output),
        "noise": {"spectrum": "white"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(described))
    paths = "--templates", files.folder_templates, "--particles", files.folder_particles
    return (
        ["run", folder / "run.yaml"],
        [
            *("optimal-pose", *paths, "--output", files.folder_output, "--noise", "white"),
            *("--max-displacement-pixels", 1),
        ],
    )


@pytest.mark.parametrize("which", [0, 1])
def test_workers_start_where_they_pay_and_after_inputs_are_open(
    files, tmp_path, monkeypatch, which
):
    started = []

    def no_workers(n):
        started.append(n)
        raise ClusterError("workers were to be started")

    monkeypatch.setattr(local, "local_cluster", no_workers)
    command = commands(files, tmp_path)[which]

    def said(*more):
        done = CliRunner().invoke(app, list(map(str, [*command, *more])), env={"COLUMNS": "200"})
        return done.exit_code, done.stderr

    code, text = said("--workers", 2)
    assert (code, started) == (7, [2]), text
    code, text = said()
    assert code == 0, text
    assert "no workers are started" in text
    assert started == [2]
    monkeypatch.setattr(small, "SECONDS_TO_START", 0.0)
    code, text = said("--recompute")
    assert "workers were to be started" in text, text[-300:]
    assert started == [2, None]
    (files.image_stack(1)[0]).write_bytes(b"nothing")
    assert "workers were to be started" not in said("--recompute")[1]
    assert started == [2, None]
