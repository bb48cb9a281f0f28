"""Particles beside their projections: the pairs that the results speak of, in the right pose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import cryolike_dask as cld
from cryolike_dask.analysis.matching import match, open_matching
from cryolike_dask.analysis.plots.particle_plots import extreme_rows, plot_matches
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.particles.transform import fourier_to_pixels

NEAR = 1e-9


@pytest.fixture
def compared(build):
    """Images, templates of two structures, and their results."""
    images, first = build.stacks(6, 5)
    _, second = build.stacks(1, 5)
    images = replace(
        images, stack=np.array([4, 4, 4, 9, 9, 9]), image_in_stack=np.array([0, 1, 2, 0, 1, 2])
    )
    return images, [replace(first, structure="a"), replace(second, structure="b")]


def results_of(images, templates, **options):
    found = [
        cld.compute_optimal_pose(images, t, precision="double", **options).compute()
        for t in templates
    ]
    results = xr.concat(
        [one.assign_coords(structure=t.structure) for one, t in zip(found, templates, strict=True)],
        "structure",
    )
    return results.assign_attrs(conventions=options.get("conventions", "standard"))


@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
@pytest.mark.parametrize("frame", ["xy", "transposed"])
@pytest.mark.parametrize("structure", [None, "b"])
def test_pairs_correlate_as_the_results_say(compared, conventions, frame, structure):
    images, templates = compared
    images = replace(images, frame=frame)
    results = results_of(images, templates, conventions=conventions)
    summary = summarise_results(results, structure)
    found = match(summary, images, templates)
    np.testing.assert_allclose(found.correlation, summary.cross_correlation, atol=NEAR)
    other = match(
        summary.assign(optimal_inplane_rotation=summary.optimal_inplane_rotation + 1.0),
        images,
        templates,
    )
    assert np.abs(other.correlation - summary.cross_correlation).max() > 1e-3


def test_panels_show_the_particle_and_its_projection(compared):
    images, templates = compared
    results = results_of(images, templates)
    figure = plot_matches(results, [images[:3], images[3:]], templates, [5, 0])
    grid, values = images.grid, images.source.take(np.array([5, 0]))
    panels = np.array(figure.axes).reshape(3, 2)
    for axes, pixels in zip(panels[0], fourier_to_pixels(values, grid), strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), pixels, atol=1e-9)
        half = grid.box_size_angstrom / 2
        assert axes.images[0].get_extent() == [-half - 0.75, half - 0.75] * 2
        assert axes.images[0].origin == "lower"
    summary = summarise_results(results)
    smooth = np.exp(
        -np.log(2) * (grid.spatial_frequencies[:, None] * grid.box_size_angstrom / 12) ** 2
    )
    rows = summary.isel(image=[5, 0])
    projections = fourier_to_pixels(match(rows, images, templates).projections * smooth, grid)
    for axes, pixels in zip(panels[2], projections, strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), pixels, atol=1e-9)
    correlation = summary.cross_correlation.values
    names = summary.best_structure.values
    assert [axes.get_title() for axes in panels[0]] == [
        f"image 2 of stack 9\n{names[5]}\ncorrelation {correlation[5]:.3f}",
        f"image 0 of stack 4\n{names[0]}\ncorrelation {correlation[0]:.3f}",
    ]
    assert [axes.get_xlabel() for axes in panels[2]] == ["x (Å)"] * 2
    assert all(axes.get_ylabel().endswith("y (Å)") for axes in panels[:, 0])


def test_without_rows_the_best_are_shown(compared):
    images, templates = compared
    results = results_of(images, templates[:1])
    figure = plot_matches(results, images, templates[0], n=2, structure="a")
    order = np.argsort(-results.cross_correlation.values[0])
    titles = [axes.get_title() for axes in figure.axes[:2]]
    expected = [(int(images.image_in_stack[m]), int(images.stack[m])) for m in order[:2]]
    assert [title.split("\n")[0] for title in titles] == [
        f"image {i} of stack {k}" for i, k in expected
    ]


def test_no_image_is_among_the_best_and_the_worst():
    summary = xr.Dataset({"cross_correlation": ("image", [0.3, np.nan, 0.1, 0.2])})
    best, worst = extreme_rows(summary, 2)
    assert (best.tolist(), worst.tolist()) == ([0, 3], [2])
    best, worst = extreme_rows(summary, 1)
    assert (best.tolist(), worst.tolist()) == ([0], [2])


def test_what_does_not_belong_together_is_refused(compared, build):
    images, templates = compared
    results = results_of(images, templates)
    with pytest.raises(InputError, match="image 0 of stack 4 is not among the images"):
        plot_matches(results, images[3:], templates, [0])
    with pytest.raises(InputError, match="there are no templates of b"):
        plot_matches(results, images, templates[0], [0], structure="b")
    with pytest.raises(InputError, match=r"rows=\[6\], but there are 6 images"):
        plot_matches(results, images, templates, [6])
    with pytest.raises(InputError, match="13 images to show"):
        plot_matches(results, images, templates, [0] * 13)
    with pytest.raises(InputError, match="0 images to show"):
        plot_matches(results, images, templates, [])
    with pytest.raises(InputError, match="image 2 has no result"):
        plot_matches(results.where(results.image != 2), images, templates, [2])
    _, finer = build.stacks(1, 5, n_inplanes=24)
    with pytest.raises(GridMismatchError, match=r"n_inplanes=20.*n_inplanes=24"):
        plot_matches(results, images, replace(finer, structure="a"), [0], structure="a")
    _, fewer = build.stacks(1, 1)
    results["optimal_template"][:] = 4
    with pytest.raises(InputError, match="template 4 of a is not there: it has 1"):
        plot_matches(results, images, replace(fewer, structure="a"), [0], structure="a")


def test_only_the_stacks_and_templates_that_are_needed_are_opened(build, tmp_path):
    parameters = cld.ImageParameters(
        12, 1.5, n_inplanes=20, viewing_distance=3.0, precision="single"
    )
    files = cld.configure_likelihood_files(
        tmp_path / "t", tmp_path / "p", tmp_path / "out", i_template="all"
    )
    build.write_files(files, parameters, structures=("a", "b"), sizes=(4, 3, 2))
    search = cld.configure_displacement(1.5, 3, 2)
    cld.run_likelihood_optimal_pose(files, parameters, search, progress=False)
    summary = summarise_results(cld.open_results(tmp_path / "out"))
    rows = np.array([8, 5])
    images, templates = open_matching(summary, rows)
    assert [int(stack.stack[0]) for stack in images] == [1, 2]
    assert {t.structure for t in templates} == set(summary.best_structure.values[rows])
    found = match(summary.isel(image=rows), images, templates)
    np.testing.assert_allclose(found.correlation, summary.cross_correlation[rows], atol=1e-5)
    with pytest.raises(InputError, match=r"do not say where the particles are.*--particles"):
        open_matching(summary.assign_attrs(folder_particles=""), rows)
    with pytest.raises(InputError, match=r"parameters are not known.*--parameters"):
        open_matching(summary, rows, templates=templates)
