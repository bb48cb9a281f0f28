"""The part of the box and of the band that noise fills, of images simulated here: their masks, and
so their degrees of freedom, are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.particles.band import band_limit_of
from cryolike_dask.particles.freedom import copied_lines, noise_level, share_of_box
from cryolike_dask.particles.resample import downsample
from cryolike_dask.particles.transform import pixels_to_fourier


def white(f):
    return np.ones_like(f)


def coloured(f):
    return 1 / np.hypot(1, 6.7 * f)


def from_middle(n):
    axis = np.arange(n) - n // 2
    return np.hypot(axis, axis[:, None])


def hard_mask(n, radius):
    return (from_middle(n) <= radius * n).astype(np.float64)


def soft_mask(n, radius, width):
    """Half a cosine, from 1 at the radius to 0 a width farther out, both parts of the box."""
    across = np.clip((from_middle(n) / n - radius) / width, 0, 1)
    return (1 + np.cos(np.pi * across)) / 2


def frame(n, width):
    mask = np.zeros((n, n))
    mask[width : n - width, width : n - width] = 1
    return mask


def share_of_mask(mask):
    """What white noise under a mask has of variance in all, over what it would have in the whole
    box; for a mask of zeros and ones the part of degrees of freedom, by the trace of its covariance
    and of the square of that."""
    return (mask**2).mean() / mask.max() ** 2


def freedom_of(mask, band):
    """Degrees of freedom of white noise under a mask of zeros and ones, of which frequencies are
    kept, by the trace of its covariance and of the square of that."""
    correlation = np.fft.ifft2(band).real
    spread = np.fft.ifft2(np.fft.fft2(mask) * np.fft.fft2(correlation**2)).real
    return (mask.sum() * correlation[0, 0]) ** 2 / (mask * spread).sum()


def frequencies(n):
    """Cycles per pixel, (row, column)."""
    f = np.fft.fftfreq(n)
    return np.hypot(f, f[:, None])


def filtered(pixels, amplitude):
    return np.fft.ifft2(np.fft.fft2(pixels) * amplitude).real


def noise(rng, n_images, n, amplitude=white):
    drawn = filtered(rng.standard_normal((n_images, n, n)), amplitude(frequencies(n)))
    return drawn / drawn.std()


def particles(rng, n_images, n, snr, radius=0.25):
    """Projections of balls in a sphere, seen from anywhere, somewhat off the centre."""
    atoms = rng.standard_normal((40, 3))
    atoms *= (rng.uniform(0, 1, 40) ** (1 / 3) * radius * n / np.linalg.norm(atoms, axis=1))[
        :, None
    ]
    axis = np.arange(n) - n // 2
    turned = [atoms @ np.linalg.qr(rng.standard_normal((3, 3)))[0][:, :2] for _ in range(n_images)]
    at = np.stack(turned) + rng.standard_normal((n_images, 1, 2))
    x, y = (np.exp(-((axis - at[:, :, i, None]) ** 2) / 4) for i in (0, 1))
    images = np.einsum("iar,iac->irc", y, x)
    return images * np.sqrt(snr / images.var())


def variance_of(images):
    """The variance of pixels as conversion stores it."""
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    return ((centred / centred.std(axis=(1, 2), keepdims=True)) ** 2).mean(axis=0)


@pytest.mark.parametrize("amplitude", [white, coloured], ids=["white", "coloured"])
@pytest.mark.parametrize(("snr", "n_images"), [(0, 50), (0.05, 200), (0.35, 50), (1, 500)])
def test_noise_in_a_full_box_fills_it_whatever_the_particle(rng, snr, n_images, amplitude):
    images = noise(rng, n_images, 48, amplitude) + particles(rng, n_images, 48, snr)
    assert share_of_box(variance_of(images), n_images) == (1, "noise fills the whole box")


MASKS = {
    "a hard mask": (hard_mask(64, 0.45), "masked beyond a radius of 0.45 of the box: 0.6"),
    "a small hard mask": (hard_mask(64, 0.35), "masked beyond a radius of 0.35 of the box: 0.3"),
    "a mask as wide as the box": (hard_mask(64, 0.5), "masked beyond a radius of 0.50"),
    "a soft mask": (soft_mask(64, 0.35, 0.08), "masked beyond a radius of 0.3"),
    "a box in a larger one": (frame(64, 8), "padded: noise fills 48 by 48 of 64 pixels: 0.56"),
    "a line of pixels": (frame(64, 1), "padded: noise fills 62 by 62 of 64 pixels: 0.94"),
    "a mask off the centre": (np.roll(hard_mask(64, 0.3), (5, -7), (0, 1)), "masked beyond"),
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    ("snr", "n_images", "amplitude"),
    [(0, 50, coloured), (0.05, 50, white), (0.35, 200, white), (1, 200, coloured)],
)
def test_masks_are_measured_under_noise_and_particles(rng, name, snr, n_images, amplitude):
    mask, said = MASKS[name]
    small = 0.2 if name != "a mask off the centre" else 0.1
    images = noise(rng, n_images, 64, amplitude) + particles(rng, n_images, 64, snr, small)
    images *= mask
    if snr == 0.05:  # filled with the mean of what is inside, which differs from image to image
        mean = images.sum(axis=(1, 2)) / mask.sum()
        images = images + mean[:, None, None] * (1 - mask)
    share, reason = share_of_box(variance_of(images), n_images)
    # a particle of as much power as the noise raises what is under a soft edge: by 2.2%, measured
    # and of 50 images the measure has a standard deviation of 0.4%, with long tails (400 seeds)
    largest = 0.03 if name == "a soft mask" and snr in (0.05, 1) else 0.02
    assert share == pytest.approx(share_of_mask(mask), rel=largest)
    assert reason.startswith(said)


def test_2000_images_of_a_large_box(rng):
    """Their variance, without drawing them: a sum of squares."""
    n, n_images = 256, 2000
    mask = hard_mask(n, 0.45)
    drawn = rng.chisquare(n_images, (n, n)) / n_images
    particle = 1 + 2 * np.exp(-((from_middle(n) / 60) ** 2))
    for variance, truth in ((mask * drawn * particle, share_of_mask(mask)), (drawn * particle, 1)):
        assert share_of_box(variance, n_images)[0] == pytest.approx(truth, rel=0.005)


@pytest.mark.parametrize("radius", [0.35, 0.45])
def test_a_particle_that_fills_a_hard_mask_is_not_its_edge(rng, radius):
    mask = hard_mask(48, radius)
    images = (noise(rng, 100, 48) + particles(rng, 100, 48, 0.5, radius)) * mask
    share = share_of_box(variance_of(images), 100)[0]
    # of one in eighty such sets the outermost ring is taken for empty, which is 3%
    assert share == pytest.approx(share_of_mask(mask), rel=0.04)


def test_masked_images_that_were_brought_to_fewer_pixels(rng):
    """The mask's edge rings, where there was a constant."""
    n, mask = 48, hard_mask(96, 0.4)
    images = (noise(rng, 100, 96) + particles(rng, 100, 96, 0.1)) * mask
    cropped = downsample(images.astype(np.float32), n).astype(np.float64)
    share = share_of_box(variance_of(cropped), 100)[0]
    kept = np.abs(np.fft.fftfreq(96)) < n / 2 / 96
    kept = kept & kept[:, None]
    # the variance map of such noise, if it is known, gives 0.025 too much
    assert share == pytest.approx(freedom_of(mask, kept) / kept.sum(), rel=0.04)


def test_low_passed_noise_under_a_mask(rng):
    """Degrees of freedom by the trace of the covariance, which masks and low-passes: an
    independent count of what share and band give together."""
    n, n_images = 48, 100
    inside = frequencies(n) <= 0.375
    mask = hard_mask(n, 0.4)
    images = noise(rng, n_images, n, lambda f: f <= 0.375) * mask
    share = share_of_box(variance_of(images), n_images)[0]
    grid = PolarGrid(n, 3.0, n / 4, 2 * n)
    limit, _ = band_limit_of(grid.spatial_frequencies, mean_power(images, grid), grid)
    found = math.pi * (limit * grid.box_size_angstrom) ** 2 * share
    assert found == pytest.approx(freedom_of(mask, inside), rel=0.06)


def test_what_is_inside_a_mask_is_one_and_outside_zero(rng):
    mask = hard_mask(40, 0.4)
    images = (noise(rng, 100, 40) + particles(rng, 100, 40, 0.3)) * mask
    np.testing.assert_array_equal(noise_level(variance_of(images), 100), mask)


@pytest.mark.parametrize(
    ("variance", "n_images", "said"),
    [
        (None, 100, "is not there"),
        (np.ones((16, 16)), 9, "of 9 image(s) only"),
        (np.full((16, 16), np.nan), 100, "not finite"),
        (np.zeros((16, 16)), 100, "zero"),
        (-np.ones((16, 16)), 100, "negative"),
    ],
)
def test_what_is_not_known_is_said_with_what_to_do(variance, n_images, said):
    share, reason = share_of_box(variance, n_images)
    assert math.isnan(share)
    assert reason.startswith("not known: ")
    assert reason.endswith(", give --degrees-of-freedom")
    assert said in reason


@pytest.mark.parametrize("n_lines", [0, 1, 3])
def test_copied_lines_are_counted(rng, n_lines):
    images = noise(rng, 60, 40)
    images[:59, :, 40 - n_lines :] = images[:59, :, [39 - n_lines]]
    assert copied_lines(variance_of(images)) == n_lines
    assert copied_lines(variance_of(images * hard_mask(40, 0.4))) == 0


def mean_power(images, grid):
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    return (np.abs(pixels_to_fourier(centred, grid)) ** 2).mean(axis=(0, 2))


def low_passed(band, amplitude=white, width=0.0):
    """Amplitude that ends at a part of the Nyquist frequency, softly over a width of it."""

    def low_pass(f):
        if not width:
            return amplitude(f) * (f <= band / 2)
        return amplitude(f) * (1 + np.cos(np.pi * np.clip((2 * f - band) / width + 0.5, 0, 1))) / 2

    return low_pass


@pytest.mark.parametrize("snr", [0, 0.35])
@pytest.mark.parametrize("masked", [None, 0.45, 0.35])
@pytest.mark.parametrize(
    ("band", "amplitude"), [(0.75, white), (0.75, coloured), (0.5, white), (0.9, white)]
)
def test_low_passes_are_seen_through_the_leaks_of_the_box(rng, band, amplitude, masked, snr):
    n, n_images = 64, 40
    grid = PolarGrid(n, 3.0, n / 4, n)
    filter_of = low_passed(band, amplitude)
    images = noise(rng, n_images, n, filter_of)
    images += filtered(particles(rng, n_images, n, snr), frequencies(n) <= band / 2)
    images *= 1 if masked is None else hard_mask(n, masked)
    power = mean_power(images, grid)
    limit, reason = band_limit_of(grid.spatial_frequencies, power, grid)
    assert limit * 6.0 == pytest.approx(band, abs=0.01)  # a third of a cycle per box
    if band == 0.75:
        assert reason.startswith(("low-passed at 8.0 angstrom: 0.5", "low-passed at 8.1"))
    assert power[-1] > 1e-4 * np.median(power)  # the leaks, which alone would hide it


def test_a_soft_low_pass_ends_in_its_edge(rng):
    grid = PolarGrid(64, 3.0, 16.0, 64)
    power = mean_power(noise(rng, 40, 64, low_passed(0.7, width=0.15)), grid)
    limit, _ = band_limit_of(grid.spatial_frequencies, power, grid)
    assert 0.65 < limit * 6.0 < 0.78


@pytest.mark.parametrize("n", [36, 64])
@pytest.mark.parametrize("snr", [0, 0.35])
@pytest.mark.parametrize("masked", [None, 0.45])
@pytest.mark.parametrize(
    "amplitude", [white, coloured, lambda f: 10 ** (-3 * f)], ids=["white", "coloured", "steep"]
)
def test_noise_that_falls_but_does_not_end_has_no_limit(rng, amplitude, masked, snr, n):
    """The steep one by a thousand."""
    grid = PolarGrid(n, 3.0, n / 4, n)
    images = noise(rng, 40, n, amplitude) + particles(rng, 40, n, snr)
    images *= 1 if masked is None else hard_mask(n, masked)
    limit, reason = band_limit_of(grid.spatial_frequencies, mean_power(images, grid), grid)
    assert limit == math.inf
    assert reason == "noise reaches the whole band"


SHELLS = np.linspace(0.001, 0.25, 100)


@pytest.mark.parametrize("band", [0.3, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("left", [0.0, 1e-9, 5e-5])
def test_power_that_ends_has_its_limit_there(band, left):
    power = np.where(band * 0.25 >= SHELLS, 2.0, 2.0 * left)
    limit, reason = band_limit_of(SHELLS, power)
    assert limit == pytest.approx(band * 0.25, abs=0.002)
    assert (
        reason
        == f"low-passed at {1 / limit:.1f} angstrom: {(limit / 0.25) ** 2:.2f} of the "
        + ("band is left")
    )


@pytest.mark.parametrize(
    "power",
    [
        np.ones(100),
        np.where(np.arange(100) == 60, 0, 1),
        10.0 ** (-3 * SHELLS / 0.25),
        np.where(np.arange(100) < 6, 1e6, 1),
        np.where(np.arange(100) > 80, 1e-3, 1),
        np.where((np.arange(100) > 40) & (np.arange(100) < 60), 0, 1),
    ],
    ids=["white", "a shell is low", "steep", "ice", "weak", "a gap"],
)
def test_power_that_does_not_end_has_no_limit(power):
    assert band_limit_of(SHELLS, power)[0] == math.inf


def test_a_butterworth_filter_ends_where_it_has_fallen_enough():
    power = 1 / (1 + (SHELLS / 0.06) ** 16)
    limit, _ = band_limit_of(SHELLS, power)
    assert limit == pytest.approx(0.06 * 1e4 ** (1 / 16), abs=0.003)
