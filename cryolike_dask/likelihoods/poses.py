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
        ("log_missed", "f8"),
        ("part_left_out", "f8"),
        ("n_poses", "i8"),
    ]
)
"""The best pose of an image among some templates (indices over the whole search), the
log-likelihood there, and the logarithm of the likelihood times the prior summed over all of
these templates' poses; how far off the correlation with any of them may be. Then what a search that
compares some of them only is estimated to have missed about them: the logarithm of the likelihood
times the prior; the part of the image's sum that it has left out by whole templates; and the number
of poses that were compared."""

Poses = NDArray[np.void]


def no_poses(shape: tuple[int, ...]) -> Poses:
    """Records of no template at all: what changes nothing when it is combined."""
    poses = np.zeros(shape, POSE)
    poses["cross_correlation"] = -np.inf
    poses["log_likelihood_optimal"] = -np.inf
    poses["log_likelihood_integrated"] = -np.inf
    poses["log_missed"] = -np.inf
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
    for name in ("log_likelihood_integrated", "log_missed"):
        combined[name] = np.logaddexp(a[name], b[name])
    for name in ("correlation_error_bound", "part_left_out"):
        combined[name] = np.maximum(a[name], b[name])
    combined["n_poses"] = a["n_poses"] + b["n_poses"]
    return combined


def combine_along_templates(records: Poses, axis: Any = None, keepdims: bool = False) -> Poses:
    """Combine all records along axis 1, (image, template chunk): the form that
    `dask.array.reduction` calls."""
    combined = reduce(combine, (records[:, i] for i in range(records.shape[1])))
    return combined[:, None] if keepdims else combined
