"""Few frames that stand for all: far from each other, or in the middle of clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.structures.trajectories.measures import Measure

MOST_ROUNDS = 20
"""Of clusters that are made again about their middles; they rarely move after ten."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Representatives:
    """Frames that stand for others, by their positions among all.

    Attributes
    ----------
    chosen : (structure,) int64
    assignment : (frame,) int64
        The nearest of these to each frame, the first of equals.
    distance : (frame,) float64
        How far that is.
    """

    chosen: IntArray
    assignment: IntArray
    distance: FloatArray


def farthest_points(frames: Measure, n: int) -> Representatives:
    """Choose the first frame, and one after the other the one that is farthest from all that are
    chosen (Gonzalez): no frame is then more than twice as far from them as it has to be.

    Fewer than n are chosen if there are not so many that differ.
    """
    chosen = [0]
    distance = frames.distances(frames.point(0))
    assignment = np.zeros(len(frames), np.int64)
    while len(chosen) < n:
        next_one = int(np.argmax(distance))
        if distance[next_one] <= 0:
            break
        found = frames.distances(frames.point(next_one))
        found[next_one] = 0
        nearer = found < distance
        distance[nearer], assignment[nearer] = found[nearer], len(chosen)
        chosen.append(next_one)
    return Representatives(np.array(chosen, np.int64), assignment, distance)


def clusters(frames: Measure, n: int) -> Representatives:
    """Divide frames into clusters, each about the frame that is nearest to its mean; as k-means
    does, from the farthest points on."""
    found = farthest_points(frames, n)
    for _ in range(MOST_ROUNDS):
        middles = [_middle(frames, found, k) for k in range(len(found.chosen))]
        if middles == found.chosen.tolist():
            break
        found = _about(frames, np.array(middles, np.int64))
    return found


def _middle(frames: Measure, found: Representatives, k: int) -> int:
    """The frame of a cluster that is nearest to its mean."""
    members = np.flatnonzero(found.assignment == k)
    mean = frames.mean(members, frames.point(int(found.chosen[k])))
    return int(members[np.argmin(frames.distances(mean)[members])])


def _about(frames: Measure, chosen: IntArray) -> Representatives:
    distance = np.full(len(frames), np.inf)
    assignment = np.zeros(len(frames), np.int64)
    for k, one in enumerate(chosen.tolist()):
        found = frames.distances(frames.point(one))
        found[one] = 0
        nearer = found < distance
        distance[nearer], assignment[nearer] = found[nearer], k
    return Representatives(chosen, assignment, distance)
