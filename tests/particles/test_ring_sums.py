"""The power of images, and what stacks say of their noise: sums over rings against explicit sums,
and against what is known in closed form; from particles to files and back."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import torch

import cryolike_dask as cld
from cryolike_dask.errors import GridMismatchError, InputFileError
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.archives import write_archive
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.star import write_star
from cryolike_dask.particles import images as module
from cryolike_dask.particles.images import mean_of_rim
from cryolike_dask.particles.on_device import Transform
from cryolike_dask.particles.transform import normalised_stack, scaled, stack_and_rings
from cryolike_dask.particles.variance import variance_map
from cryolike_dask.stacks import ImageStack, TemplateStack, open_image_stacks, open_images
from tests.real_space import StarPoses, disc_metric, log_likelihood_in_disc, project, two_lobes

N, N_IMAGES = 16, 10
PARAMETERS = cld.ImageParameters(N, 2.0, precision="double")


def grid_of(n_pixels, n_inplanes):
    return PolarGrid(n_pixels, 1.5, n_pixels / 4, n_inplanes)


def on_rings(images, grid, n_angles):
    """The sum over pixels on any number of angles, complex (image, shell, angle)."""
    n = grid.n_pixels
    angles = 2 * np.pi * np.arange(n_angles) / n_angles
    axis = (np.arange(n) - n // 2) * 2 / n
    kx, ky = (grid.radii[:, None] * f(angles) for f in (np.cos, np.sin))
    along_x, along_y = (np.exp(-2j * np.pi * k[..., None] * axis) for k in (kx, ky))
    products = np.einsum("myx,njx->mnjy", images, along_x)
    return 4 * np.pi / n * np.einsum("mnjy,njy->mnj", products, along_y)


def sums(values, box, grid):
    """Of |F|^2 and Re conj(s) F over each ring, with the weights of the shells, (image, 2,
    shell)."""
    weights = grid.weights * grid.n_inplanes / values.shape[-1]
    both = (np.abs(values) ** 2).sum(axis=2), (box.conj() * values).real.sum(axis=2)
    return np.stack(both, axis=1) * weights


def kept(values, n_angles):
    """The series of the angular frequencies up to n_angles / 2, term by term, on n_angles."""
    n = values.shape[-1]
    q = np.arange(-n_angles // 2, n_angles // 2 + 1)
    coefficients = values @ np.exp(-2j * np.pi * np.outer(np.arange(n), q) / n) / n
    return coefficients @ np.exp(2j * np.pi * np.outer(q, np.arange(n_angles)) / n_angles)


def on_device(images, grid, precision, shift):
    """The same, as it is made on the device of a task."""
    transform = Transform.of(grid, precision, torch.device("cpu"), resolves_corners=True)
    half, rings = (part.numpy() for part in transform.stack_and_rings(images, None, shift))
    return np.concatenate([half, half.conj()], axis=2), rings


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("n_pixels", "n_inplanes"), [(12, 24), (13, 20), (8, 2), (12, 48)])
@pytest.mark.parametrize("stack_and_rings", [stack_and_rings, on_device], ids=["host", "device"])
def test_stack_and_rings_are_explicit_sums(
    rng, n_pixels, n_inplanes, shifted, precision, stack_and_rings
):
    grid = grid_of(n_pixels, n_inplanes)
    images = rng.standard_normal((3, n_pixels, n_pixels))
    shift = rng.uniform(-0.5, 0.5, (3, 2)) if shifted else None
    values, rings = stack_and_rings(images, grid, precision, shift=shift)

    n_angles = n_inplanes * -(-4 * n_pixels // n_inplanes)
    whole = on_rings(scaled(images), grid, n_angles)
    box = on_rings(np.ones((1, n_pixels, n_pixels)), grid, n_angles) / (np.pi * n_pixels)
    if shifted:
        angles = 2 * np.pi * np.arange(n_angles) / n_angles
        kx, ky = (grid.radii[:, None] * f(angles) for f in (np.cos, np.sin))
        x, y = shift.T[..., None, None]
        whole = whole * np.exp(-2j * np.pi * (kx * x + ky * y))
    expected = whole if n_angles == n_inplanes else kept(whole, n_inplanes)
    norm = np.sqrt(grid.integrate(np.abs(expected) ** 2))
    expected = expected / norm[:, None, None]
    tolerance = {"single": 1e-5, "double": 1e-11}[precision]  # measured 2e-6 and 5e-13
    assert np.abs(values - expected).max() < tolerance * np.abs(values).max()
    assert values.dtype == {"single": np.complex64, "double": np.complex128}[precision]
    half = n_inplanes // 2
    np.testing.assert_array_equal(values[..., half:], values[..., :half].conj())
    expected_rings = sums(whole, box, grid) / np.stack([norm**2, norm], axis=1)[:, :, None]
    np.testing.assert_allclose(
        rings, expected_rings, rtol=0, atol=tolerance * np.abs(expected_rings).max()
    )


def test_power_is_that_over_the_disc_which_is_known_in_closed_form(rng):
    """White noise fills the corners: by 2 N angles it is off by 1.7%."""
    grid, n = grid_of(36, 72), 36
    images = rng.standard_normal((60, n, n))
    metric = disc_metric(n, grid.radius_max)
    centred = scaled(images).reshape(60, -1)
    exact = ((centred @ metric) * centred).sum(axis=1)
    exact_offset = centred @ metric.sum(axis=0) / (np.pi * n)
    values, rings = stack_and_rings(images, grid, "double")
    # the stack is in units of its own rings
    coarse = on_rings(centred.reshape(images.shape), grid, grid.n_inplanes)
    whole = on_rings(centred.reshape(images.shape), grid, 4 * n)
    unit = grid.integrate(np.abs(kept(whole, grid.n_inplanes)) ** 2)
    error = rings[:, 0].sum(axis=1) * unit / exact - 1
    coarse_error = grid.integrate(np.abs(coarse) ** 2) / exact - 1
    rms = [float(np.sqrt((e**2).mean())) for e in (error, coarse_error)]
    print(f"power off by {rms[0]:.2e}, by 2 N angles {rms[1]:.2e}")
    assert rms[0] < 1e-3  # measured 4e-4
    assert rms[1] > 1e-2
    box_power = metric.sum() / (np.pi * n) ** 2
    offset_error = rings[:, 1].sum(axis=1) * np.sqrt(unit) - exact_offset
    assert np.abs(offset_error / np.sqrt(exact * box_power)).max() < 1e-3
    np.testing.assert_allclose(grid.integrate(np.abs(values) ** 2), 1, rtol=1e-12)


def test_with_four_angles_for_each_pixel_a_stack_is_as_it_was(rng):
    """Nothing is folded then."""
    grid = grid_of(12, 48)
    images = rng.standard_normal((3, 12, 12))
    values, rings = stack_and_rings(images, grid)
    np.testing.assert_allclose(values, normalised_stack(images, grid), rtol=0, atol=2e-7)
    own = sums(values, grid.mask(exact=True), grid)
    np.testing.assert_allclose(rings, own, rtol=0, atol=1e-6)


@pytest.mark.parametrize("signal_to_noise", [0.1, 0.5])
def test_ratios_of_likelihoods_are_those_on_pixels(rng, signal_to_noise):
    """Two structures, 36 pixels: measured 0.1%; by sums over 2 N angles 1.7 to 2.5%."""
    grid, n, n_images = grid_of(36, 72), 36, 40
    clean, other = (two_view(opening, n_images, n, rng_seed=3) for opening in (40, 80))
    level = np.sqrt(clean.var(axis=(1, 2)).mean() / signal_to_noise)
    images = clean + level * rng.standard_normal(clean.shape)
    metric, n_dof = disc_metric(n, grid.radius_max), 4 * np.pi * grid.radius_max**2
    exact, by_rings, by_stored = np.empty((3, n_images))
    both = np.concatenate([clean, other])
    on_pixels = log_likelihood_in_disc(images, both, metric, n_dof)
    templates = on_rings(both, grid, grid.n_inplanes)
    values, rings = stack_and_rings(images, grid, "double")
    stored = normalised_stack(images, grid, "double")
    box = grid.mask(exact=True)
    for i in range(n_images):
        pair = [i, n_images + i]
        exact[i] = on_pixels[i, pair[0]] - on_pixels[i, pair[1]]
        of_rings = rings[i].sum(axis=1)
        by_rings[i] = ratio(values[i], templates[pair], of_rings, box, grid, n_dof)
        own = sums(stored[i : i + 1], box, grid)[0].sum(axis=1)
        by_stored[i] = ratio(stored[i], templates[pair], own, box, grid, n_dof)
    off, off_by_stored = (
        float(np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean()))
        for found in (by_rings, by_stored)
    )
    print(f"ratios off by {off:.2%}, by sums over 2 N angles {off_by_stored:.2%}")
    assert off < 0.004
    assert off_by_stored > 0.01


def two_view(opening, n_images, n, rng_seed):
    """Particles of a structure at the same poses, without noise."""
    rng = np.random.default_rng(rng_seed)
    atoms = Spheres(two_lobes(opening))
    angles = np.degrees(rng.uniform(0, 2 * np.pi, (3, n_images)))
    x, y = rng.uniform(-3, 3, (2, n_images))
    return project(atoms, StarPoses(*angles, x, y), n, 2.0)


class Spheres:
    """Residues of the same width and weight."""

    def __init__(self, positions):
        self.positions_angstrom = positions
        self.radii_angstrom = np.full(len(positions), 3.0)
        self.electrons = np.full(len(positions), 50.0)


def ratio(image, templates, of_image, box, grid, n_dof):
    """Of the likelihoods of two templates, by sums over rings: offset, scale and noise variance
    integrated out."""
    weights = grid.weights[:, None]
    power, offset = of_image
    box_power = (np.abs(box) ** 2 * weights).sum()
    logs = []
    for template in templates:
        xx = (np.abs(template) ** 2 * weights).sum()
        xy = ((image.conj() * template).real * weights).sum()
        sx = ((box.conj() * template).real * weights).sum()
        a = xx * box_power - sx**2
        b = xy * box_power - sx * offset
        d = power * box_power - offset**2 - b**2 / a
        logs.append(-(n_dof / 2 - 2) * np.log(d) - 0.5 * np.log(a))
    return logs[0] - logs[1]


# --- particles, and stacks in files ---


@pytest.fixture
def particles(rng, tmp_path):
    """Ten noisy images, masked softly, of two micrographs and optics groups, and their pixels."""
    axis = np.arange(N) - N // 2
    mask = 1 / (1 + np.exp(2 * (np.hypot(axis, axis[:, None]) - 6)))
    pixels = (mask * rng.standard_normal((N_IMAGES, N, N))).astype(np.float32)
    with mrcfile.new(tmp_path / "a.mrcs") as mrc:
        mrc.set_data(pixels)
        mrc.set_image_stack()
    columns = {
        "rlnImageName": np.array([f"{i + 1:06d}@a.mrcs" for i in range(N_IMAGES)]),
        "rlnMicrographName": np.array([f"m{i // 6}.mrc" for i in range(N_IMAGES)]),
        "rlnOpticsGroup": 1 + np.arange(N_IMAGES) % 2,
        "rlnVoltage": np.full(N_IMAGES, 300.0),
        "rlnSphericalAberration": np.full(N_IMAGES, 2.7),
        "rlnAmplitudeContrast": np.full(N_IMAGES, 0.1),
        "rlnDefocusU": rng.uniform(8000, 9000, N_IMAGES),
        "rlnDefocusV": rng.uniform(8000, 9000, N_IMAGES),
        "rlnDefocusAngle": np.zeros(N_IMAGES),
        "rlnPixelSize": np.full(N_IMAGES, 2.0),
        "rlnOriginXAngst": rng.uniform(-4, 4, N_IMAGES),
        "rlnOriginYAngst": rng.uniform(-4, 4, N_IMAGES),
    }
    write_star(tmp_path / "particles.star", {"": columns})
    return tmp_path / "particles.star", pixels, columns


def convert(star, output, **options):
    """Three stacks: of four, four and two images."""
    given = {"batch_size": 4, "progress": False, **options}
    cld.convert_particles(star, PARAMETERS, output, **given)
    return LikelihoodFiles(None, output, output)


def rewrite(path, change):
    """Write an `.npz` again, with entries changed."""
    with np.load(path) as archive:
        found = {key: archive[key] for key in archive.files}
    change(found)
    write_archive(path, found)


def without(*keys):
    return lambda found: [found.pop(key) for key in keys]


RINGS = ("ringPower", "ringOffset")
GROUPS = ("micrograph", "opticsGroup")


@pytest.mark.parametrize("recenter", [False, True])
def test_rings_are_those_of_the_images_as_they_are_moved(particles, recenter, monkeypatch):
    star, pixels, columns = particles
    monkeypatch.setattr(module, "_LATEST", {})
    monkeypatch.setattr(module, "_LATEST_RINGS", {})
    source = cld.open_particles(star, PARAMETERS, recenter=recenter).source
    origins = np.stack([columns["rlnOriginXAngst"], columns["rlnOriginYAngst"]], axis=1)
    values, rings = stack_and_rings(
        pixels,
        PARAMETERS.grid,
        "double",
        mean_of_rim(pixels) if recenter else None,
        2 * origins / PARAMETERS.grid.box_size_angstrom if recenter else None,
    )
    rows = np.array([7, 0, 0, 3])
    np.testing.assert_allclose(source.rings(rows), rings[rows], rtol=0, atol=1e-10)
    np.testing.assert_allclose(source.take(rows), values[rows], rtol=0, atol=1e-10)
    np.testing.assert_array_equal(source.subset(rows).rings(np.array([1])), source.rings(rows[1:2]))


def test_images_and_rings_are_found_together_and_remembered(particles, monkeypatch):
    star, _, _ = particles
    monkeypatch.setattr(module, "_LATEST", {})
    monkeypatch.setattr(module, "_LATEST_RINGS", {})
    source = cld.open_particles(star, PARAMETERS).source
    read = []
    pixels = module.ParticleImages.pixels
    monkeypatch.setattr(
        module.ParticleImages,
        "pixels",
        lambda self, rows: read.extend(rows.tolist()) or pixels(self, rows),
    )
    source.take(np.arange(3))
    source.rings(np.arange(5))
    source.take(np.arange(6))
    source.rings(np.arange(6))
    assert read == list(range(6))
    monkeypatch.setattr(module, "REMEMBERED_RING_BYTES", 4 * 2 * PARAMETERS.grid.n_shells * 8)
    source.rings(np.arange(10))
    assert len(module._LATEST_RINGS) == 4


def test_files_say_what_particles_do(particles, tmp_path, rng):
    star, _, _ = particles
    files = convert(star, tmp_path / "out")
    stack, lazily = open_images(files, PARAMETERS), cld.open_particles(star, PARAMETERS)
    rows = rng.permutation(N_IMAGES)[:7]
    np.testing.assert_array_equal(stack.source.rings(rows), lazily.source.rings(rows))
    np.testing.assert_array_equal(stack[rows].source.rings(np.arange(7)), stack.source.rings(rows))
    np.testing.assert_array_equal(stack[rows][[2]].source.rings([0]), stack.source.rings(rows[[2]]))
    assert stack.source.rings(rows).shape == (7, 2, PARAMETERS.grid.n_shells)
    alone = open_image_stacks(files, PARAMETERS)[1]
    np.testing.assert_array_equal(
        alone.source.rings(np.arange(4)), stack.source.rings(np.arange(4, 8))
    )
    groups = [[f"m{i // 6}.mrc", str(1 + i % 2)] for i in range(N_IMAGES)]
    assert stack.groups.tolist() == lazily.groups.tolist() == groups
    assert stack[rows].groups.tolist() == [groups[i] for i in rows]
    assert alone.groups.tolist() == groups[4:8]


def test_stacks_may_not_say(particles, tmp_path):
    """As those of CryoLike: rings only if all say them; groups as far as any does."""
    star, _, _ = particles
    files = convert(star, tmp_path / "out")
    rewrite(files.image_stack(1)[1], without(RINGS[0], *GROUPS))
    stack = open_images(files, PARAMETERS)
    assert stack.source.rings(np.arange(2)) is None
    assert stack[[0]].source.rings(np.arange(1)) is None
    assert [row[0] for row in stack.groups.tolist()] == ["m0.mrc"] * 4 + [""] * 4 + ["m1.mrc"] * 2
    alone = open_image_stacks(files, PARAMETERS)
    assert alone[0].source.rings(np.arange(2)) is not None
    assert alone[1].source.rings(np.arange(2)) is None
    assert alone[1].groups is None
    for k in (0, 2):
        rewrite(files.image_stack(k)[1], without("micrograph"))
    assert open_images(files, PARAMETERS).groups[:, 0].tolist() == [""] * N_IMAGES


def test_stacks_and_particles_of_transposed_frame_say_nothing(particles, tmp_path):
    star, _, _ = particles
    files = convert(star, tmp_path / "out", conventions="cryolike")
    with np.load(files.image_stack(0)[1]) as archive:
        assert not {*RINGS, "pixelVariance"} & set(archive.files)
    assert open_images(files, PARAMETERS).source.rings(np.arange(2)) is None
    lazily = cld.open_particles(star, PARAMETERS, conventions="cryolike")
    assert lazily.source.rings(np.arange(2)) is None
    in_memory = ImageStack.from_array(
        lazily.source.take(np.arange(2)), PARAMETERS, lazily.optics[:2]
    )
    assert in_memory.source.rings(np.arange(2)) is None
    assert variance_map(in_memory) is None


@pytest.mark.parametrize(
    ("key", "change", "complaint"),
    [
        ("ringPower", lambda v: v[:, 1:], r"ringPower is float64 of the shape \(4, 16\), not real"),
        (
            "ringOffset",
            lambda v: v[1:],
            r"ringOffset is .*\(3, 17\), not real numbers of \(4, 17\)",
        ),
        ("ringOffset", lambda v: v.astype(str), r"ringOffset is <U"),
        ("ringPower", lambda v: v * np.where(v == v[2, 5], np.nan, 1), "ringPower is NaN"),
        ("ringPower", lambda v: v * np.array([[1], [-1], [1], [1]]), "ringPower of image 1 is neg"),
        ("ringPower", lambda v: v * 0, "ringPower of image 0 .* zero on all shells"),
    ],
)
def test_damaged_rings_are_refused(particles, tmp_path, key, change, complaint):
    star, _, _ = particles
    files = convert(star, tmp_path / "out")
    path = files.image_stack(0)[1]
    source = open_images(files, PARAMETERS).source
    source.rings(np.arange(4))  # what is remembered is not taken for what is there now
    rewrite(path, lambda found: found.update({key: change(found[key])}))
    with pytest.raises(InputFileError, match=complaint) as caught:
        source.rings(np.arange(4))
    assert str(path) in str(caught.value)
    assert source.rings(np.arange(4, 10)).shape[0] == 6


@pytest.mark.parametrize(("key", "values"), [("micrograph", ["a"]), ("opticsGroup", [0.5] * 4)])
def test_damaged_groups_are_refused(particles, tmp_path, key, values):
    star, _, _ = particles
    files = convert(star, tmp_path / "out")
    rewrite(files.image_stack(0)[1], lambda found: found.update({key: np.array(values)}))
    with pytest.raises(InputFileError, match=f"{key} is .*, not a name or a number of each of 4"):
        open_images(files, PARAMETERS)


def test_what_knows_no_noise_ignores_rings(particles, tmp_path, build):
    """To the last bit, on a new stack with them and without."""
    star, _, _ = particles
    files = convert(star, tmp_path / "out")
    viewing = build.viewing(5)
    templates = TemplateStack.from_array(
        build.particles(5, PARAMETERS.grid), PARAMETERS, viewing, conventions=None
    )
    templates = cld.configure_displacement(1.0, 3, 3)(templates)

    def computed():
        images = open_image_stacks(files, PARAMETERS)[0]
        options = {"conventions": "cryolike", "device": "cpu"}
        return cld.compute_optimal_pose(images, templates, **options).compute(
            scheduler="synchronous"
        )

    with_rings = computed()
    rewrite(files.image_stack(0)[1], without(*RINGS, "pixelVariance"))
    for name, values in computed().items():
        np.testing.assert_array_equal(values, with_rings[name], err_msg=name)


# --- the variance of pixels ---


def test_the_variance_of_pixels_is_that_of_normalised_images(particles, tmp_path):
    star, pixels, _ = particles
    normalised = pixels.astype(np.float64)
    normalised -= normalised.mean(axis=(1, 2), keepdims=True)
    normalised /= normalised.std(axis=(1, 2), keepdims=True)
    expected = (normalised**2).mean(axis=0)
    lazily = cld.open_particles(star, PARAMETERS)
    np.testing.assert_allclose(variance_map(lazily), expected, rtol=1e-5)
    rows = [1, 5, 8]
    np.testing.assert_allclose(
        variance_map(lazily[rows]), (normalised[rows] ** 2).mean(axis=0), rtol=1e-5
    )
    assert expected.mean() == pytest.approx(1)
    inside = expected[N // 4 : -(N // 4), N // 4 : -(N // 4)]  # one pixel of ten images is chance
    assert expected[0, 0] < 0.01 < 1 < inside.mean()  # the mask is seen

    files = convert(star, tmp_path / "out", write_pixels=False)
    stack = open_images(files, PARAMETERS)
    np.testing.assert_allclose(variance_map(stack), expected, rtol=1e-5)
    # a file tells the variance over all of its images, and nothing of some of them
    of_first = (normalised[:4] ** 2).mean(axis=0)
    np.testing.assert_allclose(variance_map(stack[:4]), of_first, rtol=1e-5)
    assert variance_map(stack[[0, 1, 3, 9]]) is None


def test_without_that_entry_the_pixels_beside_a_stack_are_read(particles, tmp_path):
    star, _, _ = particles
    files = convert(star, tmp_path / "out")
    known = variance_map(open_images(files, PARAMETERS))
    for k in range(3):
        rewrite(files.image_stack(k)[1], without("pixelVariance"))
    stack = open_images(files, PARAMETERS)
    np.testing.assert_allclose(variance_map(stack), known, rtol=1e-5)
    phys = tmp_path / "out/phys"
    (phys / "particles_phys_stack_000001.pt").replace(phys / "particles_phys_stack_000002.pt")
    assert variance_map(stack) is None
    with pytest.raises(GridMismatchError, match=r"shape \(4, 16, 16\), but .* has 2 images of 16"):
        variance_map(stack[[9]])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda v: v[1:], r"pixelVariance is float32 of the shape \(15, 16\)"),
        (lambda v: v * np.float32("inf"), "pixelVariance is NaN or infinite"),
        (lambda v: -v, "pixelVariance is negative"),
        (lambda v: 0 * v, "or zero everywhere"),
    ],
)
def test_a_damaged_variance_is_refused(particles, tmp_path, change, complaint):
    star, _, _ = particles
    files = convert(star, tmp_path / "out")
    path = files.image_stack(0)[1]
    rewrite(path, lambda found: found.update(pixelVariance=change(found["pixelVariance"])))
    with pytest.raises(InputFileError, match=complaint) as caught:
        variance_map(open_images(files, PARAMETERS))
    assert str(path) in str(caught.value)


def test_some_hundred_particles_tell_the_variance(particles, monkeypatch):
    """Evenly spread over all of them."""
    star, _, _ = particles
    images = cld.open_particles(star, PARAMETERS)
    read = []
    pixels = module.ParticleImages.pixels
    monkeypatch.setattr(
        module.ParticleImages,
        "pixels",
        lambda self, rows: read.extend(rows.tolist()) or pixels(self, rows),
    )
    monkeypatch.setattr("cryolike_dask.particles.variance.N_READ", 4)
    variance_map(images)
    assert read == [0, 3, 6, 9]
