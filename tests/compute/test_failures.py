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


def computed_on(folder, item, broken, seconds=0.3):
    """Fail where the GPU of a worker is broken: always, or the first time; else take some time, and
    write down where."""
    name = str(get_worker().name)
    with noticing_failure("cuda"):
        if name in broken:
            times = folder / f"failed-{name}"
            times.write_text(times.read_text() + "x" if times.exists() else "x")
            if broken[name] == "always" or len(times.read_text()) <= broken[name]:
                raise RuntimeError(ASSERTED)
        time.sleep(seconds)
        (folder / item).write_text(f"{name} {os.getpid()}")


def items(folder, broken, n, **options):
    def build(k):
        return task("block", computed_on, folder, f"item-{k}", broken, *options.values())

    return [WorkItem(f"item-{k}", 1, lambda k=k: build(k)) for k in range(n)]


def streamed(client, folder, broken, n=8):
    stream(items(folder, broken, n), client, n_images=n, progress=False, title="images")
    return [(folder / f"item-{k}").read_text().split() for k in range(n)]


def warnings(caplog):
    return [
        record.message
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name == "cryolike_dask"
    ]


def test_a_gpu_that_fails_is_started_anew_once_then_left_out(tmp_path, caplog):
    with local_cluster(2) as client:
        folder = tmp_path / "once"
        folder.mkdir()
        before = dict(client.run(lambda dask_worker: (str(dask_worker.name), os.getpid())).values())
        where = streamed(client, folder, {"1": 1})
        assert {name for name, _ in where} == {"0", "1"}
        assert before["1"] not in [int(pid) for _, pid in where]
        assert before["0"] in [int(pid) for _, pid in where]
        (said,) = warnings(caplog)
        assert "cuda:0 has failed (CUDA error: device-side assert triggered)" in said
        assert "started anew" in said
        caplog.clear()

        folder = tmp_path / "always"
        folder.mkdir()
        assert {name for name, _ in streamed(client, folder, {"1": "always"})} == {"0"}
        assert ["started anew" in text for text in warnings(caplog)] == [True, False]
        assert "failed again" in warnings(caplog)[1]
        assert [w["name"] for w in client.scheduler_info()["workers"].values()] == [0]

        caplog.clear()
        with pytest.raises(BrokenGpuError, match=r"has failed .*nvidia-smi"):
            streamed(client, tmp_path, {"0": "always"}, n=3)
        assert len(warnings(caplog)) == 1


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
