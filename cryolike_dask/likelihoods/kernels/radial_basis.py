"""An orthonormal basis of shells for each angular frequency, in which displaced templates need few
coefficients.

A particle of radius R, displaced by up to r, has at angular frequency q only about 2 K (R + r) - q
/ pi independent radial functions inside the band K, however many shells sample it (sources in
`compressed`). The basis is that of the sample's own second moments, real because turning a template
multiplies its coefficients by phases, and cut where what is left out, over all angular frequencies
together, is a given part of the sample's power.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RadialBasis = tuple[NDArray[np.float64], ...]
"""Groups of consecutive angular frequencies from 0 on, each (q, rank, shell) with one rank;
none: all shells."""

N_GROUPS = 12
"""A product of matrices each; neighbouring q differ little in rank, and are padded to the
largest of their group."""


def second_moments(spectra: Tensor) -> Tensor:
    """Sum outer products over shells: real (q, 2, shell, x) -> float64 (q, shell, shell)."""
    columns = spectra.double().transpose(1, 2).flatten(2)
    return torch.bmm(columns, columns.transpose(1, 2))


def radial_basis(moments: Tensor, multiplicity: Tensor, tolerance: float) -> RadialBasis:
    """Keep the directions of most power.

    Parameters
    ----------
    moments : Tensor, float64, (q, shell, shell)
        Moments of a sample of displaced templates.
    multiplicity : Tensor, float64, (q,)
        How often each q counts.
    tolerance : float
        Root of the part of the sample's power that may be left out.
    """
    values, vectors = torch.linalg.eigh(moments)  # ascending
    power = values.clamp(min=0) * multiplicity[:, None]
    ascending = power.flatten().sort().values
    left_out = int((ascending.cumsum(0) <= tolerance**2 * power.sum()).sum())
    least = ascending[left_out - 1] if left_out else -1.0
    ranks = (power > least).sum(1).clamp(min=1).tolist()
    n_shells, n_groups = moments.shape[-1], min(N_GROUPS, len(ranks))
    edges = np.linspace(0, len(ranks), n_groups + 1).round().astype(int)
    groups = []
    for first, last in pairwise(edges.tolist()):
        rank = max(ranks[first:last])
        groups.append(
            vectors[first:last, :, n_shells - rank :].transpose(1, 2).contiguous().cpu().numpy()
        )
    return tuple(groups)
