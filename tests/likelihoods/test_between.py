"""What is known of orientations between those of a search: where simulated log-likelihoods have
their truth, and which orientations are used."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryolike_dask.geometry.symmetry import asymmetric_unit
from cryolike_dask.geometry.viewing_angles import healpix_grid
from cryolike_dask.likelihoods.search.between import (
    NEAR,
    Nodes,
    interpolated,
    tell_between,
)
from cryolike_dask.likelihoods.search.regions import Orientations, quantile

SPACING = 0.12


def lattice(rng):
    """Nodes half as far apart along an axis, at random about the middle."""
    x = np.arange(-4, 5)
    nodes = np.stack(np.meshgrid(x, x, np.arange(-8, 9) / 2), axis=-1).reshape(-1, 3)
    turned = Rotation.random(random_state=rng).as_matrix()
    nodes = (nodes + rng.uniform(-0.5, 0.5, 3)) @ turned * SPACING
    return nodes[np.linalg.norm(nodes, axis=1) < 3 * SPACING]


def scores_of(rng, nodes, truth, amplitude, widths):
    """Correlations with templates that fall off over several scales, as far apart as a particle's
    of 64 pixels, and noise that has the same correlations."""

    def alike(one, other):
        square = (((one[:, None] - other) / widths) ** 2).sum(axis=2)
        scales = np.exp(-square / 4) + np.exp(-square) + np.exp(-4 * square)
        return 0.6 + 0.4 * scales / 3

    noise = np.linalg.cholesky(alike(nodes, nodes) + 1e-9 * np.eye(len(nodes)))
    return amplitude * alike(nodes, truth[None])[:, 0] + noise @ rng.standard_normal(len(nodes))


@pytest.mark.parametrize("amplitude", [12.0, 40.0])
def test_regions_hold_the_truth_between_nodes(rng, amplitude):
    """Where several nodes share the posterior, and where one of them holds it all."""
    n, inside, radii = 100, 0, []
    for _ in range(n):
        nodes, truth = lattice(rng), rng.uniform(-0.3, 0.3, 3) * SPACING
        scores = scores_of(rng, nodes, truth, amplitude, np.array([2.0, 2.4, 2.8]) * SPACING)
        best = scores.argmax()
        vectors, logs = nodes - nodes[best], scores * abs(scores) / 2
        used = np.linalg.norm(vectors, axis=1) <= NEAR * SPACING
        angles, parts = interpolated(vectors[used], logs[used] - 7, logs[best], SPACING)
        assert parts.sum() == pytest.approx(1)
        radii.append(quantile(angles, parts, 0.95))
        inside += np.linalg.norm(truth - nodes[best]) <= radii[-1]
    print(f"{inside} of {n}, spacings {np.median(radii) / SPACING:.2f}")
    assert inside / n >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / n)
    assert np.median(radii) < SPACING


def test_of_noise_alone_nothing_is_known_between_nodes(rng):
    """Then orientations fill the ball evenly, nearly."""
    nodes = lattice(rng)
    vectors = nodes - nodes[np.linalg.norm(nodes, axis=1).argmin()]
    vectors = vectors[np.linalg.norm(vectors, axis=1) <= NEAR * SPACING]
    angles, parts = interpolated(vectors, np.zeros(len(vectors)), 0.0, SPACING)
    assert quantile(angles, parts, 0.5) == pytest.approx(NEAR * SPACING / 2 ** (1 / 3), rel=0.15)


@pytest.mark.parametrize("symmetry", ["C1", "C3"])
def test_nodes_are_all_orientations_near_the_best(rng, symmetry):
    viewing = asymmetric_unit(healpix_grid(3), symmetry)
    n = 48
    orientations = Orientations.of(viewing, 2 * np.pi * np.arange(n) / n)
    views, rotations = rng.integers(len(viewing), size=3), rng.integers(n, size=3)
    nodes = Nodes.about(orientations, views, rotations)
    every = np.divmod(np.arange(len(viewing) * n), n)
    assert nodes.step == 1
    for m, best in enumerate(orientations.at(views, rotations)):
        angles = np.arccos(orientations.cosines(best, orientations.at(*every)))
        within = angles / (NEAR * orientations.spacing)
        assert (within < 1).sum() > 10
        held = nodes.hold(m, *every, n)
        assert (within[held] < 1 + 1e-9).all()
        # beside an axis a view may be near in two ways, of which one is used
        lacking = ((within < 1 - 1e-9) & ~held).sum()
        assert lacking <= (0 if symmetry == "C1" else 0.2 * held.sum())
        vectors = orientations.vectors(best, every[0][held], every[1][held])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), angles[held], atol=1e-6)


def test_what_is_too_coarse_or_too_little_tells_nothing():
    assert not tell_between(8, 0.1)
    assert not tell_between(100, 1.0)
