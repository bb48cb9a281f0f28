"""Workers on this machine: one thread each, reachable from this machine only, and gone afterwards."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from distributed import Client

import cryolike_dask as cld
from cryolike_dask.cluster import LOOPBACK, WORKER_ENVIRONMENT, _cuda_cluster, count_gpus
from cryolike_dask.errors import ClusterError, DeviceError, InputError


def threads_of_torch():
    import torch

    return torch.get_num_threads()


def listening_addresses():
    """Addresses that this process and its children listen on."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    connections = [c for process in family for c in process.net_connections("tcp")]
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


def test_workers_are_processes_of_one_thread(cluster):
    workers = cluster.scheduler_info(n_workers=-1)["workers"].values()
    assert [w["nthreads"] for w in workers] == [1, 1]
    pids = set(cluster.run(os.getpid).values())
    assert len(pids) == 2
    assert os.getpid() not in pids
    if not count_gpus():
        assert set(cluster.run(threads_of_torch).values()) == {1}


def test_only_loopback_listens(cluster):
    assert urlsplit(cluster.dashboard_link).hostname == "127.0.0.1"
    assert listening_addresses() == {"127.0.0.1"}


def test_closing_the_client_closes_the_cluster_and_keeps_the_environment():
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    with cld.local_cluster(1) as client:
        pids = list(client.run(os.getpid).values())
        assert {name: os.environ.get(name) for name in WORKER_ENVIRONMENT} == before
    assert client.cluster.status.name == "closed"
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)


def test_with_certificates_others_are_not_let_in(caplog):
    with cld.local_cluster(1, security=True) as client:
        address = client.scheduler.address
        assert address.startswith(f"tls://{LOOPBACK}:")
        assert client.submit(threads_of_torch).result() == 1
        with pytest.raises(ClusterError, match="speaks TLS only"):
            cld.connect(address.replace("tls", "tcp"))
    assert "anyone" not in caplog.text


def test_a_cluster_that_others_can_reach_is_warned_of(caplog):
    found = [a.address for card in psutil.net_if_addrs().values() for a in card if a.family == socket.AF_INET]
    others = [address for address in found if not address.startswith("127.")]
    if not others:
        pytest.skip("this machine has no network")
    with cld.local_cluster(1, host=others[0]) as client:
        assert f"{client.scheduler.address}: anyone who can reach this scheduler can run programs" in caplog.text


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_a_number_of_workers_that_is_none(n):
    with pytest.raises(InputError, match="n_workers"):
        cld.local_cluster(n)


@pytest.mark.skipif(bool(count_gpus()), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_an_error_before_anything_starts(tmp_path):
    files = cld.configure_likelihood_files(tmp_path, tmp_path, tmp_path / "out")
    parameters = cld.ImageParameters(n_pixels=12, pixel_size_angstrom=1.5)
    search = cld.configure_displacement(1, 3, 3)
    with pytest.raises(DeviceError, match="no CUDA GPU"):
        cld.run_likelihood_optimal_pose(files, parameters, search, device="cuda")


def test_relative_folders_are_those_of_the_client(cluster, tmp_path, monkeypatch):
    """The workers were started elsewhere: everything, from a structure to likelihoods, lands below this folder."""
    monkeypatch.chdir(tmp_path)
    parameters = cld.make_parameters(12, 4.0, viewing_distance=1.0, path="parameters.npz")
    structure = cld.Volume(np.ones((6, 6, 6), np.float32), (4.0, 4.0, 4.0))
    options = {"client": cluster, "progress": False}
    star = cld.simulate_particles(structure, "parameters.npz", "relion", n_images=5, **options)
    cld.make_templates(structure, "parameters.npz", "templates", **options)
    cld.convert_particles(star, "parameters.npz", "particles", **options)
    files = cld.configure_likelihood_files("templates", "particles", "likelihood")
    search = cld.configure_displacement(1.0, 2, 1)
    results = cld.run_likelihood_optimal_pose(files, parameters, search, **options)
    assert np.isfinite(results.log_likelihood_integrated.values).all()
    expected = ["likelihood", "parameters.npz", "particles", "relion", "templates"]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    assert not list(tmp_path.rglob("*.part"))


SETTINGS = {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0", "threads_per_worker": 1}
needs_dask_cuda = pytest.mark.skipif(find_spec("dask_cuda") is None, reason="dask-cuda is not installed")


@pytest.mark.skipif(bool(count_gpus()), reason="this machine has a GPU")
def test_dask_cuda_that_cannot_start_is_one_error():
    """Whether it is not installed, or finds no driver."""
    with pytest.raises(DeviceError, match=r"dask-cuda cannot start .*Install cryolike_dask\[cuda12\]"):
        _cuda_cluster(1, SETTINGS)


@needs_dask_cuda
def test_one_worker_for_each_gpu_that_may_be_used(monkeypatch):
    """dask-cuda's own way to be tested without a GPU: workers start, and say that they find none."""
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    with _cuda_cluster(None, SETTINGS) as cluster, Client(cluster, set_as_default=False) as client:
        assert set(client.nthreads().values()) == {1}
        visible = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(visible.values()) == ["2,3", "3,2"]


@needs_dask_cuda
@pytest.mark.skipif(not count_gpus(), reason="this machine has no GPU")
def test_gpus_give_the_results_of_a_cpu(build):
    images, templates = build.stacks(n_images=6, n_templates=9)
    expected = cld.compute_optimal_pose(images, templates, device="cpu").compute(scheduler="threads")
    with cld.local_cluster() as client:
        assert type(client.cluster).__name__ == "LocalCUDACluster"
        assert list(client.nthreads().values()) == [1] * count_gpus()
        found = cld.compute_optimal_pose(images, templates, device="cuda").compute()
    for name in ("cross_correlation", "log_likelihood_integrated"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)
    np.testing.assert_array_equal(found.optimal_template, expected.optimal_template)
