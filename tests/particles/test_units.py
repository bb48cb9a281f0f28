"""Optics in another unit, or not there: every reader says so alike, and what is right passes in
silence."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import mrcfile
import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.errors import GridMismatchError, InputFileError
from cryolike_dask.particles.cryosparc import LABELS as CS_LABELS
from cryolike_dask.particles.opening import read_optics
from cryolike_dask.particles.relion import LABELS as STAR_LABELS
from tests.particles.described import (
    NPZ_LABELS,
    OPTICS,
    PARAMETERS,
    N,
    cs,
    npz,
    pictures,
    star,
    write_mrcs,
)

REAL = Path(__file__).parents[2] / ".." / "shared" / "real"
READERS = ("star", "cs", "npz")
LABELS = {"star": STAR_LABELS, "cs": CS_LABELS, "npz": NPZ_LABELS}


@pytest.fixture
def read(tmp_path, rng):
    """Give the optics that a reader takes from a file with these columns."""

    def optics(reader, **columns):
        if reader == "npz":
            return cld.open_images(npz(tmp_path / "stacks", rng, **columns), PARAMETERS).optics
        write = {"star": star, "cs": cs}[reader]
        return read_optics(write(tmp_path / f"particles.{reader}", **columns))

    return optics


@pytest.fixture
def said(caplog):
    """What is logged."""
    caplog.set_level(logging.INFO, logger="cryolike_dask")
    return caplog


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("voltage_kilovolt", 300000.0, "looks like volts"),
        ("spherical_aberration_mm", 2.7e7, "looks like angstrom"),
        ("amplitude_contrast", 10.0, "looks like percent"),
        ("defocus_angle_radian", 45.0, "no value in degrees|looks like degrees"),
        ("phase_shift_radian", 90.0, "no value in degrees|looks like degrees"),
        ("defocus_u_angstrom", 1e300, "value in angstrom"),
        ("b_factor_angstrom2", -1e300, r"value in angstrom\^2"),
        ("scale", 1e300, "value in fractions of 1"),
    ],
)
def test_other_units_and_absurd_values_are_refused(read, reader, name, value, unit):
    label = LABELS[reader][name]
    with pytest.raises(InputFileError, match=rf"(particles\.(star|cs)|\.npz): {label}.*({unit})"):
        read(reader, **{name: value})


@pytest.mark.parametrize("reader", READERS)
def test_defocus_in_micrometre(read, said, reader):
    """Refused where the whole set is described; of stacks, one may be a part of a set."""
    columns = {"defocus_u_angstrom": 1.5, "defocus_v_angstrom": [1.4, 1.3, 1.45, 0.9]}
    if reader == "npz":
        read(reader, **columns)
        assert "defocusU is 1.5 for image(s) 0, 1, 2, 3, which is unusual" in said.text
        assert "looks like micrometre (4 of 4)" in said.text
    else:
        label = LABELS[reader]["defocus_u_angstrom"]
        complaint = (
            rf"{label} is 1.5 in row 0 \(from 0\), which is no value in angstrom: it looks "
            rf"like micrometre; 4 such"
        )
        with pytest.raises(InputFileError, match=complaint):
            read(reader, **columns)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("columns", "remark"),
    [
        (
            {"defocus_u_angstrom": 0, "defocus_v_angstrom": 0},
            "are 0 for all 4 images: .*not to have been estimated",
        ),
        (
            {"defocus_u_angstrom": [1e4, 0, 1e4, 0], "defocus_v_angstrom": [1e4, 0, 1e4, 0]},
            r"s\) 1, 3.*, 2 of 4 images",
        ),
        ({"defocus_u_angstrom": -1e4, "defocus_v_angstrom": -1e4}, "negative for all 4 images"),
        (
            {"voltage_kilovolt": [300, 300, 30, 300]},
            r"30 for (row|image)\(s\) 2.*unusual.*\(1 of 4\)",
        ),
        ({"spherical_aberration_mm": 0.0027}, "looks like metre"),
    ],
)
def test_what_is_odd_is_one_warning(read, said, reader, columns, remark):
    read(reader, **columns)
    (record,) = said.records
    assert record.levelname == "WARNING"
    assert re.search(remark, record.getMessage())


def test_a_phase_shift_in_radian_where_degrees_should_be(read, said):
    read("star", phase_shift_radian=np.radians(np.pi / 2))
    assert (
        "rlnPhaseShift is at most 1.5708 degrees for all 4 images: it looks like radian"
        in said.text
    )


@pytest.mark.parametrize("reader", READERS)
def test_right_optics_pass_in_silence(read, said, reader):
    found = read(reader, phase_shift_radian=[0.0, 1.5, 0.0, 0.0], spherical_aberration_mm=0.01)
    for name, value in (
        OPTICS | {"phase_shift_radian": [0.0, 1.5, 0.0, 0.0], "spherical_aberration_mm": 0.01}
    ).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, err_msg=name)
    assert said.messages == []


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("scale", [0.0, [0.0, 0.9, 0.0, 1.0]])
def test_a_scale_of_0_is_1_to_every_reader(read, said, reader, scale):
    wanted = np.where(np.resize(scale, 4) == 0, 1, np.resize(scale, 4))
    np.testing.assert_allclose(read(reader, scale=scale)["scale"], wanted)
    np.testing.assert_allclose(cld.optics_table(4, **{**OPTICS, "scale": scale})["scale"], wanted)
    if reader != "npz":
        n = 4 if scale == 0 else 2
        assert (
            f"{LABELS[reader]['scale']} is 0, which is not fitted, for {n} of 4 images; taken: 1"
            in said.text
        )


@pytest.mark.parametrize("kind", ["star", "cs", "array"])
def test_simulated_particles_of_scale_0_show_something(tmp_path, kind):
    atoms = cld.Atoms(np.eye(3) * 8, np.ones(3), np.full(3, 4.0))
    if kind == "array":
        optics = np.zeros(3, cld.optics_table(1, **OPTICS).dtype)
        for name, value in {**OPTICS, "scale": 0.0}.items():
            optics[name] = value
    else:
        optics = {"star": star, "cs": cs}[kind](tmp_path / f"p.{kind}", scale=0.0)
    made = [
        cld.simulate_particles(
            atoms, PARAMETERS, tmp_path / f"{i}", n_images=3, optics=o, seed=1, progress=False
        )
        for i, o in enumerate((optics, star(tmp_path / "one.star")))
    ]
    zero, one = (mrcfile.read(path.parent / "particles_000000.mrcs") for path in made)
    np.testing.assert_allclose(zero, one, rtol=0, atol=1e-6 * np.abs(one).max())
    assert (read_optics(made[0])["scale"] == 1).all()


def test_optics_to_simulate_from_are_those_of_the_passthrough_file_too(tmp_path):
    whole = read_optics(cs(tmp_path / "whole.cs"))
    rows = np.load(tmp_path / "whole.cs")
    with open(tmp_path / "particles.cs", "wb") as file:
        np.save(file, rows[["uid", "blob/path", "blob/idx"]])
    with open(tmp_path / "x_passthrough.cs", "wb") as file:
        np.save(
            file, rows[[name for name in rows.dtype.names if not name.startswith("blob")]][::-1]
        )
    np.testing.assert_array_equal(read_optics(tmp_path / "particles.cs"), whole)


# --- pixel sizes, origins, angles ---


@pytest.fixture
def images(tmp_path, rng):
    """Four images in a file whose header says no pixel size."""
    return write_mrcs(tmp_path / "a.mrcs", pictures(4, rng))


@pytest.mark.parametrize("reader", ["star", "cs"])
def test_a_pixel_size_that_is_recorded_nowhere_is_said(images, said, reader):
    path = images.with_name(f"p.{reader}")
    star(path, rlnPixelSize=None) if reader == "star" else cs(path, blob__psize_A=np.zeros(4))
    cld.open_particles(path, PARAMETERS)
    lines = [m for m in said.messages if "pixel size" in m]
    assert lines == [
        f"{path}: no pixel size is recorded, there or in the headers of all 4 images; 3 angstrom, "
        "that of the parameters, is taken"
    ]
    said.clear()
    cld.open_particles(path, cld.ImageParameters(8, 6.0))
    assert "3 angstrom, by the box of the parameters, is taken" in said.text
    for known in ({"pixel_size_angstrom": 3.0}, {}):
        said.clear()
        if not known:
            write_mrcs(images, pictures(4, np.random.default_rng(1)), 3.0)
        cld.open_particles(path, PARAMETERS, **known)
        assert "no pixel size" not in said.text


def test_headers_of_some_images_alone(images, said, rng):
    write_mrcs(images.with_name("b.mrcs"), pictures(4, rng), 3.0)
    names = ["1@a.mrcs", "2@a.mrcs", "1@b.mrcs", "3@a.mrcs"]
    path = star(images.with_name("p.star"), names=names, rlnPixelSize=None)
    cld.open_particles(path, PARAMETERS)
    assert "in the headers of 3 of 4 images; 3 angstrom" in said.text
    with pytest.raises(
        GridMismatchError, match=r"b\.mrcs: 1 image.* 3 angstrom, .*--pixel-size-angstrom"
    ):
        cld.open_particles(path, cld.ImageParameters(N, 4.0))


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"rlnPixelSize": 1e300}, r"rlnPixelSize is 1e\+300 in row 0 .*no value in angstrom"),
        ({"rlnPixelSize": 3e-10}, "rlnPixelSize is 3e-10 in row 0 .*looks like metre"),
        (
            {"rlnPixelSize": [3, 3, 3, 3e-4]},
            "rlnPixelSize is 0.0003 in row 3 .*looks like micrometre",
        ),
        (
            {"rlnPixelSize": None, "rlnDetectorPixelSize": 1e308, "rlnMagnification": 1e4},
            "rlnMagnification is inf in row 0",
        ),
        (
            {"rlnOriginXAngst": [0, 1e300, 0, 0], "rlnOriginYAngst": 0.0},
            r"rlnOriginX.* is 1e\+300 in row 1",
        ),
        ({"rlnOriginX": 0.0, "rlnOriginY": [0, 0, 1e308, 0]}, r"rlnOriginX.* is inf in row 2"),
        (
            {"rlnAngleRot": 0.0, "rlnAngleTilt": 0.0, "rlnAnglePsi": 1e300},
            r"rlnAnglePsi is 1e\+300 in row 0 .*degrees",
        ),
        (
            {"rlnOpticsGroup": [1, 1, 1e300, 1]},
            r"rlnOpticsGroup is 1e\+300 in row 2 .*number of anything",
        ),
        ({"rlnRandomSubset": 1e20}, r"rlnRandomSubset is 1e\+20 in row 0"),
        ({"rlnImageSize": -1e300}, r"rlnImageSize is -1e\+300 in row 0"),
    ],
)
def test_absurd_numbers_of_a_star_file(images, columns, complaint):
    with pytest.raises(InputFileError, match=rf"p\.star: .*{complaint}"):
        cld.open_particles(star(images.with_name("p.star"), **columns), PARAMETERS)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        (
            "blob__psize_A",
            np.full(4, 1e300),
            r"blob/psize_A is 1e\+300 in row 0 .*no value in angstrom",
        ),
        ("blob__psize_A", np.array([3, 3, -3, 3]), "blob/psize_A is -3 in row 2"),
        ("blob__shape", np.full((4, 2), 1e300), r"blob/shape is 1e\+300 in row 0"),
        ("blob__shape", np.full(4, 16), r"blob/shape has the shape \(4,\), not 2"),
        ("alignments3D__pose", np.full((4, 3), 1e300), r"alignments3D/pose is 1e\+300 in row 0"),
        ("alignments3D__pose", np.zeros(4), r"alignments3D/pose has the shape \(4,\), not 3"),
        ("alignments3D__shift", np.full((4, 2), 1e308), "alignments3D/shift is inf in row 0"),
        ("alignments3D__split", np.full(4, 1e300), r"alignments3D/split is 1e\+300"),
        ("ctf__exp_group_id", np.full(4, 2**64 - 1, "u8"), r"ctf/exp_group_id is 1.84467e\+19"),
        ("ctf__df1_A", np.ones((4, 2)), r"ctf/df1_A has the shape \(4, 2\), not 1"),
        ("location__micrograph_path", np.zeros(4), "location/micrograph_path: .* no text"),
    ],
)
def test_absurd_columns_of_a_cs_file(images, name, value, complaint):
    with pytest.raises(InputFileError, match=rf"p\.cs: .*{complaint}"):
        cld.open_particles(cs(images.with_name("p.cs"), **{name: value}), PARAMETERS)


@pytest.mark.parametrize("recenter", [False, True])
def test_origins_beyond_the_box_are_told(images, said, recenter):
    path = star(
        images.with_name("p.star"), rlnOriginXAngst=[0, 0, -25, 0], rlnOriginYAngst=[0, 0, 0, 24.1]
    )
    cld.open_particles(path, PARAMETERS, recenter=recenter)
    assert (
        f"2 of 4 particles are recorded more than half of the box off its middle, row(s) 2, 3 "
        f"(from 0) of {path}" in said.text
    )


def test_angles_in_radian_where_degrees_should_be(images, said, rng):
    angles = {
        label: rng.uniform(-np.pi, np.pi, 12)
        for label in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    }
    names = [f"{i % 4 + 1}@a.mrcs" for i in range(12)]
    cld.open_particles(star(images.with_name("p.star"), 12, names, **angles), PARAMETERS)
    assert "no angle of 12 rows is above 6.3 degrees: they look like radian" in said.text
    said.clear()
    degrees = {label: np.degrees(values) for label, values in angles.items()}
    cld.open_particles(star(images.with_name("p.star"), 12, names, **degrees), PARAMETERS)
    assert "look like radian" not in said.text
    cld.open_particles(
        cs(images.with_name("p.cs"), alignments3D__pose=np.full((4, 3), 60.0)), PARAMETERS
    )
    assert "alignments3D/pose is 60 for row(s) 0, 1, 2, 3 (from 0), which is unusual" in said.text


# --- what was taken ---


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({}, "4 images, from 1 file(s): 16 pixels of 3 angstrom"),
        (
            {"rlnMicrographName": ["m1", "m2", "m1", "m1"]},
            "4 images of 2 micrograph(s), from 1 file(s): 16 pixels of 3 angstrom",
        ),
        (
            {"rlnMicrographName": ["m1", "m2", "m1", "m3"], "rlnOpticsGroup": [2, 7, 7, 2]},
            "4 images of 3 micrograph(s) in 2 optics group(s), from 1 file(s): 16 pixels of 3 "
            "angstrom",
        ),
    ],
)
def test_what_was_taken_is_one_line(images, said, columns, line):
    cld.open_particles(star(images.with_name("p.star"), **columns), PARAMETERS)
    assert said.messages == [line]


def test_what_was_taken_of_several_sets(images, said, rng):
    """Groups of one number in two files are one if their optics are, which is said; and a
    micrograph is one in both."""
    write_mrcs(images.with_name("b.mrcs"), pictures(4, rng))
    sets = [
        star(
            images.with_name(f"{k}.star"),
            names=[f"{i}@{k}.mrcs" for i in (1, 2, 3, 4)],
            rlnOpticsGroup=1,
            rlnMicrographName="m",
        )
        for k in "ab"
    ]
    cld.open_particles(sets, PARAMETERS)
    assert said.messages == [
        "optics group(s) 1 of several files have the same optics, and are each taken as one",
        "8 images of 1 micrograph(s) in 1 optics group(s), from 2 file(s): 16 pixels of 3 angstrom",
    ]


def test_real_metadata_pass_without_a_warning(said, tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"the real particles are not at {REAL}")
    for name in (
        "relion31.star",
        "relion31.v2.star",
        "empiar10076/empiar_10076_7.star",
        "empiar10076/empiar_10076_7.cs",
    ):
        assert len(read_optics(REAL / name)) > 0
    assert [record for record in said.records if record.levelno > logging.INFO] == []


def test_golden_metadata_pass_without_a_warning(golden, said):
    paths = sorted(golden.glob("*/inputs/particles/*.star"))
    assert paths
    for path in paths:
        read_optics(path)
    assert [record for record in said.records if record.levelno > logging.INFO] == []


def test_the_optics_of_many_stacks_are_one_warning(tmp_path, rng, said):
    """However many files they are in, and whether they are opened together or one by one, as a
    run does."""
    files = npz(tmp_path / "stacks", rng, defocus_u_angstrom=0, defocus_v_angstrom=0)
    tensor = files.image_stack(0)[0]
    for k in (1, 2):
        for suffix in (".pt", ".npz"):
            other = files.image_stack(k)[0].with_suffix(suffix)
            other.write_bytes(tensor.with_suffix(suffix).read_bytes())
    files = cld.configure_likelihood_files(None, tmp_path / "stacks", tmp_path / "out")
    cld.open_images(files, PARAMETERS)
    atoms = cld.Atoms(np.eye(3) * 8, np.ones(3), np.full(3, 4.0))
    templates = cld.open_structure(atoms, cld.ImageParameters(N, 3.0, viewing_distance=1.0))
    cld.plan_likelihood(
        files,
        PARAMETERS,
        cld.configure_displacement(2.0, 3, 3),
        templates=templates,
        measure=False,
        noise="white",
    )
    lines = [m for m in said.messages if "not to have been estimated" in m]
    wanted = (
        "defocusU and defocusV are 0 for all 12 images: their contrast transfer seems not to "
        "have been estimated"
    )
    assert lines == [f"{tmp_path}/stacks: {wanted}"] * 2
