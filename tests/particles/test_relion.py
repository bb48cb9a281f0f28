"""STAR files of particles: every layout that RELION and its users have written, and what
contradicts itself."""

from __future__ import annotations

import logging
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.mrc import open_mrc_stack
from cryolike_dask.particles.relion import read_relion

REAL = Path(__file__).parents[2] / ".." / "shared" / "real"

OPTICS = {
    "rlnOpticsGroup": [1],
    "rlnVoltage": [300.0],
    "rlnSphericalAberration": [2.7],
    "rlnAmplitudeContrast": [0.1],
    "rlnImagePixelSize": [1.5],
    "rlnImageSize": [64],
}
PARTICLES = {
    "rlnImageName": ["000002@a.mrcs", "000001@a.mrcs", "000001@b.mrcs"],
    "rlnDefocusU": [15000.0, 14000.0, 13000.0],
    "rlnDefocusV": [14500.0, 13500.0, 12500.0],
    "rlnDefocusAngle": [30.0, -90.0, 180.0],
    "rlnPhaseShift": [0.0, 90.0, 45.0],
    "rlnCtfBfactor": [0.0, 10.0, 20.0],
    "rlnCtfScalefactor": [1.0, 0.9, 0.8],
    "rlnOpticsGroup": [1, 1, 1],
}
FLAT = {
    **{label: values for label, values in PARTICLES.items() if label != "rlnOpticsGroup"},
    "rlnVoltage": [300.0, 300.0, 200.0],
    "rlnSphericalAberration": [2.7, 2.7, 2.0],
    "rlnAmplitudeContrast": [0.1, 0.1, 0.07],
}


@pytest.fixture(scope="session")
def real():
    """Real particles and metadata of other laboratories."""
    if not REAL.is_dir():
        pytest.skip(f"the real particles are not at {REAL}")
    return REAL.resolve()


@pytest.fixture
def project(tmp_path):
    """A folder with image files that are there, but empty."""
    for name in ("a.mrcs", "b.mrcs"):
        (tmp_path / name).touch()
    return tmp_path


def text_of(name, columns, *, numbered=True, lower=""):
    labels = [f"_{label} #{i}" if numbered else f"_{label}" for i, label in enumerate(columns, 1)]
    rows = [" ".join(str(v) for v in row) for row in zip(*columns.values(), strict=True)]
    return "\n".join([f"data_{name}", lower, "loop_", *labels, *rows, "", ""])


def read(folder, *blocks, **options):
    """What is read from a STAR file of these (name, columns)."""
    path = folder / "particles.star"
    path.write_text("".join(text_of(name, columns) for name, columns in blocks))
    return read_relion(path, **options)


def write_stack(path, n, size=4):
    with mrcfile.new(path) as file:
        file.set_data(np.zeros((n, size, size), np.float32))
        file.set_image_stack()
    return path


def changed(columns, **changes):
    """Columns with some replaced, added, or (None) removed."""
    merged = {**columns, **changes}
    return {label: values for label, values in merged.items() if values is not None}


def test_optics_and_particles(project):
    table = read(project, ("optics", OPTICS), ("particles", PARTICLES))
    assert len(table) == 3
    assert table.image_files == (str(project / "a.mrcs"), str(project / "b.mrcs"))
    assert table.file_number.tolist() == [0, 0, 1]
    assert table.image_index.tolist() == [1, 0, 0]
    assert table.pixel_size_angstrom.tolist() == [1.5] * 3
    assert table.box_size_pixels.tolist() == [64] * 3
    assert table.sign.tolist() == [1.0] * 3
    assert table.optics_group.tolist() == [1] * 3
    assert table.metadata_files == (str(project / "particles.star"),)
    assert table.metadata_row.tolist() == [0, 1, 2]
    assert table.angles_radian is None
    assert table.origin_angstrom is None
    assert table.random_subset is None
    assert table.micrograph is None
    assert table.optics["defocus_u_angstrom"].tolist() == [15000, 14000, 13000]
    assert table.optics["defocus_v_angstrom"].tolist() == [14500, 13500, 12500]
    np.testing.assert_allclose(
        table.optics["defocus_angle_radian"], np.array([1 / 6, -1 / 2, 1]) * np.pi
    )
    np.testing.assert_allclose(
        table.optics["phase_shift_radian"], np.array([0, 1 / 2, 1 / 4]) * np.pi
    )
    assert table.optics["voltage_kilovolt"].tolist() == [300] * 3
    assert table.optics["spherical_aberration_mm"].tolist() == [2.7] * 3
    assert table.optics["b_factor_angstrom2"].tolist() == [0, 10, 20]
    assert table.optics["scale"].tolist() == [1, 0.9, 0.8]


def test_the_optics_table_may_come_last(project):
    first = read(project, ("optics", OPTICS), ("particles", PARTICLES))
    last = read(project, ("particles", PARTICLES), ("optics", OPTICS))
    np.testing.assert_array_equal(first.optics, last.optics)


def test_optics_groups_out_of_order_and_with_gaps(project):
    optics = {
        "rlnOpticsGroup": [7, 2, 11],
        "rlnVoltage": [300.0, 200.0, 120.0],
        "rlnSphericalAberration": [2.7, 2.0, 1.0],
        "rlnAmplitudeContrast": [0.1, 0.07, 0.2],
        "rlnImagePixelSize": [1.0, 2.0, 3.0],
    }
    table = read(
        project, ("optics", optics), ("particles", changed(PARTICLES, rlnOpticsGroup=[2, 11, 7]))
    )
    assert table.optics["voltage_kilovolt"].tolist() == [200, 120, 300]
    assert table.pixel_size_angstrom.tolist() == [2, 3, 1]
    assert table.optics_group.tolist() == [2, 11, 7]


@pytest.mark.parametrize("group", [0, 5, 9, 99])
def test_an_unknown_optics_group_is_named(project, group):
    optics = {label: values * 2 for label, values in OPTICS.items()} | {"rlnOpticsGroup": [8, 1]}
    with pytest.raises(
        InputFileError, match=rf"optics group.s. {group} of row.s. 1 .*which has 1, 8"
    ):
        read(
            project,
            ("optics", optics),
            ("particles", changed(PARTICLES, rlnOpticsGroup=[1, group, 8])),
        )


def test_an_optics_group_twice_is_refused(project):
    optics = {label: values * 2 for label, values in OPTICS.items()}
    with pytest.raises(InputFileError, match="optics group twice: 1, 1"):
        read(project, ("optics", optics), ("particles", PARTICLES))


def test_one_optics_group_needs_no_column_in_the_particles_but_two_do(project):
    particles = changed(PARTICLES, rlnOpticsGroup=None)
    assert (
        read(project, ("optics", OPTICS), ("particles", particles)).pixel_size_angstrom.tolist()
        == [1.5] * 3
    )
    optics = {label: values * 2 for label, values in OPTICS.items()} | {"rlnOpticsGroup": [1, 2]}
    with pytest.raises(InputFileError, match="no rlnOpticsGroup in its particles table"):
        read(project, ("optics", optics), ("particles", particles))
    with pytest.raises(InputFileError, match="no rlnOpticsGroup in its optics table"):
        read(project, ("optics", changed(OPTICS, rlnOpticsGroup=None)), ("particles", PARTICLES))


@pytest.mark.parametrize("name", ["", "images", "J12_particles", "model"])
def test_old_files_under_any_block_name(project, name):
    table = read(project, (name, FLAT))
    assert table.optics["voltage_kilovolt"].tolist() == [300, 300, 200]
    assert table.optics["amplitude_contrast"].tolist() == [0.1, 0.1, 0.07]
    assert table.optics_group is None
    assert table.pixel_size_angstrom is None


def test_labels_without_numbers_one_row_and_quotes(project):
    (project / "path with space").mkdir()
    (project / "path with space" / "file.mrcs").touch()
    columns = {label: values[:1] for label, values in FLAT.items()}
    columns["rlnImageName"] = ['"000001@path with space/file.mrcs"   ']
    path = project / "particles.star"
    path.write_text(text_of("", columns, numbered=False, lower="# a comment\n"))
    table = read_relion(path)
    assert table.image_files == (str(project / "path with space" / "file.mrcs"),)
    assert table.image_index.tolist() == [0]


def test_optics_columns_repeated_in_the_particles(project):
    repeated = changed(PARTICLES, rlnVoltage=["300"] * 3, rlnAmplitudeContrast=["0.100000001"] * 3)
    table = read(project, ("optics", OPTICS), ("particles", repeated))
    assert table.optics["voltage_kilovolt"].tolist() == [300] * 3
    contradicting = changed(PARTICLES, rlnVoltage=[300, 200, 200])
    with pytest.raises(
        InputFileError, match=r"rlnVoltage is 200 in row 1 .*300 in the optics table; 2 such row"
    ):
        read(project, ("optics", OPTICS), ("particles", contradicting))


def test_a_group_number_without_an_optics_table(project):
    table = read(project, ("particles", {**FLAT, "rlnOpticsGroup": [3, 3, 4]}))
    assert table.optics_group.tolist() == [3, 3, 4]
    assert table.optics["spherical_aberration_mm"].tolist() == [2.7, 2.7, 2.0]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"rlnDetectorPixelSize": [5.0] * 3, "rlnMagnification": [38168.0] * 3}, 5e4 / 38168),
        ({"rlnPixelSize": [1.2] * 3}, 1.2),
        ({"rlnImagePixelSize": [1.3] * 3, "rlnPixelSize": [1.3001] * 3}, 1.3),
        (
            {
                "rlnImagePixelSize": [2.6] * 3,
                "rlnDetectorPixelSize": [5.0] * 3,
                "rlnMagnification": [5e4] * 3,
            },
            2.6,
        ),
        (
            {
                "rlnPixelSize": [1.0] * 3,
                "rlnDetectorPixelSize": [5.0] * 3,
                "rlnMagnification": [5e4] * 3,
            },
            1.0,
        ),
        ({"rlnMicrographPixelSize": [0.5] * 3, "rlnMicrographOriginalPixelSize": [0.5] * 3}, None),
        ({"rlnDetectorPixelSize": [5.0] * 3}, None),
    ],
)
def test_pixel_size(project, columns, expected):
    pixel_size = read(project, ("", {**FLAT, **columns})).pixel_size_angstrom
    if expected is None:
        assert pixel_size is None
    else:
        np.testing.assert_allclose(pixel_size, [expected] * 3, rtol=1e-15)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"rlnImagePixelSize": [1.3] * 3, "rlnPixelSize": [1.3, 1.5, 1.3]},
            "rlnImagePixelSize gives 1.3 angstrom in row 1, but rlnPixelSize 1.5",
        ),
        (
            {
                "rlnPixelSize": [1.3] * 3,
                "rlnDetectorPixelSize": [5.0] * 3,
                "rlnMagnification": [5e4] * 3,
            },
            "rlnPixelSize gives 1.3 angstrom in row 0, but rlnDetectorPixelSize / rlnMagnification "
            "1",
        ),
        ({"rlnImagePixelSize": [1.3, 0.0, 1.3]}, "rlnImagePixelSize is 0 in row 1"),
        (
            {"rlnDetectorPixelSize": [5.0] * 3, "rlnMagnification": [0] * 3},
            "rlnMagnification is 0 in row 0",
        ),
    ],
)
def test_pixel_sizes_that_cannot_be(project, columns, message):
    with pytest.raises(InputFileError, match=message):
        read(project, ("", {**FLAT, **columns}))


def test_what_is_missing_and_taken_is_said_once(project, caplog):
    left_out = ("rlnAmplitudeContrast", "rlnPhaseShift", "rlnCtfBfactor", "rlnCtfScalefactor")
    columns = changed(FLAT, **dict.fromkeys(left_out))
    with caplog.at_level(logging.INFO, logger="cryolike_dask"):
        table = read(project, ("", columns))
    (record,) = caplog.records
    assert record.levelname == "INFO"
    for said in (
        "rlnAmplitudeContrast = 0.1",
        "rlnPhaseShift = 0",
        "rlnCtfBfactor = 0",
        "rlnCtfScalefactor = 1",
    ):
        assert said in record.getMessage()
    assert table.optics["amplitude_contrast"].tolist() == [0.1] * 3
    assert table.optics["scale"].tolist() == [1.0] * 3
    assert (
        table.optics["b_factor_angstrom2"].tolist()
        == table.optics["phase_shift_radian"].tolist()
        == [0.0] * 3
    )


def test_nothing_is_said_of_a_complete_file(project, caplog):
    with caplog.at_level(logging.INFO, logger="cryolike_dask"):
        read(project, ("optics", OPTICS), ("particles", PARTICLES))
    assert caplog.records == []


def test_missing_required_columns_are_all_named(project):
    columns = changed(FLAT, rlnVoltage=None, rlnSphericalAberration=None, rlnDefocusV=None)
    with pytest.raises(
        InputFileError, match=r"column.s. rlnDefocusV, rlnVoltage, rlnSphericalAberration"
    ):
        read(project, ("", columns))


def test_the_angle_may_be_missing_without_astigmatism_only(project):
    columns = changed(FLAT, rlnDefocusAngle=None)
    with pytest.raises(InputFileError, match=r"does not have the column.s. rlnDefocusAngle"):
        read(project, ("", columns))
    round_ones = changed(columns, rlnDefocusV=FLAT["rlnDefocusU"])
    assert read(project, ("", round_ones)).optics["defocus_angle_radian"].tolist() == [0.0] * 3


@pytest.mark.parametrize("value", ["None", "nan", "inf", "1,5"])
def test_what_is_no_number_is_named(project, value):
    columns = changed(FLAT, rlnDefocusU=[1e4, 1e4, value])
    with pytest.raises(InputFileError, match=rf"rlnDefocusU is '{value}' in row 2 .*1 such row"):
        read(project, ("", columns))


def test_a_column_that_is_not_used_may_hold_anything(project):
    read(project, ("", {**FLAT, "rlnCtfFigureOfMerit": ["nan", "None", "-inf"]}))


def test_values_in_another_unit_are_refused(project):
    with pytest.raises(
        InputFileError, match=r"particles\.star: rlnVoltage is 300000 in row 0 .*volts; 3 such"
    ):
        read(project, ("", changed(FLAT, rlnVoltage=[300000] * 3)))


def test_angles_and_origins(project):
    poses = {
        "rlnAngleRot": [10.0, 20.0, -170.0],
        "rlnAngleTilt": [90.0, 45.0, 0.0],
        "rlnAnglePsi": [1.0, 2.0, 3.0],
        "rlnOriginXAngst": [1.5, -1.0, 0.0],
        "rlnOriginYAngst": [0.5, 2.0, 0.0],
        "rlnRandomSubset": [1, 2, 1],
        "rlnMicrographName": ["m/1.mrc", "m/1.mrc", "m/2.mrc"],
    }
    table = read(project, ("optics", OPTICS), ("particles", {**PARTICLES, **poses}))
    np.testing.assert_allclose(
        np.rad2deg(table.angles_radian), [[10, 90, 1], [20, 45, 2], [-170, 0, 3]]
    )
    np.testing.assert_array_equal(table.origin_angstrom, [[1.5, 0.5], [-1, 2], [0, 0]])
    assert table.random_subset.tolist() == [1, 2, 1]
    assert table.micrograph.tolist() == ["m/1.mrc", "m/1.mrc", "m/2.mrc"]


def test_origins_in_pixels(project, caplog):
    origin = {"rlnOriginX": [1.0, 2.0, 0.0], "rlnOriginY": [-1.0, 0.5, 0.0]}
    table = read(project, ("", {**FLAT, **origin, "rlnPixelSize": [2.0] * 3}))
    np.testing.assert_array_equal(table.origin_angstrom, [[2, -2], [4, 1], [0, 0]])
    with caplog.at_level(logging.INFO, logger="cryolike_dask"):
        assert read(project, ("", {**FLAT, **origin})).origin_angstrom is None
    assert [r.getMessage() for r in caplog.records if "rlnOriginX" in r.getMessage()] != []


@pytest.mark.parametrize("label", ["rlnCtfDataAreCtfPremultiplied", "rlnCtfDataArePhaseFlipped"])
def test_corrected_images_are_refused(project, label):
    assert len(read(project, ("optics", {**OPTICS, label: [0]}), ("particles", PARTICLES))) == 3
    with pytest.raises(
        InputFileError, match=f"{label} is 1 for 3 image.*Extract the particles again"
    ):
        read(project, ("optics", {**OPTICS, label: [1]}), ("particles", PARTICLES))


def test_subtomograms_are_refused(project):
    assert (
        len(
            read(
                project,
                ("optics", {**OPTICS, "rlnImageDimensionality": [2]}),
                ("particles", PARTICLES),
            )
        )
        == 3
    )
    with pytest.raises(InputFileError, match="rlnImageDimensionality is 3"):
        read(
            project, ("optics", {**OPTICS, "rlnImageDimensionality": [3]}), ("particles", PARTICLES)
        )


def test_aberrations_that_are_not_applied_are_said_once(project, caplog):
    nothing = {
        "rlnBeamTiltX": [0],
        "rlnOddZernike": ["[0,0,0.0]"],
        "rlnMagMat00": [1],
        "rlnMagMat01": ["0.000000"],
    }
    read(project, ("optics", {**OPTICS, **nothing}), ("particles", PARTICLES))
    assert caplog.records == []
    some = {
        "rlnBeamTiltX": [0.1],
        "rlnBeamTiltY": [0],
        "rlnEvenZernike": ["[0,0,-1e-3,0]"],
        "rlnMagMat11": [1.01],
    }
    read(project, ("optics", {**OPTICS, **some}), ("particles", PARTICLES))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "rlnBeamTiltX, rlnEvenZernike, rlnMagMat11 are recorded" in record.getMessage()


def test_names_of_images(project):
    (project / "c@d.mrcs").touch()
    names = ["12@a.mrcs", "b.mrcs", "0000003@c@d.mrcs"]
    table = read(project, ("", changed(FLAT, rlnImageName=names)))
    assert [Path(file).name for file in table.image_files] == ["a.mrcs", "b.mrcs", "c@d.mrcs"]
    # a file alone: its only image, whichever it is
    assert table.image_index.tolist() == [
        11,
        -1,
        2,
    ]


def test_images_are_counted_from_one(project):
    with pytest.raises(
        InputFileError, match=r"rlnImageName is '000000@b.mrcs' in row 1.*counted from 1"
    ):
        read(project, ("", changed(FLAT, rlnImageName=["1@a.mrcs", "000000@b.mrcs", "1@b.mrcs"])))


def test_missing_image_files_are_all_named(project):
    names = ["1@gone/x.mrcs", "1@a.mrcs", "1@gone/y.mrcs"]
    with pytest.raises(
        InputFileError, match=r"2 missing(?s:.*)gone/x\.mrcs(?s:.*)gone/y\.mrcs(?s:.*)--folder"
    ):
        read(project, ("", changed(FLAT, rlnImageName=names)))


def test_paired_images(project, caplog):
    images = write_stack(project / "all of them.mrcs", 3)
    without_names = changed(FLAT, rlnImageName=None)
    with caplog.at_level(logging.INFO, logger="cryolike_dask"):
        table = read(project, ("", without_names), images=images)
    assert table.image_files == (str(images),)
    assert table.image_index.tolist() == [0, 1, 2]
    assert f"names no images; its 3 rows are taken for those of {images}, in order" in caplog.text
    with pytest.raises(InputFileError, match="no rlnImageName"):
        read(project, ("", without_names))
    for n in (2, 4):
        other = write_stack(project / f"{n}.mrcs", n)
        with pytest.raises(
            InputFileError, match=rf"describes 3 particles, but .*{n}\.mrcs holds {n} images"
        ):
            read(project, ("", without_names), images=other)


@pytest.mark.parametrize("numbers", [[3, 1, 2], [2, 2, 1], [3, 4, 7]])
def test_given_images_are_those_of_the_numbers_in_the_names(project, numbers):
    images = write_stack(project / "moved.mrcs", 7)
    columns = changed(
        FLAT,
        rlnImageName=[
            f"{i:06d}@{p}job7/a.mrcs" for i, p in zip(numbers, ("", "./", ""), strict=True)
        ],
    )
    table = read(project, ("", columns), images=images)
    assert table.image_files == (str(images),)
    assert table.image_index.tolist() == [i - 1 for i in numbers]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (
            ["3@x.mrcs", "1@x.mrcs", "4@x.mrcs"],
            r"row 2 \(from 0\) is image 4 of x\.mrcs, but .*holds 3; 1 of 3 rows",
        ),
        (
            ["1@x.mrcs", "2@x.mrcs", "1@y.mrcs"],
            r"2 files \(x\.mrcs, y\.mrcs\) in 3 rows, but one file of 3 images is given",
        ),
        (
            ["1@a.mrc", "1@b.mrc", "1@c.mrc"],
            r"3 files .* cannot be told.*a copy of this file without the column",
        ),
        (["a.mrc", "b.mrc", "c.mrc"], "3 files .* cannot be told"),
    ],
)
def test_given_images_that_cannot_be_those_of_the_names(project, names, complaint):
    images = write_stack(project / "restacked.mrcs", 3)
    with pytest.raises(InputFileError, match=complaint):
        read(project, ("", changed(FLAT, rlnImageName=names)), images=images)


def test_the_right_table_is_taken(project):
    other = {"rlnDefocusU": [1.0] * 9}
    assert len(read(project, ("micrographs", other), ("", FLAT))) == 3
    more = {label: values * 2 for label, values in FLAT.items()}
    assert len(read(project, ("", FLAT), ("particles", FLAT), ("", more))) == 3
    assert len(read(project, ("", FLAT), ("", more))) == 6
    images = write_stack(project / "three.mrcs", 3)
    small = {label: values[:1] for label, values in FLAT.items()}
    tables = [("x", changed(small, rlnImageName=None)), ("y", changed(FLAT, rlnImageName=None))]
    assert len(read(project, *tables, images=images)) == 3


def test_what_has_no_particles_is_refused(project):
    with pytest.raises(InputFileError, match=r"no table of particles.* among data_optics, data_x"):
        read(project, ("optics", OPTICS), ("x", {"rlnClassNumber": [1]}))
    with pytest.raises(InputFileError, match="has no particles in block data_particles"):
        read(project, ("optics", OPTICS), ("particles", {label: [] for label in PARTICLES}))
    with pytest.raises(InputFileError, match="2 optics tables"):
        read(project, ("optics", OPTICS), ("optics", OPTICS), ("particles", PARTICLES))


def test_one_image_of_a_file_of_many(project, rng):
    images = rng.standard_normal((9, 4, 4)).astype(np.float32)
    with mrcfile.new(project / "many.mrcs") as file:
        file.set_data(images)
    one = {label: values[:1] for label, values in FLAT.items()} | {"rlnImageName": ["7@many.mrcs"]}
    table = read(project, ("", one))
    taken = open_mrc_stack(table.image_files[0]).take(table.image_index)
    np.testing.assert_array_equal(taken, images[[6]])


def test_real_relion_files_in_either_order_of_blocks(real, tmp_path):
    (tmp_path / "relion31.mrcs").touch()
    tables = [
        read_relion(real / name, folder=tmp_path) for name in ("relion31.star", "relion31.v2.star")
    ]
    for table in tables:
        assert len(table) == 5
        np.testing.assert_allclose(table.pixel_size_angstrom, 2.806)
        assert table.box_size_pixels.tolist() == [256] * 5
        assert table.image_index.tolist() == [0, 1, 2, 3, 4]
    a, b = tables
    np.testing.assert_array_equal(a.optics, b.optics)
    np.testing.assert_array_equal(a.angles_radian, b.angles_radian)
    np.testing.assert_array_equal(a.origin_angstrom, b.origin_angstrom)
    assert a.micrograph.tolist() == b.micrograph.tolist()
    assert a.image_files == b.image_files
    with pytest.raises(InputFileError, match=r"1 missing(?s:.*)relion31\.mrcs"):
        read_relion(real / "relion31.star")
