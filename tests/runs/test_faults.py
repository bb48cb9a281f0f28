"""What happens to a run while it runs: workers, clients and schedulers that die or stall, files
that spoil."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dask
import numpy as np
import pytest
import torch

import cryolike_dask as cld
from benchmarks.processes import killing, processes
from cryolike_dask.compute.gpu import is_out_of_memory
from cryolike_dask.compute.local import local_cluster
from cryolike_dask.compute.log import reporting_to
from cryolike_dask.compute.run_log import Remembering
from cryolike_dask.errors import (
    CannotFitError,
    ClusterError,
    FailedPiecesError,
    InputError,
    NotFiniteError,
    OutputError,
)

PARAMETERS = cld.ImageParameters(
    n_pixels=32, pixel_size_angstrom=2.0, n_inplanes=64, viewing_distance=0.5
)
SEARCH = cld.configure_displacement(2.0, 5, 5)
N_STACKS, N_IMAGES = 6, 16


@pytest.fixture
def files(tmp_path, build):
    """Two structures and six stacks: a few seconds of work."""
    files = cld.configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out"
    )
    build.write_files(files, PARAMETERS, sizes=(N_IMAGES,) * N_STACKS)
    return files


def run(files, **options):
    settings = {"progress": False, "i_template": "all", "device": "cpu", **options}
    return cld.run_likelihood_optimal_pose(
        files, files.folder_templates / "parameters.npz", SEARCH, **settings, noise="white"
    )


def elsewhere(files, folder):
    return cld.configure_likelihood_files(files.folder_templates, files.folder_particles, folder)


def results(folder):
    """Every result, byte for byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*.pt"))
    }


def open_results(files):
    return cld.open_optimal_pose(replace(files, i_template="all")).load()


def command_of(files, folder, i_template):
    """The same run on the command line, in one process."""
    command = [
        sys.executable,
        "-m",
        "cryolike_dask",
        "optimal-pose",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    inputs = [
        "--templates",
        files.folder_templates,
        "--particles",
        files.folder_particles,
        "--output",
        folder,
    ]
    search = ["--max-displacement-pixels", 2, "--n-displacements-x", 5, "--n-displacements-y", 5]
    search += ["--noise", "white"]
    return [str(part) for part in (*command, *inputs, *search, "--i-template", i_template)]


def records(folder):
    return sorted(Path(folder).glob("template*/done/*.json"))


def test_killed_workers_change_nothing(files, tmp_path, rng):
    """One that dies, then two, one after the other; others are started in their place."""
    n_dead = 0
    with processes(tmp_path) as client:
        run(files, client=client)
        undisturbed = results(files.folder_output)
        assert len(undisturbed) == 8 * 2 * N_STACKS + 1
        for n_killed in (1, 2):
            client.wait_for_workers(2, timeout=60)
            again = elsewhere(files, tmp_path / f"{n_killed} killed")
            with killing(client, rng, n_killed) as killed:
                run(again, client=client)
            assert killed
            assert results(again.folder_output) == undisturbed
            n_dead += len(killed)
            assert len(list(tmp_path.rglob("*.part"))) <= n_dead


def test_a_worker_that_stalls_is_replaced(files, tmp_path):
    run(files)
    again = elsewhere(files, tmp_path / "again")
    with dask.config.set({"distributed.scheduler.worker-ttl": "2s"}), local_cluster(2) as client:
        victim = next(iter(client.run(os.getpid).values()))
        os.kill(victim, signal.SIGSTOP)
        run(again, client=client)
    found = open_results(again)
    for name, expected in open_results(files).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_client_that_is_killed_leaves_complete_files_and_the_rest_is_computed(files, tmp_path):
    run(files)
    folder = tmp_path / "again"
    command = command_of(files, folder, "all")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    deadline = time.monotonic() + 120
    while len(records(folder)) < 3:
        assert killed.poll() is None, killed.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    done = {path: path.stat().st_mtime_ns for path in records(folder)}
    assert 3 <= len(done) < 2 * N_STACKS
    resumed = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{len(done)} of {2 * N_STACKS} stacks are complete and kept" in resumed.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert results(folder) == results(files.folder_output)


def test_runs_into_one_folder_at_the_same_time(files, tmp_path):
    """One process per structure, as CryoLike's users run them, and one that does the same work
    again."""
    run(files)
    folder = tmp_path / "together"
    together = [
        subprocess.Popen(command_of(files, folder, i), stderr=subprocess.PIPE, text=True)
        for i in (0, 1, 1)
    ]
    for process in together:
        assert process.wait(120) == 0, process.stderr.read()
    assert results(folder) == results(files.folder_output)
    assert not list(folder.rglob("*.part"))
    written = {path: path.stat().st_mtime_ns for path in records(folder)}
    run(elsewhere(files, folder), skip_exist=True)
    assert {path: path.stat().st_mtime_ns for path in records(folder)} == written


def spoil_vanished(path):
    path.unlink()


def spoil_truncated(path):
    path.write_bytes(path.read_bytes()[:-1000])


def spoil_other(path):
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("spoil", [spoil_vanished, spoil_truncated, spoil_other])
def test_a_stack_that_spoils_while_a_run_runs_is_named_and_the_others_are_done(
    files, spoil, caplog
):
    spoiled = files.image_stack(4)[0]
    seen = threading.Event()

    def wait_and_spoil():
        while not records(files.folder_output):
            time.sleep(0.001)
        spoil(spoiled)
        seen.set()

    spoiler = threading.Thread(target=wait_and_spoil)
    spoiler.start()
    with pytest.raises(
        FailedPiecesError,
        match=rf"(?s)2 failed.*template0-stack_000004: .*{spoiled.name}.*skip_exist",
    ):
        run(files, on_error="quarantine")
    spoiler.join()
    done = {path.parent.parent.name + path.stem for path in records(files.folder_output)}
    assert done == {f"template{i}stack_{k:06d}" for i in (0, 1) for k in range(N_STACKS) if k != 4}
    assert "template1-stack_000004 failed, and is left out" in caplog.text


def test_the_first_error_stops_a_run_unless_told_otherwise(files):
    path = files.image_stack(0)[0]
    values = torch.load(path, weights_only=True)
    values[-1, 3, 5] = torch.nan
    torch.save(values, path)
    with pytest.raises(NotFiniteError, match=path.name):
        run(files)
    assert len(records(files.folder_output)) < 2 * (N_STACKS - 1)
    with pytest.raises(
        FailedPiecesError,
        match=rf"(?s)template0-stack_000000: .*{path.name}.*template1-stack_000000: ",
    ):
        run(files, on_error="quarantine", skip_exist=True)
    assert len(records(files.folder_output)) == 2 * (N_STACKS - 1)
    with pytest.raises(InputError, match="on_error='ignore'"):
        run(files, on_error="ignore")


LIMITED = """
import resource, sys
from cryolike_dask.cli import app
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
app()
"""


@pytest.mark.parametrize("on_error", ["stop", "quarantine"])
def test_a_disk_that_takes_no_more_is_one_clear_error(files, tmp_path, on_error):
    """The system refuses files larger than a limit, as a full disk would."""
    command = [
        sys.executable,
        "-c",
        LIMITED,
        "1000",
        "optimal-pose",
        "--workers",
        "0",
        "--on-error",
        on_error,
        "--recompute",
    ]
    inputs = ["--templates", files.folder_templates, "--particles", files.folder_particles]
    search = [
        "--i-template",
        0,
        "--max-displacement-pixels",
        2,
        "--n-displacements-x",
        5,
        "--n-displacements-y",
        5,
    ]
    run(files, n_stacks=1, i_template=0)
    failed = subprocess.run(
        [*command, *map(str, (*inputs, *search, "--n-stacks", 2, "--output", files.folder_output))],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    assert failed.returncode == (6 if on_error == "quarantine" else 4)
    assert "Traceback" not in failed.stderr
    assert "cannot be written: File too large" in failed.stderr
    assert ("2 failed; all others are done" in failed.stderr) == (on_error == "quarantine")
    assert not list(files.folder_output.rglob("*.part"))
    assert not records(files.folder_output)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((1 << 50,), np.dtype("f4")),
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
    ],
)
def test_what_says_that_memory_did_not_suffice(error):
    assert is_out_of_memory(error)


def test_how_torch_says_that_memory_did_not_suffice():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(CannotFitError("one image and one template do not fit"))


def test_a_scheduler_that_dies_is_one_clear_error(files, tmp_path):
    with processes(tmp_path) as client:
        scheduler = client.run_on_scheduler(os.getpid)

        def kill():
            while not records(files.folder_output):
                time.sleep(0.001)
            os.kill(scheduler, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ClusterError, match=r"connection to the scheduler was lost.*skip_exist"):
            run(files, client=client)
        killer.join()


def test_blocks_and_events_are_written_as_they_come(files, tmp_path, cluster):
    for client in (None, cluster):
        folder = tmp_path / ("workers" if client else "alone")
        log = folder.with_suffix(".jsonl")
        run(elsewhere(files, folder), client=client, log_file=log)
        with open(folder / "blocks.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["name"] for row in rows} == {
            f"{s}-stack_{k:06d}" for s in "ab" for k in range(N_STACKS)
        }
        n_templates = len(PARAMETERS.viewing_angles())
        pairs = sum(int(row["n_images"]) * int(row["n_templates"]) for row in rows)
        assert pairs == 2 * N_STACKS * N_IMAGES * n_templates
        assert {(row["device"], row["dtype"]) for row in rows} == {("cpu", "float32")}
        assert all(
            0 < float(row["seconds"]) < 60 and int(row["n_images_per_tile"]) > 0 for row in rows
        )
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        finished = [line["name"] for line in lines if line["message"] == "finished"]
        assert sorted(finished) == sorted({row["name"] for row in rows})
        assert sum(line["message"] == "block" for line in lines) == len(rows)


def test_a_log_file_that_cannot_be_written(files, tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        run(files, log_file=tmp_path / "nowhere" / "log")
    assert not files.folder_output.exists()


def test_a_run_leaves_its_log_beside_the_results(files, caplog, monkeypatch):
    # not what commands of other tests have said in this process
    others = [h for h in logging.getLogger().handlers if not isinstance(h, Remembering)]
    monkeypatch.setattr(logging.getLogger(), "handlers", others)
    caplog.set_level(logging.WARNING, "cryolike_dask")
    remembering = Remembering()
    for name, text in (("cryolike_dask", "before"), ("another", "not ours")):
        remembering.emit(logging.makeLogRecord({"name": name, "msg": text}))
    logging.getLogger().addHandler(remembering)
    try:
        run(files, n_stacks=1, i_template=0)
        run(files, n_stacks=1, i_template=0, skip_exist=True)
    finally:
        logging.getLogger().removeHandler(remembering)
    lines = (files.folder_output / "run.log").read_text().splitlines()
    time_, level, *words = lines[0].split()
    assert datetime.fromisoformat(time_).tzinfo is UTC
    said = f"cryolike-dask {cld.__version__} begins: optimal_pose"
    assert (level, " ".join(words)) == ("info", said)
    assert lines[1].endswith(" before")
    assert (times := [line.split()[0] for line in lines]) == sorted(times)
    assert sum(line.endswith("ends: all is done") for line in lines) == 2
    assert sum("before" in line for line in lines) == 1
    assert any("1 of 1 stacks are complete" in line for line in lines)
    assert not any("not ours" in line for line in lines)
    # what a terminal shows is as it was
    assert [record for record in caplog.records if record.levelno < logging.WARNING] == []


def test_the_log_tells_how_a_run_failed(files, monkeypatch):
    def fails(*_, **__):
        raise ClusterError("workers die")

    monkeypatch.setattr("cryolike_dask.runs.writing.stream", fails)
    with pytest.raises(ClusterError):
        run(files, n_stacks=1, i_template=0)
    last = (files.folder_output / "run.log").read_text().splitlines()[-1]
    assert last.endswith("error   ends: workers die")


def test_a_run_goes_on_without_its_log(files, caplog):
    (files.folder_output / "run.log").mkdir(parents=True)
    run(files, n_stacks=1, i_template=0)
    assert "the run goes on without it" in caplog.text


def test_a_performance_report(files, tmp_path, cluster):
    run(
        files, n_stacks=1, i_template=0, client=cluster, performance_report=tmp_path / "report.html"
    )
    assert "</html>" in (tmp_path / "report.html").read_text()
    with pytest.raises(InputError, match="no workers"), reporting_to(tmp_path / "other.html", None):
        pass
