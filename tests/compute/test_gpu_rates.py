"""GPUs by name."""

from __future__ import annotations

import pytest

from cryolike_dask.compute.gpu_rates import GPUS, find_gpu, gpu_named
from cryolike_dask.errors import InputError


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("a100", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("Tesla T4", "T4"),
        ("NVIDIA A10", "A10"),
    ],
)
def test_names_as_drivers_and_people_write_them(written, name):
    assert gpu_named(written).name == name


@pytest.mark.parametrize(
    "name", ["", "H1000", "A1000", "L400", "nvidia", "RTX", "MI300X", "\x00", "100"]
)
def test_others_are_refused_with_those_that_are_known(name):
    assert find_gpu(name) is None
    with pytest.raises(InputError, match=r"is no GPU whose rates are known.*H100.*RTX 4090"):
        gpu_named(name)


def test_rates_are_rates():
    assert len({gpu.name for gpu in GPUS}) == len(GPUS)
    for gpu in GPUS:
        assert 0.2 < gpu.bandwidth < 10
        assert 7 < gpu.single < 120
        assert gpu.single < gpu.half < 40 * gpu.single
        assert 16 <= gpu.memory_gb <= 200
        assert "stated, not measured" in str(gpu)
        assert find_gpu(gpu.name) is gpu
