"""Searches around recorded poses: against the whole search, and from files whose poses are off."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryolike_dask import (
    Around,
    ImageParameters,
    TemplateStack,
    ViewingAngles,
    compute_integrated_log_likelihood,
    compute_optimal_pose,
    configure_displacement,
    convert_particles,
    open_images,
    open_particles,
    open_structure,
)
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.known_poses import (
    RECORDED_POSE,
    recorded_places,
    recorded_rotations,
)
from cryolike_dask.geometry.viewing_angles import viewing_rotation
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.likelihoods.search.places import Arcs, Window
from cryolike_dask.likelihoods.search.windows import optimal_poses_in_windows
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.projection import project
from tests.likelihoods.test_kernels import BruteForce, contrast_of
from tests.likelihoods.test_search import compared, no_places
from tests.likelihoods.test_search import reduction as reduction
from tests.particles.test_cryosparc import write as write_cs
from tests.particles.test_frames import (
    Drawn,
    draw_optics,
    write_mrcs,
    write_star,
)
from tests.real_space import StarPoses, render, two_lobes

N, PIXEL = 48, 1.5


def with_poses(build, images, farthest=0.0):
    """Images with any poses recorded, particles within so many angstrom of the middle."""
    n = len(images)
    poses = np.zeros(n, RECORDED_POSE)
    for name, largest in (("rot_radian", 2 * np.pi), ("tilt_radian", np.pi), ("psi_radian", 6)):
        poses[name] = build.rng.uniform(0, largest, n)
    for name in ("x_angstrom", "y_angstrom"):
        poses[name] = build.rng.uniform(-farthest, farthest, n)
    return replace(images, poses=poses)


def found(images, templates, search, **more):
    return compute_optimal_pose(images, templates, device="cpu", search=search, **more).compute()


def test_a_window_over_everything_is_the_whole_search(build):
    images, templates = build.stacks(5, 7, search=(2.0, 3, 5))
    images = with_poses(build, images, 0.5)
    templates = templates.chunk(3)
    around = found(images, templates, Around(180, 3, check=False), precision="double")
    everything = found(images, templates, "exhaustive", precision="double")
    assert around.attrs.pop("search") == "around 180 degrees 3 pixels"
    assert everything.attrs.pop("search") == "exhaustive"
    for name in everything:
        np.testing.assert_allclose(around[name], everything[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("place", [np.nan, 0.0, 0.7])
@pytest.mark.usefixtures("reduction")
def test_arcs_part_what_is_summed(build, place):
    """Rotations on arcs and those off them are all rotations; the better pose is the best."""
    images, templates = build.stacks(4, 5, search=(2.0, 3, 3))
    x = np.unique(templates.displacements.x_angstrom)
    window = Window(x, x, templates.displacements, templates.displacements.steps)
    places = no_places(4)
    places[:, 0] = place
    arcs = build.rng.uniform(-1, 1, (4, 5, 3)) * [1, 1, 0.5]
    arcs[0, :, 2] = 5  # none
    results = []
    for some in (arcs, -arcs, None):

        def block(*args, some=some, **options):
            arcs = None if some is None else Arcs(some)
            return optimal_poses_in_windows(*args, arcs=arcs, **options)

        poses, _ = compared(images, templates, window, np.ones((4, 5), bool), places, block)
        results.append(poses[:, 0])
    on, off, everything = results
    np.testing.assert_allclose(
        np.logaddexp(on["log_likelihood_integrated"], off["log_likelihood_integrated"]),
        everything["log_likelihood_integrated"],
        rtol=1e-9,
    )
    assert on["log_likelihood_integrated"][0] == -np.inf
    assert (on["log_likelihood_integrated"][1:] < everything["log_likelihood_integrated"][1:]).all()
    better = np.where(on["cross_correlation"] > off["cross_correlation"], on, off)
    for name in ("cross_correlation", "template", "displacement", "rotation"):
        np.testing.assert_allclose(better[name], everything[name], rtol=1e-9, err_msg=name)
    gamma = images.grid.angles[on["rotation"]]
    a, b, c = arcs[np.arange(4), np.minimum(on["template"], 4)].T
    assert (a * np.cos(gamma) + b * np.sin(gamma) >= c)[1:].all()


PARAMETERS = ImageParameters(N, PIXEL, viewing_distance=0.7, precision="single")
ATOMS = Atoms(two_lobes(20), np.full(48, 62.0), np.full(48, 2.0))
MIRRORED = Atoms(two_lobes(20) * [1, 1, -1], np.full(48, 62.0), np.full(48, 2.0))
SEARCH = configure_displacement(3.0, 13, 13)


class Particles:
    """Noisy particles on the nodes of a search, and files that record other poses of them."""

    def __init__(self, folder, rng, n=8, signal_to_noise=100.0):
        self.folder = folder
        self.viewing = PARAMETERS.viewing_angles()
        self.template = rng.integers(len(self.viewing), size=n)
        self.rotation = rng.integers(2 * N, size=n)
        gamma = 2 * np.pi * self.rotation / (2 * N)
        self.x, self.y = rng.integers(-2, 3, (2, n)) * PIXEL / 2
        azimuth, polar = (
            angles[self.template] for angles in (self.viewing.azimuth, self.viewing.polar)
        )
        self.poses = StarPoses.of_template(azimuth, polar, gamma, self.x, self.y)
        self.group, self.optics = draw_optics(rng, n)
        clean = render(ATOMS, self.poses, self.optics, N, PIXEL)
        level = np.sqrt(clean.var() / signal_to_noise)
        write_mrcs(folder / "all.mrcs", clean + level * rng.standard_normal(clean.shape), PIXEL)
        axis = rng.standard_normal((n, 3))
        self.axis = axis / np.linalg.norm(axis, axis=1)[:, None]

    def axes(self, degrees):
        """Axes of the images in the frame of the structure, turned about any axis."""
        turn = Rotation.from_rotvec(np.radians(degrees) * self.axis).as_matrix()
        return turn @ self.poses.matrices().transpose(0, 2, 1)

    def star(self, degrees, pixels=0.0, **changes):
        """A STAR file whose poses are off."""
        axes = self.axes(degrees)
        tilt = np.degrees(np.arccos(axes[:, 2, 2]))
        rot = np.degrees(np.arctan2(axes[:, 1, 2], axes[:, 0, 2]))
        psi = np.degrees(np.arctan2(axes[:, 2, 1], -axes[:, 2, 0]))
        origins = self.poses.origin_x + pixels * PIXEL, self.poses.origin_y - pixels * PIXEL
        poses = replace(StarPoses(rot, tilt, psi, *origins), **changes)
        drawn = Drawn(self.template, self.x, self.y, self.rotation, poses, self.group, self.optics)
        names = [f"{i + 1}@all.mrcs" for i in range(len(self.x))]
        return write_star(self.folder / "all.star", drawn, names, N, PIXEL)

    def cs(self, degrees):
        """A `.cs` file whose poses are off."""
        n, o = len(self.x), self.optics
        shift = np.stack([self.poses.origin_x, self.poses.origin_y], axis=1)
        columns = {
            "blob/path": ["all.mrcs"] * n,
            "blob/idx": np.arange(n, dtype="u4"),
            "blob/shape": np.full((n, 2), N, "u4"),
            "blob/psize_A": np.full(n, PIXEL, "f4"),
            "ctf/accel_kv": o["voltage_kilovolt"],
            "ctf/cs_mm": o["spherical_aberration_mm"],
            "ctf/amp_contrast": o["amplitude_contrast"],
            "ctf/df1_A": o["defocus_u_angstrom"],
            "ctf/df2_A": o["defocus_v_angstrom"],
            "ctf/df_angle_rad": o["defocus_angle_radian"],
            "ctf/phase_shift_rad": o["phase_shift_radian"],
            "ctf/bfactor": o["b_factor_angstrom2"],
            "ctf/scale": o["scale"],
            "alignments3D/pose": Rotation.from_matrix(self.axes(degrees)).as_rotvec(),
            "alignments3D/shift": shift / PIXEL,
        }
        return write_cs(self.folder / "all.cs", columns, uid=np.arange(n) + 1)

    def templates(self, *, mirrored=False, from_behind=False):
        """Of the structure or its mirror image, from the same views or the opposite ones."""
        viewing = self.viewing
        if from_behind:
            viewing = ViewingAngles(viewing.azimuth + np.pi, np.pi - viewing.polar, viewing.weight)
        values = project(MIRRORED if mirrored else ATOMS, PARAMETERS.grid, viewing)
        return SEARCH(TemplateStack.from_array(values.astype(np.complex64), PARAMETERS, viewing))

    def assert_found(self, poses, *, from_behind=False, n_steps=0):
        """Seen from behind x and y are exchanged: the structure is turned by -gamma - 90 degrees
        and moved along -y where it was along y."""
        gamma, y = self.rotation * np.pi / N, self.y
        if from_behind:
            gamma, y = (-gamma - np.pi / 2) % (2 * np.pi), -y
        np.testing.assert_array_equal(poses.optimal_template, self.template)
        apart = n_steps * PIXEL / 2 + 1e-5
        np.testing.assert_allclose(poses.optimal_displacement_x, self.x, rtol=0, atol=apart)
        np.testing.assert_allclose(poses.optimal_displacement_y, y, rtol=0, atol=apart)
        turned = (poses.optimal_inplane_rotation - gamma + 1) % (2 * np.pi) - 1
        assert abs(turned).max() < n_steps * np.pi / N + 1e-5


@pytest.fixture
def particles(tmp_path, rng):
    return Particles(tmp_path, rng)


@pytest.mark.parametrize("kind", ["star", "cs", "stack", "transposed"])
def test_poses_off_by_three_degrees_are_recovered(particles, kind):
    if kind == "cs":
        images = open_particles(particles.cs(3.0), PARAMETERS)
    else:
        star = particles.star(3.0, pixels=0.4 if kind == "stack" else 0.0)
        words = {"conventions": "cryolike"} if kind == "transposed" else {}
        images = open_particles(star, PARAMETERS, **words)
    if kind == "stack":
        convert_particles(star, PARAMETERS, particles.folder / "stacks", progress=False)
        files = LikelihoodFiles(None, particles.folder / "stacks", particles.folder / "out")
        images = open_images(files, PARAMETERS)
    behind = kind == "transposed"
    around = found(images, particles.templates(from_behind=behind), Around(30, 1.5))
    # about a place that is off displacements are others, which rotations may make up for
    particles.assert_found(around, from_behind=behind, n_steps=int(kind == "stack"))


def test_evidence_is_that_of_everything_where_the_window_holds_the_mass(tmp_path):
    """Of noisy images, whose poses are many. Poses are recorded off the nodes, of which many lie
    180 degrees from each other."""
    # drawn once: of one image in fifty the mass reaches the end of the search, where the two grids
    # do not end alike
    particles = Particles(tmp_path, np.random.default_rng(1), signal_to_noise=0.12)
    images, templates = open_particles(particles.star(2.0), PARAMETERS), particles.templates()
    everything, wide, narrow = (
        compute_integrated_log_likelihood(images, stack, device="cpu", search=search)
        .log_likelihood_integrated.compute()
        .values
        for stack, search in (
            (configure_displacement(3.0, 25, 25)(templates), "exhaustive"),
            (templates, Around(179.99, 4.3, check=False)),
            (templates, Around(30, 2, check=False)),
        )
    )
    # finer steps reach less far beyond the last displacement: the prior is spread over less
    wide += 2 * np.log(3.25 / 3.125)
    print(wide - everything, narrow - everything)
    np.testing.assert_allclose(wide, everything, atol=0.02)
    assert (narrow < everything).all()


@pytest.mark.usefixtures("reduction")
@pytest.mark.parametrize(("degrees", "pixels"), [(150, 2.0), (50, 1.0)])
def test_a_gaussian_prior_is_that_of_its_definition(build, degrees, pixels):
    """Of sum 1 over all views, rotations and displacements; of each image by itself."""
    images, templates = build.stacks(3, 6, n_pixels=8, n_inplanes=12, search=(3.0, 25, 25))
    images = with_poses(build, images, 0.4)
    search = Around(degrees, pixels, check=False, prior="gaussian")
    evidence = found(images, templates, search, precision="double").log_likelihood_integrated
    grid, table, weights = images.grid, templates.displacements.table(), templates.viewing.weight
    rotations = recorded_rotations(images.poses, transposed=images.frame == "transposed")
    places = recorded_places(images.poses, transposed=images.frame == "transposed")
    brute = BruteForce(
        images.source.values,
        np.stack([contrast_of(of, grid, "standard") for of in images.optics]),
        templates.source.values,
        2 * table / grid.box_size_angstrom,
        grid,
        grid.mask(exact=True),
    )
    mask, _ = brute.template_mask_for(0.95)
    of_poses = brute.log_likelihood(mask, 4 * np.pi * grid.radius_max**2)
    angle, pixel = np.radians(degrees / 3), pixels / 3 * grid.pixel_size_angstrom
    gamma = grid.angles
    turned = templates.viewing.rotations()[:, None] @ viewing_rotation(0, 0, gamma)
    for m in range(3):
        cosine = (np.einsum("ij,swij->sw", rotations[m], turned) - 1) / 2
        x, y = places[m]
        moved = np.cos(gamma) * x - np.sin(gamma) * y, np.sin(gamma) * x + np.cos(gamma) * y
        squared = (table[0, :, None] - moved[0]) ** 2 + (table[1, :, None] - moved[1]) ** 2
        prior = weights[:, None, None] * np.exp((cosine[:, None] - 1) / angle**2)
        prior = prior * np.exp(-squared / (2 * pixel**2))
        prior /= prior.sum()
        near = (cosine >= np.cos(np.radians(degrees))) | (cosine == cosine.max())
        prior = np.where(near[:, None], prior, 1e-300)
        expected = np.logaddexp.reduce((of_poses[m] + np.log(prior)).ravel())
        # what lies beyond three standard deviations of displacements is left out
        np.testing.assert_allclose(evidence[m], expected, rtol=0, atol=0.03)


def test_the_recorded_pose_alone_is_the_nearest_one(tmp_path, rng):
    particles = Particles(tmp_path, rng, signal_to_noise=30.0)
    images = open_particles(particles.star(1.5), PARAMETERS)
    templates = particles.templates()
    at_pose = found(images, templates, "recorded")
    assert at_pose.attrs["search"] == "recorded"
    particles.assert_found(at_pose)
    everything = found(images, templates, "exhaustive")
    # of few images another pose is a little better, by chance
    same = everything.optimal_template.values == particles.template
    for name in ("inplane_rotation", "displacement_x", "displacement_y"):
        off = everything[f"optimal_{name}"] - at_pose[f"optimal_{name}"]
        same &= abs(off.values) < 1e-4
    # the offset of each pose is taken of images above this; beside it of one of the two perhaps
    same &= abs(everything.cross_correlation.values**2 - STANDARD.recomputes_offset_above) > 2e-3
    assert same.sum() >= 4
    # its particle is moved back before it is compared, where others are displaced
    np.testing.assert_allclose(
        at_pose.cross_correlation[same], everything.cross_correlation[same], rtol=0, atol=2e-6
    )


def test_recentred_particles_lie_in_the_middle(particles):
    images = open_particles(particles.star(1.0), PARAMETERS, recenter=True)
    poses = found(images, particles.templates(), Around(5, 0.5))
    np.testing.assert_array_equal(poses.optimal_template, particles.template)
    np.testing.assert_array_equal(poses.optimal_displacement_x, 0)


@pytest.mark.parametrize("prior", ["flat", "gaussian"])
def test_chunks_change_nothing(particles, prior):
    images, templates = open_particles(particles.star(3.0), PARAMETERS), particles.templates()
    search = Around(40, 1.5, check=False, prior=prior)
    one, many = (found(images.chunk(m), templates.chunk(s), search) for m, s in ((8, 100), (3, 30)))
    for name in ("optimal_template", "optimal_displacement_x", "optimal_inplane_rotation"):
        np.testing.assert_array_equal(one[name], many[name])
    np.testing.assert_allclose(
        one.log_likelihood_integrated, many.log_likelihood_integrated, atol=2e-3
    )


@pytest.mark.parametrize("fault", ["the other hand", "another frame"])
def test_poses_of_another_map_are_refused(particles, fault):
    """Of a mirrored one, and of one that lies otherwise in its box."""
    if fault == "the other hand":
        images = open_particles(particles.star(0.0), PARAMETERS)
        templates = particles.templates(mirrored=True)
    else:
        turned = particles.star(0.0, rot=particles.poses.rot + 90)
        images, templates = open_particles(turned, PARAMETERS), particles.templates()
    for search in ("recorded", Around(10, 1)):
        with pytest.raises(InputError, match=r"all\.star: recorded poses are .* degrees off"):
            found(images, templates, search)
    found(images, templates, Around(10, 1, check=False))


def test_nothing_is_beyond_180_degrees(particles, monkeypatch):
    """Recorded poses on nodes, to which many others lie at exactly that angle."""
    images, templates = open_particles(particles.star(0.0), PARAMETERS), particles.templates()
    results = [found(images, templates, Around(180, 1.5, check=False))]

    def everything(views, rows, *_, **__):
        rows = rows.copy()
        rows["least_trace"] = -10
        return rows

    monkeypatch.setattr("cryolike_dask.likelihoods.search.known.with_least_trace", everything)
    results.append(found(images, templates, Around(180, 1.5, check=False)))
    likelihoods = [one.log_likelihood_integrated.values for one in results]
    np.testing.assert_allclose(*likelihoods, rtol=1e-12)


@pytest.mark.parametrize("prior", ["flat", "gaussian"])
def test_views_of_a_unit_are_those_of_all_units(tmp_path, rng, monkeypatch, prior):
    """Of a structure of four-fold symmetry, poses are recorded in any unit: the evidence is that of
    all views, where a fourth of the prior lies in each."""
    turns = [Rotation.from_rotvec([0, 0, k * np.pi / 2]).as_matrix() for k in range(4)]
    positions = np.concatenate([np.add(two_lobes(20), [6, 2, 0]) @ turn.T for turn in turns])
    atoms = Atoms(positions, np.full(192, 62.0), np.full(192, 2.0))
    monkeypatch.setattr("tests.likelihoods.test_known_poses.ATOMS", atoms)
    particles = Particles(tmp_path, rng, signal_to_noise=1.0)
    images = open_particles(particles.star(2.0), PARAMETERS)
    unit = replace(PARAMETERS, symmetry="C4").viewing_angles()
    azimuths = [unit.azimuth + k * np.pi / 2 for k in range(4)]
    every = ViewingAngles(
        np.concatenate(azimuths), np.tile(unit.polar, 4), np.tile(unit.weight, 4) / 4
    )
    of_unit, of_all = (
        SEARCH(TemplateStack.from_array(project(atoms, PARAMETERS.grid, v), PARAMETERS, v))
        for v in (unit, every)
    )
    search = Around(20, 1.5, prior=prior)
    one = found(images, of_unit, search, precision="double")
    whole = found(images, of_all, replace(search, check=False), precision="double")
    np.testing.assert_allclose(
        one.log_likelihood_integrated,
        # a Gaussian prior has the sum 1 about each of four poses, or about all together
        whole.log_likelihood_integrated + (np.log(4) if prior == "flat" else 0),
        rtol=1e-9,
    )
    np.testing.assert_allclose(one.cross_correlation, whole.cross_correlation, rtol=1e-9)
    with pytest.raises(InputError, match=r"one unit of C4, .* 90 degrees apart.* less than 45"):
        found(images, of_unit, Around(50, 1))


def test_winners_at_the_end_of_the_window_are_counted(particles, caplog):
    images = open_particles(particles.star(0.0, pixels=1.0), PARAMETERS)
    templates = particles.templates()
    with caplog.at_level(logging.WARNING, "cryolike_dask"):
        found(images, templates, Around(180, 2.5, check=False))
    assert "end of what was looked at" not in caplog.text
    with caplog.at_level(logging.WARNING, "cryolike_dask"):
        found(images, templates, Around(20, 0.5, check=False))
    assert "8 of 8 images: the best pose lies at the end" in caplog.text


def test_what_is_not_recorded_is_refused(build, particles):
    images, templates = build.stacks()
    with pytest.raises(InputError, match=r"no poses are recorded of 5 of 5 images"):
        found(images, templates, "recorded")
    images = with_poses(build, images)
    images.poses["y_angstrom"][2] = np.nan
    images.poses["x_angstrom"][2] = np.nan
    with pytest.raises(InputError, match=r"no origins are recorded of 1 of 5 images"):
        found(images, templates, Around(10, 1))
    images.poses["x_angstrom"], images.poses["y_angstrom"] = 9, 0
    with pytest.raises(InputError, match=r"recorded up to 6 pixels off .* ends at 2.*recenter"):
        found(images, templates, Around(10, 1))
    star = particles.star(0.0)
    text = star.read_text().replace("_rlnAnglePsi", "_rlnOther")
    star.write_text(text)
    with pytest.raises(InputError, match=r"all\.star: no poses .* have rlnAngleRot, rlnAngleTilt"):
        found(open_particles(star, PARAMETERS), particles.templates(), "recorded")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Around(181, 1), "within_degrees=181 is more than"),
        (lambda: Around(10, -1), "within_pixels=-1"),
        (lambda: Around("far", 1), "within_degrees='far'"),
        (lambda: Around(10, 0, prior="gaussian"), "third of 10 degrees and 0 pixels"),
        (lambda: Around(10, 1, prior="normal"), "prior='normal' is neither"),
    ],
)
def test_what_is_no_window_is_refused(make, problem):
    with pytest.raises(InputError, match=problem):
        make()


def test_a_search_around_poses_has_a_name():
    for search in (
        Around(10, 2),
        Around(7.5, 0.25, check=False),
        Around(0, 0),
        Around(0, 0, refine=True),
        Around(7.5, 1, prior="gaussian", refine=True),
    ):
        assert Around.named(str(search)) == search
    assert str(Around(0, 0)) == "recorded"
    assert str(Around(10, 2)) == "around 10 degrees 2 pixels"
    for other in ("adaptive", "around x degrees 2 pixels", "around 999 degrees 2 pixels"):
        assert Around.named(other) is None


class TestRefined:
    """Poses refined between those of the search."""

    def opened(self, particles, templates):
        """Images whose recorded poses are off, and results at the true ones."""
        truly = open_particles(particles.star(0.0), PARAMETERS)
        at_truth = found(truly, templates, Around(0, 0, check=False))
        particles.assert_found(at_truth)
        return open_particles(particles.star(2.0, pixels=0.3), PARAMETERS), at_truth

    def test_views_too_where_the_structure_is_known(self, particles):
        """The true pose, which lies on a node, is left behind by what five parameters gain from
        noise: 2.5 nat an image; from wherever the search around it begins."""
        templates = SEARCH(open_structure(ATOMS, PARAMETERS))
        images, at_truth = self.opened(particles, templates)
        for within in ((0, 0), (8, 1)):
            poses = found(images, templates, Around(*within, check=False, refine=True))
            gain = (poses.refined_log_likelihood - at_truth.log_likelihood_optimal).values
            print(gain)
            assert gain.min() > 0
            assert 1 < gain.mean() < 2.5 + 5 * np.sqrt(2.5 / len(gain))
            np.testing.assert_allclose(poses.refined_displacement_x, particles.x, atol=0.15)
            np.testing.assert_allclose(poses.refined_displacement_y, particles.y, atol=0.15)
        assert "refined_polar" not in at_truth

    def test_in_the_plane_where_it_is_not(self, particles, caplog):
        """Of the particle's own view in-plane rotation and displacement are found again."""
        templates = particles.templates()
        images, at_truth = self.opened(particles, templates)
        with caplog.at_level(logging.INFO, "cryolike_dask"):
            poses = found(images, templates, Around(0, 0, check=False, refine=True))
        assert "views are those of its templates, and are not refined" in caplog.text
        gain = (poses.refined_log_likelihood - at_truth.log_likelihood_optimal).values
        print(gain)
        assert gain.min() > 0
        assert 0.3 < gain.mean() < 1.5 + 5 * np.sqrt(1.5 / len(gain))
        azimuth = particles.viewing.azimuth[particles.template]
        np.testing.assert_allclose(np.cos(poses.refined_azimuth - azimuth), 1)
        gamma = particles.rotation * np.pi / N
        off = (poses.refined_inplane_rotation - gamma + 1) % (2 * np.pi) - 1
        assert np.degrees(abs(off)).max() < 3
        np.testing.assert_allclose(poses.refined_displacement_x, particles.x, atol=0.15)
