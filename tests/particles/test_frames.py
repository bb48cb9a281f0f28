"""From files to poses: particles made in real space by RELION's conventions come back at the poses
of their STAR file.

The witness (tests/real_space.py) and the files written here owe nothing to the package.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryolike_dask import (
    ImageParameters,
    ViewingAngles,
    configure_displacement,
    configure_likelihood_files,
    convert_particles,
    make_templates,
    open_particles,
    open_structures,
    run_likelihood_optimal_pose,
)
from tests.real_density import leucines, write_map, write_pdb
from tests.real_space import StarPoses, render, two_lobes

N, PIXEL = 48, 2.5
GROUPS = {1: (300.0, 2.7, 0.1), 2: (200.0, 1.2, 0.07)}
"""Optics groups: kilovolt, spherical aberration (mm), amplitude contrast."""

OPTICS = np.dtype(
    [
        (name, np.float64)
        for name in (
            *(
                "defocus_u_angstrom",
                "defocus_v_angstrom",
                "defocus_angle_radian",
                "phase_shift_radian",
            ),
            *(
                "voltage_kilovolt",
                "spherical_aberration_mm",
                "amplitude_contrast",
                "b_factor_angstrom2",
                "scale",
            ),
        )
    ]
)
ATOMS = leucines(two_lobes(40) + np.array([40.0, -25.0, 12.0]))
PARAMETERS = ImageParameters(N, PIXEL, viewing_distance=0.8, atom_shape="gaussian")
FINE = replace(PARAMETERS, n_inplanes=4 * N)
"""Angles that resolve all of the box: nothing of an image is left out."""
LEFT_OUT = 1e-4
"""Part of perfect particles, at most, that lies in the corners of the box, where it is blurred to
by the contrast transfer, and turns too fast for 2 N angles: measured 4e-5."""
SEARCH = configure_displacement(2.0, 3, 3)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Particles on the grid of the search: their poses as indices and as RELION writes them, and
    their optics."""

    template: Any
    x: Any
    y: Any
    rotation: Any
    poses: StarPoses
    group: Any
    optics: Any

    def __len__(self) -> int:
        return len(self.poses)


def draw_optics(rng, n):
    """Two microscopes, astigmatism of either sign, phase plates, envelopes; six decimals, as in
    a file."""
    group = rng.permutation(np.arange(n) % 2 + 1)
    optics = np.zeros(n, OPTICS)
    mean, sign = rng.uniform(5000, 10000, n), rng.permutation(np.resize([-1, -1, 1], n))
    difference = rng.uniform(500, 1500, n) * sign
    optics["defocus_u_angstrom"] = np.round(mean + difference / 2, 6)
    optics["defocus_v_angstrom"] = np.round(mean - difference / 2, 6)
    optics["defocus_angle_radian"] = np.radians(np.round(rng.uniform(-90, 90, n), 6))
    optics["phase_shift_radian"] = np.radians(
        np.round(rng.choice([0, 1], n) * rng.uniform(20, 110, n), 6)
    )
    optics["b_factor_angstrom2"] = np.round(rng.uniform(0, 50, n), 6)
    optics["scale"] = np.round(rng.uniform(0.5, 1.5, n), 6)
    names = ("voltage_kilovolt", "spherical_aberration_mm", "amplitude_contrast")
    for name, values in zip(names, zip(*(GROUPS[g] for g in group), strict=True), strict=True):
        optics[name] = values
    assert (optics["defocus_u_angstrom"] < optics["defocus_v_angstrom"]).sum() >= n / 3
    return group, optics


def draw(rng, n, viewing=None, *, displaced=True, parameters=PARAMETERS):
    viewing = PARAMETERS.viewing_angles() if viewing is None else viewing
    grid = SEARCH.grid(PIXEL)
    s, w = rng.integers(len(viewing), size=n), rng.integers(parameters.n_inplanes, size=n)
    d = rng.integers(len(grid), size=n)
    x, y = (grid.x_angstrom[d], grid.y_angstrom[d]) if displaced else (np.zeros(n), np.zeros(n))
    gamma = 2 * np.pi * w / parameters.n_inplanes
    poses = StarPoses.of_template(viewing.azimuth[s], viewing.polar[s], gamma, x, y)
    return Drawn(s, x, y, gamma, poses, *draw_optics(rng, n))


def write_mrcs(path: Path, pixels: Any, pixel_size: float) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(pixels.astype(np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size


def table(name: str, columns: dict[str, Any]) -> str:
    rows = zip(*columns.values(), strict=True)
    labels = [f"_{label} #{i}" for i, label in enumerate(columns, start=1)]
    return "\n".join(
        [f"data_{name}", "", "loop_", *labels, *(" ".join(map(str, row)) for row in rows), "", ""]
    )


def six(values: Any) -> list[str]:
    return [f"{v:.6f}" for v in values]


def particle_columns(drawn: Drawn, names: list[str]) -> dict[str, Any]:
    """What RELION 3.1 and 3.0 have in common."""
    optics, poses = drawn.optics, drawn.poses
    return {
        "rlnImageName": names,
        "rlnDefocusU": six(optics["defocus_u_angstrom"]),
        "rlnDefocusV": six(optics["defocus_v_angstrom"]),
        "rlnDefocusAngle": six(np.degrees(optics["defocus_angle_radian"])),
        "rlnPhaseShift": six(np.degrees(optics["phase_shift_radian"])),
        "rlnCtfBfactor": six(optics["b_factor_angstrom2"]),
        "rlnCtfScalefactor": six(optics["scale"]),
        "rlnAngleRot": six(poses.rot),
        "rlnAngleTilt": six(poses.tilt),
        "rlnAnglePsi": six(poses.psi),
    }


def write_star(
    path: Path, drawn: Drawn, names: list[str], n: int = N, pixel: float = PIXEL
) -> Path:
    """As RELION 3.1 writes it."""
    optics = {
        "rlnOpticsGroup": list(GROUPS),
        "rlnOpticsGroupName": [f"group{g}" for g in GROUPS],
        **dict(
            zip(
                ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"),
                zip(*GROUPS.values(), strict=True),
                strict=True,
            )
        ),
        "rlnImagePixelSize": [pixel] * len(GROUPS),
        "rlnImageSize": [n] * len(GROUPS),
        "rlnImageDimensionality": [2] * len(GROUPS),
    }
    particles = {
        **particle_columns(drawn, names),
        "rlnOriginXAngst": six(drawn.poses.origin_x),
        "rlnOriginYAngst": six(drawn.poses.origin_y),
        "rlnOpticsGroup": drawn.group,
    }
    path.write_text("# version 30001\n\n" + table("optics", optics) + table("particles", particles))
    return path


def write_old_star(path: Path, drawn: Drawn, names: list[str]) -> Path:
    """As RELION 3.0 writes it: one table, origins in pixels, the pixel size by the
    magnification."""
    n = len(drawn)
    particles = {
        **particle_columns(drawn, names),
        "rlnVoltage": drawn.optics["voltage_kilovolt"],
        "rlnSphericalAberration": drawn.optics["spherical_aberration_mm"],
        "rlnAmplitudeContrast": drawn.optics["amplitude_contrast"],
        "rlnMagnification": [20000.0] * n,
        "rlnDetectorPixelSize": [5.0] * n,
        "rlnOriginX": six(drawn.poses.origin_x / PIXEL),
        "rlnOriginY": six(drawn.poses.origin_y / PIXEL),
    }
    path.write_text("\n" + table("", particles))
    return path


def write_particles(
    folder: Path, drawn: Drawn, n: int = N, pixel: float = PIXEL, sign: int = 1
) -> Path:
    """Rendered particles in two image files, taken in turn, and their STAR file."""
    folder.mkdir(exist_ok=True)
    pixels = sign * render(ATOMS, drawn.poses, drawn.optics, n, pixel)
    for k in range(2):
        write_mrcs(folder / f"half{k}.mrcs", pixels[k::2], pixel)
    names = [f"{i // 2 + 1:06d}@half{i % 2}.mrcs" for i in range(len(drawn))]
    return write_star(folder / "particles.star", drawn, names, n, pixel)


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structures")
    of_map = write_map(
        folder / "lobes_map.mrc", ATOMS, n=(45, 50, 44), voxel_angstrom=(2.1, 1.9, 2.0)
    )
    return [write_pdb(folder / "lobes.pdb", ATOMS), of_map]


@pytest.fixture(scope="module")
def templates(structures):
    """Lazily: of the atoms, and of the map."""
    return open_structures(structures, PARAMETERS)


def run(folder, images, templates, search=SEARCH, parameters=PARAMETERS, **options):
    files = configure_likelihood_files(None, None, folder, i_template="all")
    return run_likelihood_optimal_pose(
        files, parameters, search, images=images, templates=templates, progress=False, **options
    ).compute()


def worst(found):
    """1 less the smallest correlation under each structure."""
    loss = 1 - found.cross_correlation.min("image").values
    print(f"1 - CC of atoms and map: {loss[0]:.1e} {loss[1]:.1e}")
    return loss


def assert_poses(found, drawn, x=None, y=None):
    """Every pose, under both structures."""
    for structure in range(2):
        of_one = found.isel(structure=structure)
        np.testing.assert_array_equal(of_one.optimal_template, drawn.template)
        np.testing.assert_allclose(
            of_one.optimal_displacement_x, drawn.x if x is None else x, atol=1e-6
        )
        np.testing.assert_allclose(
            of_one.optimal_displacement_y, drawn.y if y is None else y, atol=1e-6
        )
        np.testing.assert_allclose(of_one.optimal_inplane_rotation, drawn.rotation, atol=1e-6)


def assert_poses_of_star_file(found, poses, viewing):
    """What was found, written as RELION writes poses, is what the STAR file says."""
    for structure in range(2):
        of_one = found.isel(structure=structure)
        s = of_one.optimal_template.values
        back = StarPoses.of_template(
            viewing.azimuth[s],
            viewing.polar[s],
            of_one.optimal_inplane_rotation.values.astype(np.float64),
            of_one.optimal_displacement_x.values.astype(np.float64),
            of_one.optimal_displacement_y.values.astype(np.float64),
        )
        # six decimals of a degree in the file, and rotations in single precision: measured 3e-7,
        # and 1.3e-6 angstrom
        np.testing.assert_allclose(back.matrices(), poses.matrices(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(back.origin_x, poses.origin_x, rtol=0, atol=5e-6)
        np.testing.assert_allclose(back.origin_y, poses.origin_y, rtol=0, atol=5e-6)


def poses_in(star: Path) -> StarPoses:
    """Read the last table of a STAR file, by its labels."""
    lines = [
        line.split() for line in star.read_text().split("loop_")[-1].splitlines() if line.strip()
    ]
    labels = [words[0] for words in lines if words[0].startswith("_")]
    rows = [words for words in lines if len(words) == len(labels)]
    names = (
        "_rlnAngleRot",
        "_rlnAngleTilt",
        "_rlnAnglePsi",
        "_rlnOriginXAngst",
        "_rlnOriginYAngst",
    )
    return StarPoses(
        *(np.array([float(row[labels.index(name)]) for row in rows]) for name in names)
    )


def user_list(rng):
    return ViewingAngles(
        rng.uniform(0, 2 * np.pi, 25), np.arccos(rng.uniform(-1, 1, 25)), rng.uniform(0.5, 2, 25)
    )


@pytest.mark.parametrize(
    ("directions", "parameters", "largest_loss"),
    [("grid", PARAMETERS, LEFT_OUT), ("list", FINE, 1.5e-6)],  # measured over 7 seeds: 2.4e-7
    ids=["grid", "list"],
)
def test_particles_in_files_come_back_at_their_poses(
    directions, parameters, largest_loss, structures, tmp_path, rng
):
    viewing = user_list(rng) if directions == "list" else None
    drawn = draw(rng, 24, viewing, parameters=parameters)
    star = write_particles(tmp_path / "set", drawn)

    make_templates(structures, parameters, tmp_path / "templates", viewing=viewing, progress=False)
    convert_particles(star, parameters, tmp_path / "particles", batch_size=10, progress=False)
    files = configure_likelihood_files(
        tmp_path / "templates", tmp_path / "particles", tmp_path / "out", i_template="all"
    )
    found = run_likelihood_optimal_pose(files, parameters, SEARCH, progress=False).compute()
    assert worst(found).max() < largest_loss
    assert_poses(found, drawn)
    assert_poses_of_star_file(found, poses_in(star), viewing or parameters.viewing_angles())

    lazily = run(
        tmp_path / "lazy",
        open_particles(star, parameters, batch_size=7),
        open_structures(structures, parameters, viewing=viewing),
        parameters=parameters,
    )
    for name in found.data_vars:
        # of images without noise, whose residual is rounding
        if not name.startswith("log_likelihood"):
            np.testing.assert_allclose(lazily[name], found[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.fixture
def recentred(templates, tmp_path, rng):
    """Particles with origins anywhere within four pixels, and what is found of them once they
    are moved back."""
    drawn = draw(rng, 16, displaced=False)
    origins = np.round(rng.uniform(-4 * PIXEL, 4 * PIXEL, (2, 16)), 6)
    poses = StarPoses(drawn.poses.rot, drawn.poses.tilt, drawn.poses.psi, *origins)
    star = write_particles(tmp_path / "set", replace(drawn, poses=poses))
    return drawn, run(tmp_path / "out", open_particles(star, PARAMETERS, recenter=True), templates)


def test_recorded_origins_are_undone(recentred):
    """The search finds nothing left to displace."""
    drawn, found = recentred
    assert_poses(found, drawn, 0.0, 0.0)


def test_perfect_particles_stay_perfect_when_their_origins_are_undone(recentred):
    """As perfect as particles that are found where they are. What would not be: a constant
    offset that moves along."""
    _, found = recentred
    assert worst(found).max() < 1e-4


@pytest.mark.parametrize(
    ("method", "factor", "parameters"),
    [
        ("fourier", 2, PARAMETERS),
        ("fourier", 1.5, FINE),
        ("mean", 2, PARAMETERS),
        ("mean", 3, PARAMETERS),
    ],
)
def test_fewer_pixels_keep_poses(method, factor, parameters, structures, tmp_path, rng):
    """Displacements in steps of a quarter of a pixel: less than what blocks of two or three
    would be off by."""
    drawn = draw(rng, 12, displaced=False, parameters=parameters)
    star = write_particles(tmp_path / "set", drawn, round(N * factor), PIXEL / factor)
    images = open_particles(star, parameters, downsample=method)
    found = run(
        tmp_path / "out",
        images,
        open_structures(structures, parameters),
        configure_displacement(0.5, 5, 5),
        parameters,
    )
    # Blocks blur. Measured over 7 seeds: 3.6e-7; blocks of two 2.6e-4, of three 4.3e-4.
    exact = 1.5e-6 if parameters is FINE else LEFT_OUT
    assert worst(found).max() < (exact if method == "fourier" else 1.5e-3)
    assert_poses(found, drawn, 0.0, 0.0)


def test_dark_particles_are_turned_over(tmp_path, rng):
    drawn = draw(rng, 6)
    bright, dark = (
        write_particles(tmp_path / name, drawn, sign=s) for name, s in (("bright", 1), ("dark", -1))
    )
    wanted = open_particles(bright, PARAMETERS).source.take(np.arange(6))
    found = open_particles(dark, PARAMETERS, invert_contrast=True).source.take(np.arange(6))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("recenter", [False, True])
def test_old_star_files_say_the_same(recenter, tmp_path, rng):
    drawn = draw(rng, 12)
    star = write_particles(tmp_path / "set", drawn)
    names = [f"{i // 2 + 1:06d}@half{i % 2}.mrcs" for i in range(12)]
    old = write_old_star(tmp_path / "set/old.star", drawn, names)
    new_stack, old_stack = (open_particles(s, PARAMETERS, recenter=recenter) for s in (star, old))
    for name in new_stack.optics.dtype.names:
        np.testing.assert_array_equal(old_stack.optics[name], new_stack.optics[name], err_msg=name)
    rows = np.arange(12)
    # Origins of six decimals, in pixels there and in angstrom here.
    np.testing.assert_allclose(
        old_stack.source.take(rows), new_stack.source.take(rows), rtol=0, atol=2e-6
    )
    table_of_old, table_of_new = old_stack.source.table, new_stack.source.table
    np.testing.assert_allclose(
        table_of_old.origin_angstrom, table_of_new.origin_angstrom, rtol=0, atol=2e-6
    )
    np.testing.assert_allclose(
        table_of_old.angles_radian, table_of_new.angles_radian, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("signal_to_noise", [np.inf, 0.1])
def test_dark_particles_are_noticed(signal_to_noise, tmp_path, rng, caplog):
    drawn = draw(rng, 40)
    clean = render(ATOMS, drawn.poses, drawn.optics, N, PIXEL)
    noisy = clean + np.sqrt(clean.var() / signal_to_noise) * rng.standard_normal(clean.shape)
    said = {}
    for sign in (1, -1):
        write_mrcs(tmp_path / "all.mrcs", sign * noisy, PIXEL)
        star = write_star(tmp_path / "all.star", drawn, [f"{i + 1}@all.mrcs" for i in range(40)])
        with caplog.at_level(logging.WARNING, "cryolike_dask"):
            open_particles(star, PARAMETERS)
        said[sign] = [r.getMessage() for r in caplog.records if "darker" in r.getMessage()]
        caplog.clear()
    assert said[1] == []
    assert len(said[-1]) == 1
    assert "invert_contrast=True" in said[-1][0]
