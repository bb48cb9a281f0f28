"""Archives: entries are read by their headers, nothing is unpickled, and None is an empty float
array."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.archives import read_archive, read_list, write_archive, write_list
from cryolike_dask.io.parameters import read_parameters, write_parameters
from tests.traps import Trap


@pytest.fixture
def path(tmp_path):
    """Where an archive goes."""
    return tmp_path / "archive.npz"


def entry(shape: tuple[int, ...], data: bytes, descr: str = "<f8") -> bytes:
    """A `.npy` file whose header need not be true."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"shape": shape, "fortran_order": False, "descr": descr}
    )
    return file.getvalue() + data


def write_entries(
    path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    """Write an `.npz` file of raw entries."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, content in entries.items():
            archive.writestr(f"{key}.npy", content)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_what_numpy_writes_is_read(path, rng, save):
    entries = {
        "real": rng.standard_normal((3, 4)),
        "columns first": np.asfortranarray(rng.standard_normal((3, 4))),
        "single": rng.standard_normal(5).astype(">f4"),
        "number": np.array(3),
        "text": np.array(["ä b", "c"]),
        "flags": np.array([True, False]),
        "no integers": np.zeros(0, int),
    }
    save(path, **entries)
    read = read_archive(path, optional=())
    assert read.keys() == entries.keys()
    for key, value in entries.items():
        np.testing.assert_array_equal(read[key], value)


def test_round_trip_is_read_by_numpy_without_pickle(path):
    write_archive(path, {"none": None, "number": 2.5, "word": "xy", "list": [1, 2]})
    with np.load(path, allow_pickle=False) as there:
        assert there["none"].shape == (0,)
        assert there["none"].dtype == np.float64
        assert (there["number"], str(there["word"]), there["list"].tolist()) == (2.5, "xy", [1, 2])
    read = read_archive(path, optional=["none"])
    assert read["none"] is None
    assert read_archive(path, optional=())["none"].shape == (0,)


def test_objects_are_not_written(path):
    with pytest.raises(Exception, match=r"[Oo]bject|pickle"):
        write_archive(path, {"a": np.array([None, 1], dtype=object)})
    assert not path.exists()


def test_pickled_none_at_an_optional_key(path):
    np.savez(path, none=np.array(None))
    assert read_archive(path, optional=["none"]) == {"none": None}


def object_entry(pickled: bytes) -> bytes:
    """An entry of shape () of whatever was pickled."""
    return entry((), pickled, descr="|O")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [None, [None], np.array(None)], ids=["None", "list", "array"])
def test_none_of_any_protocol_and_any_numpy(path, protocol, value):
    content = pickle.dumps(value, protocol)
    for pickled in (
        content,
        content.replace(b"numpy._core", b"numpy.core") if protocol < 4 else content,
    ):
        write_entries(path, {"none": object_entry(pickled)})
        assert read_archive(path, optional=["none"]) == {"none": None}


@pytest.mark.parametrize(
    "value",
    [
        3,
        "text",
        {},
        [],
        [None, None],
        [[None]],
        (None,),
        False,
        np.array(2, object),
        np.array([None]),
        np.array(1.0),
    ],
    ids=str,
)
def test_an_object_that_is_not_none_is_refused_at_an_optional_key_too(path, value):
    write_entries(path, {"key": object_entry(pickle.dumps(value))})
    with pytest.raises(
        InputFileError, match=r"archive\.npz, entry 'key': is a pickled object, which is not read"
    ):
        read_archive(path, optional=["key"])


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_trap_is_refused_and_not_sprung(path, tmp_path, protocol):
    trap = Trap(tmp_path / "executed")
    for value in (trap, [trap], [None, trap], np.array(trap, dtype=object)):
        write_entries(path, {"key": object_entry(pickle.dumps(value, protocol))})
        with pytest.raises(InputFileError, match="is a pickled object"):
            read_archive(path, optional=["key"])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content", [b"", b"N", b"garbage", b"\x80\x02" + b"(" * 900 + b".", b"X\xff\xff\xff\x7fa."]
)
def test_a_damaged_pickle_stands_for_nothing(path, content):
    write_entries(path, {"key": object_entry(content)})
    with pytest.raises(InputFileError, match=r"archive\.npz"):
        read_archive(path, optional=["key"])


@pytest.mark.parametrize(
    ("value", "optional"),
    [
        (np.array(None), []),
        (np.array([None]), ["key"]),
        (np.array([], dtype=object), ["key"]),
        (np.array([[1, None]]), ["key"]),
        (np.array((1, None), dtype=[("a", "i4"), ("b", "O")])[None], ["key"]),
    ],
    ids=["required", "one", "empty", "two", "structured"],
)
def test_other_objects(path, value, optional):
    np.savez(path, key=value)
    with pytest.raises(
        InputFileError, match=r"archive\.npz, entry 'key': is a pickled object, which is not read"
    ):
        read_archive(path, optional=optional)


def test_trap_at_a_required_key(path, tmp_path):
    np.savez(path, key=np.array([Trap(tmp_path / "executed")], dtype=object))
    with pytest.raises(InputFileError, match="'key'"):
        read_archive(path, optional=["key"])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            entry((2**17, 2**27), b"\0" * 8),
            r"entry 'key': claims 140737488355328 bytes but holds at most",
        ),
        (entry((2**62, 2**62), b"\0" * 8), r"entry 'key': claims \d+ bytes"),
        (entry((3,), b"\0" * 20), r"entry 'key': is cut short: 20 of 24 bytes"),
        (entry((-3,), b"\0" * 24), r"archive\.npz"),
        (entry((-1,), b"\0" * 24), r"archive\.npz"),
        (entry((0, 2**62), b"", descr="|V0"), r"archive\.npz"),
        (b"", r"archive\.npz"),
        (b"\x93NUMPY\x01\x00", r"archive\.npz"),
        (b"\x93NUMPY\x09\x00" + b"\0" * 100, r"archive\.npz"),
        (b"not an array", r"archive\.npz"),
        (b"\x93NUMPY\x01\x00\x10\x00__import__('os')", r"archive\.npz"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{", r"archive\.npz"),
    ],
    ids=[
        *(
            "terabytes",
            "overflow",
            "short",
            "negative",
            "minus one",
            "no bytes",
            "empty",
            "header only",
            "version 9",
        ),
        *("text", "code", "long header"),
    ],
)
@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "compressed"]
)
def test_damaged_entry(path, content, complaint, compression):
    write_entries(path, {"key": content}, compression)
    with pytest.raises(InputFileError, match=complaint):
        read_archive(path, optional=["key"])


@pytest.mark.parametrize(
    "damage", ["truncated", "zero-length", "text", "directory", "missing", "bad checksum", "npy"]
)
def test_damaged_archive(path, damage):
    np.savez(path, key=np.arange(1000.0))
    content = bytearray(path.read_bytes())
    path.unlink()
    content[4000] ^= 1
    if damage == "directory":
        path.mkdir()
    elif damage == "npy":
        np.save(path.open("wb"), np.ones(3))
    elif damage != "missing":
        cases = {
            "truncated": content[:5000],
            "zero-length": b"",
            "text": b"a letter\n",
            "bad checksum": content,
        }
        path.write_bytes(cases[damage])
    with pytest.raises(InputFileError, match=r"archive\.npz: .*\w"):
        read_archive(path, optional=())


@pytest.mark.parametrize("encrypted", [False, True], ids=["unknown compression", "encrypted"])
def test_zip_features_that_are_not_there(path, encrypted):
    np.savez(path, key=np.arange(10.0))
    content = bytearray(path.read_bytes())
    local, central = 0, content.rfind(b"PK\x01\x02")
    for at in (local + 6, central + 8):
        if encrypted:
            content[at] |= 1
        else:
            content[at + 2] = 99
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"archive\.npz: .*\w"):
        read_archive(path, optional=())


ZEROS = 2**30


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    """An archive of some kilobytes whose entries would take gigabytes, beside one that is as it
    should be."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("good.npy", entry((1,), bytes(8)))
        with archive.open("numbers.npy", "w", force_zip64=True) as file:
            file.write(entry((ZEROS // 8,), b""))
            for _ in range(8):
                file.write(bytes(ZEROS // 64))
    content = path.read_bytes()
    # says that it has all of them, which takes too long to make
    start = content.rfind(b"PK\x01\x02")
    size = content.index(struct.pack("<L", ZEROS // 8 + 128), start)
    path.write_bytes(content[:size] + struct.pack("<L", ZEROS + 128) + content[size + 4 :])
    return path


def peak(action) -> int:
    """Bytes that an action takes, at most."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("n_images", [None, 3, 1000])
def test_what_would_expand_beyond_need_is_refused_before_it_does(bomb, n_images):
    def read():
        with pytest.raises(
            InputFileError, match=r"bomb\.npz: would expand to 1073741952 bytes, far more than"
        ):
            read_archive(bomb, optional=(), keys=["numbers"], n_images=n_images)

    assert peak(read) < 2**20


def test_what_nobody_needs_is_not_read(bomb):
    def read():
        assert read_archive(bomb, optional=(), keys=["good", "absent"])["good"] == 0

    assert peak(read) < 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_ways_to_compress_that_numpy_never_uses(path, method):
    write_entries(path, {"key": entry((1,), bytes(8))}, method)
    with pytest.raises(InputFileError, match=r"key\.npy is compressed in a way that is not read"):
        read_archive(path, optional=())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(path):
    with zipfile.ZipFile(path, "w") as archive:
        for value in (1.0, 2.0):
            archive.writestr("key.npy", entry((), struct.pack("<d", value)))
    with pytest.raises(InputFileError, match=r"key\.npy is in it twice"):
        read_archive(path, optional=())
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("key", "key.npy"):
            archive.writestr(name, entry((), bytes(8)))
    with pytest.raises(InputFileError, match="two entries of one name"):
        read_archive(path, optional=())


def test_a_directory_of_too_many_entries(path):
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(4000):
            archive.writestr(f"{i:030d}", b"")
    with pytest.raises(InputFileError, match=r"its directory takes \d+ bytes"):
        read_archive(path, optional=())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            b"\x93NUMPY\x02\x00" + struct.pack("<L", 2**31) + b"{",
            "its header takes 2147483648 bytes",
        ),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000, "its header is damaged"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"-" * 9000, "its header is damaged"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"1," * 4500, "its header is damaged"),
        (entry((1,) * 40, bytes(8)), "its header says shape"),
        (entry((2**70, 0), b""), "its header says shape"),
        (entry((1,), bytes(100), descr="|V100000000"), "claims 100000000 bytes but holds"),
        (entry((1,), bytes(100), descr="<U25000000"), "claims 100000000 bytes but holds"),
    ],
    ids=["long", "nested", "signs", "numbers", "dimensions", "beyond 64 bits", "wide", "wide text"],
)
def test_headers_made_to_do_harm(path, content, complaint):
    write_entries(path, {"key": content})
    with pytest.raises(InputFileError, match=complaint) as caught:
        read_archive(path, optional=())
    assert len(str(caught.value)) < 500 + len(str(path))
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=complaint):
        read_list(path)


@pytest.mark.parametrize("key", ["n_pixels", "viewing_distance", "atom_shape"])
def test_missing_key_is_named(path, key):
    write_parameters(path, ImageParameters(12, 1.5))
    with np.load(path) as there:
        kept = {k: there[k] for k in there if k != key}
    np.savez(path, **kept)
    with pytest.raises(
        InputFileError, match=rf"archive\.npz: lacks {key}\. Make the parameters again"
    ):
        read_parameters(path)


@pytest.mark.parametrize("names", [["templates ä/b c.pt", "d.pt"], ["one.pt"], []])
def test_list_round_trip(tmp_path, names):
    write_list(tmp_path / "list.npy", names)
    assert read_list(tmp_path / "list.npy") == names
    assert np.load(tmp_path / "list.npy", allow_pickle=False).tolist() == names


def test_list_of_one_without_a_dimension(tmp_path):
    np.save(tmp_path / "list.npy", np.array("one.pt"))
    assert read_list(tmp_path / "list.npy") == ["one.pt"]


@pytest.mark.parametrize(
    "values",
    [
        np.array(["a.pt", "b.pt"], dtype=object),
        np.array(None),
        np.array([1, 2]),
        np.array([b"a.pt"]),
        np.array([["a.pt"], ["b.pt"]]),
        np.zeros(0),
    ],
    ids=["objects", "none", "numbers", "bytes", "two dimensions", "no numbers"],
)
def test_what_is_not_a_list_of_names(tmp_path, values):
    np.save(tmp_path / "list.npy", values)
    with pytest.raises(
        InputFileError, match=r"list\.npy: is (not a list of file names|a pickled object)"
    ):
        read_list(tmp_path / "list.npy")


def test_pickled_list_is_not_executed(tmp_path):
    np.save(tmp_path / "list.npy", np.array([Trap(tmp_path / "executed")], dtype=object))
    with pytest.raises(InputFileError, match="pickled object"):
        read_list(tmp_path / "list.npy")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content", [b"", b"a.pt\nb.pt\n", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "header"]
)
def test_damaged_list(tmp_path, content):
    (tmp_path / "list.npy").write_bytes(content)
    with pytest.raises(InputFileError, match=r"list\.npy: is not a readable \.npy file"):
        read_list(tmp_path / "list.npy")
