"""Whether Triton can be used in this process: it may be installed and yet not compile, where there
is no C compiler, or nowhere to keep what is compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import TypeVar

import torch

from cryolike_dask.compute.gpu import is_out_of_memory

logger = logging.getLogger("cryolike_dask")

_failed: list[Exception] = []

Found = TypeVar("Found")


def is_usable() -> bool:
    """Whether it is there, and has not failed in this process."""
    return not _failed and find_spec("triton") is not None


def on_device(
    device: torch.device, by_kernel: Callable[[], Found], by_torch: Callable[[], Found]
) -> Found:
    """What a kernel of Triton gives on a device, or torch, if it does not work here."""
    try:
        with torch.cuda.device(device):
            return by_kernel()
    except Exception as error:
        give_up(error)
        return by_torch()


def give_up(error: Exception) -> None:
    """Use it no more in this process, and say so.

    Raises
    ------
    Exception
        The error itself, if it says that memory did not suffice: that is not Triton's fault.
    """
    if is_out_of_memory(error):
        raise error
    _failed.append(error)
    logger.warning(
        "Triton cannot compile or run its kernels here (%s: %s); torch computes "
        "instead, which takes longer. Install a C compiler, or let TRITON_CACHE_DIR be a folder "
        "that can be written",
        type(error).__name__,
        error,
    )
