"""B-factors that images have and their metadata do not tell: particles of real space, without the
package, and searches for a maximum that is known."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from cryolike_dask import ImageParameters, ImageStack, TemplateStack
from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.likelihoods.blocks import best_of_structures
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows
from cryolike_dask.likelihoods.pose_graph import pose_records
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.runs.b_factor import Climb
from cryolike_dask.runs.envelope import _drawn, fit_b_factors
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.projection import project
from tests.likelihoods.test_kernels import contrast_of
from tests.real_space import StarPoses, render, two_lobes

PIXEL_SIZE, SEARCH = 2.5, DisplacementSearch(1.0, 5, 5)
# up to 5.9 angstrom, beyond which sampled atoms are seen twice
PARAMETERS = ImageParameters(24, PIXEL_SIZE, 5.1, viewing_distance=0.5, precision="single")
ATOMS, OTHERS = (
    Atoms(two_lobes(opening), np.full(48, 62.0), np.full(48, 1.5)) for opening in (20, 70)
)
SIGNAL_TO_NOISE = 0.1
WHITE = NoiseModel.of_spectrum([0.0, 1.0], [1.0, 1.0], PARAMETERS.grid)
# so near to focus that fringes stay in the box
MICROSCOPE = {
    "defocus_angle_radian": 0.0,
    "voltage_kilovolt": 300.0,
    "spherical_aberration_mm": 2.7,
    "amplitude_contrast": 0.1,
}


def particles(rng, true_b, recorded_b=0.0, with_signal=True):
    """Images of an envelope, whose metadata tell of another; poses off the grid."""
    n = len(true_b)
    x, y = rng.uniform(-PIXEL_SIZE, PIXEL_SIZE, (2, n))
    azimuth, gamma = rng.uniform(0, 2 * np.pi, (2, n))
    poses = StarPoses.of_template(azimuth, np.arccos(rng.uniform(-1, 1, n)), gamma, x, y)
    defocus = rng.uniform(1500, 4000, n)
    columns = {"defocus_u_angstrom": defocus, "defocus_v_angstrom": defocus, **MICROSCOPE}
    truth = optics_table(n, **columns, b_factor_angstrom2=true_b)
    clean = render(ATOMS, poses, truth, PARAMETERS.n_pixels, PIXEL_SIZE)
    level = np.sqrt(clean.var(axis=(1, 2), keepdims=True) / SIGNAL_TO_NOISE)
    pixels = with_signal * clean + level * rng.standard_normal(clean.shape)
    told = optics_table(n, **columns, b_factor_angstrom2=recorded_b)
    return ImageStack.from_array(normalised_stack(pixels, PARAMETERS.grid), PARAMETERS, told)


@pytest.fixture(scope="module")
def structures():
    viewing = PARAMETERS.viewing_angles()
    return [
        SEARCH(
            TemplateStack.from_array(
                project(atoms, PARAMETERS.grid, viewing).astype(np.complex64), PARAMETERS, viewing
            )
        )
        for atoms in (ATOMS, OTHERS)
    ]


def groups_of(*noise_groups):
    """Noise that is white in all of them."""
    n = len(noise_groups)
    return NoiseModel.of_spectrum([0.0, 1.0], np.ones((n, 2)), PARAMETERS.grid, noise_groups)


def test_comes_back_in_each_optics_group_added_to_what_metadata_say(rng, structures):
    """One fit of four groups: what is missing is 0, 50, 50 and 200."""
    n, missing = 64, np.array([0, 50, 50, 200])
    which = rng.permutation(np.repeat(np.arange(4), n))
    recorded = np.array([0, 0, 50, 0])[which]
    images = particles(rng, missing[which] + recorded, recorded)
    micrographs = np.where(rng.random(4 * n) < 0.5, "m", "other").astype("U9")
    names = np.stack([np.char.add(micrographs, which.astype(str)), which.astype(str)], axis=1)
    images = replace(images, groups=names)
    noise = groups_of(*(f"optics group {i}" for i in range(4)), "micrograph m3", "micrograph m9")
    noise = replace(noise, b_factor_angstrom2=np.full(6, 300.0))  # is not that of these images
    found = fit_b_factors(images, structures, noise, Settings(device="cpu"))
    print([(b.b_factor_angstrom2, b.error) for b in found])
    for b, expected in zip(found[:4], missing, strict=True):
        # the higher B, the less signal is left to tell it: 18 at 0, 28 +- 4 at 200
        assert b.error < 40 + 0.15 * expected
        assert abs(b.b_factor_angstrom2 - expected) < 3.5 * b.error
        assert (b.n_images, b.reason) == (n, f"fitted to {n} images")
    assert found[4] == found[3]
    assert found[5].b_factor_angstrom2 == 0
    assert np.isnan(found[5].error)
    assert found[5].reason == "not fitted: no images"


def test_noise_alone_has_none(rng, structures):
    images = particles(rng, np.zeros(48), with_signal=False)
    (found,) = fit_b_factors(images, structures[0], WHITE)
    assert found.b_factor_angstrom2 == 0
    assert np.isnan(found.error)
    assert found.reason.startswith("not fitted: ")
    assert "too little signal" in found.reason


def test_workers_find_the_same(rng, structures, cluster):
    images = particles(rng, np.full(24, 100.0))
    here, there = (
        fit_b_factors([images[:10], images[10:]], structures, WHITE, client=client)
        for client in (None, cluster)
    )
    assert here[0].reason == there[0].reason
    np.testing.assert_allclose(there[0].b_factor_angstrom2, here[0].b_factor_angstrom2, atol=0.5)


def test_the_factor_of_the_template_is_taken_out(build, rng):
    """(1/2) log A under an envelope, against sums over points."""
    images, templates = build.stacks(6, b_factor_angstrom2=[0, 30, 60, 10, 0, -20])
    others = replace(
        templates, source=type(templates.source)(templates.source.values[::-1].copy() * 1.3)
    )
    frequencies = templates.grid.spatial_frequencies
    variance = np.exp(rng.standard_normal((1, len(frequencies))).cumsum(1) / 4)
    noise = NoiseModel.of_spectrum(frequencies, variance, templates.grid)
    graphs = [
        ComparisonGraph(
            images, t, Settings(device="cpu", precision="single", noise=noise, b_factor=90.0)
        )
        for t in (templates, others)
    ]
    records = [pose_records(graph, "test").compute(scheduler="sync") for graph in graphs]
    comparisons = [graph.comparison for graph in graphs]
    rows = image_rows(images, comparisons[0].conventions)
    best = best_of_structures(rows, records, comparisons)
    grid, b = templates.grid, 55.0
    factors = comparisons[0].whitening.factors.T
    mask = grid.mask(exact=True) * factors
    kx, ky = grid.points()
    integrated = np.stack([r["log_likelihood_integrated"] for r in records])
    np.testing.assert_array_equal(best.structure, integrated.argmax(0))
    np.testing.assert_array_equal(best.log_likelihood, integrated.max(0))
    expected = []
    for m, s in enumerate(best.structure):
        pose, stack = records[s][m], (templates, others)[s]
        x, y = 2 * stack.displacements.table()[:, pose["displacement"]] / grid.box_size_angstrom
        moved = stack.source.values[pose["template"]] * np.exp(-2j * np.pi * (kx * x + ky * y))
        turned = np.roll(moved, -pose["rotation"], axis=-1)
        envelope = np.exp(-b * frequencies**2 / 4)[:, None]
        filtered = contrast_of(images.optics[m], grid, "standard") * envelope * turned * factors
        power, of_mask = (
            grid.integrate(value) for value in (abs(filtered) ** 2, (mask.conj() * filtered).real)
        )
        expected.append(np.log(power * grid.integrate(abs(mask) ** 2) - of_mask**2) / 2)
    np.testing.assert_allclose(best.half_log_variance(b, frequencies), expected, rtol=1e-10)


def climbed(total, n=100, spread=0.0):
    """Search for the maximum of a function, of which each of n images has an equal part, and a
    slope of its own besides."""
    climb, slopes = Climb(0.2), spread * np.linspace(-1, 1, n)
    while wanted := climb.wanted():
        assert all(-200 <= b <= 500 for b in wanted)
        climb.known.update({b: total(b) / n + slopes * b for b in wanted})
    return climb.result(), len(climb.known)


def with_bias(error, n=100):
    """What no number of images makes smaller, up to 5 angstrom: r = 0.01."""
    return np.hypot(np.hypot(error, 0.05 / 0.01), 0.05 * 0.01 * n * error**2)


@pytest.mark.parametrize(
    "true", [-199.0, -160.0, -130.0, -20.0, 0.0, 37.0, 50.0, 100.0, 249.0, 420.0, 449.0, 499.0]
)
@pytest.mark.parametrize("error", [5.0, 30.0])
def test_the_maximum_of_a_parabola_is_found(true, error):
    found, n_evaluations = climbed(lambda b: -(((b - true) / error) ** 2) / 2)
    assert found.b_factor_angstrom2 == pytest.approx(true, abs=1e-6)
    assert found.error == pytest.approx(with_bias(error))
    assert n_evaluations <= 10


def test_images_that_differ_more_than_the_bend_says_have_a_larger_error():
    spread = 0.03
    found, _ = climbed(lambda b: -(((b - 60) / 10) ** 2) / 2, spread=spread)
    of_slopes = np.sqrt(100) * np.std(spread * np.linspace(-1, 1, 100), ddof=1)
    assert found.error == pytest.approx(with_bias(of_slopes * 10**2))


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (lambda b: b, "still grows at B = 500"),
        (lambda b: -b, "still grows at B = -200"),
        (lambda b: -(((b - 40) / 120) ** 2) / 2, r"too little signal, B = 40 \+- 730"),
        (lambda b: 0 * b, "too little signal"),
        (lambda b: -(((b - 520) / 20) ** 2) / 2, "still grows at B = 500"),
        (lambda b: -(((b + 210) / 20) ** 2) / 2, "still grows at B = -200"),
    ],
)
def test_what_cannot_be_told_is_0_and_says_so(total, said):
    found, _ = climbed(total)
    assert found.b_factor_angstrom2 == 0
    assert np.isnan(found.error)
    assert re.search(said, found.reason)


def test_what_each_image_is_off_by_stays_in_the_error():
    """However many there are."""
    for n in (100, 10000):
        found, _ = climbed(lambda b, n=n: -n * ((b - 60) / 200) ** 2 / 2, n=n)
        assert found.error == pytest.approx(with_bias(200 / np.sqrt(n), n))
        assert found.error > 20


def test_a_few_images_tell_nothing():
    found, _ = climbed(lambda b: -(b**2), n=10)
    assert found.reason == "not fitted: only 10 image(s)"
    assert found.b_factor_angstrom2 == 0


def test_images_are_drawn_from_all_over(rng):
    values = np.zeros((100, *PARAMETERS.grid.shape), np.complex64)
    optics = optics_table(100, defocus_u_angstrom=9000, defocus_v_angstrom=9000, **MICROSCOPE)
    stacks = [ImageStack.from_array(values, PARAMETERS, optics)] * 20
    units = [np.where(np.arange(100) < 3, 1, 0)] * 20
    (piece,) = _drawn(stacks, units)
    assert [(piece.unit == unit).sum() for unit in (0, 1)] == [242, 24]  # an eighth; all of few
    ends = np.flatnonzero(np.diff(piece.images.image_in_stack) <= 0) + 1
    for rows in (parts := np.split(piece.images.image_in_stack, ends)):
        assert len(np.unique(rows)) == len(rows)
        assert rows.max() > 95
    assert len(parts) == 8


def test_bad_input_is_refused(rng, structures):
    images = particles(rng, np.zeros(2))
    for none in ({"images": []}, {"templates": []}):
        given = {"images": images, "templates": structures, "noise": WHITE, **none}
        with pytest.raises(InputError, match="no images, or no templates"):
            fit_b_factors(**given)
    with pytest.raises(InputError, match="b_factor=20 is given, and to be fitted too"):
        fit_b_factors(images, structures, WHITE, Settings(b_factor=20.0))
    with pytest.raises(InputError, match="knows none"):
        fit_b_factors(images, structures, WHITE, Settings(conventions="cryolike"))
    with pytest.raises(GridMismatchError, match="is for images of 26 pixels"):
        fit_b_factors(images, structures, replace(WHITE, n_pixels=26))
