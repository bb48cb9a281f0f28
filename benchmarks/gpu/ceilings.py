"""What a device can do, measured: copying, and products of matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

SIZE, OF_DOUBLE = 8192, 2048
PRODUCTS: tuple[tuple[str, torch.dtype, bool], ...] = (
    ("float32", torch.float32, False),
    ("tf32", torch.float32, True),
    ("float16", torch.float16, False),
    ("float64", torch.float64, False),
)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let products of float32 matrices take TF32 meanwhile, or not."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def measured_ceilings(
    device: str, seconds: Callable[[Callable[[], Any]], float], *, small: bool = False
) -> dict[str, float]:
    """Bandwidth of copies in TB/s, read and written, as "copy", and of products in TFLOP/s; those
    that a device cannot do are left out."""
    n_bytes = 2**22 if small else 2**30
    source = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found = {"copy": 2 * n_bytes / seconds(lambda: target.copy_(source)) / 1e12}
    for name, dtype, allowed in PRODUCTS:
        n = 256 if small else OF_DOUBLE if dtype == torch.float64 else SIZE
        a = torch.randn(n, n, device=device).to(dtype)
        with tf32(allowed):
            try:
                found[name] = 2 * n**3 / seconds(lambda: a @ a) / 1e12  # noqa: B023
            except RuntimeError:
                continue
    return found
