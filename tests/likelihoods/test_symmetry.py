"""Evidence and best poses of symmetric assemblies over the views of an asymmetric unit: against all
views of the sphere, and against images that are made in real space."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryolike_dask import (
    Atoms,
    ImageParameters,
    ImageStack,
    TemplateStack,
    asymmetric_unit,
    compute_integrated_log_likelihood,
    compute_optimal_pose,
)
from cryolike_dask.conventions import STANDARD
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.symmetry import point_group, unit_grid
from cryolike_dask.geometry.viewing_angles import ViewingAngles, viewing_grid
from cryolike_dask.particles.transform import normalised_stack
from cryolike_dask.structures.projection import project
from tests.optics import microscope
from tests.real_space import StarPoses, render

PIXEL_SIZE = 6.0
H = np.sqrt(0.75)


def assembly(name, rng, n=3, radius=4.0):
    """Gaussians off the axes, and all of their images: turned here by hand."""
    atoms = rng.normal(0, 8, (n, 3)) + np.array([9.0, 15.0, 30.0])
    x, y, z = atoms.T
    if name == "C4":
        images = [(x, y, z), (-y, x, z), (-x, -y, z), (y, -x, z)]
    elif name == "D2":
        images = [(x, y, z), (x, -y, -z), (-x, y, -z), (-x, -y, z)]
    elif name == "D3":
        third = [(c * x - s * y, s * x + c * y) for c, s in ((1, 0), (-0.5, H), (-0.5, -H))]
        images = [image for u, v in third for image in ((u, v, z), (u, -v, -z))]
    else:  # O: even permutations with an even number of signs, odd ones with an odd number
        images = [
            tuple(s * atoms[:, k] for s, k in zip(signs, order, strict=True))
            for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (1, 0, 2), (0, 2, 1), (2, 1, 0))
            for signs in np.array(np.meshgrid([1, -1], [1, -1], [1, -1])).reshape(3, -1).T
            if np.linalg.det(np.eye(3)[list(order)] * signs) > 0
        ]
    places = np.concatenate([np.stack(image, axis=1) for image in images])
    return Atoms(places, np.full(len(places), 60.0), np.full(len(places), radius))


def noisy(atoms, poses, parameters, signal_to_noise, rng):
    """Images made in real space, with white noise."""
    n = len(poses)
    optics = microscope(n, 5000.0)
    pixels = render(atoms, poses, optics, parameters.n_pixels, PIXEL_SIZE)
    if signal_to_noise is not None:
        sigma = np.sqrt(pixels.var(axis=(1, 2)) / signal_to_noise)
        pixels = pixels + sigma[:, None, None] * rng.normal(size=pixels.shape)
    values = normalised_stack(pixels, parameters.grid, "double")
    return ImageStack.from_array(values, parameters, optics, "xy")


def random_poses(n, rng):
    azimuth, gamma = rng.uniform(0, 2 * np.pi, (2, n))
    return StarPoses.of_template(azimuth, np.arccos(rng.uniform(-1, 1, n)), gamma, 0.0, 0.0)


def evidence(images, values, parameters, viewing, search=(0, 1, 1)):
    templates = TemplateStack.from_array(values, parameters, viewing)
    found = compute_integrated_log_likelihood(images, DisplacementSearch(*search)(templates))
    return found.compute(scheduler="synchronous").log_likelihood_integrated.values


def all_turned(atoms, parameters, viewing, group):
    """The unit's views, turned by every rotation as they are: in-plane angle and all."""
    grid, half = parameters.grid, parameters.n_inplanes // 2
    frames = (group.rotations[:, None] @ viewing.rotations()).reshape(-1, 3, 3)
    points = (k[:, :half].ravel() for k in grid.points())
    values = atoms.slices(frames, *points, grid.box_size_angstrom, STANDARD, 1e-12)
    values = values.reshape(len(frames), grid.n_shells, half)
    values /= np.sqrt(2 * grid.integrate(np.abs(values) ** 2))[:, None, None]
    angles = np.arctan2(frames[:, 1, 2], frames[:, 0, 2]), np.arccos(frames[:, 2, 2].clip(-1, 1))
    every = ViewingAngles(*angles, np.tile(viewing.weight, len(group)))
    return np.concatenate([values, values.conj()], axis=2), every


def test_the_unit_gives_the_evidence_of_all_its_turned_views(rng):
    atoms, group = assembly("O", rng), point_group("O")
    parameters = ImageParameters(
        20, PIXEL_SIZE, viewing_distance=0.25, precision="double", symmetry="O"
    )
    viewing = parameters.viewing_angles()
    images = noisy(atoms, random_poses(6, rng), parameters, 0.2, rng)
    ours = evidence(
        images, project(atoms, parameters.grid, viewing), parameters, viewing, (1, 3, 3)
    )
    values, every = all_turned(atoms, parameters, viewing, group)
    assert len(every) == 24 * len(viewing)
    assert every.weight.sum() == pytest.approx(4 * np.pi)
    np.testing.assert_allclose(
        ours, evidence(images, values, parameters, every, (1, 3, 3)), rtol=0, atol=1e-6
    )


def test_the_unit_is_as_good_as_its_distance_of_views():
    """What the unit and the whole grid differ by is what one unit and another, of a turned grid,
    differ by: the error of views at this distance (0.5 nat at 0.25 radian, and 0.1 at 0.12)."""
    rng = np.random.default_rng(1)  # drawn once: of twelve images the ratio of errors scatters
    atoms = assembly("O", rng)
    parameters = ImageParameters(20, PIXEL_SIZE, n_inplanes=80, precision="double")
    images = noisy(atoms, random_poses(12, rng), parameters, 0.03, rng)

    def of(viewing):
        return evidence(images, project(atoms, parameters.grid, viewing), parameters, viewing)

    whole = of(viewing_grid(0.12))
    units = [of(unit_grid(0.25, "O"))]
    for turn in Rotation.random(4, rng=rng).as_matrix():
        grid = viewing_grid(0.25)
        x, y, z = turn @ grid.rotations()[:, :, 2].T
        turned = ViewingAngles(np.arctan2(y, x), np.arccos(z.clip(-1, 1)), grid.weight)
        units.append(of(asymmetric_unit(turned, "O")))
    own_error = np.sqrt(np.mean((np.array(units[1:]) - units[0]) ** 2))
    error = np.sqrt(np.mean((units[0] - whole) ** 2))
    finer = np.sqrt(np.mean((of(unit_grid(0.12, "O")) - whole) ** 2))
    print(f"the grid's own error {own_error:.3f} nat, the unit's {error:.3f}, finer {finer:.3f}")
    assert error < 2 * own_error
    assert finer < 0.7 * error


def alike_in_relion(name, poses):
    """Poses that show the same image, angles of RELION: worked out by hand."""
    rot, tilt, psi = poses.rot, poses.tilt, poses.psi
    n_fold = int(name[1:])
    turned = [(rot + 360 / n_fold * k, tilt, psi) for k in range(n_fold)]
    if name[0] == "D":
        turned += [(360 / n_fold * k - rot, 180 - tilt, psi + 180) for k in range(n_fold)]
    return [StarPoses(*angles, poses.origin_x, poses.origin_y) for angles in turned]


@pytest.mark.parametrize("name", ["C4", "D2", "D3"])
def test_images_made_in_real_space_are_found_in_the_unit(rng, name):
    atoms = assembly(name, rng, radius=6.0)
    parameters = ImageParameters(
        28, PIXEL_SIZE, viewing_distance=0.3, precision="double", symmetry=name
    )
    viewing = parameters.viewing_angles()
    directions = viewing.rotations()[:, :, 2]
    images = point_group(name).images(directions)[:, 1:]
    on_no_axis = np.einsum("ngi,ni->ng", images, directions).max(axis=1) < np.cos(0.3)
    chosen = rng.choice(np.flatnonzero(on_no_axis), 8, replace=False)
    gamma = parameters.grid.angles[rng.integers(parameters.n_inplanes, size=8)]
    poses = StarPoses.of_template(viewing.azimuth[chosen], viewing.polar[chosen], gamma, 6.0, -6.0)
    templates = TemplateStack.from_array(
        project(atoms, parameters.grid, viewing), parameters, viewing
    )
    templates = DisplacementSearch(1, 3, 3)(templates)
    same = noisy(atoms, poses, parameters, None, rng).data.compute()
    for turned in alike_in_relion(name, poses):
        images = noisy(atoms, turned, parameters, None, rng)
        np.testing.assert_allclose(images.data.compute(), same, rtol=0, atol=1e-9)
        found = compute_optimal_pose(images, templates).compute(scheduler="synchronous")
        assert found.attrs["symmetry"] == name
        assert found.optimal_template.values.tolist() == chosen.tolist()
        assert found.cross_correlation.values.min() > 0.999
        np.testing.assert_allclose(found.optimal_inplane_rotation, gamma, atol=1e-9)
        np.testing.assert_allclose(found.optimal_displacement_x, 6.0)
        np.testing.assert_allclose(found.optimal_displacement_y, -6.0)
