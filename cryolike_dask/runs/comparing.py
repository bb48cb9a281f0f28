"""What the comparisons of a run take, by what was tried: a block of everything, or an adaptive
search of some images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryolike_dask.runs.search_trial import SearchTrial
from cryolike_dask.runs.sizes import Group
from cryolike_dask.runs.trial import Trial


@dataclass(frozen=True)
class Comparing:
    """What all comparisons of a run take, of all workers together, seconds.

    `basis` is what making a radial basis takes, of each structure in each worker; `read` the part
    that reads, None where it was not told apart; `block` what the largest block takes; `factors`
    how far off all of it may be, least and most.
    """

    basis: float
    read: float | None
    compare: float
    block: float
    factors: tuple[float, float]

    @property
    def seconds(self) -> float:
        """All of it."""
        return (self.read or 0.0) + self.compare


def comparing_everything(groups: Sequence[Group], trials: Sequence[Trial]) -> Comparing:
    """What comparing everything takes."""
    turns = [seconds for trial in trials for seconds in trial.compare_seconds_per_pair]
    reading, comparing = seconds_per_pair(trials)
    factors = (min(turns) / comparing, max(turns) / comparing) if comparing else (1.0, 1.0)
    n_pairs = sum(g.n_jobs * g.n_pairs for g in groups)
    block = max((g.n_pairs_of_block for g in groups if g.n_jobs), default=0)
    return Comparing(
        statistics.fmean(trial.basis_seconds for trial in trials),
        n_pairs * reading,
        n_pairs * comparing,
        (reading + comparing) * block,
        factors,
    )


def seconds_per_pair(trials: Sequence[Trial]) -> tuple[float, float]:
    """What reading and comparing an image and a template take."""
    turns = [seconds for trial in trials for seconds in trial.compare_seconds_per_pair]
    reading = statistics.fmean(trial.read_seconds_per_pair for trial in trials)
    return reading, statistics.median(turns) if turns else 0.0


def searching(groups: Sequence[Group], tried: SearchTrial) -> Comparing:
    """What searching coarse to fine takes, reading included."""
    of_chunks = [
        (g.n_jobs, np.array(tried.seconds_of(n, len(g.graph.templates))))
        for g in groups
        if g.n_jobs
        for n in g.graph.image_chunks
    ]
    least, about, most = sum((n * seconds for n, seconds in of_chunks), np.zeros(3)).tolist()
    block = max(float(seconds[1]) for _, seconds in of_chunks)
    return Comparing(tried.basis_seconds, None, about, block, (least / about, most / about))
