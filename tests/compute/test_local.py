"""Workers on this machine: one thread each, reachable from this machine only, and gone
afterwards."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from urllib.parse import urlsplit
from urllib.request import urlopen

import dask
import numpy as np
import psutil
import pytest
from distributed import Security
from tornado.websocket import WebSocketClosedError

import cryolike_dask as cld
from cryolike_dask.compute.local import (
    LOOPBACK,
    WORKER_ENVIRONMENT,
    _cuda_cluster,
    _scratch_folder,
    count_gpus,
)
from cryolike_dask.errors import ClusterError, DeviceError, InputError

SECONDS = 10
"""That an error may take; it takes less than one, but machines may be busy."""


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


def compute_for_minutes():
    time.sleep(300)


def has_ended(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_closing_the_client_closes_the_cluster_and_keeps_the_environment(caplog):
    """Workers end by themselves, whatever they compute and have to unload; Dask would kill them
    after four seconds."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    with (
        dask.config.set({"distributed.comm.require-encryption": True}),
        cld.local_cluster(1) as client,
    ):
        pids = list(client.run(os.getpid).values())
        assert {name: os.environ.get(name) for name in WORKER_ENVIRONMENT} == before
        client.submit(compute_for_minutes)
        time.sleep(0.1)
        begun = time.monotonic()
    assert client.cluster.status.name == "closed"
    assert time.monotonic() - begun < 3.5
    assert all(has_ended(pid) for pid in pids)
    assert "still alive" not in caplog.text


def test_nobody_is_let_in_without_the_certificate_of_this_run(cluster, caplog):
    address = cluster.scheduler.address
    assert address.startswith(f"tls://{LOOPBACK}:")
    workers = [
        worker["nanny"] for worker in cluster.scheduler_info(n_workers=-1)["workers"].values()
    ]
    assert all(place.startswith("tls://") for place in [*cluster.nthreads(), *workers])
    with pytest.raises(ClusterError, match="speaks TLS only"):
        cld.connect(address.replace("tls", "tcp"), timeout=0.3)
    with pytest.raises(ClusterError, match="not signed by"):
        cld.connect(address, Security.temporary(), timeout=0.3)
    # the dashboard is for everyone on this machine
    assert urlopen(cluster.dashboard_link).status == 200
    assert "anyone" not in caplog.text


def test_a_cluster_that_others_can_reach_is_warned_of(caplog):
    found = [
        a.address
        for card in psutil.net_if_addrs().values()
        for a in card
        if a.family == socket.AF_INET
    ]
    others = [address for address in found if not address.startswith("127.")]
    if not others:
        pytest.skip("this machine has no network")
    with cld.local_cluster(1, host=others[0], security=False) as client:
        assert (
            f"{client.scheduler.address}: anyone who can reach this scheduler can run programs"
            in caplog.text
        )


def test_gpus_get_certificates_too(monkeypatch):
    given = {}
    fake = ModuleType("dask_cuda")
    fake.__spec__ = ModuleSpec("dask_cuda", None)
    fake.LocalCUDACluster = lambda **settings: (
        given.update(settings) or pytest.fail("enough is known")
    )
    monkeypatch.setitem(sys.modules, "dask_cuda", fake)
    monkeypatch.setattr("cryolike_dask.compute.local.count_gpus", lambda: 2)
    for security in (True, Security.temporary(), False):
        with pytest.raises(pytest.fail.Exception, match="enough is known"):
            cld.local_cluster(security=security)
        certificate = given["security"] and given["security"].tls_worker_cert
        assert bool(certificate) == bool(security)
        assert given["n_workers"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distributed.comm.tls.ciphers": "nonsense"}, "SSLError.*No cipher"),
        (
            {"distributed.scheduler.preload": ["no_such_module"]},
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ({"distributed.nanny.preload": ["no_such_module"]}, "No module named 'no_such_module'"),
        ({"distributed.worker.multiprocessing-method": "nonsense"}, "nonsense"),
        ({"distributed.comm.timeouts.connect": "0.1ms"}, "Timed out trying to connect"),
        ({"temporary-directory": "/dev/null/folder"}, "temporary folder.*Not a directory.*TMPDIR"),
    ],
)
def test_settings_with_which_no_cluster_starts_are_one_error(
    settings, message, monkeypatch, capfd, caplog
):
    monkeypatch.setenv("DASK_SOMETHING", "1")
    begun = time.monotonic()
    with dask.config.set(settings), pytest.raises(ClusterError, match=message):
        cld.local_cluster(1)
    assert time.monotonic() - begun < SECONDS
    assert not caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken_is_one_error():
    message = r"OSError.*in use.*Check Dask's settings"
    with socket.create_server((LOOPBACK, 0)) as server, pytest.raises(ClusterError, match=message):
        cld.local_cluster(1, scheduler_port=server.getsockname()[1])


def test_settings_that_ask_for_encryption_are_not_passed_over():
    settings = {"distributed.comm.require-encryption": True}
    with dask.config.set(settings), pytest.raises(ClusterError, match="TLS"):
        cld.local_cluster(1, security=False)


def test_a_script_without_its_line_is_told_so(monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(ClusterError, match="__main__"):
        cld.local_cluster(1)


def test_workers_write_where_no_other_user_can(tmp_path, monkeypatch):
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        ours = _scratch_folder()
        assert ours == _scratch_folder()
        assert ours.stat().st_mode & 0o777 == 0o700
        ours.chmod(0o777)
        assert _scratch_folder() != ours
        ours.rmdir()
        ours.symlink_to(tmp_path)
        others = _scratch_folder()
        assert others not in (ours, tmp_path)
        assert others.stat().st_mode & 0o777 == 0o700
        ours.unlink()
        ours.mkdir(0o700)
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
        (tmp_path / f"cryolike_dask-{other}").mkdir(0o700)
        assert _scratch_folder().name != f"cryolike_dask-{other}"


def test_ctrl_c_while_closing_ends_this_cluster_and_no_other(cluster, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    client = cld.local_cluster(1)
    (pid,) = client.run(os.getpid).values()
    monkeypatch.setattr(client.cluster, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.close()
    begun = time.monotonic()
    while not has_ended(pid):
        assert time.monotonic() - begun < SECONDS
        time.sleep(0.01)
    client.close()
    assert client.cluster.status.name == "closed"  # or Dask would wait for it when Python ends
    client.__del__()
    assert time.monotonic() - begun < SECONDS
    assert cluster.submit(os.getpid, pure=False).result() != pid


CLOSING = """
import os, signal, threading, time
from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people
from cryolike_dask.cli.options import PlaceOptions, client_in

def press():
    for seconds in (0.01, 0.05, 0.2):
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)

@app.command()
def close():
    with errors_for_people("What is written stays."), client_in(PlaceOptions(workers=1)) as client:
        print(*client.run(os.getpid).values(), flush=True)
        client.submit(time.sleep, 300)
        threading.Thread(target=press, daemon=True).start()

app(["close"])
"""


def test_ctrl_c_while_a_command_closes_its_workers():
    command = subprocess.Popen(
        [sys.executable, "-c", CLOSING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # whoever tests may have ignored it
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    pid, said = command.communicate(timeout=120)
    assert command.returncode in (0, 130)
    assert re.fullmatch(
        r"starting 1 worker \.\.\.\n1 worker; dashboard: http://127.0.0.1:\d+/status\n"
        r"(Stopped. What is written stays.\n)?",
        said,
    )
    assert has_ended(int(pid))


def raised(raising):
    """An error with the way that it came."""
    try:
        raising()
    except Exception as error:
        return type(error), error, error.__traceback__


def closed():
    raise WebSocketClosedError


def test_errors_on_the_way_to_a_browser_are_not_told_but_others_are(cluster, caplog):
    page = urlsplit(cluster.dashboard_link)
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
        "13\r\nSec-WebSocket-Key: AAAA\r\n"
    )
    for more in ("", upgrade, upgrade + "Sec-WebSocket-Protocol: bokeh, old-token\r\n"):
        path = f"/individual-nprocessing{'/ws' if more else ''}"
        with socket.create_connection((page.hostname, page.port)) as browser:
            browser.sendall(f"GET {path} HTTP/1.1\r\nHost: {page.netloc}\r\n{more}\r\n".encode())
            browser.settimeout(SECONDS)
            browser.recv(1 if more else 0)
            # gone without a word
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cluster.submit(os.getpid, pure=False).result()
    for name in ("distributed.scheduler", "tornado.application", "asyncio"):
        logging.getLogger(name).error("of the dashboard", exc_info=raised(closed))
        logging.getLogger(name).error("of something else", exc_info=raised(lambda: 1 / 0))
    assert [record.message for record in caplog.records if record.exc_info] == 3 * [
        "of something else"
    ]


@pytest.mark.parametrize("n", [0, -1, 1.5, True, 100_000])
def test_a_number_of_workers_that_is_none(n):
    with pytest.raises(InputError, match="n_workers"):
        cld.local_cluster(n)


@pytest.mark.skipif(bool(count_gpus()), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_an_error_before_anything_starts(tmp_path):
    files = cld.configure_likelihood_files(tmp_path, tmp_path, tmp_path / "out")
    parameters = cld.ImageParameters(n_pixels=12, pixel_size_angstrom=1.5)
    search = cld.configure_displacement(1, 3, 3)
    with pytest.raises(DeviceError, match="no CUDA GPU"):
        cld.run_likelihood_optimal_pose(files, parameters, search, device="cuda", noise="white")


def test_relative_folders_are_those_of_the_client(cluster, tmp_path, monkeypatch):
    """The workers were started elsewhere: everything, from a structure to likelihoods, lands
    below this folder."""
    monkeypatch.chdir(tmp_path)
    parameters = cld.make_parameters(12, 4.0, viewing_distance=1.0, path="parameters.npz")
    structure = cld.Volume(np.ones((6, 6, 6), np.float32), (4.0, 4.0, 4.0))
    options = {"client": cluster, "progress": False}
    star = cld.simulate_particles(structure, "parameters.npz", "relion", n_images=5, **options)
    cld.make_templates(structure, "parameters.npz", "templates", **options)
    cld.convert_particles(star, "parameters.npz", "particles", **options)
    files = cld.configure_likelihood_files("templates", "particles", "likelihood")
    search = cld.configure_displacement(1.0, 2, 1)
    results = cld.run_likelihood_optimal_pose(files, parameters, search, **options, noise="white")
    assert np.isfinite(results.log_likelihood_integrated.values).all()
    expected = ["likelihood", "parameters.npz", "particles", "relion", "templates"]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    assert not list(tmp_path.rglob("*.part"))


SETTINGS = {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0", "threads_per_worker": 1}
needs_dask_cuda = pytest.mark.skipif(
    find_spec("dask_cuda") is None, reason="dask-cuda is not installed"
)


@pytest.mark.skipif(bool(count_gpus()), reason="this machine has a GPU")
def test_dask_cuda_that_cannot_start_is_one_error():
    """Whether it is not installed, or finds no driver."""
    with pytest.raises(
        DeviceError, match=r"dask-cuda cannot start .*Install cryolike_dask\[cuda12\]"
    ):
        _cuda_cluster(1, SETTINGS)


@needs_dask_cuda
@pytest.mark.skipif(not count_gpus(), reason="this machine has no GPU")
def test_gpus_give_the_results_of_a_cpu(build):
    images, templates = build.stacks(n_images=6, n_templates=9)
    expected = cld.compute_optimal_pose(images, templates, device="cpu").compute(
        scheduler="threads"
    )
    with cld.local_cluster() as client:
        assert type(client.cluster).__name__ == "LocalCUDACluster"
        assert list(client.nthreads().values()) == [1] * count_gpus()
        found = cld.compute_optimal_pose(images, templates, device="cuda").compute()
    for name in ("cross_correlation", "log_likelihood_integrated"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)
    np.testing.assert_array_equal(found.optimal_template, expected.optimal_template)
