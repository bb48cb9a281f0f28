"""Schedulers and workers that a user started, on loopback: with TLS, without, and with
everything wrong about them."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from distributed import Client, Security
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.cli import app
from cryolike_dask.compute.addresses import warn_if_open_to_others
from cryolike_dask.compute.remote import OneTorchThread
from cryolike_dask.errors import ClusterError, InputError, InputFileError

SLURM = Path(__file__).parents[2] / "configs" / "slurm"
PARAMETERS = cld.ImageParameters(
    n_pixels=20, pixel_size_angstrom=1.5, n_inplanes=40, viewing_distance=3.0
)
SEARCH = (
    "--max-displacement-pixels",
    "1.5",
    "--n-displacements-x",
    "3",
    "--n-displacements-y",
    "2",
    "--noise",
    "white",
)
HERE = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
SECONDS = 8
"""That an error may take: an answer is awaited for 5 s, and asked for in two languages."""


@pytest.fixture(autouse=True)
def garbage_collected():
    """Clients that earlier tests left are collected here. One that is collected in the thread of a
    new loop closes itself there, for longer than Dask waits for that loop to start."""
    gc.collect()


@pytest.fixture
def inputs(tmp_path, build):
    """One structure and two stacks, on disk."""
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "alone"
    )
    build.write_files(files, PARAMETERS, structures=("a",), sizes=(3, 3))
    return files


def run(inputs, output, client=None):
    """Outputs of a run."""
    files = cld.configure_likelihood_files(inputs.folder_templates, inputs.folder_particles, output)
    search = cld.configure_displacement(1.5, 3, 2)
    cld.run_likelihood_optimal_pose(
        files, PARAMETERS, search, client=client, progress=False, device="cpu", noise="white"
    )
    return outputs(output)


@pytest.fixture
def expected(inputs):
    """Outputs of a run in this process."""
    return run(inputs, inputs.folder_output)


def outputs(folder):
    return {
        str(path.relative_to(folder)): torch.load(path)
        for path in sorted(Path(folder).rglob("*.pt"))
    }


def assert_equal(found, expected):
    """The same files, the same numbers: but for rounding, for templates are cut by the number of
    workers."""
    assert list(found) == list(expected)
    for name, values in expected.items():
        torch.testing.assert_close(
            found[name], values, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: name + text
        )


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """Two sets, each signed by itself alone: the options of `connect`."""
    made = []
    for name in ("ours", "theirs"):
        folder = tmp_path_factory.mktemp(name)
        temporary = Security.temporary()
        texts = (temporary.tls_ca_file, temporary.tls_client_cert, temporary.tls_client_key)
        made.append({})
        for option, text in zip(("tls_ca_file", "tls_cert", "tls_key"), texts, strict=True):
            made[-1][option] = folder / f"{option}.pem"
            made[-1][option].write_text(text)
    return made


def as_options(tls):
    return [
        text for name, path in tls.items() for text in ("--" + name.replace("_", "-"), str(path))
    ]


@contextmanager
def processes(folder, **tls):
    """Start `dask` commands; kill them, and what they have started, in the end."""
    started = []
    environment = {
        k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    environment |= {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}

    def start(*arguments):
        command = [sys.executable, "-m", "dask", *map(str, arguments), *as_options(tls)]
        with open(folder / f"{len(started)}.log", "w") as log:
            started.append(
                psutil.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
            )

    try:
        yield start
    finally:
        family = [process for s in started for process in [*s.children(recursive=True), s]]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=10)


def start_scheduler(start, file, *options):
    start("scheduler", *HERE, "--port", 0, "--scheduler-file", file, *options)
    deadline = time.monotonic() + 60
    while not (file.is_file() and file.read_text()):
        assert time.monotonic() < deadline, (file.parent / "0.log").read_text()
        time.sleep(0.05)
    return json.loads(file.read_text())["address"]


@contextmanager
def running(folder, **tls):
    """A scheduler, and two workers."""
    file = folder / "scheduler.json"
    with processes(folder, **tls) as start:
        address = start_scheduler(start, file)
        for _ in range(2):
            start("worker", "--scheduler-file", file, *HERE, "--nthreads", 1, "--no-nanny")
        yield SimpleNamespace(address=address, file=file, tls=tls)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with running(tmp_path_factory.mktemp("plain")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory, certificates):
    with running(tmp_path_factory.mktemp("encrypted"), **certificates[0]) as cluster:
        yield cluster


def test_outputs_are_those_without_a_cluster(plain, encrypted, inputs, expected, tmp_path, caplog):
    with cld.connect(plain.address) as client:
        client.wait_for_workers(2, timeout=60)
        assert_equal(run(inputs, tmp_path / "plain", client), expected)
    with cld.connect(encrypted.file, **encrypted.tls) as client:
        assert client.scheduler.address.startswith("tls://")
        assert_equal(run(inputs, tmp_path / "encrypted", client), expected)
    ca, cert, key = map(str, encrypted.tls.values())
    with cld.connect(
        encrypted.address, Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key)
    ) as client:
        assert cld.connect(client) is client
        assert client.submit(torch.get_num_threads).result() == 1
    assert len(expected) == 1 + 2 * 8
    assert "anyone" not in caplog.text


def test_the_command_line_connects(encrypted, inputs, expected, tmp_path):
    command = [
        "optimal-pose",
        "--templates",
        inputs.folder_templates,
        "--particles",
        inputs.folder_particles,
        *SEARCH,
    ]
    command += [
        "--output",
        tmp_path / "out",
        "--scheduler-file",
        encrypted.file,
        *as_options(encrypted.tls),
    ]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0, done.stderr
    assert_equal(outputs(tmp_path / "out"), expected)


def other_scheme(address):
    scheme, rest = address.split("://")
    return f"{'tcp' if scheme == 'tls' else 'tls'}://{rest}"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            lambda p, e, a, b: (other_scheme(e.address), {}),
            ClusterError,
            "TLS only. Give tls://host:port, with",
        ),
        (
            lambda p, e, a, b: (other_scheme(p.address), a),
            ClusterError,
            "does not speak TLS.* give tcp://host:port",
        ),
        (lambda p, e, a, b: (e.address, {}), InputError, "needs certificates. Give tls_ca_file"),
        (
            lambda p, e, a, b: (p.address, a),
            InputError,
            "is not encrypted, but certificates are given",
        ),
        (lambda p, e, a, b: (e.file, b), ClusterError, r"json: tls://.*not signed by tls_ca_file"),
        (
            lambda p, e, a, b: (e.address, {**b, "tls_ca_file": a["tls_ca_file"]}),
            ClusterError,
            "refuses tls_cert",
        ),
        (
            lambda p, e, a, b: (e.address, {**a, "tls_key": b["tls_key"]}),
            InputFileError,
            "the key must be that of",
        ),
        (
            lambda p, e, a, b: (e.address, {**a, "tls_cert": p.file}),
            InputFileError,
            "scheduler.json, .*cannot be used",
        ),
        (
            lambda p, e, a, b: (e.address, {**a, "tls_key": Path("no.pem")}),
            InputFileError,
            r"1 missing.*\n  no.pem",
        ),
        (
            lambda p, e, a, b: (e.address, {"tls_cert": a["tls_cert"]}),
            InputError,
            "tls_cert alone. TLS needs",
        ),
        (
            lambda p, e, a, b: (e.address, {**a, "security": Security()}),
            InputError,
            "security and tls_ca_file, .*excl",
        ),
    ],
)
def test_certificates_that_do_not_fit(plain, encrypted, certificates, arguments, error, message):
    where, options = arguments(plain, encrypted, *certificates)
    begun = time.monotonic()
    with pytest.raises(error, match=message):
        cld.connect(where, **options)
    assert time.monotonic() - begun < SECONDS


@pytest.fixture
def silent():
    """Something that listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_an_address_where_no_scheduler_is(plain, silent, tmp_path):
    with Client(plain.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        worker = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
    for where, message in {
        "tcp://127.0.0.1:1": "tcp://127.0.0.1:1 cannot be reached .*refused.* Check that `dask "
        "scheduler` runs",
        "tcp://no-such-host.invalid:8786": "no-such-host.invalid:8786 cannot be reached",
        silent: f"{silent} does not answer as a Dask scheduler within 0.5 s",
        worker: f"{worker} does not accept this client.*not of a worker",
    }.items():
        begun = time.monotonic()
        with pytest.raises(ClusterError, match=message):
            cld.connect(where, timeout=0.5)
        assert time.monotonic() - begun < SECONDS
    for where in ("tcp://127.0.0.1", "tcp://127.0.0.1:x", "http://127.0.0.1:8786"):
        with pytest.raises(
            InputError, match=f"{where} is not an address. Give tcp://host:port or tls://host:port"
        ):
            cld.connect(where)
    for text in ("{", "[1]", "{}"):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(
            InputFileError, match=r"broken.json: is not a scheduler file.*--scheduler-file"
        ):
            cld.connect(tmp_path / "broken.json")
    with pytest.raises(
        InputFileError, match=r"nowhere.json: there is no such file. Start `dask scheduler"
    ):
        cld.connect(tmp_path / "nowhere.json")
    (tmp_path / "old.json").write_text('{"address": "tcp://127.0.0.1:1"}')
    with pytest.raises(
        ClusterError, match=r"old.json: tcp://127.0.0.1:1 cannot be reached.*may be old"
    ):
        cld.connect(tmp_path / "old.json")


def test_a_scheduler_that_has_no_worker_or_lacks_the_package(tmp_path, caplog):
    blocked = "import sys; sys.modules['cryolike_dask'] = None"
    with processes(tmp_path) as start:
        address = start_scheduler(start, tmp_path / "scheduler.json", "--preload", blocked)
        with pytest.raises(
            ClusterError,
            match=f"{address}: no worker has joined within 0.5 s. `dask worker {address}",
        ):
            cld.connect(address, wait_for_workers=0.5)
        assert "no worker has joined yet; waiting for one, up to 0.5 s" in caplog.text
        with pytest.raises(
            ClusterError, match=r"cannot import cryolike_dask.* Start both from an environment"
        ):
            cld.connect(address, wait_for_workers=0)


def test_every_worker_computes_with_one_thread_of_torch(tmp_path, caplog):
    """Those that are there, those that join later, those that are restarted; until the plugin is
    taken off."""

    def threads(client):
        return {
            client.submit(torch.get_num_threads, workers=[w], pure=False).result()
            for w in client.nthreads()
        }

    with processes(tmp_path) as start:
        file = tmp_path / "scheduler.json"
        address = start_scheduler(start, file)
        start("worker", "--scheduler-file", file, *HERE, "--nthreads", 2)
        with Client(address) as client:
            client.wait_for_workers(1, timeout=60)
            assert set(client.run(torch.get_num_threads).values()) == {2}
            assert cld.connect(client) is client
            assert "1 worker(s) have up to 2 threads" in caplog.text
            assert "--nthreads 1 --nworkers 2" in caplog.text
            assert threads(client) == {1}
            start("worker", "--scheduler-file", file, *HERE, "--nthreads", 1)
            client.wait_for_workers(2, timeout=60)
            assert threads(client) == {1}
            client.restart_workers(list(client.nthreads())[:1], timeout=60)
            client.wait_for_workers(2, timeout=60)
            assert threads(client) == {1}
            client.unregister_worker_plugin(OneTorchThread.name)
            assert set(client.run(torch.get_num_threads).values()) == {2}


def test_a_connection_that_is_lost_is_told_by_an_error_alone(cluster, caplog):
    assert cld.connect(cluster) is cluster
    for error in (asyncio.CancelledError(), ConnectionRefusedError("by nobody"), TimeoutError()):
        logging.getLogger("distributed.client").error("lost", exc_info=(type(error), error, None))
    assert not caplog.records
    error = ZeroDivisionError()
    logging.getLogger("distributed.client").error(
        "something else", exc_info=(type(error), error, None)
    )
    logging.getLogger("distributed.client").warning("without an error")
    assert caplog.messages == ["something else", "without an error"]


@pytest.mark.parametrize(
    ("address", "open_to_others"),
    [
        ("tcp://192.0.2.1:8786", True),
        ("tcp://no-such-host.invalid:8786", True),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("tls://192.0.2.1:8786", False),
        ("inproc://192.0.2.1/1/1", False),
    ],
)
def test_a_scheduler_that_others_reach_without_a_certificate_is_warned_of(
    address, open_to_others, caplog
):
    with caplog.at_level(logging.WARNING):
        warn_if_open_to_others(address)
    assert (
        f"{address}: anyone who can reach this scheduler can run programs as you" in caplog.text
    ) == open_to_others


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--scheduler", "tcp://h:1", "--workers", 1],
            "--scheduler and --workers exclude each other",
        ),
        (
            ["--scheduler", "tcp://h:1", "--scheduler-file", "f"],
            "--scheduler and --scheduler-file exclude each other",
        ),
        (
            ["--scheduler-file", "f", "--workers", 0],
            "--scheduler-file and --workers exclude each other",
        ),
        (
            ["--tls-cert", "f"],
            "--tls-ca-file, --tls-cert and --tls-key need --scheduler or --scheduler-file",
        ),
        (["--scheduler", ""], "is not a scheduler file"),
    ],
)
def test_options_that_exclude_each_other(options, message):
    failed = CliRunner().invoke(app, ["demo", *map(str, options)])
    assert failed.exit_code == 3
    assert message in failed.stderr


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands in the place of SLURM's that run what they are given on this machine."""
    commands = {
        "srun": """
            while [[ $1 == -* ]]; do case $1 in --ntasks=*) n=${1#*=};; esac; shift; done
            trap 'kill $(jobs -p); wait' TERM
            for ((i = 0; i < n; i++)); do "$@" & done
            wait""",
        "sbatch": 'cp "$1" "$0.job"; setsid bash "$0.job" >"$SLURM_LOG" 2>&1 & echo "Submitted '
        'batch job $!"',
        "scancel": 'kill -TERM -- "-$1"',
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in commands.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_LOG", str(tmp_path / "job.log"))
    yield tmp_path
    left = [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(p.info["cmdline"] or [])
    ]
    for process in left:
        process.kill()
    assert not left


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the batch script makes its certificate with openssl"
)
def test_the_batch_script_runs(slurm, expected):
    script = SLURM / "cryolike-dask.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    environment = {
        **os.environ,
        "SLURM_JOB_ID": "1",
        "SLURM_NTASKS": "2",
        "SCHEDULER_HOST": "127.0.0.1",
    }
    settings = {
        "cwd": slurm,
        "env": environment,
        "capture_output": True,
        "text": True,
        "timeout": 120,
    }
    command = [
        "bash",
        script,
        "optimal-pose",
        "--templates",
        "templates",
        "--particles",
        "particles",
        *SEARCH,
    ]
    done = subprocess.run([*command, "--output", "out"], **settings)
    assert done.returncode == 0, done.stderr
    assert "6 images: results are in" in done.stdout
    assert_equal(outputs(slurm / "out"), expected)
    failed = subprocess.run(["bash", script, "no-such-command"], **settings)
    assert failed.returncode == 2
    assert "No such command" in failed.stderr
    assert not list(slurm.glob("cryolike-dask-*"))


def test_the_slurm_cluster_submits_workers(slurm, inputs):
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    code = (
        f"import sys; sys.path.insert(0, {str(SLURM)!r}); import slurm_cluster as s; "
        f"print(s.signal.getsignal(2))"
    )
    code += (
        "\nif __name__ == '__main__': s.main('templates', 'particles', 'out', "
        "host='127.0.0.1', n_jobs=1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=slurm, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "default_int_handler" in done.stdout
    for line in ("#SBATCH --cpus-per-task=1", "#SBATCH --mem=4G"):
        assert line in done.stdout.splitlines()
    for part in (
        "export MALLOC_TRIM_",
        "tls://127.0.0.1:",
        "--nthreads 1",
        "--tls-key",
        "-address 127.0.0.1:0",
    ):
        assert part in done.stdout
    assert len(outputs(slurm / "out")) == 1 + 2 * 8
    assert (slurm / "cryolike-dask-slurm").stat().st_mode & 0o77 == 0
