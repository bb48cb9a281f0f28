"""The arithmetic against closed forms and against plain sums over all points of the polar grid."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import j1, jv

from cryolike_dask.errors import ZeroPowerError
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.optics import OPTICS, electron_wavelength_angstrom
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.likelihoods import interface
from cryolike_dask.likelihoods.kernels import (
    compute_cross_correlation,
    contrast_transfer,
    half_spectrum,
    rotations_from_half_spectrum,
    translation_factors,
)
from cryolike_dask.stacks import ImageStack, TemplateStack

PRECISIONS = {
    "single": (torch.complex64, torch.float32),
    "double": (torch.complex128, torch.float64),
}


def point_weights(grid):
    return np.repeat(grid.weights[:, None], grid.n_inplanes, axis=1)


def moved(templates, x, y, grid):
    """Templates moved by x, y in half boxes, (template, displacement, shell, angle)."""
    kx, ky = (torch.from_numpy(k) for k in grid.points())
    factors = translation_factors(torch.as_tensor(x), torch.as_tensor(y), kx, ky)
    return torch.from_numpy(templates)[:, None] * factors


def correlation(images, contrast, templates, grid, precision="double", mask=None):
    """compute_cross_correlation on numpy arrays, templates already moved."""
    complex_type, real_type = PRECISIONS[precision]
    return compute_cross_correlation(
        torch.as_tensor(images).to(complex_type),
        torch.as_tensor(contrast).to(real_type),
        torch.as_tensor(templates).to(complex_type),
        torch.from_numpy(point_weights(grid)).to(real_type),
        None if mask is None else torch.from_numpy(mask).to(complex_type),
    ).numpy()


# Closed forms: sums of plane waves


WAVES = ImageParameters(n_pixels=16, pixel_size_angstrom=1.0, n_inplanes=64)
"""64 angles and 17 shells resolve the largest phase that occurs, 2 pi K |c| < 23: the quadrature
is exact to 1e-14."""
STEPS = DisplacementGrid(np.array([0.0, 1.0, -0.5, 0.25]), np.array([0.0, -0.5, 0.75, 1.0]))
AMPLITUDES = np.array([1.0, 0.6])
CLOSED_FORM = {"double": 1e-12, "single": 2e-6}


def plane_waves(amplitudes, positions, grid):
    """sum_p amplitude exp(-2 pi i k . position), positions (n, p, 2) in half boxes: complex (n,
    shell, angle)."""
    k = np.stack(grid.points())
    return np.einsum(
        "p,npkj->nkj", amplitudes, np.exp(-2j * np.pi * np.einsum("npc,ckj->npkj", positions, k))
    )


def rotated(position, angle):
    c, s = np.cos(angle), np.sin(angle)
    x, y = position[..., 0], position[..., 1]
    return np.stack([c * x - s * y, s * x + c * y], axis=-1)


def posed(positions, steps, grid):
    """Positions moved by a step, then turned by minus the rotation: (template, step, rotation,
    p, 2)."""
    shifted = (
        positions[:, None, None] + 2 * steps.table().T[None, :, None, None] / grid.box_size_angstrom
    )
    return rotated(shifted, -grid.angles[None, None, :, None])


def disc_integral(radial, harmonic, axis, c, grid):
    """Integrate radial(k) cos(n (theta - axis)) exp(2 pi i k . c) over the disc, n even (Jacobi
    and Anger)."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    k, weights = (nodes + 1) * grid.radius_max / 2, weights * grid.radius_max / 2
    bessel = jv(harmonic, 2 * np.pi * k * np.linalg.norm(c, axis=-1)[..., None])
    direction = np.arctan2(c[..., 1], c[..., 0])
    sign = (-1) ** (harmonic // 2)
    return (
        2
        * np.pi
        * sign
        * np.cos(harmonic * (direction - axis))
        * (bessel @ (weights * k * radial(k)))
    )


@pytest.fixture
def waves(rng):
    """Positions of the waves of 2 images and 2 templates, and both as data."""
    at_images, at_templates = rng.uniform(-0.25, 0.25, (2, 2, 2, 2))
    grid = WAVES.grid
    return (
        at_images,
        at_templates,
        plane_waves(AMPLITUDES, at_images, grid),
        plane_waves(AMPLITUDES, at_templates, grid),
    )


def closed_correlation(at_images, at_templates, integral, power, grid):
    """Correlation from integrals: `integral` with the contrast, `power` with its square, each of
    exp(2 pi i k . c)."""
    pairs = AMPLITUDES[:, None] * AMPLITUDES
    at = posed(at_templates, STEPS, grid)
    between = at_images[:, None, None, None, :, None] - at[None, ..., None, :, :]
    cross = np.einsum("msdwpq,pq->msdw", integral(between), pairs)
    template_power = np.einsum(
        "sdwpq,pq->sdw", power(at[..., :, None, :] - at[..., None, :, :]), pairs
    )
    separation = at_images[:, :, None] - at_images[:, None]
    image_power = np.einsum("mpq,pq->m", disc_integral(np.ones_like, 0, 0, separation, grid), pairs)
    return cross / np.sqrt(template_power * image_power[:, None, None, None])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_plane_waves_without_contrast(rng, precision):
    """The integral of a wave over the disc is K J1(2 pi K |c|) / |c|."""
    grid = WAVES.grid
    a, b = rng.uniform(-0.25, 0.25, (3, 1, 2)), rng.uniform(-0.25, 0.25, (2, 1, 2))
    one = np.ones(1)
    shifts = 2 * STEPS.table() / grid.box_size_angstrom
    templates = moved(plane_waves(one, a, grid), *shifts, grid)
    found = correlation(
        plane_waves(one, b, grid), np.ones((1, *grid.shape)), templates, grid, precision
    )
    distance = np.linalg.norm(b[:, None, None, None, 0] - posed(a, STEPS, grid)[..., 0, :], axis=-1)
    wanted = (
        2 * j1(2 * np.pi * grid.radius_max * distance) / (2 * np.pi * grid.radius_max * distance)
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=CLOSED_FORM[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_plane_waves_with_astigmatic_contrast(waves, rng, precision):
    """Contrast u(k) + v(k) cos 2(theta - t), its square by harmonics 0, 2 and 4."""
    at_images, at_templates, images, templates = waves
    grid, t = WAVES.grid, rng.uniform(0, np.pi)

    def u(k):
        return 1 - 1.5 * (k / grid.radius_max) ** 2

    def v(k):
        return 0.7 * (k / grid.radius_max) ** 2

    def integral(c):
        return disc_integral(u, 0, t, c, grid) + disc_integral(v, 2, t, c, grid)

    def power(c):
        return (
            disc_integral(lambda k: u(k) ** 2 + v(k) ** 2 / 2, 0, t, c, grid)
            + disc_integral(lambda k: 2 * u(k) * v(k), 2, t, c, grid)
            + disc_integral(lambda k: v(k) ** 2 / 2, 4, t, c, grid)
        )

    k = grid.radii[:, None]
    contrast = (u(k) + v(k) * np.cos(2 * (grid.angles - t)))[None]
    shifts = 2 * STEPS.table() / grid.box_size_angstrom
    found = correlation(images, contrast, moved(templates, *shifts, grid), grid, precision)
    wanted = closed_correlation(at_images, at_templates, integral, power, grid)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=CLOSED_FORM[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_plane_waves_through_the_interface(waves, build, precision):
    """Optics without defocus and with full amplitude contrast are a contrast of 1 everywhere."""
    at_images, at_templates, images, templates = waves
    flat = build.optics(
        2,
        defocus_u_angstrom=0,
        defocus_v_angstrom=0,
        spherical_aberration_mm=0,
        phase_shift_radian=0,
        amplitude_contrast=1,
    )
    stack = TemplateStack.from_array(templates, WAVES, build.viewing(2))
    found = interface.compute_cross_correlation_complete(
        ImageStack.from_array(images, WAVES, flat),
        TemplateStack(stack.source, stack.grid, stack.viewing, STEPS),
        conventions="cryolike",
        precision=precision,
        device="cpu",
    ).compute(scheduler="sync")

    def integral(c):
        return disc_integral(np.ones_like, 0, 0, c, WAVES.grid)

    wanted = closed_correlation(at_images, at_templates, integral, integral, WAVES.grid)
    np.testing.assert_allclose(found.cross_correlation, wanted, rtol=0, atol=CLOSED_FORM[precision])


# Brute force: every sum over points written out


def contrast_of(optics, grid, conventions):
    """Contrast transfer of one image, point by point."""
    standard = conventions == "standard"
    energy = (1.602176634e-19 if standard else 1.60217663e-19) * 1e3 * optics["voltage_kilovolt"]
    wave = 6.62607015e-34 / math.sqrt(2 * 9.1093837015e-31 * energy)
    wave *= 1e10 / math.sqrt(1 + energy / (2 * 9.1093837015e-31 * 299792458.0**2))
    u = optics["defocus_u_angstrom"]
    v = optics["defocus_v_angstrom"]
    a = optics["amplitude_contrast"]
    difference = u - v if standard else abs(u - v)
    values = np.empty(grid.shape)
    for n, k in enumerate(grid.radii):
        f = 2 * k / grid.box_size_angstrom
        for j in range(grid.n_inplanes):
            theta = 2 * np.pi * j / grid.n_inplanes
            defocus = (u + v) / 2 + difference / 2 * math.cos(
                2 * (theta - optics["defocus_angle_radian"])
            )
            chi = 0.5 * np.pi * optics["spherical_aberration_mm"] * 1e7 * wave**3 * f**4
            chi -= np.pi * wave * f**2 * defocus + optics["phase_shift_radian"]
            values[n, j] = -math.sqrt(1 - a**2) * math.sin(chi) + a * math.cos(chi)
            if standard:
                values[n, j] *= optics["scale"] * math.exp(-optics["b_factor_angstrom2"] * f**2 / 4)
    return values


class BruteForce:
    """Every term of every pose by a plain sum: arrays (image, template, displacement, rotation)."""

    def __init__(self, images, contrast, templates, shifts, grid, mask):
        kx, ky = grid.points()
        weight = point_weights(grid)
        shape = (len(images), len(templates), shifts.shape[1], grid.n_inplanes)
        self.cross, self.template_power, self.template_mask = np.empty((3, *shape))
        for m, s, d, w in itertools.product(*map(range, shape)):
            phase = np.exp(-2j * np.pi * (kx * shifts[0, d] + ky * shifts[1, d]))
            filtered = contrast[m] * np.roll(phase * templates[s], -w, axis=1)
            self.cross[m, s, d, w] = (np.conj(images[m]) * filtered * weight).sum().real
            self.template_power[m, s, d, w] = (abs(filtered) ** 2 * weight).sum()
            self.template_mask[m, s, d, w] = (np.conj(mask) * filtered * weight).sum().real
        at_rest = np.einsum("mnj,snj,nj->ms", contrast, (np.conj(mask) * templates).real, weight)
        self.template_mask_at_rest = np.broadcast_to(at_rest[:, :, None, None], shape)
        self.image_power = (abs(images) ** 2 * weight).sum((1, 2))[:, None, None, None]
        self.image_mask = (np.conj(mask) * images * weight).sum((1, 2)).real[:, None, None, None]
        self.mask_power = (abs(mask) ** 2 * weight).sum()

    def plain(self):
        return self.cross / np.sqrt(self.template_power * self.image_power)

    def zero_normalised(self, template_mask):
        cross = self.cross - template_mask * self.image_mask / self.mask_power
        template_variance = self.template_power - template_mask**2 / self.mask_power
        return cross / np.sqrt(
            template_variance * (self.image_power - self.image_mask**2 / self.mask_power)
        )

    def residual(self, template_mask):
        a = self.template_power * self.mask_power - template_mask**2
        b = self.cross * self.mask_power - template_mask * self.image_mask
        return a, -(b**2 / a + self.image_mask**2 - self.image_power * self.mask_power)

    def log_likelihood(self, template_mask, n_dof):
        a, d = self.residual(template_mask)
        p = n_dof / 2 - 2
        constant = (
            (3 - n_dof) / 2 * math.log(2 * math.pi) - math.log(2) - 0.5 * math.log(self.mask_power)
        )
        constant += math.lgamma(p) + p * math.log(2 * self.mask_power)
        return -p * np.log(d) - 0.5 * np.log(a) + constant

    def template_mask_for(self, threshold):
        """That of the template at rest, or of the pose where the residual is not positive or the
        match too good."""
        with np.errstate(invalid="ignore"):
            fits = 1 - self.zero_normalised(self.template_mask_at_rest) ** 2
            _, d = self.residual(self.template_mask_at_rest)
        exact = ~(d > 0) | ~(fits > 1 - threshold)
        return np.where(exact, self.template_mask, self.template_mask_at_rest), exact


def brute_force(images, templates, conventions):
    """The same for stacks; displacements must not be rounded in single precision."""
    grid = templates.grid
    shifts = 2 * templates.displacements.table() / grid.box_size_angstrom
    contrast = np.stack([contrast_of(row, grid, conventions) for row in images.optics])
    mask = grid.mask(exact=conventions == "standard")
    return BruteForce(images.source.values, contrast, templates.source.values, shifts, grid, mask)


def degrees_of_freedom(grid, conventions):
    return 4 * np.pi * grid.radius_max**2 if conventions == "standard" else grid.n_pixels**2


@pytest.mark.parametrize("n_inplanes", [10, 12])
def test_cross_correlation_is_a_sum_over_points(build, n_inplanes):
    grid = ImageParameters(8, 1.0, n_inplanes=n_inplanes).grid
    images, templates = build.rings(3, grid), build.rings(4, grid)
    half = build.rng.standard_normal((3, grid.n_shells, n_inplanes // 2))
    contrast = np.concatenate([half, half], axis=2)
    shifts = build.rng.uniform(-0.3, 0.3, (2, 5))
    mask = grid.mask(exact=True)
    wanted = BruteForce(images, contrast, templates, shifts, grid, mask)
    displaced = moved(templates, *shifts, grid)
    found = correlation(images, contrast, displaced, grid)
    np.testing.assert_allclose(found, wanted.plain(), rtol=0, atol=1e-10)
    found = correlation(images, contrast, displaced, grid, mask=mask)
    np.testing.assert_allclose(
        found, wanted.zero_normalised(wanted.template_mask), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("which", ["image", "template"])
def test_no_power_is_an_error(build, which):
    grid = ImageParameters(8, 1.0, n_inplanes=12).grid
    data = {"image": build.rings(3, grid), "template": build.rings(3, grid)}
    data[which][1] = 0
    with pytest.raises(ZeroPowerError, match=rf"{which}\(s\) 1 have no power"):
        correlation(data["image"], np.ones((1, *grid.shape)), data["template"][:, None], grid)


@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
def test_interface_is_a_sum_over_points(build, conventions):
    """All results of the interface; one image fits so well that `standard` takes its offset at
    the pose."""
    optics = {"b_factor_angstrom2": [0, 30, 60, 10], "scale": [1, 2, 0.5, 1]}
    if conventions == "standard":
        optics["voltage_kilovolt"] = [200, 300, 300, 120]
    images, templates = build.stacks(
        4, 5, n_pixels=8, n_inplanes=12, search=(1.0, 3, 2), noise=0.3, **optics
    )
    grid = templates.grid
    shifts = 2 * templates.displacements.table()[:, :1] / grid.box_size_angstrom
    turned = np.roll(moved(templates.source.values[2:3], *shifts, grid)[0, 0].numpy(), -3, axis=-1)
    signal = contrast_of(images.optics[0], grid, conventions) * turned
    noise = build.rings(1, grid)[0]
    noise *= 0.1 * np.sqrt(grid.integrate(abs(signal) ** 2) / grid.integrate(abs(noise) ** 2))
    images.source.values[0] = signal + noise
    reference = brute_force(images, templates, conventions)
    template_mask, exact = reference.template_mask_for(0.95 if conventions == "standard" else 1.0)
    assert not exact.all()
    assert exact.any() or conventions == "cryolike"
    full = (
        reference.zero_normalised(template_mask) if conventions == "standard" else reference.plain()
    )
    n_dof = degrees_of_freedom(grid, conventions)
    of_poses = reference.log_likelihood(template_mask, n_dof)

    def computed(name):
        lazy = getattr(interface, name)(images, templates, conventions=conventions, device="cpu")
        return lazy.compute(scheduler="sync")

    def assert_near(found, wanted, tolerance=1e-10):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)

    assert_near(computed("compute_cross_correlation_complete").cross_correlation, full)
    assert_near(computed("compute_optimal_rotation").cross_correlation, full.max(3))
    assert_near(computed("compute_optimal_displacement").cross_correlation, full.max(2))
    pairs = computed("compute_optimal_displacement_and_rotation")
    assert_near(pairs.cross_correlation, full.max((2, 3)))
    assert_near(pairs.log_likelihood, np.logaddexp.reduce(of_poses.reshape(4, 5, -1), axis=2))

    poses, best = computed("compute_optimal_pose"), full.reshape(4, -1).argmax(1)
    s, d, w = np.unravel_index(best, full.shape[1:])
    assert_near(poses.cross_correlation, full.reshape(4, -1).max(1))
    assert_near(poses.optimal_template, s)
    assert_near(poses.optimal_displacement_x, templates.displacements.x_angstrom[d])
    assert_near(poses.optimal_displacement_y, templates.displacements.y_angstrom[d])
    assert_near(poses.optimal_inplane_rotation, grid.angles[w])
    weight = templates.viewing.weight
    log_prior = np.log(weight / weight.sum()) if conventions == "standard" else weight
    posterior = of_poses + log_prior[:, None, None] - np.log(full.shape[2] * full.shape[3])
    assert_near(
        poses.log_likelihood_integrated, np.logaddexp.reduce(posterior.reshape(4, -1), axis=1)
    )
    with_offset_of_the_pose = reference.log_likelihood(reference.template_mask, n_dof).reshape(
        4, -1
    )
    assert_near(poses.log_likelihood_optimal, with_offset_of_the_pose[np.arange(4), best])


# Single functions


def spectra_of(templates):
    return half_spectrum(torch.from_numpy(templates))


@pytest.mark.parametrize("n_inplanes", [10, 12])
def test_half_spectrum_is_all_there_is(build, n_inplanes):
    """a_{-q} = (-1)^q conj(a_q), and the half gives the sum over rotations."""
    grid = ImageParameters(8, 1.0, n_inplanes=n_inplanes).grid
    a, b = build.rings(2, grid)
    series = np.fft.fft(a, norm="ortho")
    q = np.arange(n_inplanes)
    np.testing.assert_allclose(series[:, -q], (-1.0) ** q * series.conj(), rtol=0, atol=1e-13)
    np.testing.assert_allclose(spectra_of(a), series[:, : n_inplanes // 2 + 1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        spectra_of(abs(a)), np.fft.rfft(abs(a), norm="ortho"), rtol=0, atol=1e-13
    )
    found = rotations_from_half_spectrum(spectra_of(a).conj() * spectra_of(b), n_inplanes)
    wanted = np.stack([(a.conj() * np.roll(b, -w, axis=1)).sum(1) for w in q], axis=1)
    np.testing.assert_allclose(wanted.imag, 0, atol=1e-12)
    np.testing.assert_allclose(found, wanted.real, rtol=0, atol=1e-12)


def contrast_transfers(optics, grid, conventions):
    standard = conventions == "standard"
    charge = 1.602176634e-19 if standard else 1.60217663e-19
    wavelength = electron_wavelength_angstrom(optics["voltage_kilovolt"], charge)
    return contrast_transfer(
        {name: torch.from_numpy(optics[name].copy()) for name in OPTICS.names},
        torch.from_numpy(wavelength),
        torch.from_numpy(grid.spatial_frequencies),
        torch.from_numpy(grid.angles),
        signed_astigmatism=standard,
        envelope=standard,
    ).numpy()


@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
def test_contrast_transfer(build, conventions):
    """Astigmatism of both signs, phase shifts, envelopes, and a voltage for each image."""
    grid = ImageParameters(16, 1.5, n_inplanes=12).grid
    optics = build.optics(
        4,
        defocus_u_angstrom=[12000, 9000, 8000, 0],
        defocus_v_angstrom=[9000, 12000, 8000, 0],
        voltage_kilovolt=[300, 300, 200, 120],
        spherical_aberration_mm=[2.7, 0.01, 2.0, 0],
        amplitude_contrast=[0.1, 0.07, 0, 1],
        b_factor_angstrom2=[0, 50, 100, 20],
        scale=[1, 0.5, 2, 1],
    )
    wanted = np.stack([contrast_of(row, grid, conventions) for row in optics])
    np.testing.assert_allclose(
        contrast_transfers(optics, grid, conventions), wanted, rtol=0, atol=1e-12
    )


def test_conventions_differ_in_astigmatism_where_u_is_below_v(build):
    grid = ImageParameters(16, 1.5, n_inplanes=12).grid
    optics = build.optics(2, defocus_u_angstrom=[12000, 9000], defocus_v_angstrom=[9000, 12000])
    difference = abs(
        contrast_transfers(optics, grid, "standard") - contrast_transfers(optics, grid, "cryolike")
    )
    assert difference[0].max() < 1e-6
    assert difference[1].max() > 0.1


def test_wavelength_of_300_kilovolt():
    assert electron_wavelength_angstrom(300.0) == pytest.approx(0.019687, abs=5e-7)


def transform(pixels, grid):
    """Explicit sum over pixels, x the column: complex (shell, angle)."""
    n = grid.n_pixels
    at = (np.arange(n) - n // 2) * 2 / n
    kx, ky = grid.points()
    along_x, along_y = (np.exp(-2j * np.pi * k[..., None] * at) for k in (kx, ky))
    return 4 * np.pi / n * np.einsum("nja,ab,njb->nj", along_y, pixels, along_x)


def gaussian(x, y, grid):
    """A Gaussian of 2.5 angstrom at x, y angstrom from the centre, on pixels [row, column]."""
    at = (np.arange(grid.n_pixels) - grid.n_pixels // 2) * grid.pixel_size_angstrom
    return np.exp(-((at[:, None] - y) ** 2 + (at - x) ** 2) / (2 * 2.5**2))


def test_translation_moves_content_by_the_displacement():
    grid = ImageParameters(32, 1.2, n_inplanes=16).grid
    at_rest, wanted = (transform(gaussian(x, y, grid), grid) for x, y in ((1.0, -2.0), (4.0, -3.5)))
    shift = 2 * np.array([[3.0], [-1.5]]) / grid.box_size_angstrom
    found = moved(at_rest[None], *shift, grid)[0, 0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * abs(wanted).max())


def test_rotation_turns_content_by_minus_the_angle():
    """Displaced along x, then turned by -90 degrees: the content lies at -y."""
    grid = ImageParameters(32, 1.2, n_inplanes=16).grid
    template, image = (transform(gaussian(x, y, grid), grid)[None] for x, y in ((0, 0), (0, -4.0)))
    displaced = moved(template, *(2 * np.array([[4.0], [0.0]]) / grid.box_size_angstrom), grid)
    found = correlation(image, np.ones((1, *grid.shape)), displaced, grid)[0, 0, 0]
    assert grid.angles[found.argmax()] == np.pi / 2
    assert found.max() == pytest.approx(1, abs=1e-6)


# What must hold for any data


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
def test_images_without_noise(build, conventions, precision):
    """Images that fit exactly: everything is finite, and no pose is more likely than the optimal
    one."""
    images, templates = build.stacks(3, 4, n_pixels=12, n_inplanes=16, search=(1.0, 3, 1))
    grid = templates.grid
    chosen = [(0, 2, 0), (3, 0, 5), (1, 1, 13)]
    shifts = 2 * templates.displacements.table() / grid.box_size_angstrom
    exact = moved(templates.source.values, *shifts, grid).numpy()
    for m, (s, d, w) in enumerate(chosen):
        contrast = contrast_of(images.optics[m], grid, conventions)
        images.source.values[m] = contrast * np.roll(exact[s, d], -w, axis=-1)
    settings = {"conventions": conventions, "precision": precision, "device": "cpu"}
    for name in (
        "optimal_pose",
        "optimal_displacement_and_rotation",
        "optimal_displacement",
        "optimal_rotation",
    ):
        found = getattr(interface, f"compute_{name}")(images, templates, **settings).compute(
            scheduler="sync"
        )
        assert all(np.isfinite(found[variable]).all() for variable in found)
    poses = interface.compute_optimal_pose(images, templates, **settings).compute(scheduler="sync")
    s, d, w = np.transpose(chosen)
    np.testing.assert_array_equal(poses.optimal_template, s)
    np.testing.assert_allclose(
        poses.optimal_displacement_x, templates.displacements.x_angstrom[d], rtol=1e-6
    )
    np.testing.assert_allclose(poses.optimal_inplane_rotation, grid.angles[w], rtol=1e-6)
    np.testing.assert_allclose(poses.cross_correlation, 1, rtol=0, atol=CLOSED_FORM[precision])
    reference = brute_force(images, templates, conventions)
    # at the exact pose the residual is 0, or rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        others = reference.log_likelihood(
            reference.template_mask, degrees_of_freedom(grid, conventions)
        )
    others[np.arange(3), s, d, w] = -np.inf
    assert (poses.log_likelihood_optimal.values > others.reshape(3, -1).max(1)).all()


@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
def test_error_of_single_precision(build, conventions):
    """At 32 pixels single precision moves a log-likelihood by about 0.0002 nat; ten times that
    is the limit."""
    images, templates = build.stacks(
        5, 6, n_pixels=32, n_inplanes=64, search=(2.0, 3, 3), noise=0.5
    )
    results = {}
    for precision in PRECISIONS:
        settings = {"conventions": conventions, "precision": precision, "device": "cpu"}
        for name in ("optimal_pose", "optimal_displacement_and_rotation"):
            compute = getattr(interface, f"compute_{name}")
            results[precision, name] = compute(images, templates, **settings).compute(
                scheduler="sync"
            )
    for name, variable in (
        ("optimal_pose", "log_likelihood_integrated"),
        ("optimal_pose", "log_likelihood_optimal"),
        ("optimal_displacement_and_rotation", "log_likelihood"),
    ):
        error = float(
            abs(
                results["single", name][variable].astype("f8") - results["double", name][variable]
            ).max()
        )
        print(f"{conventions} {variable}: off by {error:.1e} nat in single precision")
        assert error < 0.002
