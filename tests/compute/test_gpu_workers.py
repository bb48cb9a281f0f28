"""Workers of GPUs: one for each, with its share of the cores, gone when their cluster closes."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec

import psutil
import pytest
import torch
from dask.system import CPU_COUNT

import cryolike_dask as cld
from cryolike_dask.compute import device, local
from cryolike_dask.compute.device import host_threads, share_of_cores, threads_of_a_worker
from cryolike_dask.compute.remote import OneTorchThread


@pytest.fixture
def with_gpus(monkeypatch):
    """As if torch saw a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def on_32_cores(monkeypatch):
    monkeypatch.setattr(device, "CPU_COUNT", 32)


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
def test_threads_of_the_host_are_those_of_torch_on_the_cores_near_the_gpu(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(6)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    plugin = OneTorchThread()
    plugin.setup(None)
    try:
        assert torch.get_num_threads() == host_threads() == 4
        torch.set_num_threads(8)
        assert host_threads() == 6
    finally:
        plugin.teardown(None)
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_each_core_has_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert threads_of_a_worker() == host_threads() == 1


def test_every_worker_has_a_core_at_least(monkeypatch):
    monkeypatch.setattr(device, "CPU_COUNT", 2)
    assert [share_of_cores(n) for n in (0, 1, 2, 3, 100)] == [2, 2, 1, 1, 1]


def threads_beside_a_gpu():
    """What this process would use if it saw its GPU."""
    seen = torch.cuda.is_available
    torch.cuda.is_available = lambda: True
    try:
        return threads_of_a_worker()
    finally:
        torch.cuda.is_available = seen


@pytest.mark.skipif(find_spec("dask_cuda") is None, reason="dask-cuda is not installed")
@pytest.mark.parametrize(("n_workers", "share"), [(None, max(1, CPU_COUNT // 2)), (1, CPU_COUNT)])
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
