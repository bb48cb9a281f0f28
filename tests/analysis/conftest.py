"""Results that several files of tests start from."""

import pytest

from tests.analysis.making import make_results


@pytest.fixture
def results(rng):
    return make_results(rng, ("a", "b", "c"))
