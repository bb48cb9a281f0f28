"""Poses of templates against the real-space projector: the image that RELION makes of them is
the image."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cryolike_dask.analysis.export.relion_poses import relion_poses
from tests.real_density import Density, leucines
from tests.real_space import StarPoses, project, two_lobes

N, PIXEL = 40, 2.5
ATOMS = leucines(two_lobes(40))


def mirrored(atoms):
    """x and z of positions about their mean exchanged: what CryoLike takes a map for."""
    centred = atoms.positions_angstrom - atoms.positions_angstrom.mean(axis=0)
    return Density(centred[:, ::-1], atoms.electrons, atoms.radii_angstrom)


def image_of(atoms, drawn, *, transposed, exchanged):
    """What a template shows: the structure projected, displaced, turned; [row, column] as in the
    MRC file."""
    seen = mirrored(atoms) if exchanged else atoms
    image = project(seen, StarPoses.of_template(*drawn), N, PIXEL)
    return image.swapaxes(1, 2) if transposed else image


def star_poses(poses):
    return StarPoses(*poses.angles_degrees().T, *poses.origin_angstrom.T)


def draw(rng, n):
    """Azimuth, polar, gamma, displacements: anywhere, and along the poles."""
    polar = np.r_[0.0, np.pi, 1e-9, np.arccos(rng.uniform(-1, 1, n - 3))]
    return (
        rng.uniform(0, 2 * np.pi, n),
        polar,
        rng.uniform(0, 2 * np.pi, n),
        *rng.uniform(-9, 9, (2, n)),
    )


@pytest.mark.parametrize(("transposed", "exchanged"), list(product([False, True], repeat=2)))
def test_the_image_at_the_pose_is_the_image(rng, transposed, exchanged):
    drawn = draw(rng, 20)
    image = image_of(ATOMS, drawn, transposed=transposed, exchanged=exchanged)
    poses = relion_poses(*drawn, transposed=transposed, map_axes_exchanged=exchanged)
    again = project(ATOMS, star_poses(poses), N, PIXEL)
    np.testing.assert_allclose(again, image, rtol=0, atol=1e-6 * image.max())
    wrong = relion_poses(*drawn, transposed=not transposed, map_axes_exchanged=exchanged)
    apart = abs(project(ATOMS, star_poses(wrong), N, PIXEL) - image).max(axis=(1, 2))
    assert np.median(apart) > 0.05 * image.max()  # a few poses are near those of the other frame


def test_the_standard_frame_is_that_of_relion(rng):
    """rot, tilt and psi are azimuth, polar angle and gamma."""
    azimuth, polar, gamma, x, y = draw(rng, 30)
    found = relion_poses(azimuth, polar, gamma, x, y).angles_degrees()[3:]
    wanted = np.degrees([azimuth, polar, gamma]).T[3:]
    np.testing.assert_allclose((found - wanted + 180) % 360 - 180, 0, atol=1e-9)
    assert (np.abs(found[:, [0, 2]]) <= 180).all()


def test_atoms_in_transposed_stacks(rng):
    """rot = azimuth + 180, tilt = 180 - polar, psi = -gamma - 90; origins exchanged."""
    azimuth, polar, gamma, x, y = draw(rng, 30)
    poses = relion_poses(azimuth, polar, gamma, x, y, transposed=True)
    wanted = np.stack(
        [180 + np.degrees(azimuth), 180 - np.degrees(polar), -np.degrees(gamma) - 90], axis=1
    )
    np.testing.assert_allclose(
        (poses.angles_degrees()[3:] - wanted[3:] + 180) % 360 - 180, 0, atol=1e-9
    )
    plain = relion_poses(azimuth, polar, gamma, x, y).origin_angstrom
    np.testing.assert_array_equal(poses.origin_angstrom, plain[:, ::-1])


def test_rotation_vectors_are_the_same_poses(rng):
    from scipy.spatial.transform import Rotation

    poses = relion_poses(*draw(rng, 30), transposed=True, map_axes_exchanged=True)
    turned = Rotation.from_rotvec(poses.rotation_vectors()).as_matrix()
    np.testing.assert_allclose(turned.swapaxes(1, 2), star_poses(poses).matrices(), atol=1e-9)


def test_axes_may_differ_from_image_to_image(rng):
    drawn, flags = draw(rng, 8), np.arange(8) % 2 == 0
    both = relion_poses(*drawn, transposed=flags, map_axes_exchanged=~flags)
    for rows, options in ((flags, {"transposed": True}), (~flags, {"map_axes_exchanged": True})):
        of_one = relion_poses(*drawn, **options)
        np.testing.assert_array_equal(both.axes[rows], of_one.axes[rows])
        np.testing.assert_array_equal(both.origin_angstrom[rows], of_one.origin_angstrom[rows])
        np.testing.assert_array_equal(of_one.take(np.flatnonzero(rows)).axes, of_one.axes[rows])
