"""MRC files: what their headers say, what is odd about them, and that only the right voxels are
read."""

from __future__ import annotations

import gzip
import os
import pickle
import warnings

import mrcfile
import numpy as np
import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.mrc import NO_GROUP, open_mrc_map, open_mrc_stack

WORD = {
    name: 4 * i
    for i, name in enumerate(
        ["nx", "ny", "nz", "mode", "nxstart", "nystart", "nzstart", "mx", "my", "mz"]
    )
}
WORD |= {
    "cella_x": 40,
    "cella_y": 44,
    "cella_z": 48,
    "mapc": 64,
    "mapr": 68,
    "maps": 72,
    "ispg": 88,
    "nsymbt": 92,
}


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
    """The value at x, y, z is 100 x + 10 y + z, whatever the order in the file; the sides
    differ."""
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
    edit(
        write(path, np.zeros((4, 4, 4), np.float32)),
        mx=8,
        my=8,
        mz=8,
        cella_x=16.0,
        cella_y=16.0,
        cella_z=16.0,
    )
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


# --- what bytes, axes and space groups mean ---

IMOD = 1146047817
OFFSETS = {
    "imod_stamp": 152,
    "imod_flags": 156,
    "dmin": 76,
    "dmax": 80,
    "alpha": 52,
    "beta": 56,
    "gamma": 60,
}


def put(path, order="<", **words):
    """Write words of the header that `edit` does not know."""
    content = bytearray(path.read_bytes())
    for name, value in words.items():
        kind = "i4" if name.startswith("imod") else "f4"
        content[OFFSETS[name] : OFFSETS[name] + 4] = np.array(value, order + kind).tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("words", "signed"),
    [
        ({}, True),
        ({"imod_stamp": IMOD, "imod_flags": 0}, False),
        ({"imod_stamp": IMOD, "imod_flags": 1}, True),
        ({"imod_stamp": IMOD, "imod_flags": 2 + 4}, False),
        ({"imod_stamp": IMOD, "imod_flags": 1 + 8}, True),
        ({"imod_stamp": 7, "imod_flags": 0}, True),
        ({"dmin": 3.0, "dmax": 255.0}, False),
        ({"dmin": 0.0, "dmax": 128.0}, False),
        ({"dmin": 0.0, "dmax": 127.0}, True),
        ({"dmin": -128.0, "dmax": 127.0}, True),
        ({"dmin": 0.0, "dmax": 200.5}, True),  # of the values before they became bytes
        ({"dmin": 0.0, "dmax": 200.0, "imod_stamp": IMOD, "imod_flags": 1}, True),
    ],
)
@pytest.mark.parametrize("swapped", [False, True], ids=["little endian", "big endian"])
def test_bytes_are_signed_unless_a_program_says_otherwise(path, rng, words, signed, swapped):
    stored = rng.integers(0, 256, (4, 4, 4)).astype(np.uint8)
    write(path, stored.view(np.int8))
    put(path, dmin=0.0, dmax=0.0)
    if swapped:
        as_big_endian(path, np.int8)
    put(path, ">" if swapped else "<", **words)
    expected = stored.view(np.int8 if signed else np.uint8).astype(np.float32)
    stack, density_map = open_mrc_stack(path), open_mrc_map(path)
    np.testing.assert_array_equal(stack.take(np.arange(4)), expected)
    np.testing.assert_array_equal(density_map.read(), expected)
    for opened in (stack, density_map):
        assert any("bytes are read as unsigned, 0 to 255" in note for note in opened.notes) == (
            not signed
        )


@pytest.mark.parametrize("dtype", ["i2", "u2", "f4"])
def test_flags_of_imod_are_about_bytes_alone(path, rng, dtype):
    values = rng.integers(0, 100, (2, 3, 4)).astype(dtype)
    put(write(path, values), imod_stamp=IMOD, imod_flags=0)
    np.testing.assert_array_equal(open_mrc_stack(path).take(np.arange(2)), values)


@pytest.mark.parametrize("flags", [16, 17, 31])
def test_half_bytes_are_refused(path, flags):
    put(write(path, np.zeros((2, 4, 4), np.int8)), imod_stamp=IMOD, imod_flags=flags)
    for open_it in (open_mrc_stack, open_mrc_map):
        with pytest.raises(
            InputFileError, match=r"two values of 4 bits in each byte. Convert it to float32"
        ):
            open_it(path)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ((2, 1, 3), "y, x, z"),
        ((1, 3, 2), "x, z, y"),
        ((3, 2, 1), "z, y, x"),
        ((2, 3, 1), "y, z, x"),
    ],
)
def test_images_of_other_axes_are_refused(path, axes, said):
    edit(write(path, np.zeros((5, 4, 4), np.float32)), mapc=axes[0], mapr=axes[1], maps=axes[2])
    with pytest.raises(
        InputFileError, match=rf"run along {said} \(MAPC, MAPR, MAPS\), but images need x, y, z"
    ):
        open_mrc_stack(path)


@pytest.mark.parametrize(
    ("axes", "odd"), [((0, 0, 0), False), ((1, 1, 3), True), ((4, 5, 6), True)]
)
def test_axes_that_are_none_are_plain(path, rng, axes, odd):
    values = rng.standard_normal((5, 4, 4)).astype(np.float32)
    edit(write(path, values), mapc=axes[0], mapr=axes[1], maps=axes[2])
    stack = open_mrc_stack(path)
    np.testing.assert_array_equal(stack.take(np.arange(5)), values)
    assert any("its axes" in note for note in stack.notes) == odd


@pytest.mark.parametrize(
    ("n", "words", "complaint"),
    [
        (
            4,
            {"ispg": 0, "mz": 1},
            r"a stack of 4 images \(space group 0, one section per cell\), not a volume",
        ),
        (9, {"ispg": 0, "mz": 1}, r"a stack of 9 images"),
        (1, {"ispg": 0, "mz": 1}, r"one image, not a volume"),
        (1, {"ispg": 1, "mz": 1}, r"one image, not a volume"),
        (
            8,
            {"ispg": 401, "mz": 4},
            r"holds 2 volumes \(space group 401, 4 of 8 sections each\). Write each into a file",
        ),
        (12, {"ispg": 630, "mz": 4}, r"holds 3 volumes"),
        (9, {"ispg": 402, "mz": 4}, r"holds several volumes"),
        (9, {"ispg": 401, "mz": 0}, r"holds several volumes"),
    ],
)
def test_images_and_several_volumes_are_no_map(path, n, words, complaint):
    edit(write(path, np.zeros((n, 4, 4), np.float32)), **words)
    with pytest.raises(InputFileError, match=complaint):
        open_mrc_map(path)
    assert open_mrc_stack(path).shape == (n, 4, 4)


@pytest.mark.parametrize(
    ("n", "words", "doubt"),
    [
        (4, {"ispg": 1}, None),
        (4, {"ispg": 401}, None),
        (4, {"ispg": 0}, None),
        (4, {"ispg": 0, "mz": 0}, "says that it is a stack of images"),
        (7, {"ispg": 0}, "its 7 sections of 4 x 4 are taken as one volume"),
        (7, {"ispg": 1}, None),
        (
            7,
            {"ispg": 1, "mz": 1},
            "its 7 sections of 4 x 4 are taken as one volume; a stack of images or of volumes",
        ),
        (
            7,
            {"ispg": 401},
            "its 7 sections of 4 x 4 are taken as one volume; a stack of images or of volumes is "
            "no",
        ),
    ],
)
def test_what_may_be_no_volume_is_doubted(path, n, words, doubt):
    edit(write(path, np.zeros((n, 4, 4), np.float32)), **words)
    opened = open_mrc_map(path)
    assert opened.doubts == () if doubt is None else doubt in opened.doubts[0]
    assert (NO_GROUP in opened.notes) == (words == {"ispg": 0} and n == 4)


@pytest.mark.parametrize(
    ("angles", "refused"),
    [
        ((90, 90, 90), False),
        ((0, 0, 0), False),
        ((90, 90, 120), True),
        ((90, 100.5, 90), True),
        ((60, 60, 60), True),
        ((90.01, 90, 89.99), False),
        ((np.nan, 90, 120), False),  # no angle: nothing was written there
    ],
)
def test_cells_that_are_no_boxes_are_no_maps(path, angles, refused):
    put(
        write(path, np.zeros((4, 4, 4), np.float32)),
        **dict(zip(("alpha", "beta", "gamma"), angles, strict=True)),
    )
    if refused:
        with pytest.raises(
            InputFileError,
            match=r"its cell has angles of .* degrees, and only 90 make a box. Resample",
        ):
            open_mrc_map(path)
    else:
        assert open_mrc_map(path).shape == (4, 4, 4)
    assert open_mrc_stack(path).shape == (4, 4, 4)


def test_headers_that_claim_more_than_the_file_has(path):
    edit(write(path, np.zeros((4, 4, 4), np.float32)), nx=30000, ny=30000, nz=2**31 - 1)
    for open_it in (open_mrc_stack, open_mrc_map):
        with pytest.raises(
            InputFileError,
            match=r"cut short: 1280 bytes, but its header \(2147483647 x 30000 x 30000",
        ):
            open_it(path)


def test_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "x.mrc")
    for open_it in (open_mrc_stack, open_mrc_map):
        with pytest.raises(InputFileError, match=r"x\.mrc: is a pipe, a socket or a device"):
            open_it(tmp_path / "x.mrc")
