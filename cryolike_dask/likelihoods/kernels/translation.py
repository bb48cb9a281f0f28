"""In-plane displacements as phase factors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def translation_factors(x: Tensor, y: Tensor, kx: Tensor, ky: Tensor) -> Tensor:
    """Factors that move the content of an image by +x, +y.

    Parameters
    ----------
    x, y : Tensor, real, (displacement,)
        Half boxes: 2 r / L for r angstrom in a box of L angstrom.
    kx, ky : Tensor, real, (shell, angle)
        Cycles per half box.

    Returns
    -------
    Tensor, complex, (displacement, shell, angle)
        exp(-2 pi i (kx x + ky y)).
    """
    cycles = kx * x[:, None, None] + ky * y[:, None, None]
    return torch.polar(torch.ones_like(cycles), -2 * math.pi * cycles)
