"""Simulated particles against the same poses rendered in real space, without the package."""

from __future__ import annotations

import os
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from cryolike_dask import ImageParameters, Poses, Volume, optics_table, simulate_particles
from cryolike_dask.errors import CannotFitError, InputError
from cryolike_dask.particles.opening import read_particles
from cryolike_dask.simulation.demo import write_hinge
from tests.real_density import Density, leucines, voxels, write_map, write_pdb
from tests.real_space import StarPoses, render, two_lobes

N, PIXEL = 48, 2.5
PARAMETERS = ImageParameters(N, PIXEL, atom_shape="gaussian")
ATOMS = leucines(two_lobes(40) + np.array([40.0, -25.0, 12.0]))
COLUMNS = {
    "defocus_u_angstrom": "rlnDefocusU",
    "defocus_v_angstrom": "rlnDefocusV",
    "defocus_angle_radian": "rlnDefocusAngle",
    "phase_shift_radian": "rlnPhaseShift",
    "voltage_kilovolt": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "b_factor_angstrom2": "rlnCtfBfactor",
    "scale": "rlnCtfScalefactor",
}


def simulate(structures, folder, **options):
    parameters = options.pop("parameters", PARAMETERS)
    return simulate_particles(structures, parameters, folder, progress=False, **options)


def pixels_of(star: Path) -> np.ndarray:
    """The images that a STAR file names, one by one."""
    stacks = {path.name: mrcfile.read(path) for path in star.parent.glob("*.mrcs")}
    names = (name.split("@") for name in starfile.read(star)["particles"]["rlnImageName"])
    return np.stack([stacks[file][int(number) - 1] for number, file in names]).astype(np.float64)


def columns_of(star: Path):
    """The particles of a STAR file, each with the columns of its optics group."""
    blocks = starfile.read(star, always_dict=True)
    return blocks["particles"].merge(
        blocks["optics"], on="rlnOpticsGroup", how="left", validate="many_to_one"
    )


def poses_of(columns) -> StarPoses:
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    return StarPoses(*(columns[name].to_numpy(np.float64) for name in names))


def optics_of(columns) -> np.ndarray:
    values = {}
    for name, label in COLUMNS.items():
        column = columns[label].to_numpy(np.float64)
        values[name] = np.radians(column) if name.endswith("radian") else column
    return np.rec.fromarrays(list(values.values()), names=list(values))


def diverse_optics(n, rng):
    """Several microscopes, astigmatism of either sign, phase plates and envelopes."""
    mean, difference = rng.uniform(5000, 12000, n), rng.uniform(-1500, 1500, n)
    return optics_table(
        n,
        defocus_u_angstrom=mean + difference / 2,
        defocus_v_angstrom=mean - difference / 2,
        defocus_angle_radian=rng.uniform(-np.pi / 2, np.pi / 2, n),
        phase_shift_radian=rng.choice([0.0, np.pi / 2], n),
        voltage_kilovolt=rng.choice([200.0, 300.0], n),
        spherical_aberration_mm=2.7,
        amplitude_contrast=rng.choice([0.07, 0.1], n),
        b_factor_angstrom2=rng.uniform(0, 60, n),
        scale=rng.uniform(0.5, 1.5, n),
    )


@pytest.mark.parametrize("n_pixels", [48, 47])
@pytest.mark.parametrize("kind", ["atoms", "map"])
def test_pixels_are_those_of_the_poses_in_the_star_file(kind, n_pixels, tmp_path, rng):
    if kind == "atoms":
        structure = write_pdb(tmp_path / "lobes.pdb", ATOMS)
    else:
        structure = write_map(
            tmp_path / "lobes.mrc", ATOMS, n=(66, 70, 65), voxel_angstrom=(1.4, 1.3, 1.5)
        )
    star = simulate(
        structure,
        tmp_path / "set",
        parameters=ImageParameters(n_pixels, PIXEL, atom_shape="gaussian"),
        n_images=20,
        signal_to_noise=1e10,
        optics=diverse_optics(20, rng),
        batch_size=8,
        seed=int(rng.integers(2**31)),
    )
    columns = columns_of(star)
    found = pixels_of(star)
    wanted = render(ATOMS, poses_of(columns), optics_of(columns), n_pixels, PIXEL)
    correlation = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(found, wanted, strict=True)
    ]
    if kind == "map":  # densities per voxel, not electrons
        found *= 1.4 * 1.3 * 1.5
    difference = np.abs(found - wanted).max() / np.abs(wanted).max()
    print(f"1 - correlation {1 - min(correlation):.1e}, largest difference {difference:.1e}")
    # Pixels of 2.5 angstrom fold a little back of what is rendered within their band. Measured:
    # 5.6e-9 and 3.1e-5.
    assert min(correlation) > 1 - 2e-8
    assert difference < 1e-4


def test_hard_spheres_can_be_simulated(tmp_path):
    """They are the default shape of atoms."""
    structure = write_pdb(tmp_path / "lobes.pdb", ATOMS)
    star = simulate(
        structure,
        tmp_path / "set",
        parameters=ImageParameters(N, PIXEL),
        n_images=4,
        signal_to_noise=1e8,
    )
    assert np.isfinite(pixels_of(star)).all()


def test_given_poses_are_written(tmp_path, rng):
    drawn = [rng.uniform(0.1, 3, 6) for _ in range(5)]
    star = simulate(
        write_pdb(tmp_path / "a.pdb", ATOMS), tmp_path / "set", n_images=6, poses=Poses(*drawn)
    )
    wanted, found = StarPoses.of_template(*drawn), poses_of(columns_of(star))
    for name in ("rot", "tilt", "psi", "origin_x", "origin_y"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(wanted, name), rtol=1e-11, err_msg=name
        )


@pytest.mark.parametrize("noise", ["white", "coloured"])
def test_signal_to_noise_and_colour(noise, tmp_path):
    structure = write_pdb(tmp_path / "lobes.pdb", ATOMS)
    options = {"n_images": 150, "seed": 3, "noise": noise}
    clean, noisy = (
        pixels_of(simulate(structure, tmp_path / str(ratio), signal_to_noise=ratio, **options))
        for ratio in (1e10, 0.1)
    )
    added = noisy - clean
    ratio = clean.var(axis=(1, 2)).mean() / added.var()
    print(f"signal to noise {ratio:.4f}")
    # the level is that of 64 images of the 150; measured: 0.103
    assert ratio == pytest.approx(0.1, rel=0.05)
    # one level for all images
    np.testing.assert_allclose(added.std(axis=(1, 2)), added.std(), rtol=0.2)
    power = (np.abs(np.fft.fft2(added)) ** 2).mean(axis=0)
    frequency = np.fft.fftfreq(N, PIXEL)
    squared = frequency**2 + frequency[:, None] ** 2
    expected = np.ones((N, N)) if noise == "white" else 1 / (1 + 400 * squared)
    expected *= power.sum() / expected.sum()
    for low, high in ((0.0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.3)):
        ring = (squared >= low**2) & (squared < high**2)
        # 150 images, and 4 to 500 independent values in a ring: 4% at the centre
        assert power[ring].sum() == pytest.approx(
            expected[ring].sum(), rel=0.15 if low == 0 else 0.05
        ), (low, high)


def test_same_seed_same_particles(tmp_path):
    structure = write_pdb(tmp_path / "lobes.pdb", ATOMS)
    stars = [
        simulate(structure, tmp_path / f"{i}", n_images=10, batch_size=4, seed=s)
        for i, s in enumerate((7, 7, 8))
    ]
    images = [pixels_of(star) for star in stars]
    np.testing.assert_array_equal(images[0], images[1])
    assert stars[0].read_bytes() == stars[1].read_bytes()
    for path in sorted((tmp_path / "0").glob("*.mrcs")):
        assert path.read_bytes() == (tmp_path / "1" / path.name).read_bytes()
    assert not np.isclose(images[0], images[2]).all(axis=(1, 2)).any()
    assert stars[0].read_bytes() != stars[2].read_bytes()


def test_particles_do_not_depend_on_the_files_that_they_are_in(tmp_path):
    structure = write_pdb(tmp_path / "lobes.pdb", ATOMS)
    stars = [
        simulate(structure, tmp_path / f"{size}", n_images=10, batch_size=size, seed=7)
        for size in (4, 5, 16)
    ]
    first, *others = (pixels_of(star) for star in stars)
    for images in others:
        np.testing.assert_array_equal(images, first)


def test_optics_are_drawn_from_a_star_file(tmp_path, rng):
    structure = write_pdb(tmp_path / "lobes.pdb", ATOMS)
    first = simulate(structure, tmp_path / "first", n_images=5, optics=diverse_optics(5, rng))
    second = simulate(structure, tmp_path / "second", n_images=40, optics=first)
    known, drawn = (optics_of(columns_of(star)) for star in (first, second))
    distance = np.stack([np.abs(drawn[name][:, None] - known[name]) for name in COLUMNS])
    scale = np.array([np.abs(known[name]).max() + 1e-9 for name in COLUMNS])
    which = (distance / scale[:, None, None]).max(axis=0)
    assert which.min(axis=1).max() < 1e-9
    assert len(np.unique(which.argmin(axis=1))) == 5


def test_populations_are_respected(tmp_path):
    centred = Density(
        ATOMS.positions_angstrom - ATOMS.positions_angstrom.mean(0),
        ATOMS.electrons,
        ATOMS.radii_angstrom,
    )
    other = Volume(voxels(centred, (24, 24, 24), (3.0, 3.0, 3.0)), (3.0, 3.0, 3.0))
    structures = [write_pdb(tmp_path / "lobes.pdb", ATOMS), other]
    small = ImageParameters(16, 6.0, atom_shape="gaussian")
    star = simulate(
        structures, tmp_path / "set", parameters=small, n_images=400, populations=[3, 1], seed=1
    )
    classes = columns_of(star)["rlnClassNumber"].to_numpy()
    assert set(classes) == {1, 2}
    assert abs((classes == 1).mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 400)
    only = simulate(
        structures, tmp_path / "only", parameters=small, n_images=20, populations=[0, 1]
    )
    assert set(columns_of(only)["rlnClassNumber"]) == {2}


def names_in(star):
    return [name.split("@")[1] for name in starfile.read(star)["particles"]["rlnImageName"]]


@pytest.mark.parametrize(
    ("started", "output", "start"),
    [
        ("project", "Simulated/job 1", "Simulated/job 1/"),
        ("project", "../project/Simulated", "Simulated/"),
        ("project/inside", ".", ""),
        ("elsewhere", "../project/Simulated", ""),
    ],
)
def test_names_start_where_relion_is_started(tmp_path, monkeypatch, started, output, start, caplog):
    """Namely in the current folder, if that is above; and the particles are found from any
    folder."""
    structure = write_pdb(tmp_path / "lobes.pdb", ATOMS)
    (tmp_path / started).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / started)
    small = ImageParameters(16, 7.5, atom_shape="gaussian")
    with caplog.at_level("INFO", "cryolike_dask"):
        star = simulate(structure, output, parameters=small, n_images=3, batch_size=2).absolute()
    assert names_in(star) == [f"{start}particles_00000{k}.mrcs" for k in (0, 0, 1)]
    project = star.resolve().parent if not start else tmp_path / started
    assert all((project / name).is_file() for name in names_in(star))
    assert f"names of images start in {project}: start RELION there" in caplog.text.replace(
        "/../project", ""
    )
    for folder in (tmp_path, star.parent, tmp_path / started):
        monkeypatch.chdir(folder)
        for given in (star, Path(os.path.relpath(star))):
            assert len(read_particles(given)) == 3


def test_a_project_folder_is_above_the_particles(tmp_path):
    structure = write_pdb(tmp_path / "lobes.pdb", ATOMS)
    small = ImageParameters(16, 7.5, atom_shape="gaussian")
    star = simulate(
        structure, tmp_path / "a/b", parameters=small, n_images=1, project_folder=tmp_path
    )
    assert names_in(star) == ["a/b/particles_000000.mrcs"]
    with pytest.raises(
        InputError, match=r"folder_output='.*/a/c' is not below project_folder='.*/other'"
    ):
        simulate(
            structure,
            tmp_path / "a/c",
            parameters=small,
            n_images=1,
            project_folder=tmp_path / "other",
        )
    assert not (tmp_path / "a/c").exists()


def test_how_many_of_each_structure_is_said(tmp_path, caplog):
    structures = [write_pdb(tmp_path / f"s{i:02d}.pdb", ATOMS) for i in range(12)]
    small = ImageParameters(8, 15.0, atom_shape="gaussian")
    with caplog.at_level("INFO", "cryolike_dask"):
        star = simulate(structures, tmp_path / "set", parameters=small, n_images=50)
        simulate(
            structures[1::-1], tmp_path / "two", parameters=small, n_images=7, populations=[0, 1]
        )
    n_each = np.bincount(starfile.read(star)["particles"]["rlnClassNumber"], minlength=13)[1:]
    listed = ", ".join(f"{n} of s{i:02d} (class {i + 1})" for i, n in enumerate(n_each[:10]))
    assert (
        f"50 particles: {listed}, {n_each[10:].sum()} of 2 more, mixed at random" in caplog.messages
    )
    assert "7 particles: 0 of s01 (class 1), 7 of s00 (class 2), mixed at random" in caplog.messages


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (
            {"n_images": 10**12},
            CannotFitError,
            r"n_images=1000000000000 of 16 pixels take .* GB, but ",
        ),
        (
            {"max_displacement_pixels": 9},
            InputError,
            r"max_displacement_pixels=9 is beyond the box, whose half is 8",
        ),
    ],
)
def test_what_no_disk_and_no_box_holds(tmp_path, options, error, said):
    write_hinge(tmp_path / "a.pdb", 0.0)
    parameters = ImageParameters(16, 8.0, viewing_distance=2.0)
    with pytest.raises(error, match=said):
        simulate_particles(
            tmp_path / "a.pdb", parameters, tmp_path / "out", progress=False, **options
        )
    assert not (tmp_path / "out").exists()
