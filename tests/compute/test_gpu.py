"""What CUDA leaves to whoever uses it, without a GPU."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
import torch

from cryolike_dask.compute import gpu
from cryolike_dask.compute.device import free_memory
from cryolike_dask.compute.gpu import float32_products, name_of_device, tf32_products

MATMUL = torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def as_before():
    """Nothing has been said, and precisions are what they were."""
    gpu._say_once.cache_clear()
    yield
    MATMUL.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("asked", ["high", "medium"])
def test_products_are_float32_whatever_the_process_asks_for(asked, caplog):
    torch.set_float32_matmul_precision(asked)
    for _ in range(2):
        with float32_products("cuda"):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not MATMUL.allow_tf32
        assert torch.get_float32_matmul_precision() == asked
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"less than float32 ({asked!r})" in caplog.text


def test_products_are_float32_where_the_newer_way_was_taken(caplog):
    MATMUL.fp32_precision = "tf32"
    with float32_products("cuda"):
        assert MATMUL.fp32_precision == "ieee"
    assert MATMUL.fp32_precision == "tf32"
    assert "less than float32 ('tf32')" in caplog.text


@pytest.mark.parametrize("newer", [False, True])
def test_products_of_tf32_are_taken_where_they_are_asked_for(newer, caplog):
    if newer:
        MATMUL.fp32_precision = "ieee"

    def precision():
        return MATMUL.fp32_precision if newer else torch.get_float32_matmul_precision()

    exact, fast = ("ieee", "tf32") if newer else ("highest", "high")
    with float32_products("cuda"):
        with tf32_products():
            assert precision() == fast
        assert precision() == exact
    assert not caplog.records


def test_products_of_float16_are_summed_in_float32():
    MATMUL.allow_fp16_accumulation = True
    with float32_products("cuda"):
        assert not MATMUL.allow_fp16_accumulation
    assert MATMUL.allow_fp16_accumulation
    MATMUL.allow_fp16_accumulation = False
    with float32_products("cuda"):
        assert not MATMUL.allow_fp16_accumulation
    assert not MATMUL.allow_fp16_accumulation


def test_nothing_is_touched_on_a_cpu_or_said_where_all_is_well(caplog):
    torch.set_float32_matmul_precision("high")
    with float32_products("cpu"):
        assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision("highest")
    with float32_products("cuda"):
        assert torch.get_float32_matmul_precision() == "highest"
    assert not caplog.records


def test_an_override_of_a_container_is_said():
    code = "from cryolike_dask.compute.gpu import float32_products\nwith float32_products('cuda'):"
    code += "\n  import torch; print(torch.get_float32_matmul_precision())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["highest"]
    assert "('high', by TORCH_ALLOW_TF32_CUBLAS_OVERRIDE)" in done.stderr


@pytest.mark.parametrize(
    ("visible", "name"), [("2,3,0", "cuda:2"), ("GPU-5a1b", "cuda:GPU-5a1b"), ("", "cuda:0")]
)
def test_each_gpu_of_a_node_has_its_own_name(visible, name, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert name_of_device("cuda") == name
    assert name_of_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("address", "name"),
    [("tcp://127.0.0.1:4000", "cuda:1"), ("tcp://10.0.0.7:4000", "10.0.0.7 cuda:1")],
)
def test_gpus_of_several_nodes_are_told_apart(address, name, monkeypatch):
    class Worker:
        pass

    Worker.address = address
    monkeypatch.setattr("distributed.get_worker", Worker)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert name_of_device("cuda") == name


def test_what_torch_keeps_for_later_is_free(monkeypatch):
    sizes = {"mem_get_info": (1000, 8000), "memory_reserved": 500, "memory_allocated": 200}
    for name, size in sizes.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, size=size: size)
    assert free_memory("cuda") == 1300
