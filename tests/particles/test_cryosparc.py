"""Particles of cryoSPARC: their poses and signs, passthrough files joined by uid, and folders of
jobs."""

from __future__ import annotations

import logging
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.mrc import open_mrc_stack
from cryolike_dask.particles.cryosparc import read_cryosparc, relion_angles
from cryolike_dask.particles.relion import read_relion

REAL = Path(__file__).parents[2] / ".." / "shared" / "real"

UID = [11, 7, 9]
BLOB = {
    "blob/path": ["J3/extract/b.mrc", "J3/extract/a.mrc", "J3/extract/b.mrc"],
    "blob/idx": np.array([5, 0, 2], "u4"),
    "blob/shape": np.array([[64, 64]] * 3, "u4"),
    "blob/psize_A": np.array([1.25] * 3, "f4"),
    "blob/sign": np.array([-1, 1, 0], "f4"),
}
CTF = {
    "ctf/accel_kv": np.array([300, 300, 200], "f4"),
    "ctf/cs_mm": np.array([2.7] * 3, "f4"),
    "ctf/amp_contrast": np.array([0.1, 0.1, 0.07], "f4"),
    "ctf/df1_A": np.array([15000, 14000, 13000], "f4"),
    "ctf/df2_A": np.array([14500, 14200, 12500], "f4"),
    "ctf/df_angle_rad": np.array([0.5, -1.0, 3.0], "f4"),
    "ctf/phase_shift_rad": np.array([0, 1, 0], "f4"),
    "ctf/bfactor": np.array([0, 20, 0], "f4"),
    "ctf/scale": np.array([0.9, 0, 1], "f4"),
    "ctf/exp_group_id": np.array([4, 4, 8], "u4"),
}


@pytest.fixture(scope="session")
def real():
    """Real particles and metadata of other laboratories."""
    if not REAL.is_dir():
        pytest.skip(f"the real particles are not at {REAL}")
    return REAL.resolve()


@pytest.fixture
def project(tmp_path):
    """A project folder with one job and its image files, which are empty."""
    folder = tmp_path / "CS-project" / "J3" / "extract"
    folder.mkdir(parents=True)
    for name in ("a.mrc", "b.mrc"):
        (folder / name).touch()
    return tmp_path / "CS-project"


@pytest.fixture
def path(project):
    """Where the `.cs` file goes."""
    return project / "J3" / "extracted_particles.cs"


def write(path, columns, uid=UID, text="S"):
    """Write columns as cryoSPARC does."""
    arrays = {} if uid is None else {"uid": np.array(uid, "u8")}
    arrays |= {
        k: np.array(v, np.str_ if text == "U" else np.bytes_) if isinstance(v, list) else v
        for k, v in columns.items()
    }
    rows = np.zeros(
        len(next(iter(arrays.values()))), [(k, v.dtype, v.shape[1:]) for k, v in arrays.items()]
    )
    for name, values in arrays.items():
        rows[name] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.save(file, rows)
    return path


def write_stack(path, n):
    path.parent.mkdir(exist_ok=True)
    with mrcfile.new(path) as file:
        file.set_data(np.zeros((n, 4, 4), np.float32))
        file.set_image_stack()


def without(columns, *names):
    return {name: values for name, values in columns.items() if name not in names}


@pytest.mark.parametrize("text", ["S", "U"], ids=["bytes", "unicode"])
@pytest.mark.parametrize("mark", ["", ">"], ids=["path", ">path"])
def test_a_complete_file(project, path, text, mark):
    columns = {**BLOB, **CTF, "blob/path": [mark + name for name in BLOB["blob/path"]]}
    columns["location/micrograph_path"] = [
        mark + name for name in ("m/1.mrc", "m/1.mrc", "m/22.mrc")
    ]
    table = read_cryosparc(write(path, columns, text=text))
    assert table.image_files == (
        str(project / "J3/extract/b.mrc"),
        str(project / "J3/extract/a.mrc"),
    )
    assert table.file_number.tolist() == [0, 1, 0]
    assert table.image_index.tolist() == [5, 0, 2]
    assert table.pixel_size_angstrom.tolist() == [1.25] * 3
    assert table.box_size_pixels.tolist() == [64] * 3
    assert table.sign.tolist() == [-1, 1, 1]
    assert table.optics_group.tolist() == [4, 4, 8]
    assert table.micrograph.tolist() == ["m/1.mrc", "m/1.mrc", "m/22.mrc"]
    assert table.metadata_files == (str(path),)
    assert table.angles_radian is None
    for name, label in [
        ("defocus_u_angstrom", "df1_A"),
        ("defocus_v_angstrom", "df2_A"),
        ("voltage_kilovolt", "accel_kv"),
    ]:
        np.testing.assert_array_equal(table.optics[name], CTF[f"ctf/{label}"])
    np.testing.assert_array_equal(table.optics["defocus_angle_radian"], CTF["ctf/df_angle_rad"])
    np.testing.assert_array_equal(table.optics["phase_shift_radian"], CTF["ctf/phase_shift_rad"])
    np.testing.assert_array_equal(table.optics["b_factor_angstrom2"], CTF["ctf/bfactor"])
    np.testing.assert_allclose(table.optics["scale"], [0.9, 1, 1], rtol=1e-6)


def test_what_is_missing_and_taken_is_said_once(path, caplog):
    left_out = (
        "ctf/amp_contrast",
        "ctf/phase_shift_rad",
        "ctf/bfactor",
        "ctf/scale",
        "blob/sign",
        "blob/psize_A",
    )
    write(path, without({**BLOB, **CTF}, *left_out))
    with caplog.at_level(logging.INFO, logger="cryolike_dask"):
        table = read_cryosparc(path)
    (record,) = caplog.records
    assert "ctf/phase_shift_rad = 0, " not in record.getMessage().split("ctf/amp_contrast")[0]
    for said in (
        "ctf/amp_contrast = 0.1",
        "ctf/phase_shift_rad = 0",
        "ctf/bfactor = 0",
        "ctf/scale = 1",
    ):
        assert said in record.getMessage()
    assert table.sign.tolist() == [1.0] * 3
    assert table.pixel_size_angstrom is None


def test_zero_pixel_size_and_shape_are_unknown(path):
    columns = {
        **BLOB,
        **CTF,
        "blob/psize_A": np.zeros(3, "f4"),
        "blob/shape": np.zeros((3, 2), "u4"),
    }
    table = read_cryosparc(write(path, columns))
    assert table.pixel_size_angstrom is None
    assert table.box_size_pixels is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ctf/df1_A", np.array([1e4, np.nan, 1e4], "f4"), "ctf/df1_A is nan in row 1"),
        ("blob/sign", np.array([1, 1, 3], "f4"), "blob/sign is 3 in row 2"),
        (
            "ctf/accel_kv",
            np.zeros(3, "f4"),
            r"ctf/accel_kv is 0 in row 0 \(from 0\), which is no value in kilovolt; 3 such",
        ),
        ("ctf/cs_mm", ["x", "y", "z"], "ctf/cs_mm holds"),
    ],
)
def test_values_that_cannot_be(path, name, value, message):
    with pytest.raises(InputFileError, match=message) as caught:
        read_cryosparc(write(path, {**BLOB, **CTF, name: value}))
    assert str(path) in str(caught.value)


def test_aberrations_that_are_not_applied_are_said_once(path, caplog):
    columns = {
        **BLOB,
        **CTF,
        "ctf/tilt_A": np.zeros((3, 2), "f4"),
        "ctf/trefoil_A": np.ones((3, 2), "f4"),
    }
    read_cryosparc(write(path, columns))
    (record,) = caplog.records
    assert "ctf/trefoil_A are recorded" in record.getMessage()


def test_missing_image_files_are_all_named(path):
    columns = {**BLOB, **CTF, "blob/path": [">gone/x.mrc", "J3/extract/a.mrc", "gone/y.mrc"]}
    with pytest.raises(
        InputFileError, match=r"2 missing(?s:.*)gone/x\.mrc(?s:.*)gone/y\.mrc(?s:.*)--folder"
    ):
        read_cryosparc(write(path, columns))


def test_the_folder_may_be_given(path, project, tmp_path):
    elsewhere = write(tmp_path / "elsewhere" / "particles.cs", {**BLOB, **CTF})
    assert read_cryosparc(elsewhere, folder=project).image_files[1] == str(
        project / "J3/extract/a.mrc"
    )
    with pytest.raises(InputFileError, match="2 missing"):
        read_cryosparc(elsewhere)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("main", "rest"), [(BLOB, CTF), (CTF, BLOB), ({}, {**BLOB, **CTF})], ids=["blob", "ctf", "none"]
)
def test_columns_come_from_the_passthrough_file_by_uid(path, main, rest, given):
    expected = read_cryosparc(write(path, {**BLOB, **CTF}))
    order = [2, 0, 1]
    shuffled = {
        k: [v[i] for i in order] if isinstance(v, list) else v[order] for k, v in rest.items()
    }
    name = "other.cs" if given else "J3_passthrough_particles.cs"
    passthrough = write(path.with_name(name), shuffled, uid=[UID[i] for i in order])
    write(
        path.with_name("J3_passthrough_micrographs.cs"), {"micrograph_blob/idx": np.zeros(3, "u4")}
    )
    write(path, main)
    table = read_cryosparc(path, passthrough=passthrough if given else None)
    np.testing.assert_array_equal(table.optics, expected.optics)
    assert table.image_files == expected.image_files
    assert table.image_index.tolist() == expected.image_index.tolist()
    assert table.sign.tolist() == expected.sign.tolist()


def test_a_passthrough_file_may_hold_more_particles(path):
    write(path, BLOB)
    more = {name: np.concatenate([values, values]) for name, values in CTF.items()}
    write(path.with_name("x_passthrough.cs"), more, uid=[*UID, 1, 2, 3])
    assert read_cryosparc(path).optics["defocus_u_angstrom"].tolist() == [15000, 14000, 13000]


def test_without_a_passthrough_file_the_missing_columns_are_named(path):
    write(path, BLOB)
    with pytest.raises(
        InputFileError, match=r"ctf/accel_kv, ctf/cs_mm, .*beside it \(none\) 0 have"
    ):
        read_cryosparc(path)
    for i in "12":
        write(path.with_name(f"{i}_passthrough.cs"), CTF)
    with pytest.raises(InputFileError, match=r"1_passthrough\.cs, 2_passthrough\.cs\) 2 have"):
        read_cryosparc(path)
    other = write(path.with_name("other.cs"), {"a": np.zeros(3)})
    with pytest.raises(
        InputFileError, match=r"does not have ctf/accel_kv.*neither has .*other\.cs"
    ):
        read_cryosparc(path, passthrough=other)


@pytest.mark.parametrize(
    ("uid", "passthrough_uid", "message"),
    [
        (UID, [11, 7, 8], "1 of 3 particles are not in"),
        (UID, [1, 2, 3], "3 of 3 particles are not in"),
        (UID, [11, 7, 7], r"passthrough\.cs: has 1 of 3 uid values more than once"),
        ([11, 11, 11], UID, r"extracted_particles\.cs: has 2 of 3 uid"),
        (None, UID, "has no uid"),
    ],
)
def test_particles_that_do_not_belong_together(path, uid, passthrough_uid, message):
    write(path, BLOB, uid)
    write(path.with_name("passthrough.cs"), CTF, passthrough_uid)
    with pytest.raises(InputFileError, match=message):
        read_cryosparc(path)


def test_an_empty_passthrough_file(path):
    write(path, BLOB)
    write(path.with_name("passthrough.cs"), {k: v[:0] for k, v in CTF.items()}, [])
    with pytest.raises(InputFileError, match=r"3 of 3 particles are not in .*which has 0"):
        read_cryosparc(path)


def test_the_folder_of_a_job(project, path):
    write(path, BLOB)
    write(path.with_name("J3_passthrough_particles.cs"), CTF)
    assert read_cryosparc(path.parent).metadata_files == (str(path),)
    write(path.with_name("more.cs"), BLOB)
    with pytest.raises(
        InputFileError, match=r"2 .cs files that name images: extracted_particles\.cs, more\.cs"
    ):
        read_cryosparc(path.parent)


def test_a_restack_job_that_names_no_images(project, caplog):
    """Batch 10 comes after batch 9."""
    job = project / "J5"
    n = 14
    ctf = {name: np.resize(values, n) for name, values in CTF.items()}
    described = write(job / "J5_passthrough_particles.cs", ctf, np.arange(n))
    for batch in range(12):
        write_stack(job / "restack" / f"batch_{batch}_restacked.mrc", 3 if batch == 10 else 1)
    with caplog.at_level(logging.INFO, logger="cryolike_dask"):
        table = read_cryosparc(job)
    assert [Path(file).name for file in table.image_files] == [
        f"batch_{i}_restacked.mrc" for i in range(12)
    ]
    assert table.file_number.tolist() == [*range(10), 10, 10, 10, 11]
    assert table.image_index.tolist() == [0] * 10 + [0, 1, 2, 0]
    assert table.metadata_files == (str(described),)
    assert [m for m in caplog.messages if "no file names the images" in m] == caplog.messages[:1]
    (job / "restack" / "batch_3_restacked.mrc").unlink()
    with pytest.raises(
        InputFileError, match=r"describes 14 particles, but the 11 stacks of .* hold 13"
    ):
        read_cryosparc(job)


def test_a_downsample_job_that_names_no_images(project):
    job = project / "J6"
    write(job / "J6_passthrough_particles.cs", CTF)
    write_stack(job / "downsample" / "2_images.mrc", 1)
    write_stack(job / "downsample" / "10_images.mrc", 2)
    assert [Path(file).name for file in read_cryosparc(job).image_files] == [
        "2_images.mrc",
        "10_images.mrc",
    ]


def test_a_folder_that_is_no_job(tmp_path):
    with pytest.raises(
        InputFileError, match=r"no .cs file names the images; 0 of none .* 0 stacks"
    ):
        read_cryosparc(tmp_path)


def rotation(vector):
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle if angle else vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def about_z(angle):
    return np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )


def about_y(angle):
    return np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )


def test_poses_become_the_angles_of_relion(rng):
    """RELION's matrix, which acts on atoms, is the transpose of cryoSPARC's rotation."""
    vectors = rng.standard_normal((300, 3))
    vectors *= rng.uniform(0, np.pi, (300, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    special = [
        [0, 0, 0],
        [0, 0, 1],
        [0, 0, -3],
        [0, np.pi, 0],
        [np.pi, 0, 0],
        [1e-9, 0, 2],
        [3e-7, -2e-7, 1],
        [0, 1, 0],
    ]
    vectors = np.concatenate([vectors, special])
    angles = relion_angles(vectors)
    assert ((angles[:, 1] >= 0) & (angles[:, 1] <= np.pi)).all()
    for vector, (rot, tilt, psi) in zip(vectors, angles, strict=True):
        matrix = about_z(-psi) @ about_y(-tilt) @ about_z(-rot)
        np.testing.assert_allclose(
            matrix, rotation(vector).T, atol=3e-7 if abs(np.sin(tilt)) < 1e-6 else 1e-12
        )


def test_the_angles_of_known_poses():
    turned = relion_angles(np.array([[0, 0, 0.3], [0, 0.4, 0]]))
    np.testing.assert_allclose(turned, [[0, 0, 0.3], [0, 0.4, 0]], atol=1e-15)


def test_poses_are_carried(path, rng):
    pose = rng.standard_normal((3, 3)).astype("f4")
    alignments = {
        "alignments3D/pose": pose,
        "alignments3D/shift": np.array([[1, -2], [0.5, 0], [3, 4]], "f4"),
        "alignments3D/split": np.array([0, 1, 1], "u4"),
    }
    table = read_cryosparc(write(path, {**BLOB, **CTF, **alignments}))
    np.testing.assert_array_equal(table.angles_radian, relion_angles(pose))
    np.testing.assert_array_equal(table.origin_angstrom, [[1.25, -2.5], [0.625, 0], [3.75, 5]])
    assert table.random_subset.tolist() == [1, 2, 2]
    alignments["alignments3D/psize_A"] = np.array([2.0] * 3, "f4")
    table = read_cryosparc(write(path, {**BLOB, **CTF, **alignments}))
    np.testing.assert_array_equal(table.origin_angstrom, [[2, -4], [1, 0], [6, 8]])


def test_shifts_without_a_pixel_size_are_left_out(path, caplog):
    columns = {**without(BLOB, "blob/psize_A"), **CTF, "alignments3D/shift": np.ones((3, 2), "f4")}
    with caplog.at_level(logging.INFO, logger="cryolike_dask"):
        assert read_cryosparc(write(path, columns)).origin_angstrom is None
    assert "alignments3D/shift is left out" in caplog.text


def test_real_particles_described_twice(real):
    star = read_relion(real / "empiar10076" / "empiar_10076_7.star")
    cs = read_cryosparc(real / "empiar10076" / "empiar_10076_7.cs")
    for name in star.optics.dtype.names:
        np.testing.assert_allclose(
            cs.optics[name], star.optics[name], rtol=1e-6, atol=1e-7, err_msg=name
        )
    assert star.image_files == cs.image_files
    assert star.image_index.tolist() == cs.image_index.tolist() == list(range(7))
    for table in (star, cs):
        np.testing.assert_allclose(table.pixel_size_angstrom, 1.31, rtol=1e-5)
    assert cs.sign.tolist() == [-1.0] * 7
    stack = open_mrc_stack(cs.image_files[0])
    assert stack.shape == (7, 320, 320)
    assert stack.voxel_size_angstrom is None
    with mrcfile.open(cs.image_files[0], permissive=True) as file:
        np.testing.assert_array_equal(stack.take(np.array([5, 2])), file.data[[5, 2]])
