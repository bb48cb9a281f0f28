"""What is known of orientations between those of a search: where simulated log-likelihoods have
their truth, and which orientations are used."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryolike_dask.likelihoods.search.between import (
    NEAR,
    interpolated,
)
from cryolike_dask.likelihoods.search.regions import quantile

SPACING = 0.12


def correlated(rng, nodes, truth, gain, widths):
    """Log-likelihoods of an image that is like those of others by a Gaussian of the distance, and
    as much noisier as gains say: they have the same correlations as what is looked for."""
    toward = np.exp(-(((nodes - truth) / widths) ** 2).sum(axis=1) / 2)
    apart = (((nodes[:, None] - nodes) / widths) ** 2).sum(axis=2)
    noise = np.linalg.cholesky(np.exp(-apart / 2) + 1e-9 * np.eye(len(nodes)))
    return 2 * gain * toward + np.sqrt(2 * gain) * noise @ rng.standard_normal(len(nodes))


@pytest.mark.parametrize("gain", [3.0, 20.0, 200.0])
def test_regions_hold_the_truth_between_nodes(rng, gain):
    """Where the posterior is wider than nodes are apart, and where one of them holds it all."""
    n, lattice = 200, np.arange(-4, 5)
    lattice = np.stack(np.meshgrid(lattice, lattice, lattice), axis=-1).reshape(-1, 3)
    inside = 0
    for _ in range(n):
        turned = Rotation.random(random_state=rng).as_matrix()
        nodes = (lattice + rng.uniform(-0.5, 0.5, 3)) @ turned * SPACING
        nodes = nodes[np.linalg.norm(nodes, axis=1) < 3.2 * SPACING]
        truth = rng.uniform(-0.5, 0.5, 3) @ turned * SPACING
        logs = correlated(rng, nodes, truth, gain, np.array([1.1, 1.4, 1.4]) * SPACING)
        best = logs.argmax()
        vectors = nodes - nodes[best]
        used = np.linalg.norm(vectors, axis=1) <= NEAR * SPACING
        angles, parts = interpolated(vectors[used], logs[used], SPACING)
        inside += np.linalg.norm(truth - nodes[best]) <= quantile(angles, parts, 0.95)
    print(f"{inside} of {n}")
    assert inside / n >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / n)
