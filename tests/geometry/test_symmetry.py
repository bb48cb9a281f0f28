"""Point groups against what RELION's reference says of them, and the views of asymmetric units
against integrals over the sphere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import eval_legendre

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.symmetry import asymmetric_unit, point_group, unit_grid
from cryolike_dask.geometry.viewing_angles import ViewingAngles, healpix_grid, viewing_grid

ORDERS = {
    **{"C1": 1, "C4": 4, "C17": 17, "D2": 4, "D7": 14, "T": 12, "O": 24},
    **dict.fromkeys(("I1", "I2", "I3", "I4"), 60),
}
X, Y, Z = np.eye(3)
DISTANCE = 0.12


def folds(group):
    """Axes of a group, each way round, and the order of each."""
    cosines = (np.trace(group.rotations, axis1=1, axis2=2) - 1) / 2
    angles = np.arccos(np.clip(cosines, -1, 1))
    found = {}
    for rotation, angle in zip(group.rotations[1:], angles[1:], strict=True):
        values, vectors = np.linalg.eig(rotation)
        axis = np.real(vectors[:, np.argmin(np.abs(values - 1))])
        for way in (axis, -axis):
            key = tuple(np.round(way / np.linalg.norm(way), 6) + 0.0)
            found[key] = max(found.get(key, 1), round(2 * np.pi / angle))
    return found


def has(group, fold, axis):
    axis = np.asarray(axis, float)
    return folds(group).get(tuple(np.round(axis / np.linalg.norm(axis), 6) + 0.0)) == fold


@pytest.mark.parametrize("name", ORDERS)
def test_groups(name):
    group = point_group(name)
    assert len(group) == ORDERS[name]
    rotations = group.rotations
    assert np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-12
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    np.testing.assert_array_equal(rotations[0], np.eye(3))
    products = np.einsum("aij,bjk->abik", rotations, rotations).reshape(-1, 1, 9)
    apart = np.abs(products - rotations.reshape(1, -1, 9)).max(axis=2)
    assert apart.min(axis=1).max() < 1e-12
    assert (np.sort(apart, axis=1)[:, 1:] > 0.01).all()


def test_axes_are_those_of_the_reference():
    """RELION's table of symmetries, line by line."""
    assert has(point_group("C4"), 4, Z)
    assert has(point_group("D7"), 7, Z)
    assert has(point_group("D7"), 2, X)
    assert not has(point_group("D7"), 2, Y)
    assert has(point_group("T"), 3, Z)
    assert has(point_group("T"), 2, (0, 0.816496581, 0.577350269))
    assert not has(point_group("T"), 2, (0, -0.816496581, 0.577350269))
    assert all(has(point_group("O"), 4, axis) for axis in (X, Y, Z))


@pytest.mark.parametrize(("name", "plane", "of_threefolds"), [("I1", 0, 1), ("I2", 1, 0)])
def test_the_222_settings(name, plane, of_threefolds):
    """Of the five-folds and the three-folds, those that are front-most lie in these planes."""
    group = point_group(name)
    assert all(has(group, 2, axis) for axis in (X, Y, Z))
    for fold, is_zero in ((5, plane), (3, of_threefolds)):
        axes = np.array([axis for axis, order in folds(group).items() if order == fold])
        front = axes[axes[:, 2] > axes[:, 2].max() - 1e-5]
        assert len(front) == 2
        assert not front[:, is_zero].any()


@pytest.mark.parametrize(("name", "sign"), [("I3", -1), ("I4", 1)])
def test_the_52_settings(name, sign):
    group = point_group(name)
    assert has(group, 5, Z)
    assert has(group, 2, Y)
    next_to_z = (sign * 2 / 5**0.5, 0, 1 / 5**0.5)
    assert has(group, 5, next_to_z)
    assert not has(group, 5, np.array([-1, 1, 1]) * next_to_z)


def test_names():
    assert point_group(" d2").name == "D2"
    assert point_group("I").name == "I2"  # as RELION takes it
    assert ImageParameters(16, 2.0, symmetry="i").symmetry == "I2"


@pytest.mark.parametrize(
    "name", ["", "C", "C0", "C04", "C100", "D1", "D", "I5", "Oh", "4", "C4h", 4]
)
def test_no_such_group(name):
    with pytest.raises(InputError, match=r"is no point group that is known. Give C1 to C99"):
        point_group(name)
    with pytest.raises(InputError, match="is no point group"):
        ImageParameters(16, 2.0, symmetry=name)


def directions_of(viewing):
    return viewing.rotations()[:, :, 2]


def integrals(viewing, group, degree, towards):
    """Mean over the sphere of Legendre polynomials about some directions, which are averaged over
    their images: those spherical harmonics that have the symmetry; 0 from degree 1 on."""
    images = group.images(towards)
    cosines = np.einsum("ngi,mi->nmg", images, directions_of(viewing))
    invariant = eval_legendre(degree, cosines).mean(axis=2)
    return invariant @ viewing.weight * len(group) / (4 * np.pi)


@pytest.mark.parametrize("name", ORDERS)
def test_integrals_over_the_unit_are_those_over_the_sphere(rng, name):
    group, viewing = point_group(name), unit_grid(DISTANCE, name)
    assert viewing.symmetry == name
    assert viewing.weight.sum() * len(group) == pytest.approx(4 * np.pi, rel=1e-12)
    assert (viewing.weight > 0.1 * viewing.weight.mean()).all()
    towards = rng.normal(size=(20, 3))
    towards /= np.linalg.norm(towards, axis=1)[:, None]
    for degree in (1, 2, 4, 6, 9, 10, 12, 15):
        error = np.abs(integrals(viewing, group, degree, towards)).max()
        assert error < (1e-7 if name[0] in "CD" else 1e-5), degree


@pytest.mark.parametrize("name", ["C7", "D7", "T", "O", "I1"])
def test_units_of_other_grids(rng, name):
    """HEALPix has no such symmetry: its unit integrates better than all of it."""
    group, whole = point_group(name), healpix_grid(3)
    viewing = asymmetric_unit(whole, name)
    assert viewing.weight.sum() * len(group) == pytest.approx(4 * np.pi, rel=1e-12)
    assert len(viewing) == pytest.approx(len(whole) / len(group), rel=0.1)
    towards = rng.normal(size=(20, 3))
    towards /= np.linalg.norm(towards, axis=1)[:, None]
    for degree in (1, 4, 6):
        assert np.abs(integrals(viewing, group, degree, towards)).max() < 1e-4, degree


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        *((name, healpix_grid(2)) for name in ("C2", "C4", "D2", "D4")),
        *((name, viewing_grid(0.3, int(name[1:]))) for name in ("C1", "C7", "D2", "D7")),
    ],
)
def test_where_a_grid_has_the_symmetry_nothing_changes(rng, name, whole):
    """The unit gives what all of the grid gives, whatever its errors."""
    group, viewing = point_group(name), asymmetric_unit(whole, name)
    towards = 9 * rng.normal(size=3)
    of_unit = np.exp(group.images(directions_of(viewing)) @ towards).mean(axis=1)
    of_all = np.exp(group.images(directions_of(whole)) @ towards).mean(axis=1)
    total = of_all @ whole.weight
    assert of_unit @ viewing.weight * len(group) == pytest.approx(total, rel=1e-11)


@pytest.mark.parametrize("name", ["C4", "D2", "D7", "T", "O", "I2"])
def test_each_view_is_alike_to_one_of_the_unit(name):
    """None in the unit is the image of another; each of the whole grid has one as near as its
    neighbours are."""
    group, viewing = point_group(name), unit_grid(DISTANCE, name)
    images = group.images(directions_of(viewing))
    cosines = np.einsum("ngi,mi->nmg", images, directions_of(viewing)).max(axis=2)
    assert (cosines - 2 * np.eye(len(viewing))).max() < np.cos(1e-6)
    nearest = np.max(images.reshape(-1, 3) @ directions_of(viewing_grid(DISTANCE)).T, axis=0)
    assert np.arccos(nearest.clip(max=1)).max() < DISTANCE


def test_as_many_times_fewer_views_as_there_are_rotations():
    whole = len(ImageParameters(64, 2.0).viewing_angles())
    assert whole == 2370
    for name, order in ORDERS.items():
        n = len(ImageParameters(64, 2.0, symmetry=name).viewing_angles())
        assert n == pytest.approx(whole / order, rel=0.1 if order != 17 else 0.15), name


def test_no_symmetry_is_the_grid_itself():
    whole = viewing_grid(0.3)
    assert asymmetric_unit(whole, "C1") is whole
    unit = asymmetric_unit(whole, "O")
    assert asymmetric_unit(unit, "O") is unit
    assert unit.take(np.arange(2)).symmetry == "O"
    assert unit.in_single_precision().symmetry == "O"


def test_what_cannot_be_a_unit():
    with pytest.raises(InputError, match="of O cannot be those of T"):
        asymmetric_unit(unit_grid(0.3, "O"), "T")
    pole = ViewingAngles(np.zeros(1), np.zeros(1), np.full(1, 4 * np.pi))
    with pytest.raises(InputError, match="1 views of the sphere are too few for O"):
        asymmetric_unit(pole, "O")
    with pytest.raises(InputError, match=r"views in the asymmetric unit of T are more than 5000"):
        unit_grid(0.013, "T")
