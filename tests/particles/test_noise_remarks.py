"""Remarks on noise: each for what it is about, and none for white noise in a full box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.particles.noise_remarks import WhitenedPower, remarks_on_noise

GRID = PolarGrid(32, 3.0, 8.0, 64)
GROUPS = ("optics group 1", "optics group 2")


@pytest.fixture
def model():
    flat = np.ones((2, GRID.n_shells))
    known = NoiseModel.of_spectrum(GRID.spatial_frequencies, flat, GRID, GROUPS)
    return replace(known, n_images=np.array([500, 500]), relative_error=flat * 0.3)


def drawn(rng, expected, n_images=200):
    """Power of shells of white noise times what is expected, averaged over images."""
    power = rng.chisquare(20, (2, n_images, GRID.n_shells)) / 20 * expected
    return WhitenedPower(power.mean(axis=1), power.std(axis=1) / np.sqrt(n_images))


def test_white_noise_in_a_full_box_is_not_worth_a_word(rng, model):
    assert remarks_on_noise(model, GRID, drawn(rng, 1.0)) == ()


def test_uneven_power_is_said_with_where(rng, model):
    """A bump at 12 angstrom, in one of two groups; nothing of what lies beyond the band."""
    bump = 1 + 0.6 * np.exp(-(((1 / GRID.spatial_frequencies - 12) / 1.5) ** 2))
    expected = np.stack([bump, np.ones_like(bump)])[:, None]
    (remark,) = remarks_on_noise(model, GRID, drawn(rng, expected))
    assert remark.startswith("Noise of optics group 1 is not as the model supposes")
    assert "power at 12." in remark or "power at 11." in remark
    assert "--noise estimate" in remark
    ended = replace(model, band_limit=np.full(2, 1 / 20), reasons=("low-passed",) * 2)
    (remark,) = remarks_on_noise(ended, GRID, drawn(rng, expected))
    assert "ends at 20.0 angstrom" in remark


def test_few_images_leave_an_uneven_power_unsaid(rng, model):
    """What chance makes of them."""
    assert remarks_on_noise(model, GRID, drawn(rng, 1.0, n_images=10)) == ()


def test_a_low_power_of_the_offset_is_not_uneven(rng, model):
    expected = np.where(GRID.radii < 1, 0.01, 1.0)
    assert remarks_on_noise(model, GRID, drawn(rng, expected)) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"share": np.full(2, 0.64)}, ("fills 0.64 of the box only (why)", "mask")),
        ({"share": np.full(2, np.nan)}, ("is taken to fill the whole box (why)",)),
        ({"band_limit": np.full(2, 0.125)}, ("ends at 8.0 angstrom (why)", "--noise")),
        (
            {"n_images": np.array([12, 12])},
            ("from 12 image(s) only, and known to 30% at best", "--noise"),
        ),
    ],
)
def test_each_has_its_remark_once_for_all_groups(model, changes, words):
    (remark,) = remarks_on_noise(replace(model, reasons=("why", "why"), **changes), GRID)
    assert remark.startswith("Noise of optics group 1, optics group 2 ")
    for word in words:
        assert word in remark
    assert remark.endswith(".")


def test_copied_lines_and_many_groups_are_said(model):
    one = model.take(np.array([0]))
    (remark,) = remarks_on_noise(one, GRID, n_copied_lines=2)
    assert remark.startswith("2 line(s) of pixels along the border are copies")
    assert "--degrees-of-freedom" in remark
    names = tuple(f"micrograph {i}" for i in range(7))
    flat = np.ones((7, GRID.n_shells))
    many = NoiseModel.of_spectrum(GRID.spatial_frequencies, flat, GRID, names)
    (remark,) = remarks_on_noise(replace(many, share=np.full(7, 0.5)), GRID)
    assert remark.startswith("Noise of micrograph 0, micrograph 1, micrograph 2 and 4 more fills")
