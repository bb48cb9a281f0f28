"""Workers of GPUs: one for each, with its share of the cores, gone when their cluster closes."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec

import numpy as np
import psutil
import pytest
import torch

import cryolike_dask as cld
from cryolike_dask.compute import device, local
from cryolike_dask.compute.device import host_threads, share_of_cores, threads_of_a_worker
from cryolike_dask.compute.remote import OneTorchThread
from cryolike_dask.conventions import STANDARD
from cryolike_dask.particles.transform import pixels_to_fourier


@pytest.fixture
def with_gpus(monkeypatch):
    """As if torch saw a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def on_32_cores(monkeypatch):
    """Of which each runs two threads."""
    monkeypatch.setattr(device, "CPU_COUNT", 64)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 64 if logical else 32)


@pytest.mark.usefixtures("with_gpus", "on_32_cores")
@pytest.mark.parametrize(
    ("visible", "n"), [("2,3,0,1", 8), ("GPU-5a1b", 32), ("0,1,2", 10), (None, 32), ("", 32)]
)
def test_a_worker_of_a_gpu_has_its_share_of_the_cores(visible, n, monkeypatch):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert threads_of_a_worker() == n


@pytest.mark.usefixtures("with_gpus", "on_32_cores")
def test_threads_of_the_host_are_those_of_the_worker_on_the_cores_near_its_gpu(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(device, "_of_worker", [])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(6)))
    assert host_threads() == 1, "as long as nobody knows how many tasks there are"
    plugin = OneTorchThread()
    try:
        for visible, n in (("0,1,2,3,4,5,6,7", 4), ("0,1", 6)):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
            plugin.setup(None)
            assert host_threads() == n
            assert torch.get_num_threads() == threads_of_a_worker()
            plugin.before = before
        for allowed, n in (("2", 2), ("0", 1), ("4,2", 6), ("", 6)):
            monkeypatch.setenv("OMP_NUM_THREADS", allowed)
            assert host_threads() == n
    finally:
        plugin.teardown(None)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("precision", "rounding"), [("single", 1e-5), ("double", 1e-11)])
def test_more_threads_round_otherwise_and_the_same_every_time(
    rng, precision, rounding, monkeypatch
):
    grid = cld.ImageParameters(32, 1.5, n_inplanes=64).grid
    images = rng.standard_normal((5, 32, 32)).astype(np.float32)
    rotations = np.linalg.qr(rng.standard_normal((6, 3, 3)))[0]
    kx, ky = (k.ravel() for k in grid.points())
    volume = cld.Volume(rng.standard_normal((16, 16, 16)).astype(np.float32), (2.0, 2.0, 2.0))
    eps = 1e-6 if precision == "single" else 1e-12

    def computed(n_threads):
        monkeypatch.setattr(device, "_of_worker", [n_threads])
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(8)))
        projected = volume.slices(rotations, kx, ky, 48.0, STANDARD, eps)
        return pixels_to_fourier(images, grid, precision=precision), projected

    for one, more, again in zip(computed(1), computed(3), computed(3), strict=True):
        np.testing.assert_allclose(one, more, rtol=0, atol=rounding * np.abs(one).max())
        np.testing.assert_array_equal(more, again)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_each_core_has_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert threads_of_a_worker() == 1


def test_every_worker_has_a_core_at_least(monkeypatch):
    monkeypatch.setattr(device, "CPU_COUNT", 2)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    assert [share_of_cores(n) for n in (0, 1, 2, 3, 100)] == [2, 2, 1, 1, 1]


def threads_beside_a_gpu():
    """What this process would use if it saw its GPU."""
    seen = torch.cuda.is_available
    torch.cuda.is_available = lambda: True
    try:
        return threads_of_a_worker()
    finally:
        torch.cuda.is_available = seen


@pytest.mark.release
@pytest.mark.skipif(find_spec("dask_cuda") is None, reason="dask-cuda is not installed")
@pytest.mark.parametrize(
    ("n_workers", "share"), [(None, share_of_cores(2)), (1, share_of_cores(1))]
)
def test_one_worker_for_each_gpu_that_may_be_used(n_workers, share, monkeypatch, caplog):
    """dask-cuda's own way to be tested without a GPU: workers start, and say that they find
    none."""
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setattr(local, "count_gpus", lambda: 2)
    # what whoever starts a program asks for goes before
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with cld.local_cluster(n_workers) as client:
        assert type(client.cluster).__name__ == "LocalCUDACluster"
        assert set(client.nthreads().values()) == {1}
        visible = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(visible.values()) == (["2"] if n_workers else ["2,3", "3,2"])
        assert set(client.run(os.getenv, "OMP_NUM_THREADS").values()) == {str(share)}
        assert set(client.run(os.getenv, "MALLOC_TRIM_THRESHOLD_").values()) == {str(2**28)}
        assert set(client.run(threads_beside_a_gpu).values()) == {share}
        if not torch.cuda.is_available():
            assert set(client.run(torch.get_num_threads).values()) == {1}
        limits = [w["memory_limit"] for w in client.scheduler_info()["workers"].values()]
        assert sum(limits) <= psutil.virtual_memory().total
        pids = client.run(os.getpid).values()
        begun = time.monotonic()
    assert time.monotonic() - begun < 3.5
    assert not any(map(psutil.pid_exists, pids))
    assert "still alive" not in caplog.text
