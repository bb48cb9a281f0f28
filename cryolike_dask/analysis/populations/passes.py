"""Sums over all images of a matrix of likelihoods, by blocks of images on all cores.

Sums of blocks are added in their order, so that results do not depend on the number of cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from cryolike_dask.analysis.populations.likelihoods import Relative
from cryolike_dask.likelihoods.kernels.compiled import compiled

VALUES_PER_BLOCK = 2**20

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Images:
    """Images that are counted once, or several times as in a bootstrap.

    Attributes
    ----------
    relative : float32 array, (image, structure)
    copies : float64 array, (image,)
        How often each is counted.
    none : float64 array, (image,), optional
        Likelihood of no structure, beside those. It is added to that of each: the same, for shares
        add up to 1.
    """

    relative: Relative
    copies: Floats
    none: Floats | None = None

    @property
    def n(self) -> float:
        """Number of images, counted."""
        return float(self.copies.sum())

    @property
    def n_structures(self) -> int:
        return int(self.relative.shape[1])

    def gradient(self, shares: Floats) -> tuple[float, Floats]:
        """Log-likelihood of shares, in nat, and its derivative after each share: over images, sums
        of L_ij / (L w)_i."""
        none = np.zeros(len(self.relative)) if self.none is None else self.none

        def of_block(rows: slice) -> tuple[float, Floats]:
            derivative = np.zeros(self.n_structures)
            value = _add_gradient(
                self.relative[rows],
                none[rows],
                self.copies[rows],
                np.ascontiguousarray(shares),
                derivative,
            )
            return value, derivative

        value, total = 0.0, np.zeros(self.n_structures)
        for of_some, derivative in self._each_block(of_block):
            value += of_some
            total += derivative
        return value, total

    def curvature(self, shares: Floats, columns: NDArray[np.intp]) -> Floats:
        """Less the second derivative of the log-likelihood after the shares of some structures:
        over images, sums of L_ij L_ik / (L w)_i^2."""

        def of_block(rows: slice) -> Floats:
            block = self._all(rows)
            mixture = np.maximum(block @ shares, np.finfo(np.float64).tiny)
            scaled = block[:, columns] * (np.sqrt(self.copies[rows]) / mixture)[:, None]
            product: Floats = scaled.T @ scaled
            return product

        total = np.zeros((len(columns), len(columns)))
        for product in self._each_block(of_block):
            total += product
        return total

    def joint(self, shares: Floats) -> Floats:
        """Sums over images of the products of the probabilities of two structures."""
        return self.curvature(shares, np.arange(self.n_structures)) * np.outer(shares, shares)

    def probabilities_along(self, shares: Floats, directions: Floats) -> Floats:
        """The probabilities of structures of each image, along some directions among them:
        (image, direction)."""

        def of_block(rows: slice) -> Floats:
            weighed = self._all(rows) * shares
            product: Floats = (weighed / weighed.sum(axis=1, keepdims=True)) @ directions
            return product

        return np.concatenate(list(self._each_block(of_block)))

    def likelihood(self, shares: Floats) -> Floats:
        """Of each image, under structures of these shares alone, (image,)."""
        return np.concatenate(list(self._each_block(lambda rows: self.relative[rows] @ shares)))

    def _all(self, rows: slice) -> Floats:
        """Likelihoods of some images, that of none included."""
        block: Floats = self.relative[rows].astype(np.float64)
        if self.none is not None:
            block += self.none[rows, None]
        return block

    def _each_block(self, function: Callable[[slice], Any]) -> Iterator[Any]:
        step = max(1, VALUES_PER_BLOCK // self.n_structures)
        starts = range(0, len(self.relative), step)
        rows = [slice(start, min(start + step, len(self.relative))) for start in starts]
        if len(rows) == 1:
            yield function(rows[0])
            return
        with ThreadPoolExecutor(CPU_COUNT) as pool:
            yield from pool.map(function, rows)


@compiled
def _add_gradient(relative: Any, none: Any, copies: Any, shares: Any, derivative: Any) -> Any:
    n_images, n_structures = relative.shape
    total, whole = 0.0, 0.0
    for j in range(n_structures):
        whole += shares[j]
    for i in range(n_images):
        mixture = 0.0
        for j in range(n_structures):
            mixture += relative[i, j] * shares[j]
        mixture += none[i] * whole
        if copies[i] == 0.0:
            continue
        if mixture <= 0.0:
            return -math.inf
        total += copies[i] * math.log(mixture)
        factor = copies[i] / mixture
        for j in range(n_structures):
            derivative[j] += factor * (relative[i, j] + none[i])
    return total
