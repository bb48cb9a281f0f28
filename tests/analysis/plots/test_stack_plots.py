"""Figures: what they show, where, in which units, and that they are written whole."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

import cryolike_dask as cld
from cryolike_dask.analysis.plots.stack_plots import plot_images, plot_templates, save_figure
from cryolike_dask.errors import InputError
from cryolike_dask.particles.transform import fourier_to_pixels, radial_power
from tests.conftest import Builder

ALL = slice(None)
UNIT = re.compile(r"\((Å|1/Å|arbitrary units)\)$")


@pytest.fixture(scope="module")
def stacks():
    return Builder(np.random.default_rng(1)).stacks(n_images=5, n_templates=7, n_pixels=12)


@pytest.fixture(scope="module")
def of_images(stacks):
    """A figure of four images, laid out once for all tests of it."""
    figure = plot_images(stacks[0], 4)
    figure.draw_without_rendering()
    return figure


def panels(figure):
    """The real space panels, the Fourier space panels, and the power panel, which colour bars
    follow."""
    n = sum(bool(axes.images) for axes in figure.axes)
    power = next(axes for axes in figure.axes if axes.get_xlabel() == "spatial frequency (1/Å)")
    return (
        figure.axes[:n],
        [axes for axes in figure.axes if axes.get_xlabel().startswith("x frequency")],
        power,
    )


def pixels_shown(figure):
    return np.stack([axes.images[0].get_array() for axes in panels(figure)[0]])


def image_stack(build, values, parameters):
    return cld.ImageStack.from_array(values, parameters, build.optics(len(values)))


@pytest.mark.parametrize("n_templates", [None, 4, 1])
def test_every_axis_is_labelled_with_its_unit_and_nothing_overlaps(of_images, stacks, n_templates):
    figure = of_images
    if n_templates is not None:
        figure = plot_templates(stacks[1], n_templates)
        figure.draw_without_rendering()
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            numbered = any(t.get_visible() and t.get_text() for t in axis.get_ticklabels())
            assert UNIT.search(axis.get_label_text()) or not numbered
    boxes = [part.get_tightbbox() for part in (*figure.axes, *figure.texts)]
    for i, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other) for other in boxes[:i])
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("n_pixels", [12, 13])
def test_extents_are_the_box_and_the_band(build, n_pixels):
    images, _ = build.stacks(n_pixels=n_pixels)
    grid, half = images.grid, images.grid.box_size_angstrom / 2
    real, fourier, power = panels(plot_images(images))
    # half a pixel: the middle of the box is between pixels
    off_centre = 0.75 if n_pixels == 12 else 0.0
    for axes in real:
        np.testing.assert_allclose(
            [axes.get_xlim(), axes.get_ylim()], [[-half - off_centre, half - off_centre]] * 2
        )
        assert axes.images[0].get_extent() == [*axes.get_xlim(), *axes.get_ylim()]
        assert axes.get_aspect() == 1
    limit = 2 * grid.radius_max / grid.box_size_angstrom
    for axes in fourier:
        np.testing.assert_allclose([axes.get_xlim(), axes.get_ylim()], [[-limit, limit]] * 2)
        assert axes.get_aspect() == 1
    assert power.get_xlim() == (0, limit)


def test_a_particle_is_where_its_coordinates_say(build):
    parameters = cld.ImageParameters(24, 2.0)
    kx, ky = parameters.grid.points()
    x, y = 10.0, -6.0
    blob = np.exp(
        -2 * (np.pi * 0.15 * parameters.grid.radii[:, None]) ** 2
        - 2j * np.pi * (kx * x + ky * y) / 24
    )
    shown = panels(plot_images(image_stack(build, blob[None], parameters)))[0][0].images[0]
    row, column = np.unravel_index(shown.get_array().argmax(), shown.get_array().shape)
    left, right, bottom, top = shown.get_extent()
    assert shown.origin == "lower"
    assert left + (column + 0.5) * (right - left) / 24 == pytest.approx(x)
    assert bottom + (row + 0.5) * (top - bottom) / 24 == pytest.approx(y)


def test_templates_are_spread_over_the_stack(stacks):
    _, templates = stacks
    templates = replace(templates, structure="my_$tructure$")
    figure = plot_templates(templates, 3)
    rows = np.array([0, 3, 6])
    values = templates.source.take(rows)
    np.testing.assert_array_equal(pixels_shown(figure), fourier_to_pixels(values, templates.grid))
    degrees = np.degrees([templates.viewing.azimuth[rows], templates.viewing.polar[rows]]).T
    titles = [axes.get_title() for axes in panels(figure)[0]]
    assert titles == [f"azimuth {azimuth:.0f}°\npolar {polar:.0f}°" for azimuth, polar in degrees]
    assert figure.get_suptitle() == "structure my_$tructure$"
    assert not figure.texts[0].get_parse_math()


def test_images_are_the_first_of_the_stack(stacks):
    images = stacks[0][2:]
    figure = plot_images(images, 2)
    values = images.source.take(np.arange(2))
    np.testing.assert_array_equal(pixels_shown(figure), fourier_to_pixels(values, images.grid))
    defocus = (images.optics["defocus_u_angstrom"] + images.optics["defocus_v_angstrom"]) / 2e4
    titles = [axes.get_title() for axes in panels(figure)[0]]
    assert titles == [f"image {i + 2} of stack 0\ndefocus {defocus[i]:.2f} µm" for i in range(2)]


def test_amplitudes_are_drawn_around_their_points(stacks, of_images):
    images, _ = stacks
    mesh = panels(of_images)[1][0].collections[0]
    amplitudes = np.abs(images.source.take(np.arange(1))[0])
    seen = mesh.get_array() > mesh.norm.vmin
    np.testing.assert_allclose(mesh.get_array()[seen], amplitudes[seen])
    assert (amplitudes[~seen] <= mesh.norm.vmin).all()
    corners = mesh.get_coordinates()
    angle = np.arctan2(*images.grid.points()[::-1])
    low, high = (np.arctan2(c[1:, :, 1], c[1:, :, 0]) for c in (corners[:, :-1], corners[:, 1:]))
    np.testing.assert_allclose(np.angle(np.exp(1j * (angle - low))), np.pi / 20)
    np.testing.assert_allclose(np.angle(np.exp(1j * (high - angle))), np.pi / 20)
    radii = np.hypot(*corners[:, 0].T)
    assert (radii[:-1] < images.grid.spatial_frequencies).all()
    assert (images.grid.spatial_frequencies < radii[1:]).all()


def test_power_of_each_image_and_the_mean(stacks, of_images):
    images, _ = stacks
    power = panels(of_images)[2]
    expected = radial_power(images.source.take(np.arange(4)), images.grid)
    drawn = [line.get_ydata() for line in power.lines]
    np.testing.assert_allclose(drawn, [*expected, expected.mean(axis=0)])
    np.testing.assert_allclose(
        [line.get_xdata() for line in power.lines], [images.grid.spatial_frequencies] * 5
    )
    assert power.get_yscale() == "log"
    top = power.child_axes[0]
    resolutions = [float(t.get_text()) for t in top.get_xticklabels()]
    np.testing.assert_allclose(top.get_xticks(), 1 / np.array(resolutions))
    assert resolutions[0] == 3.0  # twice the pixel size
    assert -np.diff(top.get_xticks()).max() > power.get_xlim()[1] / 20


@pytest.mark.parametrize(
    "spoil",
    [(ALL, 0), ((ALL, 3), 0), ((1, 2, 3), np.nan), ((1, 0, 0), np.inf), (ALL, np.nan), (ALL, 1)],
    ids=str,
)
def test_what_is_zero_or_not_finite_is_left_out(build, spoil):
    parameters = cld.ImageParameters(12, 1.5, n_inplanes=20)
    values = build.rings(2, parameters.grid)
    values[spoil[0]] = spoil[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot_images(image_stack(build, values, parameters))
        figure.set_layout_engine("none")  # only to be fast
        figure.draw_without_rendering()
    finite = np.isfinite(values).all(axis=(1, 2))
    power = panels(figure)[2]
    notes = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert notes == ["not finite"] * (~finite).sum() + ["no power"] * (not values[finite].any())
    assert len(power.lines) == {0: 0, 1: 1, 2: 3}[finite.sum()]


@pytest.mark.parametrize(("plot", "which", "size"), [(plot_images, 0, 5), (plot_templates, 1, 7)])
def test_a_short_stack_is_shown_whole(stacks, plot, which, size):
    assert len(panels(plot(stacks[which], 12))[0]) == size


@pytest.mark.parametrize(
    ("n", "match"), [(0, "n=0"), (2.5, "n=2.5"), (13, "n=13.*at most 12"), ("4", "n='4'")]
)
def test_a_wrong_number_is_refused(stacks, n, match):
    with pytest.raises(InputError, match=match):
        plot_images(stacks[0], n)


def test_other_things_are_refused(stacks, tmp_path):
    images, templates = stacks
    with pytest.raises(
        InputError, match=r"images is of type TemplateStack, not ImageStack.*open_images"
    ):
        plot_images(templates)
    with pytest.raises(
        InputError, match=r"templates is of type ImageStack, not TemplateStack.*open_templates"
    ):
        plot_templates(images)
    with pytest.raises(InputError, match="figure is of type ImageStack, not Figure"):
        save_figure(images, tmp_path / "figure.png")


def test_a_saved_figure_is_a_complete_png(tmp_path):
    figure = Figure((2, 1))
    path = tmp_path / "new folder" / "figure.PNG"
    save_figure(figure, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert imread(BytesIO(path.read_bytes())).shape[:2] == tuple(
        150 * figure.get_size_inches()[::-1]
    )
    assert [p.name for p in path.parent.iterdir()] == ["figure.PNG"]


@pytest.mark.parametrize("name", ["figure", "figure.xyz"])
def test_an_unknown_format_is_refused(name, tmp_path):
    with pytest.raises(InputError, match=rf"{name}.*\.png"):
        save_figure(Figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_figure_that_cannot_be_drawn_leaves_what_was_there(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"earlier")
    figure = Figure()
    figure.suptitle("$\\nothing$")
    with pytest.raises(ValueError, match="nothing"):
        save_figure(figure, path)
    assert path.read_bytes() == b"earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["figure.png"]
