"""The rule that combines the best poses of one image among different templates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryolike_dask.likelihoods.poses import combine, combine_along_templates, no_poses

INDICES = ["template", "displacement", "rotation"]
EXACT = ["cross_correlation", *INDICES, "log_likelihood_optimal"]


@st.composite
def records(draw, n_images=2):
    """Poses with many exact ties; the log-likelihood at a pose is a function of the pose, as in
    a search."""
    poses = no_poses((n_images,))
    for pose in poses:
        if draw(st.integers(0, 9)) == 0:
            continue
        pose["cross_correlation"] = draw(st.sampled_from([-0.25, 0.0, 0.5, np.nextafter(0.5, 1)]))
        for name in INDICES:
            pose[name] = draw(st.integers(0, 2))
        pose["log_likelihood_optimal"] = (
            -100 * pose["template"] - 10 * pose["displacement"] - pose["rotation"]
        )
        pose["log_likelihood_integrated"] = draw(st.floats(-2000, 2000))
    return poses


def pose(cross_correlation, template, displacement, rotation):
    poses = no_poses((1,))
    poses["log_likelihood_integrated"] = 0
    poses["cross_correlation"], poses["template"] = cross_correlation, template
    poses["displacement"], poses["rotation"] = displacement, rotation
    return poses


def assert_same(found, wanted):
    for name in EXACT:
        np.testing.assert_array_equal(found[name], wanted[name])
    np.testing.assert_allclose(
        found["log_likelihood_integrated"],
        wanted["log_likelihood_integrated"],
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (pose(0.6, 9, 9, 9), pose(0.5, 0, 0, 0)),
        (pose(0.5, 3, 9, 9), pose(0.5, 4, 0, 0)),
        (pose(0.5, 3, 2, 9), pose(0.5, 3, 4, 0)),
        (pose(0.5, 3, 2, 1), pose(0.5, 3, 2, 5)),
    ],
    ids=["correlation", "template", "displacement", "rotation"],
)
def test_order_of_poses(better, worse):
    """The larger correlation; exact ties to the lowest template, then displacement, then
    rotation."""
    for combined in (combine(better, worse), combine(worse, better)):
        assert combined[INDICES] == better[INDICES]
        assert combined["log_likelihood_integrated"] == pytest.approx(np.log(2))


@given(records(), records(), records())
def test_combine_is_associative(a, b, c):
    assert_same(combine(combine(a, b), c), combine(a, combine(b, c)))


@given(records(), records())
def test_combine_is_commutative(a, b):
    assert_same(combine(a, b), combine(b, a))


@given(records())
def test_no_poses_change_nothing(a):
    assert_same(combine(a, no_poses(a.shape)), a)
    assert_same(combine(no_poses(a.shape), a), a)


@given(st.lists(records(), min_size=1, max_size=8), st.data())
def test_any_split_gives_the_same(parts, data):
    """Combining groups of records, in any order, and then the groups."""
    wanted = combine_along_templates(np.stack(parts, axis=1))
    shuffled = data.draw(st.permutations(parts))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(parts) - 1)))) if len(parts) > 1 else []
    bounds = zip([0, *cuts], [*cuts, len(parts)], strict=True)
    groups = [
        combine_along_templates(np.stack(shuffled[start:end], axis=1), axis=(1,), keepdims=True)
        for start, end in bounds
    ]
    assert_same(combine_along_templates(np.concatenate(groups, axis=1)), wanted)


def test_inputs_are_not_changed():
    a, b = pose(0.1, 1, 1, 1), pose(0.2, 0, 0, 0)
    before = a.copy(), b.copy()
    combine(a, b)
    assert (a, b) == before
