"""The spectrum of noise from images: of noise alone, and of noise with particles in it."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from cryolike_dask import (
    ImageParameters,
    ImageStack,
    TemplateStack,
    estimate_noise,
    open_particles,
)
from cryolike_dask.compute import block_reports, progress
from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.io.mrc import write_mrc_stack
from cryolike_dask.io.sources import InMemory
from cryolike_dask.io.star import write_star
from cryolike_dask.particles.noise import RingPower, fit_spectrum
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.runs import noise_estimation, noise_extent, noise_rings
from cryolike_dask.runs.envelope import CLIMBED
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.projection import project
from tests.optics import microscope
from tests.real_space import StarPoses, render, two_lobes

N, PIXEL = 24, 3.5
PARAMETERS = ImageParameters(N, PIXEL, viewing_distance=0.6, precision="single", n_inplanes=96)
GRID = PARAMETERS.grid
SHELLS = GRID.radii >= 1
WHITE, COLOURED = "white", "coloured"


def spectrum(kind, frequencies):
    return np.ones_like(frequencies) if kind == WHITE else 1 / (1 + (20 * frequencies) ** 2)


def noise(kind, n_images, rng):
    """Stationary noise, cropped from a field that is larger than the box."""
    f = np.fft.fftfreq(3 * N, PIXEL)
    amplitude = np.sqrt(spectrum(kind, np.hypot(f, f[:, None])))
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n_images, 3 * N, 3 * N))) * amplitude)
    images = field.real[:, N : 2 * N, N : 2 * N]
    return images / images.std()


def optics(n_images, rng):
    defocus = rng.uniform(6000, 12000, n_images)
    return microscope(n_images, defocus)


@pytest.fixture(scope="module")
def atoms():
    return Atoms(two_lobes(0.0), np.full(48, 62.0), np.full(48, 3.0))


@pytest.fixture(scope="module")
def templates(atoms):
    viewing = PARAMETERS.viewing_angles()
    values = project(atoms, GRID, viewing).astype(np.complex64)
    return DisplacementSearch(1, 3, 3)(TemplateStack.from_array(values, PARAMETERS, viewing))


def stack_of(pixels, rows, groups=None):
    return replace(
        ImageStack.from_array(normalised_stack(pixels, GRID), PARAMETERS, rows), groups=groups
    )


def difference(model, kind, group=0):
    """Logarithm of the spectrum less that of the truth, whose level does not count, and the
    stated error."""
    found = np.log(model.variance[group] / spectrum(kind, GRID.spatial_frequencies))[SHELLS]
    return found - np.average(found, weights=GRID.weights[SHELLS]), model.relative_error[group][
        SHELLS
    ]


@pytest.mark.parametrize("with_templates", [False, True])
@pytest.mark.parametrize("n_images", [50, 400])
@pytest.mark.parametrize("kind", [WHITE, COLOURED])
def test_noise_alone_gives_its_spectrum(rng, templates, kind, n_images, with_templates):
    """Within its error: no dip where templates are strong."""
    images = stack_of(noise(kind, n_images, rng), optics(n_images, rng))
    model = estimate_noise(images, templates if with_templates else None)
    assert model.n_images.tolist() == [n_images]
    left, error = difference(model, kind)
    # a box of finite size smears a spectrum that falls: by up to 4% here
    smeared = 0.0 if kind == WHITE else 0.04
    assert (abs(left) < 4.5 * error + smeared).all()
    # without templates there is no signal to tell from noise, whose strength is uncertain itself
    largest = {50: (0.07, 0.3), 400: (0.035, 0.1)}[n_images][with_templates]
    assert np.sqrt((left**2).mean()) < largest + smeared


def particles(atoms, n, rng):
    """Images of a structure without noise, of variance 1, and their optics."""
    angles = rng.uniform(0, 360, n), np.degrees(np.arccos(rng.uniform(-1, 1, n)))
    shift = rng.uniform(-PIXEL, PIXEL, (2, n))
    poses, rows = StarPoses(*angles, rng.uniform(0, 360, n), *shift), optics(n, rng)
    clean = render(atoms, poses, rows, N, PIXEL)
    return clean / clean.std(), rows


@pytest.mark.parametrize("signal_to_noise", [0.05, 0.35])
def test_the_signal_of_particles_is_taken_out(rng, atoms, templates, signal_to_noise):
    n = 200
    clean, rows = particles(atoms, n, rng)
    clean *= np.sqrt(signal_to_noise)
    images = stack_of(clean + noise(WHITE, n, rng), rows)
    left_in = difference(estimate_noise(images), WHITE)[0]
    taken_out = difference(estimate_noise(images, templates), WHITE)[0]
    rms_in, rms_out = (np.sqrt((d**2).mean()) for d in (left_in, taken_out))
    assert rms_in > 0.1
    assert rms_out < 0.08  # of 64 images that are refined: 0.02 in the median, 0.06 in 1 of 50
    assert rms_out < rms_in / 3


def test_groups_have_spectra_of_their_own(rng):
    """Optics groups, and micrographs that differ; a group of few images has that of all."""
    kinds = [WHITE, COLOURED, WHITE]
    pixels = np.concatenate([noise(k, n, rng) for k, n in zip(kinds, (80, 80, 9), strict=True)])
    names = np.array([["", "a"]] * 80 + [["", "b"]] * 80 + [["", "c"]] * 9)
    model = estimate_noise(stack_of(pixels, optics(169, rng), names))
    assert model.groups == ("all images", "optics group a", "optics group b")
    for group, kind in ((1, WHITE), (2, COLOURED)):
        assert np.sqrt((difference(model, kind, group)[0] ** 2).mean()) < 0.09
    np.testing.assert_array_equal(np.unique(model.find(names, 169)[160:]), [0])

    names = np.array([["m", "a"]] * 80 + [["n", "a"]] * 80 + [["o", "a"]] * 9)
    model = estimate_noise(stack_of(pixels, optics(169, rng), names))
    assert model.groups == ("all images", "micrograph m", "micrograph n")
    for group, kind in ((1, WHITE), (2, COLOURED)):
        assert np.sqrt((difference(model, kind, group)[0] ** 2).mean()) < 0.12


def test_a_star_file_whose_groups_have_one_particle_each(rng, tmp_path):
    """No group has a spectrum of its own, and each image has that of all."""
    n = 40
    pixels = noise(COLOURED, n, rng).astype(np.float32)
    write_mrc_stack(tmp_path / "a.mrcs", pixels, PIXEL)
    numbers, each = np.arange(n), np.ones(n)
    rows = {
        "rlnImageName": np.array([f"{i + 1}@a.mrcs" for i in numbers]),
        "rlnMicrographName": np.array([f"{i}.mrc" for i in numbers]),
        "rlnOpticsGroup": numbers + 1,
        "rlnDefocusU": rng.uniform(6000, 12000, n),
        "rlnDefocusV": rng.uniform(6000, 12000, n),
        "rlnDefocusAngle": 0 * each,
    }
    microscopes = {
        "rlnOpticsGroup": numbers + 1,
        "rlnVoltage": 300 * each,
        "rlnSphericalAberration": 2.7 * each,
        "rlnAmplitudeContrast": 0.1 * each,
        "rlnImagePixelSize": PIXEL * each,
        "rlnImageSize": N * np.ones(n, np.int64),
    }
    write_star(tmp_path / "a.star", {"optics": microscopes, "particles": rows})
    images = open_particles(tmp_path / "a.star", PARAMETERS)
    assert len(np.unique(images.groups[:, 0])) == len(np.unique(images.groups[:, 1])) == n
    model = estimate_noise(images)
    assert (model.groups, model.n_images.tolist()) == (("all images",), [n])
    np.testing.assert_array_equal(model.find(images.groups, n), np.zeros(n))
    assert np.sqrt((difference(model, COLOURED)[0] ** 2).mean()) < 0.15


def test_micrographs_that_are_alike_are_not_told_apart(rng):
    """But by chance: once in a hundred times."""
    names = np.repeat([["m", "a"], ["n", "a"], ["o", "a"]], 40, axis=0)
    models = [
        estimate_noise(stack_of(noise(WHITE, 120, rng), optics(120, rng), names)) for _ in range(10)
    ]
    assert sum(model.groups != ("all images",) for model in models) <= 2


@pytest.mark.parametrize("variance", [0.0, 0.01, 0.05])
def test_noise_beneath_a_signal_is_taken_as_white(rng, atoms, templates, caplog, variance):
    """It cannot be told from the signal, and came out uneven by factors of up to 1e9."""
    n = 80
    clean, rows = particles(atoms, n, rng)
    names = np.repeat([["m", "a"], ["n", "a"]], n // 2, axis=0)
    images = stack_of(clean + np.sqrt(variance) * noise(WHITE, n, rng), rows, names)
    model = estimate_noise(images, templates)
    assert model.groups == ("all images",)
    np.testing.assert_array_equal(model.variance, 1.0)
    assert (model.band_limit.item(), np.isnan(model.share).item()) == (np.inf, True)
    assert caplog.text.count("Noise of") == 1
    assert "is taken as white in the whole box: the signal is" in caplog.text
    caplog.clear()
    alike = stack_of(clean + noise(WHITE, n, rng), rows, names)
    assert not (estimate_noise(alike, templates).variance == 1).any()
    assert "taken as white" not in caplog.text


def test_few_images_are_said(rng, caplog):
    model = estimate_noise(stack_of(noise(WHITE, 10, rng), optics(10, rng)))
    assert "is estimated from 10 image(s) only" in caplog.text
    left, error = difference(model, WHITE)
    assert (abs(left) < 4.5 * error).all()


@pytest.mark.parametrize("amplitude", [1, 3])
@pytest.mark.parametrize("n_images", [3, 9])
def test_few_images_of_a_small_box_give_a_spectrum_that_can_be(build, amplitude, n_images):
    for _ in range(4):
        images, _ = build.stacks(n_images=n_images, noise=amplitude)
        values = build.particles(7, images.grid)
        parameters = ImageParameters(12, 1.5, n_inplanes=20)
        one = TemplateStack.from_array(values, parameters, build.viewing(7))
        ratio = estimate_noise(images, one).variance[0] / (2 * amplitude**2)
        assert 0.05 < ratio.min() <= ratio.max() < 20, ratio  # in 400 draws 0.26 to 3.0


def test_what_no_noise_can_be_estimated_from_is_refused(rng, templates):
    one = stack_of(noise(WHITE, 1, rng), optics(1, rng))
    for few in (one, [one, one]):
        with pytest.raises(InputError, match=r"from [12] image\(s\): at least 3 are needed"):
            estimate_noise(few)
    with pytest.raises(InputError, match="no ImageStack"):
        estimate_noise([])
    with pytest.raises(InputError, match="no TemplateStack"):
        estimate_noise(one, [one])
    other = ImageParameters(N, PIXEL, viewing_distance=0.6, n_inplanes=48)
    values = np.ones((1, *other.grid.shape), np.complex64)
    with pytest.raises(GridMismatchError):
        estimate_noise([one, ImageStack.from_array(values, other, optics(1, rng))])


def test_of_many_images_a_part_is_fitted(rng, atoms, templates, monkeypatch):
    """The memory that fits take is bounded; the level of each of the other images is known."""
    n, seen = 300, []
    clean, rows = particles(atoms, n, rng)
    level = np.where(np.arange(n) % 2, 1.0, 4.0)  # the same in the part that is fitted
    pixels = clean * np.sqrt(0.2) + noise(WHITE, n, rng)
    images = stack_of(pixels, rows)
    loud = replace(images, source=InMemory(images.source.take(np.arange(n)) * level[:, None, None]))

    def spy(rings, *arguments):
        seen.append(len(rings))
        return fit_spectrum(rings, *arguments)

    monkeypatch.setattr(noise_estimation, "fit_spectrum", spy)
    monkeypatch.setattr(noise_estimation, "MOST_OF_GROUP", 100)
    monkeypatch.setattr(noise_estimation, "REFINED_OF_GROUP", 64)
    model = estimate_noise([loud[:160], loud[160:]], templates)
    assert max(seen) == 100
    assert model.n_images.tolist() == [n]
    assert np.sqrt((difference(model, WHITE)[0] ** 2).mean()) < 0.07


def test_rings_of_all_images_are_kept_in_single_precision(rng):
    n = 2 * noise_rings.ROWS_OF_TASK + 3
    values = rng.standard_normal((n, *GRID.shape)).astype(np.complex64)
    parts = values[:5], values[5:]
    stacks = [ImageStack.from_array(v, PARAMETERS, optics(len(v), rng)) for v in parts]
    rings = noise_rings.looked_at_all(stacks, None)
    assert rings.power.dtype == rings.contrast.dtype == np.float32
    np.testing.assert_allclose(rings.power, (abs(values) ** 2).mean(axis=2), rtol=1e-5)
    assert rings.take(np.arange(3)).power.dtype == np.float64


def test_stacks_are_as_one(rng):
    """Cut into stacks and on any grid of tasks, the same spectrum."""
    images = stack_of(noise(COLOURED, 60, rng), optics(60, rng))
    whole = estimate_noise(images)
    parts = estimate_noise([images[:20], images[20:]])
    assert isinstance(whole, NoiseModel)
    np.testing.assert_allclose(parts.variance, whole.variance, rtol=1e-12)


def test_pixels_are_read_once_for_all_groups(rng, monkeypatch):
    """Unless they are not known of each, but of all images together."""
    images, read = stack_of(noise(WHITE, 100, rng), optics(100, rng)), []
    members = [("all images", np.arange(100))]
    members += [("optics group a", np.arange(80)), ("optics group b", np.arange(80, 100))]
    of_groups = {80: np.full((N, N), 0.5), 20: np.full((N, N), 0.9), 100: None}

    def variance_of(images):
        read.append(len(images))
        return of_groups[len(images)]

    def mean(variance, n_images):
        return (np.nan if variance is None else variance.mean(), f"of {n_images}")

    monkeypatch.setattr(noise_extent, "variance_map", variance_of)
    monkeypatch.setattr(noise_extent, "share_of_box", mean)
    power = RingPower(np.ones((100, GRID.n_shells)), np.ones((100, GRID.n_shells)))
    found = noise_extent.extents_of([images], members, power, GRID, None)
    assert sorted(read) == [20, 80]
    shares = [found[name].share for name, _ in members]
    np.testing.assert_allclose(shares, [0.58, 0.5, 0.9])
    assert [found[name].reason for name, _ in members] == ["of 100", "of 80", "of 20"]
    of_groups |= {20: None, 100: np.full((N, N), 0.7)}
    found = noise_extent.extents_of([images], members, power, GRID, None)
    shares = [found[name].share for name, _ in members]
    np.testing.assert_allclose(shares, [0.7, 0.5, np.nan])


def test_each_step_tells_how_far_it_is(rng, atoms, templates, monkeypatch, caplog):
    """By what is compared, up to all of it: in groups of their own too."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(block_reports, "SECONDS_BETWEEN_PARTS", 0.0)
    n = 80
    clean, rows = particles(atoms, n, rng)
    names = np.array([["", "a"]] * (n // 2) + [["", "b"]] * (n // 2))
    images = stack_of(clean + noise(WHITE, n, rng), rows, names)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        estimate_noise(
            images, [templates, replace(templates, structure="other")], fit_b_factor=True
        )
    steps = {
        "images read for the noise": n,
        "comparisons for the envelope": n * (2 + CLIMBED),
        "images compared for the noise": n,
    }
    for step, total in steps.items():
        lines = [text for text in caplog.messages if f" of {total} {step}" in text]
        done = [int(line.split()[0]) for line in lines]
        assert done == sorted(done)
        assert done[-1] == total
    # of both groups, both structures, and both halves of the work
    assert any(0 < at < n / 4 for at in done)
    assert max(done[:-1]) >= n - 1
    assert f"fitting the envelope of {n} images, with 2 structures" in caplog.messages
    assert f"taking out of {n} images what 2 structures explain" in caplog.messages
    caplog.clear()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        estimate_noise(images, templates, progress=False)
    assert not any(" of the noise" in text or " for the noise" in text for text in caplog.messages)
