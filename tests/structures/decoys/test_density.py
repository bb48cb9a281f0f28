"""Decoys by random phases: what they keep of a density, and what they lose."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.decoys.density import (
    density_of,
    molecular_mask,
    phases_randomised,
    radius_of_gyration,
    voxels_of,
)
from cryolike_dask.structures.volumes import Volume

N, VOXEL = 40, 2.0


def residues(rng, n=60, reach=18.0):
    """Spheres about places in a box that is longer along z."""
    places = rng.uniform(-1, 1, (n, 3)) * [0.5 * reach, 0.6 * reach, reach]
    return Atoms(places, np.full(n, 60.0), np.full(n, 2.5))


def shells(values, voxel=VOXEL):
    """Transform, and the shell and spatial frequency of each point, by their definition."""
    transform = np.fft.fftn(values.astype(float))
    f = np.sqrt(
        sum(
            np.reshape(np.fft.fftfreq(n, voxel), [-1 if i == axis else 1 for i in range(3)]) ** 2
            for axis, n in enumerate(values.shape)
        )
    )
    return transform, np.rint(f * max(values.shape) * voxel).astype(int), f


def test_sampled_atoms_are_gaussians_on_voxels(rng):
    """Against the sum of Gaussians, whose Nyquist frequency is beyond all that they hold."""
    atoms = residues(rng)
    volume = density_of(atoms, N, VOXEL)
    x = (np.arange(N) - N // 2) * VOXEL
    expected = np.zeros((N, N, N))
    for place in atoms.centred:
        one = [np.exp(-((x - p) ** 2) / (2 * 2.5**2)) for p in place]
        expected += np.einsum("i,j,k->kji", *one)
    expected *= 60 / (2 * np.pi * 2.5**2) ** 1.5 * VOXEL**3
    np.testing.assert_allclose(volume.values, expected, atol=3e-3 * expected.max())


def test_projections_of_sampled_atoms_are_those_of_the_atoms(rng):
    atoms = residues(rng)
    volume = density_of(atoms, voxels_of(atoms, 1.5), 1.5)
    rotations = np.linalg.qr(rng.standard_normal((3, 3, 3)))[0]
    kx, ky = rng.uniform(-8, 8, (2, 50))  # up to 11 per half side, of 13 that voxels resolve
    told = rotations, kx, ky, 80.0, STANDARD, 1e-6
    found, expected = volume.slices(*told), atoms.slices(*told)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_power_stays_and_phases_beyond_the_envelope_go(rng):
    volume = density_of(residues(rng), N, VOXEL)
    mask = molecular_mask(volume)
    decoy = phases_randomised(volume, rng)
    before, shell, f = shells(volume.values)
    after, _, _ = shells(decoy.values)
    for number in range(N // 2):
        power = [(np.abs(one[shell == number]) ** 2).sum() for one in (before, after)]
        np.testing.assert_allclose(*power, rtol=1e-4)
    limit = 1 / (2 * radius_of_gyration(volume, mask))
    scale = np.abs(before).max()
    kept = f <= limit
    np.testing.assert_allclose(after[kept], before[kept], atol=1e-5 * scale)
    # nearer to it the mask lets phases follow those within it
    far = (f > 2 * limit) & (f < 0.2)
    correlation = (before[far] * after[far].conj()).real.sum() / (np.abs(before[far]) ** 2).sum()
    assert abs(correlation) < 0.7
    power = decoy.values.astype(float) ** 2
    assert power[~mask].sum() < 0.05 * power.sum()
    assert decoy.voxel_size_angstrom == volume.voxel_size_angstrom


def test_same_random_numbers_same_decoy(rng):
    volume = density_of(residues(rng), N, VOXEL)
    one, same, other = (
        phases_randomised(volume, np.random.default_rng(seed)).values for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1 * np.abs(one).max()


def test_maps_need_not_be_cubes_and_may_have_a_level(rng):
    values = density_of(residues(rng), N, VOXEL).values[:, 3:, 4:-1] + np.float32(7)
    volume = Volume(values, (2.0, 1.8, 2.2))
    decoy = phases_randomised(volume, rng)
    assert decoy.values.shape == values.shape
    assert np.isfinite(decoy.values).all()


def test_the_radius_of_gyration_of_a_ball(rng):
    z, y, x = np.mgrid[:30, :30, :30] - 14.5
    ball = Volume(((x**2 + y**2 + z**2) < 10**2).astype(np.float32), (1.5,) * 3)
    found = radius_of_gyration(ball, ball.values > 0)
    assert found == pytest.approx(np.sqrt(3 / 5) * 15, rel=0.02)


@pytest.mark.parametrize("values", [np.zeros((8, 8, 8)), np.ones((8, 8, 8))])
def test_without_density_there_is_no_envelope(values, rng):
    with pytest.raises(InputError, match="no density above that of its faces"):
        phases_randomised(Volume(values, (1.0,) * 3), rng)
