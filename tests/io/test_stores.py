"""Stores that are not what this program writes: refused by what they say of themselves, before
anything is decoded."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.stores import open_store
from tests.traps import Trap

SHAPE, CHUNK = (4, 3, 2, 5), (2, 3, 2, 5)


def take(path):
    opened = open_store(path)
    return opened.take(np.arange(opened.shape[0]))


def lazy(path):
    return open_store(path).lazy()


READERS = [take, lazy]


@pytest.fixture
def values(rng):
    return rng.standard_normal(SHAPE).astype(np.float32)


@pytest.fixture
def store(tmp_path, values):
    """A store as this program writes it."""
    path = tmp_path / "full.zarr"
    options = {"chunks": CHUNK, "compressors": (Crc32cCodec(),), "zarr_format": 3}
    zarr.create_array(path / "cross_correlation", shape=SHAPE, dtype="f4", **options)[:] = values
    return path


def change(store, key, value):
    """Say something else in the header of a store."""
    file = store / "cross_correlation/zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))


def test_what_is_written_so_is_read(store, values):
    opened = open_store(store)
    assert (opened.shape, opened.dtype) == (SHAPE, "float32")
    np.testing.assert_array_equal(opened.take(np.array([3, 0])), values[[3, 0]])
    np.testing.assert_array_equal(opened.lazy().compute(scheduler="sync"), values)


BYTES, CRC = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
NESTED = {
    "chunk_shape": [1, 3, 2, 5],
    "codecs": [{"name": "numcodecs.pickle"}],
    "index_codecs": [BYTES, CRC],
}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "codecs",
            [{"name": "numcodecs.pickle", "configuration": {}}],
            r"made by numcodecs\.pickle, not by bytes and",
        ),
        (
            "codecs",
            [BYTES, {"name": "numcodecs.pickle"}, CRC],
            r"made by bytes, numcodecs\.pickle, crc32c",
        ),
        (
            "codecs",
            [{"name": "sharding_indexed", "configuration": NESTED}],
            "made by sharding_indexed",
        ),
        ("codecs", [{"name": "vlen-utf8"}, CRC], "made by vlen-utf8, crc32c"),
        ("codecs", [BYTES, {"name": "gzip", "configuration": {"level": 5}}], "made by bytes, gzip"),
        ("codecs", [BYTES], "made by bytes, not"),
        (
            "codecs",
            [BYTES, CRC | {"configuration": {"codecs": ["numcodecs.pickle"]}}],
            "made by bytes, crc32c, not",
        ),
        ("codecs", "bytes", "not a readable store"),
        ("codecs", [], "not a readable store"),
        ("data_type", "string", "it holds string, not float32 or float64"),
        ("data_type", "|O", "it holds"),
        ("data_type", {"name": "numpy.object", "configuration": {}}, "it holds"),
        ("data_type", "float16", "it holds float16"),
        ("zarr_format", 2, "no array as this program writes"),
        ("node_type", "group", "no array as this program writes"),
        ("storage_transformers", [{"name": "other"}], "no array as this program writes"),
        (
            "chunk_key_encoding",
            {"name": "v2", "configuration": {"separator": "."}},
            "no array as this program",
        ),
        (
            "chunk_grid",
            {"name": "rectilinear", "configuration": {"chunk_shape": CHUNK}},
            "impossible kind",
        ),
        (
            "chunk_grid",
            {"name": "regular", "configuration": {"chunk_shape": [1, 1]}},
            "not a readable store",
        ),
        (
            "chunk_grid",
            {"name": "regular", "configuration": {"chunk_shape": [10**6, 3, 2, 5]}},
            "is not a file of",
        ),
        ("shape", [10**9, 3, 2, 5], "impossible kind or number"),
        ("shape", [10**30, 3, 2, 5], "impossible shape"),
        ("shape", [-4, 3, 2, 5], "impossible shape"),
        ("shape", [4, 3, 2, 5.0], "impossible shape"),
        ("shape", [4, 3], "not a readable store"),
        ("shape", None, "not a readable store"),
        ("shape", [8, 3, 2, 5], "No such file|is not a file of"),
        ("attributes", {"long": "a" * 2**17}, "has more than 65536 bytes"),
    ],
)
@pytest.mark.parametrize("read", READERS)
def test_a_header_of_another_kind(store, read, key, value, message):
    change(store, key, value)
    with pytest.raises(InputFileError, match=rf"full\.zarr: .*({message})") as caught:
        read(store)
    assert "[Errno" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"[" * 60000, b"\xff\xfe", b"null"])
def test_a_header_that_is_none(store, content):
    (store / "cross_correlation/zarr.json").write_bytes(content)
    with pytest.raises(InputFileError, match=r"full\.zarr: is not a readable store"):
        open_store(store)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside format 3"])
def test_format_2_is_not_read_and_its_pickle_not_run(store, values, tmp_path, beside):
    said = {
        "zarr_format": 2,
        "shape": SHAPE,
        "chunks": SHAPE,
        "dtype": "|O",
        "fill_value": "",
        "order": "C",
    }
    said |= {"filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle"}}
    array = store / "cross_correlation"
    (array / ".zarray").write_text(json.dumps(said))
    (array / "0.0.0.0").write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    if beside:
        np.testing.assert_array_equal(open_store(store).take(np.arange(4)), values)
    else:
        (array / "zarr.json").unlink()
        with pytest.raises(InputFileError, match=r"zarr\.json: there is no such file"):
            open_store(store)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "what", ["missing", "longer", "shorter", "link", "folder link", "pipe", "device", "folder"]
)
def test_chunks_that_are_no_files_of_their_size(store, tmp_path, what, read):
    chunk = store / "cross_correlation/c/1/0/0/0"
    content = chunk.read_bytes()
    chunk.unlink()
    if what in ("longer", "shorter"):
        chunk.write_bytes(content + b"0" if what == "longer" else content[:-1])
    elif what == "folder link":
        chunk.parent.rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere/0").write_bytes(content)
        chunk.parent.symlink_to(tmp_path / "elsewhere")
    elif what in ("link", "device"):
        (tmp_path / "elsewhere").write_bytes(content)
        chunk.symlink_to("/dev/zero" if what == "device" else tmp_path / "elsewhere")
    elif what == "pipe":
        os.mkfifo(chunk)
    elif what == "folder":
        chunk.mkdir()
    with pytest.raises(
        InputFileError,
        match=r"full\.zarr: .*(chunk c/1/0/0/0 is not a file of 244 bytes|No such file)",
    ):
        read(store)
    open_store(store).take(np.array([0, 1]))  # nothing is wrong with the others
