"""Images on fewer pixels: waves of known frequency, by every method, for even and odd sides."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.errors import InputError
from cryolike_dask.particles.resample import block_offset_pixels, downsample


def wave(n, cycles_x, cycles_y, phase):
    """A plane wave over a box of side 1 whose origin is pixel n // 2."""
    x = (np.arange(n) - n // 2) / n
    return np.cos(2 * np.pi * (cycles_x * x + cycles_y * x[:, None]) + phase).astype(np.float32)


@pytest.mark.parametrize(("n", "m"), [(32, 16), (32, 15), (33, 16), (33, 15), (48, 32), (320, 160)])
def test_waves_below_the_new_nyquist_frequency_are_kept_where_they_are(rng, n, m):
    below = rng.integers(-(m // 2) + 1, m // 2, (5, 2))
    phases = rng.uniform(0, 2 * np.pi, 5)
    before = np.stack([wave(n, x, y, p) for (x, y), p in zip(below, phases, strict=True)])
    after = np.stack([wave(m, x, y, p) for (x, y), p in zip(below, phases, strict=True)])
    np.testing.assert_allclose(downsample(before, m), after, atol=2e-6)


def test_waves_beyond_the_new_nyquist_frequency_leave_nothing():
    before = np.stack([wave(48, 10, 3, 0.3), wave(48, 2, -11, 1.0)])
    np.testing.assert_allclose(downsample(before, 16), 0, atol=2e-6)


def test_blocks_by_hand():
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    np.testing.assert_array_equal(downsample(image, 2, "mean"), [[[2.5, 4.5], [10.5, 12.5]]])
    np.testing.assert_array_equal(downsample(image, 2, "max"), [[[5, 7], [13, 15]]])


@pytest.mark.parametrize(("n", "m"), [(32, 16), (30, 10), (45, 15), (24, 24)])
def test_the_origin_of_blocks_is_off_by_what_is_said(n, m):
    """The mean of blocks of a ramp is the ramp at their middles."""
    ramp = np.broadcast_to(np.arange(n, dtype=np.float32) - n // 2, (1, n, n))
    at_origin = downsample(np.ascontiguousarray(ramp), m, "mean")[0, 0, m // 2]
    assert at_origin == pytest.approx(block_offset_pixels(n, m, "mean"))
    assert block_offset_pixels(n, m, "fourier") == 0


@pytest.mark.parametrize(
    ("n", "m", "method", "message"),
    [
        (16, 32, "fourier", "16 pixels cannot be brought to 32"),
        (32, 12, "mean", "12 of 32 pixels are not whole"),
        (32, 16, "median", "downsample='median'"),
    ],
)
def test_what_cannot_be_done_is_refused(n, m, method, message):
    with pytest.raises(InputError, match=message):
        downsample(np.zeros((1, n, n), np.float32), m, method)
