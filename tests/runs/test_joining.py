"""Images of several stacks as one, against each stack by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryolike_dask.io.sources import InMemory
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.interface import (
    integrated_likelihoods,
    pair_likelihoods,
    pose_records,
)
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs.joining import joined


@pytest.fixture
def stacks(build, rng):
    """Two stacks, the second in the frame of CryoLike's, with ring sums and groups."""
    images, _ = build.stacks(9)
    rings = rng.standard_normal((9, 2, images.grid.n_shells))
    images = replace(images, source=InMemory(images.source.values, rings))
    images = replace(images, stack=np.repeat([3, 5], [4, 5]))
    return [images[:4], replace(images[4:], frame="transposed", groups=np.full((5, 2), "g"))]


def test_rows_are_those_of_the_stacks(stacks):
    whole, rows = joined(stacks), np.array([8, 0, 3, 4, 0])
    of_stacks = [stack.source for stack in stacks]
    values = np.concatenate([source.take(np.arange(source.shape[0])) for source in of_stacks])
    rings = np.concatenate([source.rings(np.arange(source.shape[0])) for source in of_stacks])
    some = whole[rows]
    for source, taken in ((whole.source, rows), (some.source, np.arange(5))):
        np.testing.assert_array_equal(source.take(taken), values[rows])
        np.testing.assert_array_equal(source.rings(taken), rings[rows])
    np.testing.assert_array_equal(
        some.source.subset(np.array([2, 1])).take(np.arange(2)), values[[3, 0]]
    )
    assert whole.stack.tolist() == [3] * 4 + [5] * 5
    assert whole.groups[:, 0].tolist() == [""] * 4 + ["g"] * 5
    assert whole.chunks == (9,)
    assert whole.source.locate(8) == ("array in memory", 4)
    assert len(whole.source.describe(rows)) == 2
    unknown = replace(stacks[1], source=InMemory(stacks[1].source.take(np.arange(5))))
    assert joined([stacks[0], unknown]).source.rings(rows) is None


def test_likelihoods_are_those_of_each_stack(build, stacks):
    """Of images in either frame; summed over templates or not, and of any chunks."""
    _, templates = build.stacks(1)
    settings = Settings(device="cpu", precision="double")

    def computed(function, images, templates=templates):
        graph = ComparisonGraph(images, templates, settings)
        return function(graph, "test").compute(scheduler="sync")

    expected = np.concatenate(
        [computed(pose_records, stack)["log_likelihood_integrated"] for stack in stacks]
    )
    whole = joined(stacks)
    for chunked in (templates, templates.chunk(3)):
        found = computed(integrated_likelihoods, whole, chunked)
        assert found.shape == (9, 1 if chunked is templates else 3)
        np.testing.assert_allclose(np.logaddexp.reduce(found, axis=1), expected, rtol=1e-10)
    pairs = computed(pair_likelihoods, whole)
    prior = np.log(templates.viewing.weight / templates.viewing.weight.sum())
    prior -= np.log(len(templates.displacements) * templates.grid.n_inplanes)
    np.testing.assert_allclose(np.logaddexp.reduce(pairs + prior, axis=1), expected, rtol=1e-10)
