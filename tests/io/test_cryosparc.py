"""`.cs` files: records of named columns, and nothing that would have to be unpickled."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time

import numpy as np
import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.cryosparc import read_cs, read_cs_columns, text
from tests.traps import Trap

DTYPE = [("uid", "u8"), ("blob/path", "S20"), ("blob/shape", "u4", (2,)), ("ctf/df1_A", "f4")]


@pytest.fixture
def path(tmp_path):
    """Where a `.cs` file goes."""
    return tmp_path / "particles.cs"


def write(path, array, version=None, **options):
    """Write as cryoSPARC does: numpy's format under another name."""
    with open(path, "wb") as file:
        np.lib.format.write_array(file, array, version=version, **options)
    return path


@pytest.mark.parametrize("version", [None, (1, 0), (2, 0), (3, 0)])
def test_records_are_read(path, version):
    rows = np.array([(7, b"J1/a.mrc", (3, 4), 1.5), (8, b"J1/b.mrc", (5, 6), 2.5)], DTYPE)
    read = read_cs(write(path, rows, version))
    assert read_cs_columns(path) == ("uid", "blob/path", "blob/shape", "ctf/df1_A")
    np.testing.assert_array_equal(read, rows)
    read["uid"] = 0  # writable


def test_an_empty_table(path):
    assert len(read_cs(write(path, np.zeros(0, DTYPE)))) == 0


def test_a_header_longer_than_the_limit_of_numpy(path):
    rows = np.zeros(2, [(f"alignments_class_{i}/pose", "f4", (3,)) for i in range(400)])
    write(path, rows)
    with pytest.raises(ValueError, match="may not be safe to load"):
        np.load(path)
    assert len(read_cs(path).dtype.names) == 400


@pytest.mark.parametrize("kind", ["S9", "U9", ">U9"])
def test_text_is_text(kind):
    column = text(np.array(["a", "ü.mrc".encode() if kind[0] == "S" else "ü.mrc"], kind))
    assert column.tolist() == ["a", "ü.mrc"]
    assert column.dtype.kind == "U"


def test_what_is_no_text():
    with pytest.raises(InputFileError, match="float64 holds no text"):
        text(np.zeros(3))
    with pytest.raises(InputFileError, match=r"\\xe9.*not text"):
        text(np.array([b"\xe9"]))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_in_disguise_is_refused_and_not_executed(path, protocol):
    sprung = path.parent / "sprung"
    path.write_bytes(pickle.dumps(Trap(sprung), protocol))
    for read in (read_cs, read_cs_columns):
        with pytest.raises(InputFileError, match=r"particles\.cs: is a pickled object"):
            read(path)
    assert not sprung.exists()
    pickle.loads(path.read_bytes())
    assert sprung.exists(), "the trap does not work"


@pytest.mark.parametrize(
    "dtype", [object, [("uid", "u8"), ("blob/path", object)], [("a", [("b", object)])]]
)
def test_objects_anywhere_are_refused_and_not_executed(path, dtype):
    sprung = path.parent / "sprung"
    rows = np.zeros(1, dtype)
    trap = Trap(sprung)
    if dtype is object:
        rows[0] = trap
    elif dtype[0][0] == "a":
        rows["a"]["b"][0] = trap
    else:
        rows["blob/path"][0] = trap
    write(path, rows, allow_pickle=True)
    with pytest.raises(InputFileError, match="is a pickled object"):
        read_cs(path)
    assert not sprung.exists()


def test_a_file_cut_short_is_refused_with_both_sizes(path):
    write(path, np.zeros(4, DTYPE))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputFileError, match="cut short: 159 of 160 bytes"):
        read_cs(path)


def test_a_header_that_claims_terabytes_is_refused(path):
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": [("a", "<f8")], "fortran_order": False, "shape": (10**12,)}
        )
    with pytest.raises(InputFileError, match="0 of 8000000000000 bytes"):
        read_cs(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no .cs file: it starts with b''"),
        (b"data_particles\n", "is no .cs file: it starts with b'data_p'"),
        (b"\x93NUMPY\x01\x00\x10\x00garbage", "damaged header"),
        (b"\x94CSDAT" + bytes(100), "compressed format.*NUMPY_FORMAT"),
    ],
)
def test_what_is_no_cs_file(path, content, message):
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=message):
        read_cs(path)


def test_an_array_that_is_no_table(path):
    with pytest.raises(InputFileError, match=r"no table: shape \(3, 2\), type float64"):
        read_cs(write(path, np.zeros((3, 2))))


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputFileError, match=r"absent\.cs: there is no such file"):
        read_cs(tmp_path / "absent.cs")
    with pytest.raises(InputFileError, match="is a folder"):
        read_cs(tmp_path)


def header(descr, shape=(1,)):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def long_header(text):
    return b"\x93NUMPY\x02\x00" + struct.pack("<L", len(text)) + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (long_header(b"(" * 2**14), "damaged header"),
        (long_header(b"1," * 2**13), "damaged header"),
        (long_header(b"-" * 2**14), "damaged header"),
        (long_header(b"1+" * 2**14 + b"1"), "damaged header"),
        (long_header(b"{" * 2**22), "damaged header .its header takes 4194304 bytes"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 4, "its header takes 4294967295 bytes"),
        (b"\x93NUMPY\x07\x00" + b"\xff" * 4, "damaged header"),
        (
            header([("blob/path", "<U1000000")], (0,)),
            "column blob/path of 1000000 characters for each",
        ),
        (
            header([("uid", "<u8"), ("blob/path", "|S20000")]),
            "column blob/path of 20000 characters for each",
        ),
        (header([("blob/path", "<U20000", (2,))]), "column blob/path of 20000 characters for each"),
        (header([("a", [("b", "<f4", (2**20,))])]), "has 4194304 bytes for each particle"),
        (header([("a", "<f4")], (2**62,)), "cut short: 0 of 18446744073709551616 bytes"),
        (header([("a", "<f4")], (-1,)), "its header says shape"),
        (header([("a", "|V0")], (2**40,)), "is no table"),
        (header([], (2**40,)), "is no table|damaged header"),
    ],
)
def test_headers_made_to_do_harm(path, content, message):
    started = time.process_time()
    path.write_bytes(content)
    for read in (read_cs, read_cs_columns):
        if read is read_cs or "cut short" not in message:
            with pytest.raises(InputFileError, match=message) as caught:
                read(path)
            assert len(str(caught.value)) < 600 + len(str(path))
    assert time.process_time() - started < 3


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.cs")
    for read in (read_cs, read_cs_columns):
        with pytest.raises(InputFileError, match=r"pipe\.cs: is a pipe"):
            read(tmp_path / "pipe.cs")
