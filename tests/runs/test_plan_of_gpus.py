"""Plans for GPUs that are not at hand, by their names, and for one that is."""

from __future__ import annotations

import re

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.pretended_gpu import pretended_gpu
from cryolike_dask.cli import app
from cryolike_dask.compute.gpu_rates import GPUS, gpu_named
from cryolike_dask.errors import CannotFitError
from cryolike_dask.runs import trial
from cryolike_dask.runs.kinds import OPTIMAL_POSE
from cryolike_dask.runs.roofline import stages_on
from tests.likelihoods.test_pretended_gpu import rows_and_comparison
from tests.runs.test_plan import PARAMETERS, files, plan  # noqa: F401

STANDARD = (133, 256), 4797, 1024
"""Shells and angles, coefficients, images: 132 pixels."""


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_no_stage_is_faster_than_what_is_stated_allows(gpu):
    stages = stages_on(gpu, *STANDARD)
    products = 8 * 129 / gpu.bandwidth / 1e12
    assert min(stages.contraction, stages.rotations) > products
    assert stages.contraction > 3 * 8 * 4797 / gpu.half / 1e12
    assert stages.rotations > 256 * 16 / (gpu.single / 2) / 1e12
    assert 0.02 < 1e-9 / stages.seconds < 1.5


def test_newer_gpus_are_faster_and_an_h100_is_as_estimated():
    rates = [
        1e-9 / stages_on(gpu_named(name), *STANDARD).seconds
        for name in ("T4", "A100", "H100", "H200")
    ]
    assert rates == sorted(rates)
    assert rates[2] == pytest.approx(0.65, abs=0.06)


def test_the_time_is_that_of_stated_rates(files):  # noqa: F811
    planned = plan(files, measure=True, gpu="h100", n_workers=4, search="exhaustive")
    assert (planned.device, planned.n_workers) == ("cuda", 4)
    assert planned.device_free_bytes == pytest.approx(0.92 * 80e9)
    assert re.search(
        r"gpu +H100 \(80 GB, 3\.35 TB/s.*stated, not measured\): about [\d.]+ G .* an estimate",
        str(planned),
    )
    rate = float(re.search(r"about ([\d.]+) G", planned.gpu)[1]) * 1e9
    triples = planned.n_poses_per_image * planned.n_images / PARAMETERS.grid.n_inplanes
    assert planned.compare_seconds == pytest.approx(triples / rate, rel=0.06)
    assert planned.least_seconds < planned.seconds < planned.most_seconds
    slower = plan(files, measure=True, gpu="Tesla T4", n_workers=4, search="exhaustive")
    assert slower.compare_seconds > 3 * planned.compare_seconds


def test_an_adaptive_search_is_not_tried_for_a_gpu_that_is_not_here(files):  # noqa: F811
    planned = plan(files, measure=True, gpu="A100", search="adaptive")
    assert planned.parts_compared == ()
    assert planned.compare_seconds > 0


def test_what_fits_is_what_fits_there(files, monkeypatch):  # noqa: F811
    """Not the memory of this machine, but of the GPU."""
    monkeypatch.setattr("cryolike_dask.runs.plan.PROCESS_BYTES", {"cpu": 1e15, "cuda": 1e15})
    assert plan(files, gpu="L4").seconds is None
    with pytest.raises(CannotFitError, match="a worker takes"):
        plan(files)
    monkeypatch.setattr("cryolike_dask.runs.on_paper.FREE", 1e-8)
    with pytest.raises(CannotFitError, match=r"7 displacements take .* on the cuda, but 0.24 kB"):
        plan(files, gpu="L4")


def test_a_gpu_that_is_here_is_measured(build, monkeypatch):
    images, templates = build.stacks(3, 4, n_pixels=16, n_inplanes=24, search=(2.0, 3, 2))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Pretended")
    monkeypatch.setattr("cryolike_dask.likelihoods.kernels.with_triton.find_spec", lambda _: None)
    with pretended_gpu():
        rows = rows_and_comparison(images, templates, "cuda")
        tried = trial.try_block(rows[2], *rows[:2], OPTIMAL_POSE, measure=True, n_threads=None)
    assert re.fullmatch(r"NVIDIA Pretended: [\d.e-]+ G \(.*\) per second, measured", tried.gpu)
    assert tried.device == "cuda"


def test_the_command(files):  # noqa: F811
    folders = ["--templates", files.folder_templates, "--particles", files.folder_particles]
    command = ["plan", *folders, "--output", files.folder_output, "--workers", 4]
    command += ["--max-displacement-pixels", 1.5, "--gpu"]
    said = CliRunner().invoke(app, [str(a) for a in [*command, "RTX 4090", "--no-measure"]])
    assert said.exit_code == 0, said.stderr
    assert "on 4 workers" in said.stdout
    assert re.search(r"gpu +RTX 4090 .*stated, not measured", said.stdout.replace("\n", " "))
    said = CliRunner().invoke(app, [str(a) for a in [*command, "X100"]])
    assert said.exit_code == 3
    assert "--gpu" in said.stderr
