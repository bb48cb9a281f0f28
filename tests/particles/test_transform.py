"""Pixels to the polar grid and back: against explicit sums, each against the other, and the
power of both."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.particles.transform import fourier_to_pixels, pixels_to_fourier, radial_power

EPS = {"single": 8e-6, "double": 3e-12}
"""Largest error of a transform over the largest value: measured 3e-6 and 1e-12 on small boxes."""
ROUND_TRIP = {"single": 2.5e-6, "double": 6e-10}
"""Largest pixel error of Gaussians of height 1: measured 9e-7 and 2.4e-10, the second is the
band limit."""


def default_grid(n_pixels):
    return PolarGrid(n_pixels, 1.5, n_pixels / 4, 2 * n_pixels)


def waves(grid, n_pixels, sign):
    """exp(sign 2 pi i k . X) for every pixel and point, (row, column, shell, angle)."""
    kx, ky = grid.points()
    axis = ((np.arange(n_pixels) - n_pixels // 2) * 2 / n_pixels)[:, None, None, None]
    return np.exp(sign * 2j * np.pi * (ky * axis + kx * axis[:, 0]))


def gaussians(rng, n_pixels, sigma, spread, n=4):
    """Images of one Gaussian each, sigma in pixels, within `spread` half boxes of the centre."""
    axis = np.arange(n_pixels) - n_pixels // 2
    x, y = rng.uniform(-spread / 2**0.5, spread / 2**0.5, (2, n, 1)) * n_pixels / 2
    along_x, along_y = (np.exp(-((axis - c) ** 2) / (2 * sigma**2)) for c in (x, y))
    return along_y[:, :, None] * along_x[:, None, :]


def assert_near(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("n_pixels", [7, 8, 13])
def test_pixels_to_fourier_is_the_sum_over_pixels(rng, n_pixels, precision):
    grid = default_grid(n_pixels)
    images = rng.standard_normal((3, n_pixels, n_pixels))
    values = pixels_to_fourier(images, grid, precision)
    expected = 4 * np.pi / n_pixels * np.einsum("myx,yxnj->mnj", images, waves(grid, n_pixels, -1))
    assert values.dtype == {"single": np.complex64, "double": np.complex128}[precision]
    assert_near(values, expected, EPS[precision])


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize(
    ("n_pixels", "wanted"), [(7, None), (8, None), (13, 13), (8, 11), (7, 4), (8, 1)]
)
def test_fourier_to_pixels_is_the_weighted_sum_over_the_polar_grid(
    rng, build, n_pixels, wanted, precision
):
    grid = default_grid(n_pixels)
    values = build.rings(3, grid).astype(
        {"single": np.complex64, "double": np.complex128}[precision]
    )
    pixels = fourier_to_pixels(values, grid, wanted)
    factor = 4 * np.pi / n_pixels * grid.weights[:, None] / (2 * np.pi) ** 2
    expected = np.einsum("mnj,yxnj->myx", values * factor, waves(grid, wanted or n_pixels, 1)).real
    assert pixels.dtype == {"single": np.float32, "double": np.float64}[precision]
    assert_near(pixels, expected, EPS[precision])


def test_x_is_the_column_and_y_the_row():
    grid = default_grid(24)
    kx, ky = grid.points()
    moved = np.exp(
        -2 * (np.pi * 0.15 * grid.radii[:, None]) ** 2 - 2j * np.pi * (kx * 5 + ky * -3) / 12
    )
    pixels = fourier_to_pixels(moved[None], grid)[0]
    assert np.unravel_index(pixels.argmax(), pixels.shape) == (12 - 3, 12 + 5)


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize(("n_pixels", "sigma"), [(48, 2.5), (49, 2.5), (64, 2.5), (65, 3.0)])
def test_particles_come_back_to_pixels(rng, n_pixels, sigma, precision):
    grid = default_grid(n_pixels)
    images = gaussians(rng, n_pixels, sigma, spread=0.05)
    back = fourier_to_pixels(pixels_to_fourier(images, grid, precision), grid)
    assert_near(back, images, ROUND_TRIP[precision])


@pytest.mark.parametrize(
    ("n_inplanes", "largest", "smallest"), [(128, 1.5e-4, 2e-5), (256, 1.2e-7, 0.0)]
)
def test_detail_near_an_edge_leaves_ghosts_where_angles_are_few(n_inplanes, largest, smallest):
    """Sigma 2 pixels at 0.7 half boxes: measured 5e-5 with the default angles; 4e-8 with twice,
    the band limit."""
    grid = PolarGrid(64, 1.5, 16.0, n_inplanes)
    axis = np.arange(64) - 32
    image = np.exp(-(axis**2 + (axis[:, None] - 22) ** 2) / 8)[None]
    error = np.abs(fourier_to_pixels(pixels_to_fourier(image, grid, "double"), grid) - image)
    assert smallest <= error.max() < largest
    assert error[0, 32:].max() < 1.2e-7


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("n_pixels", [48, 49])
def test_transforms_come_back_from_pixels(build, n_pixels, precision):
    """Measured 3.4e-6 and 5e-12."""
    grid = default_grid(n_pixels)
    radius = 2.5 * 2 / n_pixels
    values = build.particles(3, grid, radius=radius, spread=0.05)
    values = values.astype({"single": np.complex64, "double": np.complex128}[precision])
    back = pixels_to_fourier(fourier_to_pixels(values, grid), grid, precision)
    assert_near(back, values, {"single": 1e-5, "double": 1.5e-11}[precision])


@pytest.mark.parametrize("n_pixels", [48, 49])
def test_power_of_pixels_is_power_of_the_transform(rng, n_pixels):
    """One pixel spans 4 / N^2 of the box, so the integral of |F|^2 over frequencies is (2 pi)^2
    sum I^2."""
    grid = default_grid(n_pixels)
    images = gaussians(rng, n_pixels, sigma=2.5, spread=0.2)
    power = grid.integrate(np.abs(pixels_to_fourier(images, grid, "double")) ** 2)
    np.testing.assert_allclose(power, (2 * np.pi) ** 2 * (images**2).sum(axis=(1, 2)), rtol=2e-13)


def test_finer_pixels_of_the_same_box_show_the_same_image(rng):
    grid = default_grid(48)
    values = pixels_to_fourier(gaussians(rng, 48, sigma=2.5, spread=0.1), grid, "double")
    fine = fourier_to_pixels(values, grid, 144)
    assert_near(fine[:, ::3, ::3], fourier_to_pixels(values, grid), 3e-12)


def test_radial_power_is_the_mean_over_a_ring(build):
    grid = default_grid(12)
    values = build.rings(3, grid)
    power = radial_power(values.astype(np.complex64), grid)
    assert power.dtype == np.float64
    np.testing.assert_allclose(power, (np.abs(values) ** 2).mean(axis=2), rtol=1e-6)
    np.testing.assert_allclose(
        radial_power(1e30 * values.astype(np.complex64), grid), 1e60 * power, rtol=1e-5
    )


@pytest.mark.parametrize("function", [fourier_to_pixels, radial_power])
@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        (
            np.zeros((2, 13, 23), np.complex64),
            GridMismatchError,
            r"\(2, 13, 23\).*\(image, 13, 24\)",
        ),
        (np.zeros((13, 24), np.complex64), GridMismatchError, r"\(13, 24\)"),
        (np.zeros((2, 13, 24), np.float32), InputError, "float32.*complex64 or complex128"),
    ],
)
def test_values_off_the_grid_are_refused(function, values, error, match):
    with pytest.raises(error, match=match):
        function(values, default_grid(12))


@pytest.mark.parametrize("n_pixels", [0, -3, 2.5, True])
def test_a_wrong_number_of_pixels_is_refused(n_pixels):
    with pytest.raises(InputError, match="n_pixels"):
        fourier_to_pixels(np.zeros((1, 13, 24), np.complex64), default_grid(12), n_pixels)


@pytest.mark.parametrize("shape", [(12, 12), (1, 12, 11), (1, 13, 13)])
def test_pixels_off_the_grid_are_refused(shape):
    with pytest.raises(GridMismatchError, match=r"\(image, 12, 12\)"):
        pixels_to_fourier(np.zeros(shape), default_grid(12))
