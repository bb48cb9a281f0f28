"""GPUs that fail, played by processes that say what CUDA says: their workers are started anew once,
and left out then; what they had is computed all the same."""

from __future__ import annotations

import logging
import os
import pickle
import time
from types import SimpleNamespace

import pytest
import torch
from distributed import get_worker

from cryolike_dask.compute import gpu
from cryolike_dask.compute.failures import FailedGpus
from cryolike_dask.compute.gpu import noticing_failure, says_that_it_failed
from cryolike_dask.compute.local import local_cluster
from cryolike_dask.compute.stream import WorkItem, stream, task
from cryolike_dask.errors import BrokenGpuError, DeviceError, InputError
from cryolike_dask.likelihoods.turns import turn

ASSERTED = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronous"


@pytest.fixture
def whole(monkeypatch):
    """This process's GPU has not failed."""
    monkeypatch.setattr(gpu, "_failed", [])


def computed_on(folder, item, broken):
    """Fail where the GPU of a worker is broken; else take some time, and write down where."""
    name = str(get_worker().name)
    with noticing_failure("cuda"):
        if name == broken:
            with (folder / "failed").open("a") as file:
                file.write(f"{os.getpid()}\n")
            raise RuntimeError(ASSERTED)
        time.sleep(0.2)
        (folder / item).write_text(name)


def items(folder, broken, n):
    def build(k):
        return task("block", computed_on, folder, f"item-{k}", broken)

    return [WorkItem(f"item-{k}", 1, lambda k=k: build(k)) for k in range(n)]


def warnings(caplog):
    return [
        record.message
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name == "cryolike_dask"
    ]


def test_a_gpu_that_fails_is_started_anew_once_then_left_out(tmp_path, caplog):
    """Several items fail in each of its processes; all are computed by the other worker."""
    with local_cluster(2) as client:
        stream(items(tmp_path, "1", 6), client, n_images=6, progress=False, title="images")
        assert [w["name"] for w in client.scheduler_info()["workers"].values()] == [0]
    assert [(tmp_path / f"item-{k}").read_text() for k in range(6)] == ["0"] * 6
    assert len(set((tmp_path / "failed").read_text().split())) == 2
    first, second = warnings(caplog)
    assert "cuda:0 has failed (CUDA error: device-side assert triggered)" in first
    assert "started anew" in first
    assert "failed again" in second


class Workers:
    """A client of workers, "a" and "b" with nannies, "c" without one."""

    def __init__(self, *names):
        self.names, self.done = list(names), []

    def scheduler_info(self, n_workers):
        return {"workers": {n: {"nanny": None if n == "c" else n[0] * 2} for n in self.names}}

    def restart_workers(self, names, **options):
        (name,) = names
        self.done.append(f"restart {name}")
        self.names[self.names.index(name)] = f"{name}'"

    def retire_workers(self, names, close_workers):
        self.done.append(f"retire {names[0]}")
        self.names.remove(names[0])


def broken(worker):
    error = BrokenGpuError(f"{worker} has failed")
    error.worker, error.device, error.reason = worker, f"GPU of {worker}", "ECC"
    return error


def test_a_worker_is_started_anew_once_for_all_items_that_fail_in_it():
    client = Workers("a", "b")
    failed = FailedGpus(client)
    assert [failed.done_about(broken("a"), item) for item in ("x", "y", "x")] == [None] * 3
    assert client.done == ["restart a"]
    assert failed.done_about(broken("a'"), "x") is None
    assert client.done == ["restart a", "retire a'"]


def test_an_item_under_which_one_gpu_after_the_other_fails_is_an_error():
    client = Workers("a", "b", "d")
    failed = FailedGpus(client)
    assert failed.done_about(broken("a"), "x") is None
    with pytest.raises(DeviceError, match=r"x: one GPU after the other failed.*ECC"):
        raise failed.done_about(broken("b"), "x")
    assert failed.done_about(broken("d"), "y") is None


def test_the_last_worker_is_started_anew_and_then_an_error():
    client = Workers("a")
    failed = FailedGpus(client)
    assert failed.done_about(broken("a"), "x") is None
    last = broken("a'")
    assert failed.done_about(last, "x") is last
    assert client.done == ["restart a"]


def test_a_worker_that_nobody_starts_anew_is_left_out():
    client = Workers("c", "a")
    assert FailedGpus(client).done_about(broken("c"), "x") is None
    assert client.done == ["retire c"]


def test_where_a_worker_does_not_come_back_the_others_go_on(caplog):
    client = Workers("a", "b")

    def late(names, **options):
        client.names.remove("a")
        raise TimeoutError

    client.restart_workers = late
    assert FailedGpus(client).done_about(broken("a"), "x") is None
    assert "has not come back" in caplog.text
    client.names.clear()
    error = broken("a")
    assert FailedGpus(client).done_about(error, "x") is error


def test_what_cuda_says_of_a_gpu_that_failed():
    for said in (
        ASSERTED,
        "CUDA error: unspecified launch failure",
        "CUDA error: an illegal memory access was encountered",
        "No CUDA GPUs are available: no CUDA-capable device is detected",
        "CUDA error: uncorrectable ECC error encountered",
    ):
        assert says_that_it_failed(RuntimeError(said))
    for error in (
        RuntimeError("CUDA error: out of memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError(ASSERTED),
        InputError(ASSERTED),
    ):
        assert not says_that_it_failed(error)


@pytest.mark.usefixtures("whole")
def test_a_process_whose_gpu_has_failed_computes_nothing_more_there_but_on_its_cpu():
    with (
        pytest.raises(BrokenGpuError, match="device-side assert") as first,
        noticing_failure("cuda"),
    ):
        raise RuntimeError(ASSERTED)
    assert (first.value.worker, first.value.device) == ("", "cuda:0")
    with pytest.raises(DeviceError, match="device-side assert"), noticing_failure("cuda"):
        pytest.fail("nothing is tried")
    with turn(SimpleNamespace(device="cpu")):
        pass
    first.value.worker = "tcp://10.0.0.1:4000"
    again = pickle.loads(pickle.dumps(first.value))
    assert (str(again), vars(again)) == (str(first.value), vars(first.value))


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_other_errors_are_what_they_are(kind):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes"), noticing_failure(kind):
            raise RuntimeError("shapes cannot be multiplied")
