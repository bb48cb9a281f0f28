"""The command line, in real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cryolike_dask.cli import app
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.version import __version__

ROOT = Path(__file__).parents[2]


def cryolike(*arguments, **options):
    """Run the command and give what it did."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "cryolike_dask", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=240, **options
    )


def options(demo, output):
    return [
        "--templates",
        demo / "templates",
        "--particles",
        demo / "particles",
        "--output",
        output,
    ]


def test_version_and_help():
    assert cryolike("--version").stdout.strip() == __version__
    expected = (
        "--templates --particles --output --parameters --n-stacks --i-template "
        "--max-displacement-pixels --displacement-step-pixels --n-templates-per-batch "
        "--n-images-per-batch --discover-batch-size --recompute --overwrite --device --conventions "
        "--workers --scheduler"
    )
    for command in ("optimal-pose", "full-cross-correlation"):
        shown = cryolike(command, "--help").stdout
        assert [o for o in expected.split() if o not in shown] == []


def test_a_run_on_worker_processes(demo, tmp_path):
    search = ["--max-displacement-pixels", 2, "--n-displacements-x", 2, "--n-displacements-y", 1]
    command = [
        "optimal-pose",
        *options(demo, tmp_path),
        *search,
        "--n-stacks",
        1,
        "--i-template",
        1,
    ]
    done = cryolike(*command, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert re.search(r"dashboard: http://127.0.0.1:\d+/status", done.stderr)
    assert f"64 images: results are in {tmp_path}" in done.stdout
    files = LikelihoodFiles(demo / "templates", demo / "particles", tmp_path, n_stacks=1)
    path = files.output(1, "cross_correlation", "cross_correlation", 0)
    assert torch.load(path, weights_only=True).shape == (64,)
    again = CliRunner().invoke(app, list(map(str, [*command, "--workers", 0])))
    assert again.exit_code == 0
    assert "1 of 1 stacks are complete and kept; --recompute computes them again" in again.stderr
    assert "is computed" not in again.stderr


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--i-template", "x"], "--i-template 'x'"),
        (["--n-stacks", "9"], "--n-stacks 9, but "),
        (["--parameters", "nowhere.npz"], "nowhere.npz: there is no such file"),
        (["--max-displacement-pixels", "-1"], "--max-displacement-pixels -1.0 is not"),
        (["--scheduler", "tcp://127.0.0.1:1"], "127.0.0.1:1"),
    ],
)
def test_a_mistake_is_one_line_and_a_failure(demo, tmp_path, extra, message):
    workers = [] if "--scheduler" in extra else ["--workers", 0]
    command = ["optimal-pose", *options(demo, tmp_path / "out"), *workers, *extra]
    failed = CliRunner().invoke(
        app, list(map(str, command)), env={"COLUMNS": "200", "NO_COLOR": "1"}
    )
    assert failed.exit_code == (7 if "--scheduler" in extra else 3)
    assert failed.stderr.startswith("opening templates and particles ...\nerror: ")
    assert message in failed.stderr
    assert isinstance(failed.exception, SystemExit)
    assert not (tmp_path / "out").exists()


def test_a_mistake_in_a_process_of_its_own(demo, tmp_path):
    failed = cryolike(
        "optimal-pose", *options(demo, tmp_path / "out"), "--workers", 0, "--i-template", 7
    )
    message = "--i-template 7 is not in"
    assert failed.returncode == 3
    assert failed.stderr.startswith("opening templates and particles ...\nerror: ")
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "out").exists()


def test_the_demo_finds_poses_and_conformations(tmp_path):
    done = cryolike("demo", "--output", tmp_path / "demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    fractions = {
        name: float(re.search(rf"{name}\s+([\d.]+)%", done.stdout)[1])
        for name in ("poses within one view and one pixel", "assigned to the right conformation")
    }
    assert min(fractions.values()) > 70, done.stdout
    assert "images per second" in done.stdout
    assert re.search(r"http://127.0.0.1:\d+/status", done.stdout)
    assert (tmp_path / "demo/likelihood/template1/done/stack_000001.json").is_file()
    picture = [
        sys.executable,
        ROOT / "docs/picture.py",
        tmp_path / "demo",
        tmp_path / "picture.png",
    ]
    subprocess.run(picture, check=True, timeout=120)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
