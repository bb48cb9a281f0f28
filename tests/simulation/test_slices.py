"""Slices between the views of templates: against projections along the very directions."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.simulation.demo import write_hinge
from cryolike_dask.simulation.slices import slices_at, slices_between

PARAMETERS = cld.ImageParameters(
    24, 5.0, viewing_distance=0.5, precision="double", atom_shape="gaussian"
)

ALIKE = 3e-4
"""Of the largest value: rings of 48 angles hold so much of a structure of half the box."""


@pytest.fixture(scope="module")
def projections(tmp_path_factory):
    path = tmp_path_factory.mktemp("structure") / "hinge.pdb"
    write_hinge(path, 0.4)
    return cld.open_structure(path, PARAMETERS)


def directions(rng, n):
    return ViewingAngles(rng.uniform(0, 2 * np.pi, n), np.arccos(rng.uniform(-1, 1, n)), np.ones(n))


def in_files(stack, viewing=None):
    """The same templates as values alone, as those of files are."""
    values = stack.source.take(np.arange(len(stack)))
    return cld.TemplateStack.from_array(values, PARAMETERS, viewing or stack.viewing)


def test_slices_made_of_templates_are_projections(projections, rng):
    views = directions(rng, 5)
    exact = slices_between(projections, rng)(views)
    made = slices_between(in_files(projections), rng)(views)
    # templates are each of power 1; a slice is as bright as it is
    scale = (exact.conj() * made).sum(axis=(1, 2)).real / (np.abs(exact) ** 2).sum(axis=(1, 2))
    assert (scale > 0).all()
    np.testing.assert_allclose(made / scale[:, None, None], exact, atol=ALIKE * np.abs(exact).max())


def test_a_view_of_the_templates_is_the_template(projections, rng):
    rows = rng.permutation(len(projections))[:3]
    made = slices_between(in_files(projections), rng)(projections.viewing.take(rows))
    itself = slices_at(projections, rows)
    scale = np.abs(made).max(axis=(1, 2)) / np.abs(itself).max(axis=(1, 2))
    np.testing.assert_allclose(
        made / scale[:, None, None], itself, atol=ALIKE * np.abs(itself).max()
    )


def test_slices_of_many_structures_hold_nothing(projections, rng):
    """Their series are made when slices are: one structure at a time."""
    templates = in_files(projections)
    tracemalloc.start()
    try:
        many = [slices_between(templates, rng) for _ in range(2)]
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    one = len(templates) * 16 * np.prod(PARAMETERS.grid.shape)
    assert None not in many
    assert held < 0.2 * one
    assert peak < 6 * one


def test_what_templates_do_not_tell_is_not_made_up(projections, rng):
    few = in_files(projections)
    few = cld.TemplateStack.from_array(
        few.source.take(np.arange(12)), PARAMETERS, few.viewing.take(np.arange(12))
    )
    assert slices_between(few, rng) is None
    turned = projections.viewing
    other = ViewingAngles(turned.azimuth[::-1].copy(), turned.polar, turned.weight)
    assert slices_between(in_files(projections, other), rng) is None
