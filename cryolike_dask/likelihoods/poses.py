"""The record of a best pose, and the associative rule that combines two records of one image
(numpy only)."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

POSE = np.dtype(
    [
        ("cross_correlation", "f8"),
        ("template", "i8"),
        ("displacement", "i4"),
        ("rotation", "i4"),
        ("log_likelihood_optimal", "f8"),
        ("log_likelihood_integrated", "f8"),
        ("correlation_error_bound", "f8"),
    ]
)
"""The best pose of an image among some templates (indices over the whole search), the
log-likelihood there, and the logarithm of the likelihood times the prior summed over all of
these templates' poses; and how far off the correlation with any of them may be."""

Poses = NDArray[np.void]


def no_poses(shape: tuple[int, ...]) -> Poses:
    """Records of no template at all: what changes nothing when it is combined."""
    poses = np.zeros(shape, POSE)
    poses["cross_correlation"] = -np.inf
    poses["log_likelihood_optimal"] = -np.inf
    poses["log_likelihood_integrated"] = -np.inf
    poses["template"] = np.iinfo(np.int64).max
    return poses


def combine(a: Poses, b: Poses) -> Poses:
    """Combine records of the same images from different templates.

    The larger correlation wins; exact ties go to the lowest template, then displacement, then
    rotation. Likelihoods add. Associative and commutative (likelihoods to rounding), so that
    chunking and order cannot change a pose.
    """
    same = a["cross_correlation"] == b["cross_correlation"]
    takes_b = b["cross_correlation"] > a["cross_correlation"]
    for name in ("template", "displacement", "rotation"):
        takes_b = takes_b | (same & (b[name] < a[name]))
        same = same & (b[name] == a[name])
    combined = np.where(takes_b, b, a)
    combined["log_likelihood_integrated"] = np.logaddexp(
        a["log_likelihood_integrated"], b["log_likelihood_integrated"]
    )
    combined["correlation_error_bound"] = np.maximum(
        a["correlation_error_bound"], b["correlation_error_bound"]
    )
    return combined


def combine_along_templates(records: Poses, axis: Any = None, keepdims: bool = False) -> Poses:
    """Combine all records along axis 1, (image, template chunk): the form that
    `dask.array.reduction` calls."""
    combined = reduce(combine, (records[:, i] for i in range(records.shape[1])))
    return combined[:, None] if keepdims else combined
