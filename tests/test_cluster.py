"""Workers on this machine: one thread each, reachable from this machine only, and gone afterwards."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

import cryolike_dask as cld
from cryolike_dask.cluster import WORKER_ENVIRONMENT, count_gpus
from cryolike_dask.errors import DeviceError, InputError


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
