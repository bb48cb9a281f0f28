"""Competition with decoys: what it states against what is true of scores that are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis.decoys.competition import Competition, compete, q_values


def by_definition(score, wins, ratio):
    """Each threshold by itself."""
    q = np.ones(len(score))
    for i in np.flatnonzero(wins):
        lower = [t for t in score if t <= score[i]]
        rates = [
            ratio * (1 + (~wins & (score >= t)).sum()) / max((wins & (score >= t)).sum(), 1)
            for t in lower
        ]
        q[i] = min(1.0, *rates)
    return q


def test_q_values_are_those_of_the_definition(rng):
    for _ in range(30):
        n = rng.integers(1, 40)
        score, wins = rng.integers(0, 12, n).astype(float), rng.random(n) < 0.7
        ratio = rng.choice([0.25, 1.0, 3.0])
        np.testing.assert_allclose(q_values(score, wins, ratio), by_definition(score, wins, ratio))


def test_three_images_by_hand():
    """Two that structures win, above one that a decoy wins: 1/2 of them may be false, then 2/2."""
    score, wins = np.array([5.0, 4.0, 3.0, 2.0]), np.array([True, True, False, True])
    np.testing.assert_allclose(q_values(score, wins, 0.25), [0.125, 0.125, 1.0, 0.5 / 3])
    assert q_values(np.array([1.0]), np.array([False]), 1.0).tolist() == [1.0]
    assert len(q_values(np.empty(0), np.empty(0, bool), 1.0)) == 0


def test_scores_know_structures_from_decoys_in_nothing(rng):
    """Exchanging what is called a decoy changes no score, however large all values are."""
    values = rng.normal(-1e6, 3, (5, 100))
    margin, score = compete(values, np.array([False, False, True, True, True]))
    np.testing.assert_allclose(margin, values[:2].max(0) - values[2:].max(0))
    np.testing.assert_allclose(score, values.max(0) - values.mean(0), atol=1e-9)
    again, same = compete(values[[4, 0, 2, 1, 3]], np.array([False, True, True, True, True]))
    np.testing.assert_allclose(same, score, atol=1e-9)
    assert (again != margin).any()
    values[3, 7] = np.nan
    margin, score = compete(values, np.array([False, False, True, True, True]))
    assert np.isnan([margin[7], score[7]]).all()
    assert np.isfinite(np.delete(score, 7)).all()


def drawn(rng, n_targets, n_decoys, n_images, share, strength=8.0):
    """Log-likelihoods of which a share shows the first structure."""
    values = rng.normal(0, 1.5, (n_targets + n_decoys, n_images)) + rng.normal(0, 50, n_images)
    shows = rng.random(n_images) < share
    values[0, shows] += rng.normal(strength, 1, shows.sum())
    margin, score = compete(values, np.arange(len(values)) >= n_targets)
    return Competition(n_targets, n_decoys, margin, score), shows


@pytest.mark.parametrize(("n_targets", "n_decoys"), [(1, 1), (1, 4), (3, 1), (4, 6)])
def test_false_discoveries_are_as_many_as_is_stated(rng, n_targets, n_decoys):
    """On average over repetitions; of unequal numbers too."""
    repetitions = [drawn(rng, n_targets, n_decoys, 1500, 0.6) for _ in range(40)]
    for level in (0.05, 0.1):
        false = []
        for found, shows in repetitions:
            accepted = found.q_values() <= level
            false.append((accepted & ~shows).sum() / max(accepted.sum(), 1))
        assert np.mean(false) <= level + 4 * np.std(false) / np.sqrt(40)
    shares = [found.share_shown() for found, _ in repetitions]
    off = (np.array([share for share, _ in shares]) - 0.6) / [error for _, error in shares]
    assert abs(np.mean(off)) < 4.2 / np.sqrt(40) * 1.5  # and that of the share itself
    # without the ratio of their numbers it would not hold, or nothing would be found
    if n_targets > n_decoys:
        found, shows = repetitions[0]
        bare = q_values(found.score, found.margin > 0, 1.0) <= 0.1
        assert (bare & ~shows).sum() / bare.sum() > 0.1


def test_images_of_nothing_are_not_accepted(rng):
    found, _ = drawn(rng, 1, 4, 3000, 0.0)
    assert (found.q_values() > 0.05).mean() > 0.95
    share, error = found.share_shown()
    assert share < 5 * error + 1e-9


def test_where_nothing_is_known_nothing_is_said():
    nothing = np.full(3, np.nan)
    found = Competition(1, 1, nothing, nothing)
    assert np.isnan(found.q_values()).all()
    assert np.isnan(found.share_shown()).all()
