"""Displacements as attributes of a Dataset: short, and the same when they are read."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cryolike_dask.analysis.displacements_tried import (
    attributes_of_displacements,
    displacements_tried,
)
from cryolike_dask.geometry.displacements import DisplacementSearch


@pytest.mark.parametrize("n_y", [1, 2, 3, 16])
@pytest.mark.parametrize("n_x", [1, 2, 3, 16, 33])
def test_of_a_search_the_axes_are_said(n_x, n_y):
    grid = DisplacementSearch(3, n_x, n_y).grid(1.3)
    said = attributes_of_displacements(grid.x_angstrom, grid.y_angstrom)
    axes = [said[f"displacements_{axis}_angstrom"] for axis in "xy"]
    assert [len(axis) for axis in axes] == [n_x, n_y]
    assert said["n_displacements"] == len(grid)
    tried = displacements_tried(xr.Dataset(attrs=said))
    np.testing.assert_array_equal(tried, grid.table())


def test_whatever_was_tried_is_read_as_it_was(rng):
    """Also such as are no grid, or one in another order, or with some twice."""
    for _ in range(300):
        table = rng.integers(-2, 3, (2, rng.integers(1, 12))).astype(float)
        said = attributes_of_displacements(*table)
        np.testing.assert_array_equal(displacements_tried(xr.Dataset(attrs=said)), table)


def test_attributes_pass_through_a_file(tmp_path):
    """One value becomes a number there."""
    for n in (1, 3):
        grid = DisplacementSearch(n - 1, n, 1).grid(2.0)
        said = attributes_of_displacements(grid.x_angstrom, grid.y_angstrom)
        xr.Dataset(attrs=said).to_zarr(tmp_path / f"{n}.zarr")
        read = xr.open_zarr(tmp_path / f"{n}.zarr")
        np.testing.assert_array_equal(displacements_tried(read), grid.table())


def test_without_them_nothing_is_known():
    assert [len(values) for values in displacements_tried(xr.Dataset())] == [0, 0]
