"""What drawing shares from their posterior will cost, and whether it is done unasked."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from dask.system import CPU_COUNT

from cryolike_dask.analysis.populations.gibbs import Chain, first_sweeps
from cryolike_dask.errors import counted
from cryolike_dask.runs.cost import duration_of

MOST_CELLS = 10**7
"""Of a matrix whose posterior is drawn unless told otherwise: two minutes on two cores."""
TRIED_CELLS = 10**6
"""Of a matrix that is swept to see how long it takes: what is larger is not in a cache either."""
TRIED_SECONDS = 0.1
USUAL_SWEEPS = 8000
"""Of each chain where likelihoods of structures overlap much: 5000 and 20,000 images of 20
structures, which overlap less, took 1900 and 5300 (benchmarks.populations --draws)."""


@dataclass(frozen=True)
class PopulationsPlan:
    """The cost of drawing shares, said before there are likelihoods.

    Attributes
    ----------
    n_images, n_structures : int
        Decoys left out.
    n_chains : int
    is_drawn, is_asked : bool
        Whether shares are drawn; whether that was said, or follows from the number of likelihoods.
    n_sweeps : (int, int)
        Of each chain: before chains are looked at for the first time; and where structures overlap.
        Where they are alike there may be more.
    seconds : (float, float) or None
        These sweeps take, on the cores of this machine, if no image is explained by one structure
        alone: such images take no time. None: not measured.
    """

    n_images: int
    n_structures: int
    n_chains: int
    is_drawn: bool
    is_asked: bool
    n_sweeps: tuple[int, int]
    seconds: tuple[float, float] | None

    def __str__(self) -> str:
        n_likelihoods = counted(self.n_images * self.n_structures, "likelihood")
        images = counted(self.n_images, "image")
        of = f"{n_likelihoods} ({images} x {counted(self.n_structures, 'structure')})"
        if self.is_drawn:
            return f"drawn, of {of}: {self._time()}"
        instead = "but those of largest likelihood"
        if self.is_asked:
            return f"not drawn, as asked, of {of}, {instead}"
        more = f"which are more than {MOST_CELLS:,}"
        return f"not drawn of {of}, {more}, {instead}; draw: true takes {self._time()}"

    def _time(self) -> str:
        if self.seconds is None:
            return "a time that was not measured"
        first, usual = (duration_of(seconds) for seconds in self.seconds)
        few, many = self.n_sweeps
        return (
            f"{first} to {usual}, {counted(self.n_chains, 'chain')} of {few:,} to {many:,} sweeps, "
            "more of structures that are alike"
        )


def draws_unasked(n_cells: int) -> bool:
    """Whether shares are drawn where nothing is said of it."""
    return n_cells <= MOST_CELLS


def plan_populations(
    n_images: int, n_structures: int, *, draw: bool | None, n_chains: int, measure: bool = True
) -> PopulationsPlan:
    """Say what drawing shares will cost, by some sweeps over a matrix that is made up.

    Parameters
    ----------
    n_images, n_structures : int
        Decoys left out.
    draw : bool or None
        As `populations` takes it.
    n_chains : int
    measure : bool
        False leaves the time out.
    """
    n_cells = n_images * n_structures
    is_drawn = draws_unasked(n_cells) if draw is None else draw
    few = first_sweeps(n_chains, n_cells)
    n_sweeps, seconds = (few, max(few, USUAL_SWEEPS)), None
    if measure and n_cells > 0 and draw is not False:
        rounds = math.ceil(n_chains / min(CPU_COUNT, n_chains))
        each = rounds * seconds_of_a_sweep(n_images, n_structures)
        seconds = each * n_sweeps[0], each * n_sweeps[1]
    return PopulationsPlan(
        n_images, n_structures, n_chains, is_drawn, draw is not None, n_sweeps, seconds
    )


def seconds_of_a_sweep(n_images: int, n_structures: int) -> float:
    """Time of one sweep of one chain over all images, by sweeps over some."""
    n = max(1, min(n_images, TRIED_CELLS // n_structures))
    rng = np.random.default_rng(0)
    likelihoods = rng.random((n, n_structures), np.float32)
    each = np.full(n_structures, 1 / n_structures)
    none = np.zeros(n)
    chain = Chain(likelihoods, none, np.ones(n_structures), np.arange(n_structures), rng, each)
    chain.sweep(1)  # compiled by now
    n_sweeps, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < TRIED_SECONDS:
        chain.sweep(10)
        n_sweeps += 10
    return elapsed / n_sweeps * n_images / n
