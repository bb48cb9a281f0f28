"""The benchmarks of GPUs, dry and small on a CPU: they work the first time that they meet one."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.gpu import __main__ as gpu_check
from benchmarks.gpu import counts, waiting
from benchmarks.gpu.bench import DRY, Bench, setting
from benchmarks.gpu.waiting import Profiled
from benchmarks.rates import Rates, beside_published, energy_counter, joules_of, print_rates
from cryolike_dask.compute.gpu_rates import gpu_named

H100 = gpu_named("H100")
APART = ("fused", "cluster")
"""Stages that need a process of their own."""


def findings(folder, stage):
    lines = (folder / f"{stage}.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert all(finding["stage"] == stage for finding in found)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gpu_out")


@pytest.mark.parametrize("stage", [s for s in gpu_check.STAGES if s not in APART])
def test_every_stage_runs_dry(stage, folder):
    assert gpu_check.run_stage(Bench(stage, folder, dry=True)) == 0
    found = findings(folder, stage)
    assert not [finding for finding in found if "failed" in finding]
    assert gpu_check.table(found)
    if stage == "block":
        assert [finding["other_poses"] for finding in found if "other_poses" in finding] == [0] * 6
    if stage == "contraction":
        errors = {f["operands"]: f["relative_error"] for f in found}
        assert max(errors.values()) < 4e-7


def test_a_stage_that_hangs_or_fails_keeps_none_of_the_others(folder, capsys, monkeypatch):
    """In processes: one stopped, the fused kernel in Triton's interpreter, workers; one that
    fails."""
    monkeypatch.setitem(gpu_check.STAGES, "kinds", ("correct", 1))
    assert gpu_check.run_all(folder, ["kinds", "fused", "cluster"], 2, dry=True) == 1
    said = capsys.readouterr().out
    assert "kinds: stopped" in said
    assert "fused: done" in said
    assert "cluster: done" in said
    assert "not done within 1 s" in said
    of_fused = findings(folder, "fused")
    for finding in of_fused:
        assert finding.get("nat", 0) <= finding.get("allowed_nat", 1)
    assert not [finding for finding in of_fused if "failed" in finding]
    monkeypatch.setattr(waiting, "memory", lambda bench: 1 / 0)
    assert gpu_check.run_stage(Bench("memory", folder, dry=True)) == 1
    assert "ZeroDivisionError" in findings(folder, "memory")[-1]["failed"]


def test_without_a_gpu_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu"])
    assert gpu_check.main() == 2
    assert "--dry" in capsys.readouterr().out


def test_rates_of_whole_blocks_run_dry_beside_published_ones(tmp_path, capsys):
    found = print_rates(tmp_path, dry=True)
    said = capsys.readouterr().out
    assert found.n_triples == 6 * 4 * 9
    for text in ("G triples/s", "poses/s (64 rotations", "waits", "energy", "Leopard-EM 1.1"):
        assert text in said
    assert "estimate" in said
    assert "ours, measured" not in said
    assert "0.11 G triples/s as 2.8e+10 poses/s, 0.39 G triples/s as 1e+11" in said


def test_what_rates_say_is_what_was_counted():
    def row(key, time, count):
        return SimpleNamespace(key=key, self_device_time_total=time, count=count)

    rows = [row("bmm", 6e5, 7), row("cudaLaunchKernel", 0, 900), row("cuLaunchKernelEx", 0, 100)]
    profile = Profiled(1.0, rows)
    assert (profile.busy, profile.number("LaunchKernel")) == (0.6, 1000)
    rates = Rates("H100", 0.5, 10**8, 256, 4797, {"copy": 3.0, "float16": 700}, profile, 5, 50.0)
    assert (rates.triples, rates.poses) == (2e8, 256 * 2e8)
    said = "\n".join(rates.lines())
    for text in ("0.2 G triples/s", "10 launches, 0.05 waits", "60% of the time", "500 J for 1e9"):
        assert text in said
    shares = rates.shares()
    assert shares["products"] == pytest.approx(3 * 8 * 4797 * 2e8 / 7e14)
    assert shares["bandwidth"] == pytest.approx(2 * 1032 * 2e8 / 3e12)
    assert "ours, measured" in beside_published(rates)


def test_energy_is_what_the_driver_counts(monkeypatch):
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda k: k,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(used),
    )
    used = iter([0, 1000, 7000])
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    n_blocks = []
    one = SimpleNamespace(search=lambda: n_blocks.append(1))
    assert joules_of(one, 1.0, energy_counter()) == pytest.approx(2)
    assert len(n_blocks) == 3
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_counter() is None
    assert joules_of(one, 1.0, None) is None


@pytest.fixture(scope="module")
def counted():
    """A small block on a pretended GPU, in tiles of four templates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "first_tile", lambda *_: (32, 4))
        patch.setattr(counts, "IMAGES", 64)
        patch.setitem(counts.POSES_PER_BLOCK, "cuda", 64 * 9 * 12)
        yield counts.count(DRY, H100)


def test_flops_of_the_contraction_are_those_of_its_formula(counted):
    assert (counted.n_tiles, counted.n_triples) == ((2, 3), 64 * 12 * 9)
    in_compressed = {
        place: n
        for kind in ("single", "half")
        for place, n in counted.counts[kind].items()
        if place.startswith("likelihoods/kernels/compressed") or "split" in place
    }
    contraction = max(in_compressed.values()) / counted.n_triples
    # columns are padded to 48 for 36, and operands may be split in three, padded to eights
    once = 8 * counted.n_coefficients * 48 / 36
    assert contraction == pytest.approx(once) or once * 2.9 < contraction < once * 4
    assert counted.total("bytes") > 2 * 8 * 33


def test_a_block_of_more_tiles_counts_what_it_is_said_to(counted):
    """Three by two tiles, counted whole, and put together from fewer."""
    comparison, rows, _ = counts._inputs(DRY, 9, 8)
    comparison = replace(comparison, n_images_per_tile=3, n_templates_per_tile=4)
    basis = counts._basis_on_gpu(comparison)

    def of(m, s):
        return counts._counts_of(comparison, (rows[0][: 3 * m], rows[1][: 4 * s]), basis)

    few = {(m, s): of(m, s) for m in (1, 2) for s in (1, 2)}
    said, whole = counts.of_more_tiles(few, (3, 2)), of(3, 2)
    for kind in counts.KINDS:
        assert sum(said[kind].values()) == pytest.approx(sum(whole[kind].values()), rel=0.03)


def test_a_wait_in_each_tile_is_seen_and_slows_it_down(counted):
    places = {f"there:{k}": 1 for k in range(math.prod(counted.n_tiles))}
    waiting_more = {
        **counted.counts,
        "waits": counted.counts["waits"] + type(counted.counts["waits"])(places),
    }
    slower = replace(counted, counts=waiting_more)
    assert slower.total("waits") > counted.total("waits")
    assert slower.rate_on(H100) < counted.rate_on(H100)
    kernels = [counted.seconds_on(gpu_named(name))["kernels"] for name in ("H100", "A100", "T4")]
    assert kernels == sorted(kernels)


@pytest.mark.usefixtures("counted")
def test_counting_is_undone():
    poses = setting(Bench("", None, dry=True), 4, 3).search()
    assert len(np.unique(poses["cross_correlation"])) == 4
