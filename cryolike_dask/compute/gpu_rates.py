"""GPUs by name, and the rates that their makers state: what a plan goes by where the GPU itself is
not at hand. None of these was measured."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryolike_dask.errors import InputError


@dataclass(frozen=True)
class GpuRates:
    """A GPU as its data sheet has it, without sparsity, at boost clocks.

    Attributes
    ----------
    name : str
    memory_gb : float
    bandwidth : float
        Of its memory, TB/s.
    half : float
        Products of half-precision matrices that are summed in single precision, on tensor cores,
        TFLOP/s.
    single : float
        Single precision without tensor cores, TFLOP/s.
    has_tf32 : bool
        Whether its tensor cores take single precision with 10 bits too; Triton's kernels do not
        use those of older GPUs.
    """

    name: str
    memory_gb: float
    bandwidth: float
    half: float
    single: float
    has_tf32: bool = True

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.memory_gb:g} GB, {self.bandwidth:g} TB/s, {self.half:g} TFLOP/s "
            f"in half precision, {self.single:g} in single; stated, not measured)"
        )


GPUS = (
    GpuRates("B200", 180, 7.7, 2250, 75),
    GpuRates("H200", 141, 4.8, 989, 67),
    GpuRates("H100", 80, 3.35, 989, 67),
    GpuRates("H100 PCIe", 80, 2.0, 756, 51),
    GpuRates("H100 NVL", 94, 3.9, 835, 60),
    GpuRates("GH200", 96, 4.0, 989, 67),
    GpuRates("A100", 80, 2.04, 312, 19.5),
    GpuRates("A100 40GB", 40, 1.555, 312, 19.5),
    GpuRates("A40", 48, 0.696, 149.7, 37.4),
    GpuRates("A30", 24, 0.933, 165, 10.3),
    GpuRates("A10", 24, 0.6, 125, 31.2),
    GpuRates("L40S", 48, 0.864, 362, 91.6),
    GpuRates("L4", 24, 0.3, 121, 30.3),
    GpuRates("RTX 6000 Ada", 48, 0.96, 182, 91.1),
    GpuRates("RTX A6000", 48, 0.768, 154.8, 38.7),
    GpuRates("RTX 5090", 32, 1.792, 209.5, 104.8),
    GpuRates("RTX 4090", 24, 1.008, 165.2, 82.6),
    GpuRates("RTX 3090", 24, 0.936, 71, 35.6),
    GpuRates("V100", 32, 0.9, 125, 15.7, has_tf32=False),
    GpuRates("T4", 16, 0.32, 65, 8.1, has_tf32=False),
)
"""H100, H200, B200 and A100 are those of SXM boards; on GeForce cards tensor cores that sum in
single precision have half the rate."""
OF_MAKERS = ("nvidia", "tesla", "geforce", "quadro", "generation", "sxm", "hbm2e", "hbm3e", "hbm3")


def gpu_named(name: str) -> GpuRates:
    """The GPU of that name, written as its driver writes it, or shorter: "NVIDIA A100-SXM4-80GB",
    "a100", "RTX4090".

    Raises
    ------
    InputError
        If none of that name is known; lists those that are.
    """
    if (found := find_gpu(name)) is not None:
        return found
    raise InputError(
        f"gpu={name!r} is no GPU whose rates are known",
        remedy=f"Those are: {', '.join(gpu.name for gpu in GPUS)}.",
    )


def find_gpu(name: str) -> GpuRates | None:
    """The GPU whose name is all in this one, the longest; None: none is."""
    words = _plain(str(name))
    known = [gpu for gpu in GPUS if _plain(gpu.name) <= words]
    return max(known, key=lambda gpu: len(gpu.name), default=None)


def _plain(name: str) -> frozenset[str]:
    """Words of a name: letters and numbers that belong together, without those of makers."""
    text = re.sub(r"\b(rtx|gtx)(?=\d)", r"\1 ", name.lower())
    words = re.findall(r"[a-z0-9]+", text)
    return frozenset(word for word in words if not word.startswith(OF_MAKERS))
