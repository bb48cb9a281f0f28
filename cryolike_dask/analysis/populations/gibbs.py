"""The posterior of shares under a Dirichlet prior, by Gibbs sampling.

Each sweep draws the structure of every image, given the shares, and then shares, given how many
images each structure has. An image that one structure explains by more than 25 nat is always its:
such images are counted once. Where images may show no structure, they may be drawn so, and then
count for none.

Where structures are so alike that images cannot tell them apart, sweeps alone move little: an image
that was given to one of them counts for it in the next draw. So between sweeps what two of
one group have together is divided anew, from its own distribution with all else held, with
no structure given to any image (slice sampling: the log-likelihood is concave in it).
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from arviz_stats.base import array_stats
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from cryolike_dask.analysis.populations.likelihoods import Relative
from cryolike_dask.analysis.populations.passes import Images
from cryolike_dask.likelihoods.kernels.compiled import compiled

CERTAIN = math.exp(-25.0)
"""Likelihood of the second structure, relative to the first, below which an image is counted."""
LEAST_SWEEPS, ENOUGH_SWEEPS, FIRST_LIKELIHOODS = 100, 2000, 5 * 10**8
"""Sweeps before chains are looked at: as many as take some seconds, between these. Half of all that
have been done are dropped."""
MOST_SWEEPS = 100_000
SMALLEST = float(np.finfo(np.float64).tiny)
"""No share is 0: it could not grow."""
MOST_SHRINKS = 100
"""Of the interval that a part is drawn from."""
KEPT = 1000
"""Draws of each chain, evenly spaced."""
LARGEST_R_HAT, LEAST_DRAWS = 1.01, 400
"""Chains agree, and are worth so many independent draws (Vehtari et al. 2021)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws of shares.

    Attributes
    ----------
    draws : float64 array, (chain, draw, structure)
    r_hat, effective_draws : float64 array, (structure,)
        Rank-normalised, split; of the bulk.
    n_sweeps : int
        Of each chain, those included that were dropped.
    n_counted : int
        Images that one structure explains by more than 25 nat.
    """

    draws: Floats
    r_hat: Floats
    effective_draws: Floats
    n_sweeps: int
    n_counted: int

    @property
    def converged(self) -> bool:
        return bool(self.r_hat.max() <= LARGEST_R_HAT and self.effective_draws.min() >= LEAST_DRAWS)


def posterior(
    images: Images, prior: Floats, group: NDArray[np.int64], n_chains: int, seed: int
) -> Posterior:
    """Draw shares from their posterior, until chains agree.

    Parameters
    ----------
    images : Images
        Each counted once.
    prior : float64 array, (structure,)
        Concentrations of the Dirichlet prior; 1 of each: all shares are equally likely.
    group : int array, (structure,)
        The same for structures that are alike: it changes how soon chains agree, not on what.
    n_chains : int
        Each begins with shares drawn from the prior.
    seed : int

    Returns
    -------
    Posterior
        `converged` says whether chains agree.
    """
    relative, n_structures = images.relative, images.n_structures
    best = relative.argmax(axis=1)
    is_certain = (
        np.partition(relative, -2, axis=1)[:, -2] < CERTAIN
        if n_structures > 1
        else np.ones(len(relative), bool)
    )
    none = np.zeros(len(relative)) if images.none is None else images.none
    is_certain &= none < CERTAIN
    counted = np.bincount(best[is_certain], minlength=n_structures).astype(np.float64)
    swept = np.ascontiguousarray(relative[~is_certain])
    generators = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(n_chains)]
    chains = [
        Chain(swept, none[~is_certain], counted + prior, group, rng, _dirichlet(prior, rng))
        for rng in generators
    ]
    n_new = first_sweeps(n_chains, swept.size)
    with ThreadPoolExecutor(min(CPU_COUNT, n_chains)) as pool:
        while True:
            list(pool.map(Chain.sweep, chains, repeat(n_new)))
            found = _looked_at(chains, int(is_certain.sum()))
            if found.converged or found.n_sweeps >= MOST_SWEEPS:
                return found
            n_new = found.n_sweeps // 2


def first_sweeps(n_chains: int, n_likelihoods: int) -> int:
    """Sweeps of each chain before chains are looked at."""
    affordable = FIRST_LIKELIHOODS // max(1, n_chains * n_likelihoods)
    return min(max(affordable, LEAST_SWEEPS), ENOUGH_SWEEPS)


class Chain:
    """One chain: where it is, and where it was."""

    def __init__(
        self,
        relative: Relative,
        none: Floats,
        known: Floats,
        group: NDArray[np.int64],
        rng: np.random.Generator,
        shares: Floats,
    ) -> None:
        self.relative, self.none = relative, none
        self.known = known
        # structures group by group, and where each group of several begins and ends
        self.order = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group))
        bounds = np.stack([ends - np.bincount(group), ends], axis=1)
        self.alike = bounds[bounds[:, 1] - bounds[:, 0] > 1]
        self.rng = rng
        self.shares = shares
        self.draws = np.empty((0, len(shares)))

    def sweep(self, n: int) -> None:
        """Go on for some sweeps."""
        new = np.empty((n, len(self.shares)))
        images, alike = (self.relative, self.none), (self.order, self.alike)
        _sweep(images, self.known, alike, self.rng, self.shares, new)
        self.draws = np.concatenate([self.draws, new])


def _looked_at(chains: list[Chain], n_counted: int) -> Posterior:
    """The second half of each chain, and whether they agree."""
    n_sweeps = len(chains[0].draws)
    draws = np.stack([chain.draws[n_sweeps // 2 :] for chain in chains])
    if draws.shape[2] == 1:
        r_hat, effective = np.ones(1), np.array([float(draws.size)])
    else:
        compared = draws
        if len(draws) == 1:  # it has to agree with itself
            compared = np.concatenate(np.split(draws[:, draws.shape[1] % 2 :], 2, axis=1))
        r_hat = np.asarray(array_stats.rhat(compared, chain_axis=0, draw_axis=1))
        effective = np.asarray(array_stats.ess(draws, chain_axis=0, draw_axis=1))
    step = -(-draws.shape[1] // KEPT)
    return Posterior(draws[:, ::step], r_hat, effective, n_sweeps, n_counted)


def _dirichlet(concentration: Floats, rng: np.random.Generator) -> Floats:
    """Draw shares, none of which is 0."""
    drawn = np.maximum(rng.standard_gamma(concentration), SMALLEST)
    shares: Floats = drawn / drawn.sum()
    return shares


@compiled
def _log_density(x: Any, first: Any, rest: Any, known: Any) -> Any:
    if x <= 0.0 or x >= 1.0:
        return -math.inf
    total = (known[0] - 1.0) * math.log(x) + (known[1] - 1.0) * math.log(1.0 - x)
    for i in range(len(rest)):
        likelihood = rest[i] + x * first[i]
        if likelihood <= 0.0:
            return -math.inf
        total += math.log(likelihood)
    return total


@compiled
def _divide(
    images: Any, known: Any, shares: Any, pair: Any, rng: Any, first: Any, rest: Any
) -> None:
    """Draw how what two structures have is divided between them: by slice sampling, from an
    interval that shrinks."""
    relative, none = images
    one, two = pair
    together = shares[one] + shares[two]
    part = shares[one] / together
    shares[one], shares[two] = 0.0, 0.0
    n_images, n_structures = relative.shape
    for i in range(n_images):
        total = 0.0
        for j in range(n_structures):
            total += relative[i, j] * shares[j]
        first[i] = together * (relative[i, one] - relative[i, two])
        rest[i] = total + together * relative[i, two] + none[i]
    concentrations = known[one], known[two]
    level = _log_density(part, first, rest, concentrations) + math.log(1.0 - rng.random())
    low, high = 0.0, 1.0
    for _ in range(MOST_SHRINKS):
        x = low + rng.random() * (high - low)
        if _log_density(x, first, rest, concentrations) >= level:
            part = x
            break
        if x < part:
            low = x
        else:
            high = x
    shares[one] = part * together
    shares[two] = together - shares[one]


@compiled
def _sweep(images: Any, known: Any, alike: Any, rng: Any, shares: Any, draws: Any) -> None:
    """Draw structures of images and shares, in turn; leave the last in `shares`."""
    relative, none = images
    n_images, n_structures = relative.shape
    order, groups = alike
    cumulative, counts = np.empty(n_structures), np.empty(n_structures)
    first, rest = np.empty(n_images), np.empty(n_images)
    for k in range(len(draws)):
        counts[:] = known
        for i in range(n_images):
            total = none[i]
            for j in range(n_structures):
                total += relative[i, j] * shares[j]
                cumulative[j] = total
            x = rng.random() * total
            if x < none[i]:
                continue
            low, high = 0, n_structures - 1
            while low < high:
                middle = (low + high) // 2
                if cumulative[middle] > x:
                    high = middle
                else:
                    low = middle + 1
            counts[low] += 1.0
        total = 0.0
        for j in range(n_structures):
            shares[j] = max(rng.standard_gamma(counts[j]), SMALLEST)
            total += shares[j]
        for j in range(n_structures):
            shares[j] /= total
        for begin, end in groups:
            a = rng.integers(begin, end)
            b = rng.integers(begin, end - 1)
            b += b >= a
            _divide(images, known, shares, (order[a], order[b]), rng, first, rest)
        draws[k] = shares
