"""What is worth comparing in more of the band, by what less of it has shown (numpy only)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.likelihoods.search.places import (
    Flags,
    FloatArray,
    PlaceBits,
    Positions,
    all_places,
)

Found = NDArray[np.void]

FOUND = np.dtype([("log_likelihood", "f8"), ("gain", "f8"), ("x", "f8"), ("y", "f8")])
"""Of an image under a template: the log-likelihood summed over displacements and rotations, minus
infinity where it was not compared; by how much the best of them is likelier than noise alone, nat;
and where the particle lies there, in the frame of the image, angstrom."""

NEAR_BEST = 5.0
"""Nat below the best view of those that tell whether a particle lies at the end of the search."""
TELLING = 0.9
"""An image that wants more of all templates tells so little that its likelihoods are flat."""
FLAT = 25.0
"""Nat of gain up to which sums at the displacements of a search alone are right for such an image:
noise alone gains 15 to 20."""
DEARER = 3.0
"""Times that a pose in windows is as dear as one of everything, measured."""
MOST_PLACES = 32
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
    most_places : float
        An image that needs more windows may lie anywhere: all displacements are cheaper.
    n_displacements : float
        Of everything, over those of a window; infinity if it may not be compared.
    end : float
        Angstrom from the middle: particles that lie farther may lie at the end of the search.
    """

    log_prior: FloatArray
    near: Flags
    reach: float
    lost: float
    distance: float
    most_places: float
    n_displacements: float = math.inf
    end: float = math.inf

    def kept(self, found: Found) -> Flags:
        """Views of each image within reach of the best, (image, view)."""
        logs = found["log_likelihood"] + self.log_prior
        reach = self.reach + self.lost * found["gain"].max(axis=1, keepdims=True)
        kept: Flags = logs >= logs.max(axis=1, keepdims=True) - reach
        return kept

    def chosen(self, found: Found) -> tuple[FloatArray, PlaceBits, FloatArray]:
        """Places to lay windows around, of each image; which of them templates want: those where
        the views around them have found it; and what is left out.

        Parameters
        ----------
        found : (image, view), FOUND

        Returns
        -------
        places : (image, MOST_PLACES, 2) float64
            Angstrom, in the frame of the image; NaN beyond those that there are; none at all of
            images that may lie anywhere, but in the second place infinity if the particle may lie
            at the end of the search, minus infinity if everything is compared.
        wanted : (image, template) uint32
        left_out : (image,) float64
            Part of each image's sum over views that lies in those that are not kept.
        """
        kept, logs = self.kept(found), found["log_likelihood"] + self.log_prior
        places = np.full((len(found), MOST_PLACES, 2), np.nan)
        wanted = np.zeros((len(found), len(self.near)), np.uint32)
        near = self.near.astype(np.float32)
        for m in range(len(found)):
            views = np.flatnonzero(kept[m])
            views = views[np.argsort(-logs[m, views], kind="stable")]
            points = np.stack([found["x"][m, views], found["y"][m, views]], axis=1)
            covering, by = _covering(points, self.distance)
            wants = (
                near[:, views] @ (by[:, None] == np.arange(len(covering))).astype(np.float32) > 0
            )
            any_place = wants.any(axis=1)
            is_flat = any_place.mean() > TELLING and found["gain"][m].max() <= FLAT
            if is_flat and DEARER * wants.sum() > len(wants) * self.n_displacements:
                places[m, 1] = -np.inf
                wanted[m] = all_places(np.ones(len(wants), np.bool_))
                continue
            if len(covering) <= MOST_PLACES and wants.sum() <= self.most_places * any_place.sum():
                places[m, : len(covering)] = covering
                wanted[m] = wants @ (1 << np.arange(len(covering)))
                continue
            wanted[m] = all_places(any_place)
            best = points[logs[m, views] > logs[m].max() - NEAR_BEST]
            if not is_flat and (np.hypot(*best.T) > self.end).any():
                places[m, 1] = np.inf
        dropped = np.where(kept, -np.inf, logs)
        left_out = np.logaddexp.reduce(dropped, axis=1) - np.logaddexp.reduce(logs, axis=1)
        return places, wanted, np.exp(left_out)


def _covering(points: FloatArray, distance: float) -> tuple[FloatArray, Positions]:
    """Some of the points, the first among them, within a distance of which all others lie; and by
    which of them each is covered, the first that does it."""
    found: list[FloatArray] = []
    by = np.full(len(points), -1)
    while (by < 0).any():
        (i, *_) = np.flatnonzero(by < 0)
        near = np.hypot(*(points - points[i]).T) <= distance
        by[near & (by < 0)] = len(found)
        found.append(points[i])
    return np.array(found), by
