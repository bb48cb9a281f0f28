"""Particle images that are read and transformed when they are taken."""

from __future__ import annotations

from dataclasses import replace

import mrcfile
import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.errors import InputError, NotFiniteError, ZeroPowerError
from cryolike_dask.io.star import write_star
from cryolike_dask.particles import images as module
from cryolike_dask.particles.images import against_background, contrast_with_rim
from cryolike_dask.particles.transform import stack_and_rings

PARAMETERS = cld.ImageParameters(16, 2.0, precision="double")


@pytest.fixture
def particles(rng, tmp_path):
    """A set of ten noisy images in two files, rows out of order, and their pixels in the order
    of the rows."""
    pixels = rng.standard_normal((10, 16, 16)).astype(np.float32)
    for k in range(2):
        with mrcfile.new(tmp_path / f"{k}.mrcs") as mrc:
            mrc.set_data(pixels[5 * k : 5 * k + 5])
    order = rng.permutation(10)
    columns = {
        "rlnImageName": np.array([f"{i % 5 + 1:06d}@{i // 5}.mrcs" for i in order]),
        "rlnVoltage": np.full(10, 300.0),
        "rlnSphericalAberration": np.full(10, 2.7),
        "rlnAmplitudeContrast": np.full(10, 0.1),
        "rlnDefocusU": rng.uniform(8000, 9000, 10),
        "rlnDefocusV": rng.uniform(8000, 9000, 10),
        "rlnDefocusAngle": np.zeros(10),
        "rlnPixelSize": np.full(10, 2.0),
    }
    write_star(tmp_path / "particles.star", {"": columns})
    return tmp_path / "particles.star", pixels[order]


def test_rows_are_the_images_that_the_metadata_name(particles, rng):
    star, pixels = particles
    stack = cld.open_particles(star, PARAMETERS)
    rows = rng.permutation(10)[:7]
    expected, _ = stack_and_rings(pixels, PARAMETERS.grid, "double")
    np.testing.assert_allclose(stack.source.take(rows), expected[rows], atol=1e-12)
    chosen = stack[rows]
    np.testing.assert_allclose(chosen.source.take(np.arange(7)), expected[rows], atol=1e-12)
    np.testing.assert_array_equal(chosen.optics, stack.optics[rows])
    np.testing.assert_allclose(
        chosen.data.compute(scheduler="synchronous"), expected[rows], atol=1e-12
    )


def test_images_are_remembered_for_their_settings_alone(particles, monkeypatch):
    star, _ = particles
    source = cld.open_particles(star, PARAMETERS).source
    first = source.take(np.arange(10))
    reads = []
    monkeypatch.setattr(
        module.MrcStack,
        "take",
        lambda self, rows: reads.append(rows) or np.zeros((len(rows), 16, 16)),
    )
    np.testing.assert_array_equal(source.take(np.arange(3, 6)), first[3:6])
    assert not reads
    inverted = replace(source, preparation=replace(source.preparation, invert_contrast=True))
    with pytest.raises(ZeroPowerError):  # the zeros were read
        inverted.take(np.arange(3))
    assert reads


def test_what_is_remembered_is_bounded(particles, monkeypatch):
    star, _ = particles
    source = cld.open_particles(star, PARAMETERS).source
    monkeypatch.setattr(module, "REMEMBERED_BYTES", 4 * np.prod(source.shape[1:]) * 16)
    monkeypatch.setattr(module, "_LATEST", {})
    expected = [source.take(np.array([i]))[0] for i in range(10)]
    assert len(module._LATEST) == 4
    np.testing.assert_array_equal(source.take(np.arange(10)), expected)
    assert len(module._LATEST) == 4


def test_an_image_does_not_depend_on_those_that_it_is_read_with(particles, monkeypatch):
    """Recentred: those whose origin is 0 are treated as the others are, whatever they are taken
    with."""
    star, _ = particles
    source = cld.open_particles(star, PARAMETERS).source
    origins = np.array([[0.0, 0.0], [3.0, -1.0]] * 5)
    table = replace(source.table, origin_angstrom=origins)
    source = replace(source, table=table, preparation=replace(source.preparation, recenter=True))
    together = source.take(np.arange(10))
    monkeypatch.setattr(module, "_LATEST", {})
    alone = np.concatenate([source.take(np.array([i])) for i in range(10)])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-12)


def test_the_background_has_mean_0_and_standard_deviation_1(rng):
    pixels = (5 + 3 * rng.standard_normal((4, 24, 24))).astype(np.float32)
    normalised, constant = against_background(pixels, 9.0)
    assert not constant.any()
    axis = np.arange(24) - 12
    beyond = np.hypot(axis, axis[:, None]) > 9
    np.testing.assert_allclose(normalised[:, beyond].mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(normalised[:, beyond].std(axis=1), 1, atol=1e-5)
    scale = pixels[:, beyond].std(axis=1)[:, None, None]
    np.testing.assert_allclose(np.diff(normalised) * scale, np.diff(pixels), atol=1e-4)
    with pytest.raises(InputError, match="background_radius_pixels=40 leaves no background in 24"):
        against_background(pixels, 40)


def test_contrast_is_that_of_the_middle_against_the_rim():
    axis = np.arange(32) - 16
    blob = np.exp(-(np.hypot(axis, axis[:, None]) ** 2) / 50).astype(np.float32)
    bright, dark = contrast_with_rim(np.stack([blob, -blob]))
    assert bright > 0.5
    assert dark == pytest.approx(-bright)


@pytest.mark.parametrize(
    ("value", "error", "what"),
    [
        (np.nan, NotFiniteError, "NaN"),
        (np.inf, NotFiniteError, "infinite"),
        (0, ZeroPowerError, "constant"),
    ],
)
def test_a_bad_image_is_named_by_its_file_and_number(particles, value, error, what):
    star, _ = particles
    path = star.parent / "1.mrcs"
    with mrcfile.open(path, "r+") as mrc:
        mrc.data[2] = value
    with pytest.raises(error, match=rf"1\.mrcs: image 3 .*{what}"):
        cld.open_particles(star, PARAMETERS)  # few enough that all are looked at
