"""Grids against closed forms, explicit sums, and the golden files."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.special import sph_harm_y

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.displacements import DisplacementGrid, DisplacementSearch
from cryolike_dask.geometry.optics import (
    OPTICS,
    electron_wavelength_angstrom,
    optics_table,
    transposed_defocus_angle,
)
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import (
    ViewingAngles,
    angles_of_rotation,
    viewing_grid,
    viewing_rotation,
)

GRIDS = [
    PolarGrid(32, 1.1, 8.0, 64),
    PolarGrid(33, 1.1, 8.25, 66),
    PolarGrid(24, 4.3, 3.0, 48),
    PolarGrid(7, 1, 1, 6),
]
WAVELENGTHS = {300.0: 0.019687, 200.0: 0.025079}
COLUMNS = {
    "defocus_u_angstrom": 15000.0,
    "defocus_v_angstrom": 14000.0,
    "defocus_angle_radian": 0.5,
    "voltage_kilovolt": 300.0,
    "spherical_aberration_mm": 2.7,
    "amplitude_contrast": 0.1,
}


@pytest.fixture
def golden_grids(golden):
    """The grids that CryoLike made."""
    with np.load(golden / "grids.npz") as grids:
        return dict(grids)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.n_pixels}px")
def test_polar_weights(grid):
    ones, (kx, ky) = np.ones(grid.shape), grid.points()
    disc = np.pi * grid.radius_max**2
    assert grid.n_shells == 1 + np.ceil(grid.radius_max / 0.25)
    assert grid.integrate(ones) == pytest.approx(disc, rel=1e-13)
    assert grid.integrate(kx**2) == pytest.approx(disc * grid.radius_max**2 / 4, rel=1e-13)
    assert grid.integrate(kx * ky) == pytest.approx(0, abs=1e-12 * disc * grid.radius_max**2)
    assert (grid.weights > 0).all()
    assert (np.diff(grid.radii) > 0).all()
    assert 0 < grid.radii[0] < grid.radii[-1] < grid.radius_max
    np.testing.assert_allclose(
        grid.spatial_frequencies, 2 * grid.radii / (grid.n_pixels * grid.pixel_size_angstrom)
    )


@pytest.mark.parametrize("n_pixels", [7, 12, 32, 33])
def test_exact_mask_is_the_sum_over_pixels(n_pixels):
    grid = PolarGrid(n_pixels, 1.5, n_pixels / 4, 2 * n_pixels)
    kx, ky = grid.points()
    pixels = (np.arange(n_pixels) - n_pixels // 2) * 2 / n_pixels
    waves = [np.exp(-2j * np.pi * k[..., None] * pixels).sum(-1) for k in (kx, ky)]
    expected = 4 / n_pixels**2 * waves[0] * waves[1]
    np.testing.assert_allclose(grid.mask(exact=True), expected, rtol=0, atol=1e-12)
    opposite = np.roll(expected, n_pixels, axis=1).conj()
    np.testing.assert_allclose(grid.mask(exact=True), opposite, rtol=0, atol=1e-12)


def test_continuous_mask(golden_grids):
    for key in [k for k in golden_grids if k.endswith("mask_points_row3")]:
        grid = grid_named(key)
        mask = grid.mask(exact=False)
        assert not mask.imag.any()
        np.testing.assert_allclose(mask[3].real, golden_grids[key], rtol=0, atol=1e-13)
        total = golden_grids[key.replace("points_row3", "integral")]
        assert min(abs(grid.integrate(mask.real**power) / total - 1) for power in (1, 2)) < 1e-12


def grid_named(key: str) -> PolarGrid:
    """The grid of a golden array, from its name."""
    n, rf, w = re.match(r"polar_n(\d+)_rf([\d.]+)_w(\d+)__", key).groups()
    return PolarGrid(int(n), 1.0, float(rf) * int(n) / 4, int(w))


def test_golden_polar_grids(golden_grids):
    keys = [k for k in golden_grids if k.endswith("__radius_shells")]
    assert len(keys) == 5
    for key in keys:
        grid, name = grid_named(key), key.split("__")[0]
        np.testing.assert_allclose(grid.radii, golden_grids[key], rtol=1e-12)
        np.testing.assert_allclose(grid.angles, golden_grids[f"{name}__theta_shell"], rtol=1e-14)
        np.testing.assert_allclose(
            grid.weights, golden_grids[f"{name}__integration_weight_shell"], rtol=1e-12
        )


@pytest.mark.parametrize("distance", [0.5, 0.8, 1 / (4 * np.pi)])
def test_viewing_grid_integrates_spherical_harmonics(distance):
    viewing = viewing_grid(distance)
    assert viewing.weight.sum() == pytest.approx(4 * np.pi, rel=1e-13)
    for degree in range(1, 4):
        for order in range(degree + 1):
            harmonic = sph_harm_y(degree, order, viewing.polar, viewing.azimuth)
            assert abs((harmonic * viewing.weight).sum()) < 1e-12, (degree, order)


def test_golden_viewing_grids(golden_grids):
    keys = [k for k in golden_grids if k.endswith("__azimus")]
    assert len(keys) == 6
    for key in keys:
        name = key.removesuffix("__azimus")
        distance = 2 / np.pi if name == "view_0.636620" else float(name.removeprefix("view_"))
        viewing = viewing_grid(distance)
        np.testing.assert_allclose(viewing.azimuth, golden_grids[key], rtol=0, atol=1e-6)
        np.testing.assert_allclose(
            viewing.polar, golden_grids[f"{name}__polars"], rtol=0, atol=1e-6
        )
        np.testing.assert_allclose(viewing.weight, golden_grids[f"{name}__weights"], rtol=1e-12)


@pytest.mark.parametrize("distance", [0.0, -1.0, np.nan, np.inf])
def test_viewing_distance_must_be_positive(distance):
    with pytest.raises(InputError, match=f"viewing_distance={distance}"):
        viewing_grid(distance)


def test_viewing_angles_must_belong_together():
    one, two = np.ones(1), np.ones(2)
    with pytest.raises(InputError, match="different lengths"):
        ViewingAngles(one, two, two)
    with pytest.raises(InputError, match="weight is not positive"):
        ViewingAngles(one, one, 0 * one)
    with pytest.raises(InputError, match="not finite"):
        ViewingAngles(one, np.nan * one, one)


def test_displacements_run_along_x_fastest():
    grid = DisplacementSearch(2.0, 3, 5).grid(1.5)
    np.testing.assert_allclose(grid.x_angstrom, np.tile([-3, 0, 3], 5))
    np.testing.assert_allclose(grid.y_angstrom, np.repeat([-3, -1.5, 0, 1.5, 3], 3))


@pytest.mark.parametrize(
    ("n_x", "n_y", "n"),
    [(3, 3, 9), (2, 3, 7), (3, 2, 7), (4, 4, 17), (1, 4, 5), (-1, -1, 1), (0, 5, 5), (1, 1, 1)],
)
def test_origin_is_always_tried(n_x, n_y, n):
    x, y = DisplacementSearch(2.0, n_x, n_y).grid(1.0).table()
    assert len(x) == n
    assert np.flatnonzero((np.abs(x) < 1e-12) & (np.abs(y) < 1e-12)).size == 1
    if n_x % 2 == 0 and n_x > 1:
        assert (x[-1], y[-1]) == (0, 0)


@pytest.mark.parametrize(
    ("n_x", "n_y", "steps"),
    [
        (2, 2, (4, 4)),
        (4, 3, (4 / 3, 2)),
        (16, 16, (4 / 15, 4 / 15)),
        (5, 1, (1, 0)),
        (1, 2, (0, 4)),
    ],
)
def test_the_origin_that_is_appended_is_none_of_the_steps(n_x, n_y, steps):
    assert DisplacementSearch(2.0, n_x, n_y).grid(1.0).steps == pytest.approx(steps, abs=1e-4)


def test_golden_displacements(golden_grids):
    keys = [k for k in golden_grids if k.startswith("disp_")]
    assert len(keys) == 8
    for key in keys:
        limit, n_x, n_y, pixel = re.fullmatch(r"disp_max(.+)_nx(.+)_ny(.+)_px(.+)", key).groups()
        table = DisplacementSearch(float(limit), int(n_x), int(n_y)).grid(float(pixel)).table()
        np.testing.assert_allclose(table, golden_grids[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("search", "complaint"),
    [
        ((-1.0, 3, 3), "max_displacement_pixels=-1.0"),
        ((np.nan, 3, 3), "max_displacement_pixels=nan"),
        ((np.inf, 3, 3), "max_displacement_pixels=inf"),
        ((1.0, 2.5, 3), "n_displacements_x=2.5"),
        ((1.0, 3, 2.5), "n_displacements_y=2.5"),
        ((None, 3, 3), "max_displacement_pixels=None"),
        (("8", 3, 3), "max_displacement_pixels='?8"),
        ((1.0, "3", 3), "n_displacements_x='?3"),
        ((1.0, 3, None), "n_displacements_y=None"),
        ((1.0, np.nan, 3), "n_displacements_x=nan"),
    ],
)
def test_search_that_cannot_be(search, complaint):
    with pytest.raises(InputError, match=complaint):
        DisplacementSearch(*search)


def test_displacement_grid_that_cannot_be():
    with pytest.raises(InputError, match=r"shapes \(2,\) and \(3,\)"):
        DisplacementGrid(np.zeros(2), np.zeros(3))
    with pytest.raises(InputError, match="at least one"):
        DisplacementGrid(np.zeros(0), np.zeros(0))
    with pytest.raises(InputError, match="not finite"):
        DisplacementGrid(np.array([np.nan]), np.zeros(1))


@pytest.mark.parametrize(("voltage", "wavelength"), WAVELENGTHS.items())
def test_electron_wavelength(voltage, wavelength):
    assert electron_wavelength_angstrom(voltage) == pytest.approx(wavelength, abs=5e-7)


def test_transposed_defocus_angle_is_its_own_inverse():
    assert transposed_defocus_angle(np.deg2rad(30)) == pytest.approx(np.deg2rad(60))
    assert transposed_defocus_angle(transposed_defocus_angle(0.3)) == pytest.approx(0.3)


def test_optics_table():
    table = optics_table(3, **{**COLUMNS, "voltage_kilovolt": np.array([300, 200, 300])})
    assert table.dtype == OPTICS
    assert table["voltage_kilovolt"].tolist() == [300, 200, 300]
    assert table["defocus_u_angstrom"].tolist() == [15000] * 3
    assert (table["phase_shift_radian"].any(), table["b_factor_angstrom2"].any()) == (False, False)
    assert table["scale"].tolist() == [1, 1, 1]
    assert len(optics_table(0, **COLUMNS)) == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"defocus_u": 1.0}, r"unknown \['defocus_u'\]"),
        (
            {"voltage_kilovolt": 0.0},
            r"voltage_kilovolt=0 of image\(s\) 0, 1, 2 is not a value in kilovolt",
        ),
        (
            {"amplitude_contrast": 1.5},
            r"amplitude_contrast=1.5 of image\(s\) 0, 1, 2 is not a value in fractions of 1",
        ),
        (
            {"amplitude_contrast": [0.1, -0.1, 0.1]},
            r"amplitude_contrast=-0.1 of image\(s\) 1 is not",
        ),
        (
            {"defocus_u_angstrom": np.ones(2)},
            r"defocus_u_angstrom has shape \(2,\), but there are 3 images",
        ),
        ({"defocus_u_angstrom": np.ones((3, 1))}, r"defocus_u_angstrom has shape \(3, 1\)"),
        ({"scale": [1.0, np.nan, np.inf]}, r"scale is not finite for image\(s\) 1, 2"),
        ({"voltage_kilovolt": None}, r"voltage_kilovolt is not finite|voltage_kilovolt.*None"),
        (
            {"voltage_kilovolt": 300000.0},
            r"voltage_kilovolt=300000 of .* is not a value in kilovolt",
        ),
        ({"defocus_angle_radian": 45.0}, r"defocus_angle_radian=45 of .* is not a value in radian"),
        ({"phase_shift_radian": 90.0}, r"phase_shift_radian=90 of .* is not a value in radian"),
        ({"voltage_kilovolt": "300 kV"}, r"voltage_kilovolt.*300 kV"),
    ],
)
def test_optics_that_cannot_be(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        optics_table(3, **{**COLUMNS, **changes})


def test_missing_optics_are_named():
    with pytest.raises(InputError, match=r"missing \['defocus_v_angstrom', 'voltage_kilovolt'\]"):
        optics_table(
            3,
            **{
                k: v
                for k, v in COLUMNS.items()
                if k not in ("defocus_v_angstrom", "voltage_kilovolt")
            },
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_pixels": 2 * 10**9}, "n_pixels=2000000000 is more than 32768"),
        ({"n_inplanes": 10**9}, "shells of n_inplanes=1000000000 angles are more points"),
        ({"radius_max": 1e299}, "is 16384 shells or more"),
        ({"radius_max": 1e299, "dist_radii": 1e-299}, "is 16384 shells or more"),
        ({"dist_radii": 1e-6}, "is 16384 shells or more"),
        ({"viewing_distance": 1e-9}, "viewing_distance=1e-09 gives more than a million directions"),
        ({"viewing_distance": 1e-300}, "gives more than a million directions"),
    ],
)
def test_what_no_computer_could_hold_is_refused_before_it_is_made(change, message):
    with pytest.raises(InputError, match=message):
        ImageParameters(**{"n_pixels": 64, "pixel_size_angstrom": 2.0} | change)


@pytest.mark.parametrize("numbers", [(10**5, 10**5), (10**9, 1), (1, 10**30)])
def test_displacements_that_are_too_many(numbers):
    with pytest.raises(InputError, match="displacements are more than 100000000"):
        DisplacementSearch(4.0, *numbers).grid(1.0)


def test_the_largest_boxes_that_there_are():
    assert ImageParameters(8192, 0.5).grid.shape == (8193, 16384)


def test_angles_of_rotations_are_those_they_were_made_of(rng):
    azimuth, gamma = rng.uniform(0, 2 * np.pi, (2, 20))
    polar = np.concatenate([[0, np.pi], rng.uniform(0, np.pi, 18)])
    rotations = viewing_rotation(azimuth, polar, gamma)
    found = angles_of_rotation(rotations)
    np.testing.assert_allclose(viewing_rotation(*found), rotations, atol=1e-12)
    np.testing.assert_allclose(found[2][2:], gamma[2:])
