"""What is worth comparing in the whole band, by what a part of it has shown (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.displacements import DisplacementGrid

FloatArray = NDArray[np.float64]

MOST_MODES = 8
"""Places of one image that windows are laid around; an image that needs more is compared with
everything."""
MOST_VIEWS = 0.5
"""Part of all views from which on an image is compared with everything: little would be saved."""


@dataclass(frozen=True, eq=False)
class CoarseViews:
    """What the numbers of a coarse comparison stand for.

    Attributes
    ----------
    log_prior : (view,) float64
        Of coarse views.
    near : (template, view) bool
        Coarse views around each template.
    displacements : DisplacementGrid
        That were tried.
    angles : (rotation,) float64
        Radian.
    reach : float
        Nat below the best that may still hold what counts.
    window : (float, float)
        Half widths of windows along x and y, angstrom.
    """

    log_prior: FloatArray
    near: NDArray[np.bool_]
    displacements: DisplacementGrid
    angles: FloatArray
    reach: float
    window: tuple[float, float]


def kept_views(pairs: NDArray[np.void], coarse: CoarseViews) -> NDArray[np.bool_]:
    """Coarse views of each image within reach of the best, (image, view)."""
    logs = pairs["log_likelihood"] + coarse.log_prior
    kept: NDArray[np.bool_] = logs >= logs.max(axis=1, keepdims=True) - coarse.reach
    return kept


def modes_of_images(pairs: NDArray[np.void], coarse: CoarseViews) -> FloatArray:
    """Places to lay windows around: displacements of each image in its own frame, angstrom.

    Parameters
    ----------
    pairs : (image, view), PAIR
        Best displacement and rotation under each coarse view, and its log-likelihood.
    coarse : CoarseViews

    Returns
    -------
    (image, MOST_MODES, 2) float64
        NaN beyond those that there are; none at all of images to be compared with everything.
    """
    gamma = coarse.angles[pairs["rotation"]]
    x, y = coarse.displacements.table()[:, pairs["displacement"]]
    # moved by d and turned by -gamma, a particle lies here
    own = np.stack([np.cos(gamma) * x + np.sin(gamma) * y, np.cos(gamma) * y - np.sin(gamma) * x])
    kept = kept_views(pairs, coarse)
    logs = pairs["log_likelihood"] + coarse.log_prior
    everything = (kept @ coarse.near.T).mean(axis=1) > MOST_VIEWS
    modes = np.full((len(pairs), MOST_MODES, 2), np.nan)
    for m in np.flatnonzero(~everything):
        views = np.flatnonzero(kept[m])
        views = views[np.argsort(-logs[m, views], kind="stable")]
        found = _covered(own[:, m, views].T, min(coarse.window) / 2)
        if len(found) <= MOST_MODES:
            modes[m, : len(found)] = found
    return modes


def wanted_templates(
    pairs: NDArray[np.void], modes: FloatArray, coarse: CoarseViews
) -> NDArray[np.bool_]:
    """Templates that each image is to be compared with, (image, template)."""
    wanted: NDArray[np.bool_] = kept_views(pairs, coarse) @ coarse.near.T
    wanted[np.isnan(modes[:, 0, 0])] = True
    return wanted


def _covered(points: FloatArray, distance: float) -> FloatArray:
    """Some of the points, the first among them, within a distance of which all others lie."""
    left, found = points, []
    while len(left):
        found.append(left[0])
        left = left[np.hypot(*(left - left[0]).T) > distance]
    return np.array(found)
