"""What `design` prints."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis.populations.design import design_of
from cryolike_dask.cli.design import _show
from tests.analysis.populations.test_design import known_images


@pytest.mark.parametrize(
    ("points", "n_particles", "told"),
    [
        ([0, 0], 100, ["1 of 2 structures are worth keeping (0.00 bit", "s[0], s[1]: 0 particles"]),
        ([0, 4], 100, ["100 particles tell all structures apart", "mean probability", "s[1] "]),
        (range(40), 10**6, ["and 10 structures that need fewer particles"]),
        ([0] * 9, 100, ["s[5] and 3 more: 0 particles", "0.01: never"]),
    ],
)
def test_what_is_printed(rng, capsys, points, n_particles, told):
    k = len(points)
    names = np.array([f"s[{j}]" for j in range(k)], object)
    found = design_of(known_images(rng, points, np.full(k, 1 / k), 12 * k), 0.01, n_particles, 0)
    found = found.assign_coords(structure=names, structure_other=names)
    _show(found.assign_attrs(error=0.01, n_particles=n_particles, n_images=12 * k))
    printed = capsys.readouterr().out
    for text in told:
        assert text in printed
