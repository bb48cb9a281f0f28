"""MRC files: what their headers say, what is odd about them, and that only the right voxels are read."""

from __future__ import annotations

import gzip
import os
import pickle
import warnings

import mrcfile
import numpy as np
import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.mrc import open_mrc_map, open_mrc_stack

WORD = {
    name: 4 * i for i, name in enumerate(["nx", "ny", "nz", "mode", "nxstart", "nystart", "nzstart", "mx", "my", "mz"])
}
WORD |= {"cella_x": 40, "cella_y": 44, "cella_z": 48, "mapc": 64, "mapr": 68, "maps": 72, "ispg": 88, "nsymbt": 92}


@pytest.fixture
def path(tmp_path):
    """Where an MRC file goes; the name has a space."""
    return tmp_path / "some images.mrcs"


def write(path, values, voxel=1.5):
    """An MRC file as mrcfile writes it."""
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore")
        file.set_data(values)
        file.voxel_size = voxel
    return path


def edit(path, **words):
    """Overwrite words of the header, in the byte order of this machine."""
    content = bytearray(path.read_bytes())
    for name, value in words.items():
        kind = "<f4" if name.startswith("cella") else "<i4"
        content[WORD[name] : WORD[name] + 4] = np.array(value, kind).tobytes()
    path.write_bytes(content)


def as_big_endian(path, dtype):
    """Swap every number of an MRC file without an extended header."""
    content = bytearray(path.read_bytes())
    content[:208] = np.frombuffer(content[:208], "<i4").astype(">i4").tobytes()
    content[212:216] = b"\x11\x11\0\0"
    content[1024:] = np.frombuffer(content[1024:], dtype).byteswap().tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("swapped", [False, True], ids=["little endian", "big endian"])
def test_every_mode_and_byte_order(path, rng, dtype, swapped):
    values = rng.integers(0, 100, (5, 3, 4)).astype(dtype)
    write(path, values)
    if swapped:
        as_big_endian(path, values.dtype)
    stack = open_mrc_stack(path)
    assert stack.shape == (5, 3, 4)
    assert np.dtype(stack.dtype) == values.dtype.newbyteorder(">" if swapped else "<")
    assert stack.voxel_size_angstrom == pytest.approx(1.5)
    taken = stack.take(np.arange(5))
    assert taken.dtype == np.float32
    assert taken.dtype.isnative
    np.testing.assert_array_equal(taken, values.astype(np.float32))


def test_images_come_in_the_order_asked_for(path, rng):
    values = rng.standard_normal((6, 2, 3)).astype(np.float32)
    stack = open_mrc_stack(write(path, values))
    for rows in ([4], [5, 0, 5, 2], [], [0, 1, 2]):
        np.testing.assert_array_equal(stack.take(np.array(rows, int)), values[np.array(rows, int)])


@pytest.mark.parametrize("row", [-1, 6, 7000])
def test_an_image_that_is_not_there_is_refused(path, row):
    stack = open_mrc_stack(write(path, np.zeros((6, 2, 2), np.float32)))
    with pytest.raises(InputFileError, match=f"6 image.*{row} is asked for"):
        stack.take(np.array([0, row]))


def test_a_stack_can_travel(path, rng):
    values = rng.standard_normal((3, 2, 2)).astype(np.float32)
    stack = pickle.loads(pickle.dumps(open_mrc_stack(write(path, values))))
    assert os.path.isabs(stack.path)
    np.testing.assert_array_equal(stack.take(np.array([2, 1])), values[[2, 1]])


def test_one_image_stored_as_two_dimensional(path, rng):
    values = rng.standard_normal((3, 4)).astype(np.float32)
    stack = open_mrc_stack(write(path, values))
    assert stack.shape == (1, 3, 4)
    np.testing.assert_array_equal(stack.take(np.array([0])), values[None])


@pytest.mark.parametrize("ispg", [0, 1, 401])
def test_any_space_group_is_a_stack(path, rng, ispg):
    values = rng.standard_normal((4, 3, 3)).astype(np.float32)
    edit(write(path, values), ispg=ispg)
    np.testing.assert_array_equal(open_mrc_stack(path).take(np.arange(4)), values)


def test_the_extended_header_is_passed_over(path, rng):
    values = rng.standard_normal((2, 3, 3)).astype(np.float32)
    with mrcfile.new(path) as file:
        file.set_data(values)
        file.set_extended_header(np.full(1000, b"x", "S1").view("V1"))
    stack = open_mrc_stack(path)
    assert stack.offset == 2024
    np.testing.assert_array_equal(stack.take(np.arange(2)), values)


def test_without_a_map_id_and_a_machine_stamp(path, rng):
    values = rng.integers(-9, 9, (2, 3, 3)).astype(np.int8)
    write(path, values)
    content = bytearray(path.read_bytes())
    content[208:216] = bytes(8)
    path.write_bytes(content)
    stack = open_mrc_stack(path)
    assert "no MAP id" in stack.notes[0]
    np.testing.assert_array_equal(stack.take(np.arange(2)), values)


def test_a_machine_stamp_that_lies(path, rng):
    values = rng.standard_normal((2, 3, 3)).astype(np.float32)
    write(path, values)
    content = bytearray(path.read_bytes())
    content[212:216] = b"\x11\x11\0\0"
    path.write_bytes(content)
    stack = open_mrc_stack(path)
    assert any("other byte order" in note for note in stack.notes)
    np.testing.assert_array_equal(stack.take(np.arange(2)), values)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, 1.5),
        ({"cella_x": 0.0, "cella_y": 0.0, "cella_z": 0.0}, None),
        ({"mx": 0}, None),
        ({"cella_x": np.nan}, None),
        ({"cella_x": -6.0}, None),
        ({"cella_x": 1e20}, None),
        ({"cella_x": 60.0}, None),
        ({"cella_z": 0.0, "mz": 0}, 1.5),
    ],
)
def test_voxel_size_of_a_stack(path, words, expected):
    edit(write(path, np.zeros((5, 4, 4), np.float32)), **words)
    assert open_mrc_stack(path).voxel_size_angstrom == expected


def test_a_file_cut_short_is_refused_with_both_sizes(path):
    write(path, np.zeros((5, 4, 4), np.float32))
    path.write_bytes(path.read_bytes()[:1300])
    with pytest.raises(InputFileError, match=r"cut short: 1300 bytes.*5 x 4 x 4 of float32.*1344"):
        open_mrc_stack(path)


def test_a_longer_file_is_accepted(path):
    write(path, np.ones((5, 4, 4), np.float32))
    with open(path, "ab") as file:
        file.write(b"tail")
    stack = open_mrc_stack(path)
    assert "4 bytes longer" in stack.notes[0]
    assert stack.take(np.arange(5)).sum() == 80


@pytest.mark.parametrize(
    ("mode", "kind"), [(4, "complex float32"), (3, "complex int16"), (101, "4-bit"), (7, "unknown")]
)
def test_other_modes_are_refused_by_name(path, mode, kind):
    edit(write(path, np.zeros((5, 4, 4), np.float32)), mode=mode)
    with pytest.raises(InputFileError, match=f"mode {mode} .{kind}"):
        open_mrc_stack(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"too short", "9 bytes"),
        (bytes(4096), "no MRC file: mode 0, shape 0 x 0 x 0"),
        (b"data_particles\n" * 200, "no MRC file"),
        (bytes([255]) * 4096, "no MRC file"),
    ],
)
def test_what_is_no_mrc_file(path, content, message):
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=message) as caught:
        open_mrc_stack(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("magic", "kind"), [(None, "gzip"), (b"BZh9", "bzip2")])
def test_compressed_files_are_refused(path, magic, kind):
    write(path, np.random.default_rng(0).standard_normal((5, 9, 9)).astype(np.float32))
    path.write_bytes(gzip.compress(path.read_bytes()) if magic is None else magic + bytes(2000))
    with pytest.raises(InputFileError, match=f"compressed .{kind}.*Decompress"):
        open_mrc_stack(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputFileError, match=r"absent\.mrc: there is no such file"):
        open_mrc_stack(tmp_path / "absent.mrc")
    with pytest.raises(InputFileError, match="is a folder"):
        open_mrc_map(tmp_path)


def test_a_file_that_changed_is_refused(path):
    stack = open_mrc_stack(write(path, np.zeros((5, 4, 4), np.float32)))
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputFileError, match="has changed since it was opened"):
        stack.take(np.array([0]))
    path.unlink()
    with pytest.raises(InputFileError, match=r"some images\.mrcs: cannot be read: No such file"):
        stack.take(np.array([0]))


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2), (0, 0, 0), (1, 1, 3)])
@pytest.mark.parametrize("swapped", [False, True], ids=["little endian", "big endian"])
def test_a_map_is_read_along_its_axes(path, axes, swapped):
    """The value at x, y, z is 100 x + 10 y + z, whatever the order in the file; the sides differ."""
    nx, ny, nz = n_along = (5, 4, 3)
    along = axes if sorted(axes) == [1, 2, 3] else (1, 2, 3)
    z, y, x = np.indices((nz, ny, nx))
    density = 100 * x + 10 * y + z
    stored = density.transpose([3 - axis for axis in along[::-1]]).astype(np.int16)
    write(path, stored)
    edit(path, mx=nx, my=ny, mz=nz, cella_x=nx * 1.1, cella_y=ny * 1.2, cella_z=nz * 1.3)
    edit(path, mapc=axes[0], mapr=axes[1], maps=axes[2])
    if swapped:
        as_big_endian(path, stored.dtype)
    density_map = open_mrc_map(path)
    assert density_map.shape == n_along
    np.testing.assert_allclose(density_map.voxel_size_angstrom, (1.1, 1.2, 1.3), rtol=1e-6)
    values = density_map.read()
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(values, density)


def test_a_part_of_a_cell_has_the_voxels_of_the_cell(path):
    edit(write(path, np.zeros((4, 4, 4), np.float32)), mx=8, my=8, mz=8, cella_x=16.0, cella_y=16.0, cella_z=16.0)
    assert open_mrc_map(path).voxel_size_angstrom == (2.0, 2.0, 2.0)


def test_a_map_without_a_voxel_size(path):
    edit(write(path, np.zeros((4, 4, 4), np.float32)), cella_z=0.0)
    assert open_mrc_map(path).voxel_size_angstrom is None


def test_a_map_that_is_cut_short_or_changed(path):
    write(path, np.zeros((4, 4, 4), np.float32))
    density_map = open_mrc_map(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputFileError, match=r"1279 bytes.*1280"):
        open_mrc_map(path)
    with pytest.raises(InputFileError, match="has changed"):
        density_map.read()
