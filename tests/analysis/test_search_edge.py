"""Images whose best displacement is on the edge of the search."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from cryolike_dask.analysis import findings
from cryolike_dask.analysis.search_edge import on_the_edge
from cryolike_dask.analysis.summaries import summarise_results


def test_winners_on_the_edge_are_counted(results):
    summary = summarise_results(results)
    edge = on_the_edge(summary)
    x, y = summary.optimal_displacement_x.values, summary.optimal_displacement_y.values
    assert edge.n_on_edge == sum(abs(a) == 6 or abs(b) == 6 for a, b in zip(x, y, strict=True))
    assert (edge.n_images, edge.limit_x, edge.limit_y) == (40, 6, 6)
    assert edge.fraction_tried == 10 / 13  # 4 x 3, and (0, 0)
    results["optimal_displacement_x"][:] = 6
    (finding,) = [
        f
        for f in findings.warnings_about(summarise_results(results))
        if f.section == "displacements"
    ]
    assert "40 of 40 images" in finding.text


@pytest.mark.parametrize(("farthest", "crowded"), [(4.9, False), (6.0, False), (7.0, True)])
def test_particles_that_end_at_the_edge_do_not_crowd_it(results, rng, farthest, crowded):
    steps = np.arange(-6.0, 7, 1)
    x, y = (values.ravel() for values in np.meshgrid(steps, steps))
    results = results.isel(image=np.zeros(4000, int)).assign_coords(image=np.arange(4000))
    for name in ("optimal_displacement_x", "optimal_displacement_y"):
        found = np.clip(np.round(rng.uniform(-farthest, farthest, 4000)), -6, 6)
        results[name] = xr.zeros_like(results[name]) + found
    results.attrs |= {
        "displacements_x_angstrom": x.tolist(),
        "displacements_y_angstrom": y.tolist(),
    }
    assert on_the_edge(summarise_results(results)).is_crowded == crowded


@pytest.mark.parametrize("n_on_edge", [0, 1, 2, 3])
def test_a_few_on_the_edge_are_no_warning(results, n_on_edge):
    x, y = (v.ravel() for v in np.meshgrid(np.arange(-6.0, 7, 3), np.arange(-6.0, 7, 3)))
    results.attrs |= {
        "displacements_x_angstrom": x.tolist(),
        "displacements_y_angstrom": y.tolist(),
    }
    results["optimal_displacement_x"][:] = 0
    results["optimal_displacement_y"][:] = 0
    results["optimal_displacement_y"][:, :n_on_edge] = -6
    summary = summarise_results(results)
    assert on_the_edge(summary).n_on_edge == n_on_edge
    assert bool(findings.warnings_about(summary)) == (n_on_edge > 2)  # 5% of 40


def test_an_axis_that_was_not_searched_has_no_edge(results):
    results.attrs["displacements_x_angstrom"] = [0.0] * 3
    results.attrs["displacements_y_angstrom"] = [-6.0, 0.0, 6.0]
    edge = on_the_edge(summarise_results(results))
    assert (edge.limit_x, edge.limit_y) == (0, 6)
    results.attrs["displacements_y_angstrom"] = [0.0] * 3
    assert on_the_edge(summarise_results(results)) is None
    del results.attrs["displacements_x_angstrom"]
    assert on_the_edge(summarise_results(results)) is None


def test_the_middle_of_a_search_of_three_is_no_edge(results):
    x, y = (v.ravel() for v in np.meshgrid([-6.0, 0.0, 6.0], [-6.0, 0.0, 6.0]))
    results.attrs |= {
        "displacements_x_angstrom": x.tolist(),
        "displacements_y_angstrom": y.tolist(),
    }
    for name in ("optimal_displacement_x", "optimal_displacement_y"):
        results[name] = xr.zeros_like(results[name])
    results["optimal_displacement_x"][:, :4] = 6
    edge = on_the_edge(summarise_results(results))
    assert (edge.n_on_edge, edge.per_edge, edge.per_neighbour) == (4, 0.5, 36)
    assert not edge.is_crowded
