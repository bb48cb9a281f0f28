"""Columns of products of spectra: displacements of one template after the other, padded."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cryolike_dask.likelihoods.kernels.direct import BlockConstants


def by_pairs(columns: Tensor, n_templates: int, constants: BlockConstants) -> Tensor:
    """View (..., column) as (..., template, displacement), without the padding."""
    return by_templates(columns, n_templates, constants)[..., : constants.n_displacements]


def by_templates(columns: Tensor, n_templates: int, constants: BlockConstants) -> Tensor:
    """The same with all columns of each template."""
    shape = n_templates, constants.translation[0].shape[-1]
    return torch.unflatten(columns[..., : math.prod(shape)], -1, shape)
