"""What is worth comparing in more of the band, by what less of it has shown (numpy only)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cryolike_dask.geometry.search_method import ERROR_NAT
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
DEARER = 2.0
"""Times that a pose of an image that may lie anywhere is as dear as one about its places."""
MOST_PLACES, WIDER = 32, (1.0, 1.5, 2.0)
"""Places of one image that windows are laid around; where an image needs more, its windows serve
places so many times as far away, and one that needs more still may lie anywhere."""


@dataclass(frozen=True)
class Reach:
    """How far below the best view others may still hold what counts: so many nat and this part of
    the best gain, which may be lost beside it, but at least what noise may be worth in more of the
    band."""

    least: float
    nat: float
    lost: float

    def to(self, error_nat: float) -> Reach:
        """The same for another error than usual: what lies so much lower is so much less."""
        more = math.log(ERROR_NAT / error_nat)
        return Reach(self.least + more, self.nat + more, self.lost)

    def below(self, gain: FloatArray) -> FloatArray:
        """Nat, by the best gain."""
        return np.maximum(self.least, self.nat + self.lost * gain)


@dataclass(frozen=True)
class Flat:
    """What is compared with everything: images that gain no more than so many nat, minus infinity
    if none may be, and want more than this part of all poses."""

    gain: float = -math.inf
    part: float = 1.0


@dataclass(frozen=True, eq=False)
class Selection:
    """How to choose for the next level.

    Attributes
    ----------
    log_prior : (view,) float64
        Of the views that were compared.
    near : sparse (template, view) bool
        Of the views that were compared, those by which each template of the next level is chosen.
    around : sparse (template, view) bool
        Those around it, where they have found the particle it is compared.
    reach : Reach
    distance : float
        Angstrom. A window serves all places within it.
    most_places : float
        An image that needs more windows may lie anywhere: all displacements are cheaper.
    flat : Flat
    end : float
        Angstrom from the middle: particles that lie farther may lie at the end of the search.
    """

    log_prior: FloatArray
    near: csr_array
    around: csr_array
    reach: Reach
    distance: float
    most_places: float
    flat: Flat = Flat()
    end: float = math.inf

    def kept(self, found: Found) -> Flags:
        """Views of each image within reach of the best, (image, view)."""
        logs = found["log_likelihood"] + self.log_prior
        reach = self.reach.below(found["gain"].max(axis=1, keepdims=True))
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
        logs = found["log_likelihood"] + self.log_prior
        # those that no level before has found to tell nothing
        is_open = np.asarray(np.isfinite(logs).any(axis=1))
        kept = self.kept(found)
        places = np.full((len(found), MOST_PLACES, 2), np.nan)
        wanted = np.zeros((len(found), self.near.shape[0]), np.uint32)
        for m in range(len(found)):
            if not is_open[m]:
                continue
            views = np.flatnonzero(kept[m])
            views = views[np.argsort(-logs[m, views], kind="stable")]
            points = np.stack([found["x"][m, views], found["y"][m, views]], axis=1)
            for wider in WIDER:
                covering, by = _covering(points, wider * self.distance)
                if len(covering) <= MOST_PLACES:
                    break
            of_places = np.zeros((len(kept[m]), len(covering)), np.bool_)
            of_places[views, by] = True
            any_place = self.near @ kept[m]
            wants = (self.around @ of_places) & any_place[:, None]
            is_few = len(covering) <= MOST_PLACES and (
                wants.sum() <= self.most_places * any_place.sum()
            )
            part = wants.sum() / self.most_places if is_few else DEARER * any_place.sum()
            if found["gain"][m].max() <= self.flat.gain and part > self.flat.part * len(wants):
                is_open[m] = False
            elif is_few:
                places[m, : len(covering)] = covering
                wanted[m] = wants @ (1 << np.arange(len(covering)))
            else:
                wanted[m] = all_places(any_place)
                best = points[logs[m, views] > logs[m].max() - NEAR_BEST]
                places[m, 1] = np.inf if (np.hypot(*best.T) > self.end).any() else np.nan
        places[~is_open, 1], wanted[~is_open] = -np.inf, all_places(np.ones(1, np.bool_))
        dropped, left_out = np.where(kept, -np.inf, logs)[is_open], np.zeros(len(found))
        left_out[is_open] = np.exp(
            np.logaddexp.reduce(dropped, axis=1) - np.logaddexp.reduce(logs[is_open], axis=1)
        )
        return places, wanted, left_out


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
