"""What draws will cost: said from the numbers of images and structures alone."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from cryolike_dask.analysis.populations import cost
from cryolike_dask.analysis.populations.cost import (
    MOST_CELLS,
    TRIED_CELLS,
    draws_unasked,
    plan_populations,
    seconds_of_a_sweep,
)
from cryolike_dask.analysis.populations.gibbs import first_sweeps, posterior
from cryolike_dask.analysis.populations.passes import Images
from tests.analysis.populations.mixtures import log_likelihoods, relative


@pytest.fixture
def of_a_microsecond(monkeypatch):
    """A sweep takes a microsecond an image, on one core."""
    monkeypatch.setattr(cost, "seconds_of_a_sweep", lambda n_images, n_structures: n_images * 1e-6)
    monkeypatch.setattr(cost, "CPU_COUNT", 1)


def test_a_plan_in_words(of_a_microsecond):
    plan = plan_populations(20_000, 20, draw=None, n_chains=4)
    assert str(plan) == (
        "drawn, of 400,000 likelihoods (20,000 images x 20 structures): 25 s to 11 min, 4 chains "
        "of 312 to 8,000 sweeps, more of structures that are alike"
    )
    much = plan_populations(100_001, 100, draw=None, n_chains=4)
    assert not much.is_drawn
    assert str(much).startswith(
        "not drawn of 10,000,100 likelihoods (100,001 images x 100 structures), which are more "
        "than 10,000,000, but those of largest likelihood; draw: true takes 40 s to "
    )
    assert plan_populations(100_001, 100, draw=True, n_chains=4).is_drawn
    few = plan_populations(1, 1, draw=None, n_chains=1)
    assert str(few).startswith("drawn, of 1 likelihood (1 image x 1 structure)")


def test_what_is_not_drawn_is_not_timed(monkeypatch):
    monkeypatch.setattr(cost, "seconds_of_a_sweep", None)
    asked = plan_populations(50, 3, draw=False, n_chains=4)
    assert asked.seconds is None
    assert str(asked).startswith("not drawn, as asked, of 150 likelihoods (50 images x 3 ")
    plan = plan_populations(50, 3, draw=None, n_chains=4, measure=False)
    assert str(plan).endswith("a time that was not measured")
    assert plan_populations(0, 3, draw=None, n_chains=4).seconds is None


def test_the_number_is_the_one_that_decides():
    assert draws_unasked(MOST_CELLS)
    assert not draws_unasked(MOST_CELLS + 1)


def test_sweeps_are_those_of_a_posterior(rng):
    likelihoods = relative(log_likelihoods(rng, [[0], [1], [3]], [0.5, 0.3, 0.2], 400)[0])
    images = Images(likelihoods, np.ones(400))
    found = posterior(images, np.ones(3), np.arange(3), 4, 1)
    few, _ = plan_populations(400, 3, draw=True, n_chains=4, measure=False).n_sweeps
    assert few == first_sweeps(4, 1200) == 2000
    assert found.n_sweeps >= few


def test_few_images_are_swept_and_more_take_in_proportion(monkeypatch):
    ticks = count(0, 0.06)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(ticks))
    # ten sweeps, seen to have taken 0.12 seconds
    assert seconds_of_a_sweep(300, 10) == pytest.approx(0.012)
    assert seconds_of_a_sweep(3 * TRIED_CELLS // 10, 10) == pytest.approx(3 * 0.012)
