"""What CUDA leaves to whoever uses it: how precise products are, how it says that memory did not
suffice, how values go there, and which GPU of a node a process has.

torch is imported inside the functions: the scheduler imports this package too, and does not need
torch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import CryolikeError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("cryolike_dask")

NO_MEMORY = (
    "DefaultCPUAllocator",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUFFT_ALLOC_FAILED",
    "CUFFT_INTERNAL_ERROR",
)
"""What messages of torch, CUDA, Triton and CUDA's libraries have in them that have no type of their
own. The last two but one also stand for other things; with half the tile these fail once more."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of the GPU or of the machine did not suffice."""
    import torch

    if isinstance(error, CryolikeError) or not isinstance(error, (RuntimeError, MemoryError)):
        return False
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(said in str(error) for said in NO_MEMORY)


def free_memory_of_gpu() -> int:
    """Bytes of the GPU that are free, or that torch keeps and nothing is in."""
    import torch

    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0]) + int(kept)


def ready(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy of an array, to be sent to a device: in pinned memory, which a GPU reads by itself.

    For a CPU it is in memory of torch's own alignment: sums over the same values then round the
    same way every time.
    """
    import torch

    tensor = torch.from_numpy(np.asarray(values, order="C"))
    return tensor.clone() if device.type == "cpu" else tensor.pin_memory()


def sent(values: NDArray[Any] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy of an array on a device, or what was made ready for it; to a GPU it goes while the
    program goes on."""
    import torch

    tensor = values if isinstance(values, torch.Tensor) else ready(values, device)
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)


@contextmanager
def float32_products(device: str) -> Iterator[None]:
    """Let products of float32 matrices be float32 on a GPU meanwhile, whatever the process or its
    container asks for: with the 10 bits of TF32 correlations are off by up to 1e-4, a hundred times
    what `correlation_error_bound` says."""
    import torch

    if device == "cpu":
        yield
        return
    matmul = torch.backends.cuda.matmul
    try:
        before, pin = torch.get_float32_matmul_precision(), torch.set_float32_matmul_precision
        exact = "highest"
    except RuntimeError:  # it was set in the newer of two ways, which refuses the other

        def pin(precision: str) -> None:
            matmul.fp32_precision = precision

        before, exact = matmul.fp32_precision, "ieee"
    if before != exact:
        _say_once(before)
    pin(exact)
    try:
        yield
    finally:
        pin(before)


@cache
def _say_once(asked: str) -> None:
    override = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
    by = f", by {override}" if os.environ.get(override) == "1" else ""
    logger.warning(
        "This process asks for products of matrices of less than float32 (%r%s); likelihoods are "
        "computed in float32 all the same",
        asked,
        by,
    )


def name_of_device(kind: str) -> str:
    """ "cpu", or the GPU of this process as its node calls it: each worker of a node has its own
    first, and all of them call it cuda:0."""
    if kind == "cpu":
        return kind
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    return f"{_host()}cuda:{first}"


def _host() -> str:
    """The machine that a worker says it is on, where that is not this one alone."""
    from distributed import get_worker
    from distributed.comm import get_address_host

    try:
        host = get_address_host(get_worker().address)
    except (ValueError, AttributeError):
        return ""
    return "" if host == "127.0.0.1" else f"{host} "
