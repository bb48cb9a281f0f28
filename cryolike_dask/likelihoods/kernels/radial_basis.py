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
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

RadialBasis = tuple[NDArray[np.float64], ...]
"""Groups of consecutive angular frequencies from 0 on, each (q, rank, shell) with one rank;
none: all shells."""

N_GROUPS = 12
"""A product of matrices each; neighbouring q differ little in rank, and are padded to the
largest of their group."""

AMPLIFIED = 5.0
"""How much larger than what the basis leaves out the error of coefficients may be for being read
from some shells only."""

MULTIPLE = 4
"""The number of these shells is a multiple; where there are no more, some count for nothing."""


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


def enough_shells(basis: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Choose shells that say what the coefficients of templates are.

    Where few coefficients are needed, fewer shells than there are determine them. What the basis
    leaves out makes other coefficients of them than the product with the basis does, which are off
    by `AMPLIFIED` times what is left out at those shells at most.

    Parameters
    ----------
    basis : tuple of Tensor, float64, (q, rank, shell)

    Returns
    -------
    shells : Tensor, int64, (chosen shell,)
    matrices : tuple of Tensor, float64, (q, rank, chosen shell)
        Coefficients of spectra at these shells, by least squares.
    """
    n_shells = basis[0].shape[2]
    # shells in the order in which they add most to what is known by those before
    stacked = torch.cat([group[0] for group in basis]).cpu().numpy()
    order = torch.from_numpy(scipy.linalg.qr(stacked, mode="r", pivoting=True)[1].astype(np.int64))
    order = order.to(basis[0].device)
    few, enough = max(group.shape[1] for group in basis) - 1, n_shells
    while enough - few > 1:
        n = (few + enough) // 2
        if all(_determine(group[..., order[:n]]) for group in basis):
            enough = n
        else:
            few = n
    enough = min(n_shells, -(-enough // MULTIPLE) * MULTIPLE)
    shells, padding = order[:enough].sort().values, -enough % MULTIPLE
    chosen = (group[..., shells] for group in basis)
    matrices = (torch.linalg.solve(part @ part.mT, part) for part in chosen)
    return (
        torch.nn.functional.pad(shells, (0, padding)),
        tuple(torch.nn.functional.pad(group, (0, padding)).contiguous() for group in matrices),
    )


def _determine(basis: Tensor) -> bool:
    """Whether coefficients follow from spectra at the shells of a basis, (q, rank, shell)."""
    least = torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device) / AMPLIFIED**2
    return not bool(torch.linalg.cholesky_ex(basis @ basis.mT - least).info.any())
