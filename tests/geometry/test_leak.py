"""What the edges of the box make of a spectrum: by its definition, and of noise that is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.geometry.leak import STEP, leak_of_box, leak_of_grid, leaked
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.particles.noise import RingPower, fit_spectrum
from cryolike_dask.particles.transform import pixels_to_fourier

GRID = PolarGrid(n_pixels=32, pixel_size_angstrom=3.0, radius_max=8.0, n_inplanes=128)
BOX = GRID.box_size_angstrom


def peak(f):
    """White noise with a peak that is hardly wider than what the box resolves."""
    return 1 + 20 * np.exp(-(((f - 4.8 / BOX) / (1.2 / BOX)) ** 2) / 2)


def drawn(rng, n_images, spectrum):
    """Boxes cut out of fields twice as wide, of noise of a spectrum, without their mean."""
    n, wide = GRID.n_pixels, 2 * GRID.n_pixels
    f = np.fft.fftfreq(wide, GRID.pixel_size_angstrom)
    amplitude = np.sqrt(spectrum(np.hypot(f, f[:, None])))
    fields = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n_images, wide, wide))) * amplitude)
    pixels = fields.real[:, n // 2 : n // 2 + n, n // 2 : n // 2 + n]
    return pixels - pixels.mean(axis=(1, 2), keepdims=True)


def test_by_its_definition():
    """Power of the transform of noise of one frequency of a field twice as wide, at random
    phases."""
    n, cycles = 24, np.array([3.3, 7.5, 10.1])
    whole = np.arange(-n, n) / 2
    distance = np.hypot(whole, whole[:, None])
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    qx, qy = cycles[:, None] * np.cos(angles), cycles[:, None] * np.sin(angles)
    pixels = np.arange(n) / n
    found = leak_of_box(cycles, n)
    for ring in (0, 3, 7, 10):
        expected = np.zeros(len(cycles))
        part = np.maximum(1 - np.abs(distance - ring), 0)
        for row, column in np.argwhere(part > 0):
            along_x = np.exp(2j * np.pi * (whole[column] - qx)[..., None] * pixels).mean(axis=-1)
            along_y = np.exp(2j * np.pi * (whole[row] - qy)[..., None] * pixels).mean(axis=-1)
            power = (np.abs(along_x * along_y) ** 2).mean(axis=1)
            expected += part[row, column] * power / 4
        np.testing.assert_allclose(found[:, ring], expected, rtol=0.05)


@pytest.mark.parametrize("spectrum", [peak, lambda f: 1 / (1 + (20 * f) ** 2) ** 2])
def test_noise_need_not_be_periodic_in_the_box(spectrum):
    """Boxes cut out of fields three times as wide: their power on rings, without chance, by the
    correlation of pixels."""
    n, wide = GRID.n_pixels, 3 * GRID.n_pixels
    f = np.fft.fftfreq(wide, GRID.pixel_size_angstrom)
    correlation = np.fft.ifft2(spectrum(np.hypot(f, f[:, None]))).real
    lags = np.arange(1 - n, n)
    both = (n - abs(lags)) / n
    tapered = correlation[np.ix_(lags, lags)] * both * both[:, None]
    angles = (np.arange(64) + 0.5) * 2 * np.pi / 64
    expected = []
    for radius in 2 * GRID.radii / n:
        along_x, along_y = (
            np.exp(2j * np.pi * radius * np.outer(of(angles), lags)) for of in (np.cos, np.sin)
        )
        expected.append((along_y @ tapered * along_x).sum(axis=1).real.mean())
    frequencies = np.linspace(0, 0.75 / GRID.pixel_size_angstrom, 1000)
    found = leaked(spectrum(frequencies)[None], frequencies, np.array([np.inf]), GRID)[0]
    off = found / expected - 1
    print(f"off by {abs(off).max():.2%}")
    assert abs(off).max() < 0.01


@pytest.mark.parametrize("n", [7, 24, 33])
def test_white_noise_stays_white(n):
    np.testing.assert_allclose(leak_of_box(np.linspace(0.2, n / 2, 9), n).sum(axis=1), 1)


def test_a_narrow_peak_is_told_from_what_the_box_makes_of_it(rng):
    images = pixels_to_fourier(drawn(rng, 2000, peak), GRID)
    rings = (np.abs(images) ** 2).mean(axis=-1)
    found = fit_spectrum(RingPower(rings, np.zeros_like(rings)), GRID, None)
    true, middle = peak(GRID.spatial_frequencies), GRID.radii > 1.5
    off = [np.log(values / true)[middle] for values in (found.variance, found.power)]
    rms, rms_smeared = (np.std(values) for values in off)
    print(rms, rms_smeared)
    assert rms < 0.03  # measured 0.005 to 0.01
    assert rms_smeared > 2 * rms


def test_degrees_of_freedom_are_the_power_of_whitened_images(rng):
    """Of those of white noise, where whitening by what is known leaves more of it, or less."""
    model = NoiseModel.of_spectrum(
        f := np.linspace(0, 0.5 / GRID.pixel_size_angstrom, 200), peak(f), GRID
    )
    power = [
        (np.abs(pixels_to_fourier(drawn(rng, 1000, spectrum), GRID)) ** 2).mean(axis=(0, 2))
        / spectrum(GRID.spatial_frequencies)
        for spectrum in (peak, np.ones_like)
    ]
    weights = GRID.weights * (GRID.radii > 1)
    ratio = (power[0] * weights).sum() / (power[1] * weights).sum()
    white = 4 * np.pi * GRID.radius_max**2
    (found,) = model.degrees_of_freedom(GRID)
    assert found / white == pytest.approx(ratio, rel=0.02)
    assert found > 1.05 * white


def test_a_grid_is_its_rings():
    leak = leak_of_grid(GRID)
    assert leak.shape[0] == GRID.n_shells
    np.testing.assert_allclose(leak, leak_of_box(2 * GRID.radii, GRID.n_pixels, STEP))
