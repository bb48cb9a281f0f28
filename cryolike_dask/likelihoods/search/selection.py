"""What is worth comparing in more of the band, by what less of it has shown (numpy only)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Found = NDArray[np.void]
Flags = NDArray[np.bool_]

FOUND = np.dtype([("log_likelihood", "f8"), ("gain", "f8"), ("x", "f8"), ("y", "f8")])
"""Of an image under a template: the log-likelihood summed over displacements and rotations, minus
infinity where it was not compared; by how much the best of them is likelier than noise alone, nat;
and where the particle lies there, in the frame of the image, angstrom."""

NEAR_BEST = 5.0
"""Nat below the best view of those that tell whether a particle lies at the end of the search."""
TELLING = 0.9
"""An image that keeps more of all views tells so little that likelihoods are flat at the end."""
MOST_PLACES = 8
"""Places of one image that windows are laid around; an image that needs more may lie anywhere."""


@dataclass(frozen=True, eq=False)
class Selection:
    """How to choose for the next level.

    Attributes
    ----------
    log_prior : (view,) float64
        Of the views that were compared.
    near : (template, view) bool
        Those around each template of the next level.
    reach : float
        Nat below the best that may still hold what counts.
    lost : float
        Part of the best gain that may be lost beside it: true views lie between those tried.
    distance : float
        Angstrom. A window serves all places within it.
    most_places : int
        An image that needs more windows may lie anywhere: all displacements are cheaper.
    end : float
        Angstrom from the middle: particles that lie farther may lie at the end of the search.
    """

    log_prior: FloatArray
    near: Flags
    reach: float
    lost: float
    distance: float
    most_places: int
    end: float = math.inf

    def kept(self, found: Found) -> Flags:
        """Views of each image within reach of the best, (image, view)."""
        logs = found["log_likelihood"] + self.log_prior
        reach = self.reach + self.lost * found["gain"].max(axis=1, keepdims=True)
        kept: Flags = logs >= logs.max(axis=1, keepdims=True) - reach
        return kept

    def left_out(self, found: Found) -> FloatArray:
        """Part of each image's sum over views that lies in those that are not kept, (image,)."""
        logs = found["log_likelihood"] + self.log_prior
        dropped = np.where(self.kept(found), -np.inf, logs)
        parts: FloatArray = np.exp(
            np.logaddexp.reduce(dropped, axis=1) - np.logaddexp.reduce(logs, axis=1)
        )
        return parts

    def places(self, found: Found) -> FloatArray:
        """Places to lay windows around, of each image.

        Parameters
        ----------
        found : (image, view), FOUND

        Returns
        -------
        (image, MOST_PLACES, 2) float64
            Angstrom, in the frame of the image; NaN beyond those that there are; none at all of
            images that may lie anywhere, but infinity in the second place of those whose particle
            may lie at the end of the search.
        """
        kept, logs = self.kept(found), found["log_likelihood"] + self.log_prior
        places = np.full((len(found), MOST_PLACES, 2), np.nan)
        for m in range(len(found)):
            views = np.flatnonzero(kept[m])
            views = views[np.argsort(-logs[m, views], kind="stable")]
            points = np.stack([found["x"][m, views], found["y"][m, views]], axis=1)
            covering = _covering(points, self.distance)
            if len(covering) <= self.most_places:
                places[m, : len(covering)] = covering
            elif len(views) <= TELLING * kept.shape[1]:
                best = points[logs[m, views] > logs[m].max() - NEAR_BEST]
                if (np.hypot(*best.T) > self.end).any():
                    places[m, 1] = np.inf
        return places

    def templates(self, found: Found) -> Flags:
        """Templates that each image is to be compared with, (image, template)."""
        wanted: Flags = self.kept(found) @ self.near.T
        return wanted


def _covering(points: FloatArray, distance: float) -> FloatArray:
    """Some of the points, the first among them, within a distance of which all others lie."""
    left, found = points, []
    while len(left):
        found.append(left[0])
        left = left[np.hypot(*(left - left[0]).T) > distance]
    return np.array(found)
