"""Tensor files: nothing is unpickled, headers are held against what is stored, and writing is
atomic."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.tensors import (
    load_displacements,
    load_vector,
    open_tensor,
    save_tensor,
)
from tests.traps import Trap


def open_full_correlation(path):
    opened = open_tensor(path, n_dims=4, dtypes=("float32", "float64"))
    return opened.take()


READERS = [open_tensor, load_displacements, open_full_correlation]


@pytest.fixture
def path(tmp_path):
    """Where a tensor goes."""
    return tmp_path / "tensor.pt"


def rewritten(path: Path, old: bytes, new: bytes) -> None:
    """Change the pickle inside a tensor file."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    (pickle_name,) = (name for name in records if name.endswith("data.pkl"))
    assert records[pickle_name].count(old) == 1
    records[pickle_name] = records[pickle_name].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16", "i8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_round_trip(path, rng, dtype, shape):
    values = np.asarray(100 * rng.standard_normal(shape)).astype(dtype)
    save_tensor(path, values)
    opened = open_tensor(path, n_dims=len(shape), dtypes=(np.dtype(dtype).name,))
    assert (opened.shape, opened.dtype) == (shape, np.dtype(dtype).name)
    np.testing.assert_array_equal(opened.take(), values)
    assert torch.equal(torch.load(path, weights_only=True), torch.from_numpy(values))


def test_rows_are_copied_in_the_order_asked_for(path, rng):
    values = rng.standard_normal((6, 2))
    save_tensor(path, values)
    opened = open_tensor(path)
    taken = opened.take(np.array([4, 0, 4]))
    taken[:] = 0
    np.testing.assert_array_equal(opened.take(np.array([4, 0, 4])), values[[4, 0, 4]])


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_is_refused_and_not_executed(path, tmp_path, read, legacy):
    torch.save(Trap(tmp_path / "executed"), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        InputFileError, match=r"tensor\.pt: cannot be read as a plain tensor and is not unpickled"
    ):
        read(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("value", "kind"), [({"a": torch.ones(2)}, "dict"), ([torch.ones(2)], "list"), (3.0, "float")]
)
def test_other_than_one_tensor(path, value, kind):
    torch.save(value, path)
    with pytest.raises(InputFileError, match=rf"tensor\.pt: holds a {kind}, not one plain tensor"):
        open_tensor(path)


@pytest.mark.parametrize("read", READERS)
def test_sparse(path, read):
    torch.save(torch.eye(2).to_sparse(), path)
    with pytest.raises(InputFileError, match=r"tensor\.pt"):
        read(path)


@pytest.mark.parametrize(
    ("read", "shape"),
    [
        (open_tensor, (2, 10**6)),
        (load_displacements, (2, 10**6)),
        (open_full_correlation, (1, 1, 1, 50)),
    ],
)
def test_stride_zero(path, read, shape):
    torch.save(torch.ones(1).expand(shape), path)
    with pytest.raises(
        InputFileError, match=rf"claims {np.prod(shape)} values of shape .*, but stores 1\b"
    ):
        read(path)


def test_larger_storage(path, tmp_path):
    whole = torch.arange(100000, dtype=torch.float32).reshape(1000, 100)
    torch.save(whole[500:502], path)
    assert path.stat().st_size > 400000
    values = open_tensor(path).take()
    np.testing.assert_array_equal(values, whole[500:502].numpy())
    for part in (whole.numpy()[500:502], whole.numpy()[:, 5:7]):
        save_tensor(tmp_path / "own.pt", part)
        assert (tmp_path / "own.pt").stat().st_size < 20000
        np.testing.assert_array_equal(open_tensor(tmp_path / "own.pt").take(), part)


@pytest.mark.parametrize(
    "damage", ["truncated", "zero-length", "text", "npz", "directory", "missing"]
)
@pytest.mark.parametrize("read", READERS)
def test_unreadable(path, read, damage):
    torch.save(torch.ones(2, 1000), path)
    content = path.read_bytes()
    path.unlink()
    if damage == "directory":
        path.mkdir()
    elif damage == "npz":
        np.savez(path.open("wb"), values=np.ones(3))
    elif damage != "missing":
        path.write_bytes(
            {"truncated": content[: len(content) // 2], "zero-length": b"", "text": b"a letter\n"}[
                damage
            ]
        )
    with pytest.raises(InputFileError, match=r"tensor\.pt: .*\w"):
        read(path)


def test_legacy_format(path):
    torch.save(torch.ones(3), path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputFileError, match=r"tensor\.pt: .*zip"):
        open_tensor(path)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (
            torch.ones(2, 3, dtype=torch.complex64),
            r"has shape \(2, 3\), but 3 dimensions are needed",
        ),
        (
            torch.ones(2, 3, 4, dtype=torch.float32),
            r"holds float32 values, but complex64 or complex128 are needed",
        ),
        (
            torch.ones(2, 3, 4, dtype=torch.bfloat16),
            r"holds torch.bfloat16 values, which have no numpy type",
        ),
    ],
    ids=["rank", "real", "bfloat16"],
)
def test_wrong_rank_or_type(path, values, complaint):
    torch.save(values, path)
    with pytest.raises(InputFileError, match=complaint):
        open_tensor(path, n_dims=3, dtypes=("complex64", "complex128"))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_conjugated_and_negated_views(path, dtype):
    values = torch.tensor([1 + 2j, 3 - 4j], dtype=dtype)
    for view in (values.conj(), values.conj().imag):
        torch.save(view, path)
        np.testing.assert_array_equal(
            open_tensor(path).take(), view.resolve_conj().resolve_neg().numpy()
        )
        np.testing.assert_array_equal(
            open_tensor(path).take(np.array([1])), view[1:].resolve_conj().resolve_neg()
        )


@pytest.mark.parametrize(
    ("read", "shape"),
    [
        (lambda p: open_tensor(p).take(), (2, 3)),
        (load_displacements, (2, 3)),
        (open_full_correlation, (1, 2, 3, 4)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_no_obstacle(path, read, shape, dtype):
    torch.save(torch.ones(shape, dtype=dtype, requires_grad=True), path)
    np.testing.assert_array_equal(read(path), np.ones(shape))


def test_file_changed_after_opening(path):
    save_tensor(path, np.ones(3))
    opened = open_tensor(path)
    save_tensor(path, np.zeros(3))
    with pytest.raises(InputFileError, match=r"tensor\.pt: has changed since it was opened"):
        opened.take()
    path.unlink()
    with pytest.raises(InputFileError, match=r"tensor\.pt: cannot be read: No such file"):
        opened.take()


READ_ALONE = """
import sys
from cryolike_dask.errors import InputFileError
from cryolike_dask.io.tensors import open_tensor
for path in sys.argv[1:]:
    try:
        print(path, "read", open_tensor(path).take().ravel()[-1])
    except InputFileError as error:
        print(path, "refused", str(error).splitlines()[0])
"""
SIX, SHAPE, STRIDE, OFFSET = b"K\x06t", b"K\x02K\x03\x86", b"K\x03K\x01\x86", b"QK\x00"


def integer(value: int) -> bytes:
    """An integer of eight bytes, as a pickle writes it."""
    return b"\x8a\x08" + struct.pack("<q", value)


HOSTILE = {
    "storage ends in the zip directory": [
        (SIX, b"K\x0ct"),
        (SHAPE, b"K\x03K\x04\x86"),
        (STRIDE, b"K\x04K\x01\x86"),
    ],
    "storage beyond the file": [
        (SIX, integer(10**12) + b"t"),
        (SHAPE, integer(10**6) * 2 + b"\x86"),
    ],
    "negative storage": [(SIX, integer(-5) + b"t")],
    "shape beyond the storage": [(SHAPE, b"K\x03K\x03\x86")],
    "offset beyond the storage": [(OFFSET, b"Q" + integer(10**9))],
    "negative offset": [(OFFSET, b"Q" + integer(-4))],
    "stride beyond the storage": [(STRIDE, integer(10**9) + b"K\x01\x86")],
    "negative stride": [(STRIDE, integer(-3) + b"K\x01\x86")],
    "negative shape": [(SHAPE, integer(-2) + integer(-3) + b"\x86")],
    "overflowing shape": [(SHAPE, integer(2**33) * 2 + b"\x86"), (STRIDE, b"K\x00K\x00\x86")],
}


def test_hostile_headers_do_not_reach_beyond_the_data(tmp_path):
    for name, changes in HOSTILE.items():
        path = tmp_path / f"{name}.pt"
        torch.save(torch.arange(6.0).reshape(2, 3), path)
        for old, new in changes:
            rewritten(path, old, new)
    paths = sorted(map(str, tmp_path.glob("*.pt")))
    done = subprocess.run(
        [sys.executable, "-c", READ_ALONE, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if " refused " not in line] == []
    assert len(lines) == len(HOSTILE)


def pickled(content: bytes, path: Path, **entries: bytes) -> Path:
    """A tensor file with another pickle, or other entries beside it."""
    torch.save(torch.zeros(2, 3, dtype=torch.float64), path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    root = next(name for name in records if name.endswith("data.pkl")).removesuffix("data.pkl")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (
            records | {f"{root}data.pkl": content} | {root + k: v for k, v in entries.items()}
        ).items():
            archive.writestr(name, data)
    return path


def array(shape: bytes, values: bytes, kind: bytes = b"f8") -> bytes:
    """A pickled array of numpy's."""
    made = b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    made += b"K\x00\x85X\x01\x00\x00\x00b\x87R"
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00" + kind + b"K\x00K\x01\x87R"
    order = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return made + b"(K\x01" + shape + dtype + order + b"\x89" + values + b"tb."


HEX, ENCODE = b"X\x03\x00\x00\x00hex\x86R", b"c_codecs\nencode\n"
LATIN = b"X\x06\x00\x00\x00latin1\x86R"
TEXT = ENCODE + b"X\x10\x00\x00\x00" + b"a" * 16 + LATIN
BOMBS = {
    "array without values": b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n"
    b"cnumpy\nndarray\nK\x02J" + struct.pack("<i", 2**27) + b"\x86X\x02\x00\x00\x00f8\x87R.",
    "hex of hex": b"\x80\x02" + ENCODE * 21 + TEXT + HEX * 21 + b".",
    "values of hex of hex": array(b"K\x02K\x01\x86", ENCODE * 3 + TEXT + HEX * 3),
    "claims more": array(b"K\x02" + b"J" + struct.pack("<i", 2**27) + b"\x86", TEXT),
    "negative shape": array(b"K\x02J" + struct.pack("<i", -1) + b"\x86", TEXT),
    "objects": array(b"K\x02K\x01\x86", TEXT, b"O8"),
    "wide values": array(b"K\x02K\x01\x86", TEXT, b"V8"),
    "many operations": b"\x80\x02" + b"}" * 100_000 + b".",
    "nested": b"\x80\x02)" + b"\x85" * 9000 + b".",
    "itself": b"\x80\x02]q\x00h\x00a.",
    "no end": b"\x80\x02N",
    "nothing": b"",
    "pops too much": b"\x80\x02\x87.",
    "mark": b"\x80\x02t.",
    "other operation": b"\x80\x02Nb.",
    "extension": b"\x80\x02\x82\x01.",
    "instance": b"\x80\x02(cos\nsystem\no.",
    "call": b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.",
    "long text": b"\x80\x02X\xff\xff\xff\x7fa.",
    "long pickle": b"\x80\x02" + b"N0" * 2**21 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_made_to_do_harm_takes_nothing(path, name):
    pickled(BOMBS[name], path)
    tracemalloc.start()
    try:
        for read in (*READERS, load_vector):
            with pytest.raises(InputFileError, match=r"tensor\.pt: .*\w") as caught:
                read(path)
            assert len(str(caught.value)) < 500 + len(str(path))
        assert tracemalloc.get_traced_memory()[1] < 3 * 2**23
    finally:
        tracemalloc.stop()


def test_the_array_that_the_bombs_change_is_read(path):
    values = np.frombuffer(b"a" * 16)
    np.testing.assert_array_equal(
        load_displacements(pickled(array(b"K\x02K\x01\x86", TEXT), path)), values[:, None]
    )


@pytest.mark.parametrize("read", [*READERS, load_vector])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_values_are_refused_before_they_are_expanded(path, read, method):
    torch.save(torch.zeros(2, 2**20), path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data, method if name.endswith("data/0") else None)
    tracemalloc.start()
    try:
        with pytest.raises(
            InputFileError, match="data/0 is compressed, which values of tensors never are"
        ):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_files_that_are_not_one_tensor_file(path):
    whole = pickled(b"\x80\x02N.", path).read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", b"")
    with pytest.raises(InputFileError, match=r"it has 2 entries data\.pkl"):
        open_tensor(path)
    start = whole.rfind(b"PK\x01\x02")
    path.write_bytes(whole[:start] + whole[start:].replace(b"PK\x05\x06", b"PK\x05\x07"))
    with pytest.raises(InputFileError, match="not a zip file"):
        open_tensor(path)
    np.savez(path.open("wb"), a=np.zeros(3))
    with pytest.raises(InputFileError, match=r"it has 0 entries data\.pkl"):
        open_tensor(path)


def test_bytes_of_the_other_order_and_parameters(path):
    torch.save(torch.nn.Parameter(torch.arange(4.0)), path)
    np.testing.assert_array_equal(load_vector(path, 4), np.arange(4))
    with zipfile.ZipFile(path) as archive:
        pickle = next(
            archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")
        )
    values = np.arange(4, dtype=">f4")
    pickled(pickle, path, **{"byteorder": b"big", "data/0": values.tobytes()})
    for found in (
        load_vector(path, 4),
        open_tensor(path).take(),
        open_tensor(path).take(np.arange(4)),
    ):
        np.testing.assert_array_equal(found, values)
        assert found.dtype == np.dtype("f4")


def test_rewriting_alone_leaves_a_readable_file(path):
    torch.save(torch.arange(6.0).reshape(2, 3), path)
    rewritten(path, SHAPE, b"K\x03K\x02\x86")
    rewritten(path, STRIDE, b"K\x02K\x01\x86")
    np.testing.assert_array_equal(open_tensor(path).take(), np.arange(6.0).reshape(3, 2))


@pytest.fixture
def cryolike_module(monkeypatch):
    """CryoLike's module of the full correlation, as a pickle names it; gone again before
    anything is read."""
    name = "cryolike.likelihoods.interface.cross_correlation_full_return"
    module = types.ModuleType(name)

    class CrossCorrelationReturn(NamedTuple):
        cross_correlation_msdw: Any

    CrossCorrelationReturn.__module__ = name
    CrossCorrelationReturn.__qualname__ = "CrossCorrelationReturn"
    module.CrossCorrelationReturn = CrossCorrelationReturn
    with monkeypatch.context() as patch:
        for depth in range(1, 4):
            package = ".".join(name.split(".")[:depth])
            patch.setitem(sys.modules, package, types.ModuleType(package))
        patch.setitem(sys.modules, name, module)
        yield patch, CrossCorrelationReturn


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_displacements_of_both_programs(path, rng, dtype):
    values = rng.standard_normal((2, 5)).astype(dtype)
    for saved in (values, torch.from_numpy(values)):
        torch.save(saved, path)
        read = load_displacements(path)
        assert read.dtype == np.float64
        np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_full_correlation_of_both_programs(path, rng, dtype, cryolike_module):
    patch, named_tuple = cryolike_module
    values = rng.standard_normal((2, 3, 4, 5)).astype(dtype)
    torch.save(named_tuple(torch.from_numpy(values)), path)
    patch.undo()
    read = open_full_correlation(path)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, values)
    save_tensor(path, values)
    np.testing.assert_array_equal(open_full_correlation(path), values)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (load_displacements, np.ones((3, 4))),
        (load_displacements, np.array([[1, 2], [3, 4]])),
        (load_displacements, np.array([[None, 1], [2, 3]])),
        (load_displacements, torch.ones(2, 3, dtype=torch.complex64)),
        (load_displacements, torch.ones(2, 3, dtype=torch.bfloat16)),
        (load_displacements, {"x": 1}),
        (open_full_correlation, torch.ones(2, 3)),
        (open_full_correlation, torch.ones(1, 2, 2, 2, dtype=torch.bfloat16)),
        (open_full_correlation, torch.ones(1, 2, 2, 2, dtype=torch.complex64)),
        (open_full_correlation, (torch.ones(2), torch.ones(2))),
        (open_full_correlation, np.ones((1, 2, 3, 4))),
    ],
)
def test_not_what_it_should_be(path, read, value):
    torch.save(value, path)
    with pytest.raises(InputFileError, match=r"tensor\.pt: .*\w"):
        read(path)


def test_other_names_of_cryolike_are_refused(path, cryolike_module):
    patch, named_tuple = cryolike_module
    named_tuple.__qualname__ = named_tuple.__name__ = "Other"
    sys.modules[named_tuple.__module__].Other = named_tuple
    torch.save(named_tuple(torch.ones(1, 1, 1, 1)), path)
    patch.undo()
    with pytest.raises(InputFileError, match="is not unpickled"):
        open_full_correlation(path)


def test_threads_do_not_disturb_each_other(tmp_path, rng):
    values = rng.standard_normal((2, 5))
    torch.save(values, tmp_path / "displacements.pt")
    save_tensor(tmp_path / "tensor.pt", values)
    allowed = torch.serialization.get_safe_globals()

    def read(i: int) -> np.ndarray:
        return (
            load_displacements(tmp_path / "displacements.pt")
            if i % 2
            else open_tensor(tmp_path / "tensor.pt").take()
        )

    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(read, range(400)):
            np.testing.assert_array_equal(found, values)
    assert torch.serialization.get_safe_globals() == allowed


def test_failure_in_the_body_leaves_nothing_behind(tmp_path):
    def fail(name):
        with replacing(tmp_path / name) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new"):
        with pytest.raises(KeyboardInterrupt):
            fail(name)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"old": b"old"}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        save_tensor(tmp_path / "new" / "tensor.pt", np.ones(3))
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "tensor.pt").stat().st_mode & 0o777 == 0o666 & ~umask


WRITE_BYTES = """
import sys, itertools
from cryolike_dask.io.atomic import replacing
for i in itertools.count():
    for name in ("old", f"new{i}"):
        with replacing(f"{sys.argv[1]}/{name}") as file:
            for _ in range(64):
                file.write(bytes([i % 256]) * 2**16)
    print(i, flush=True)
"""
WRITE_TENSORS = """
import sys, itertools
import numpy as np
from cryolike_dask.io.tensors import save_tensor
for i in itertools.count():
    for name in ("old", f"new{i}"):
        save_tensor(f"{sys.argv[1]}/{name}", np.full((16, 2**18), i, np.float32))
    print(i, flush=True)
"""


def killed(script: str, folder: Path, delay: float) -> list[Path]:
    """Start a writer, kill it somewhere in its work, and give what it left under final names."""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE
    ) as writer:
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    return [p for p in folder.iterdir() if not p.name.startswith(".")]


@pytest.mark.parametrize("repeat", range(4))
def test_killed_writer_leaves_no_half_file(tmp_path, rng, repeat):
    for path in killed(WRITE_BYTES, tmp_path, rng.uniform(0, 0.03)):
        content = path.read_bytes()
        assert len(content) == 2**22
        assert len(set(content)) == 1


def test_killed_writer_leaves_no_half_tensor(tmp_path, rng):
    left = killed(WRITE_TENSORS, tmp_path, rng.uniform(0, 0.1))
    assert "old" in {p.name for p in left}
    for path in left:
        values = open_tensor(path).take()
        assert values.shape == (16, 2**18)
        assert len(np.unique(values)) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "float16", "int32"])
def test_vectors_are_read_as_torch_reads_them(path, rng, dtype, n, monkeypatch):
    values = rng.integers(0, 100, n).astype(dtype)
    save_tensor(path, values)
    if dtype in ("float32", "float64", "int64"):
        load_vector(path, n)  # has seen such a header
        monkeypatch.setattr("torch.load", None)
    found = load_vector(path, n)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    found += 1  # a copy of its own


def test_vectors_that_are_stored_otherwise_are_read_too(path):
    torch.save(torch.arange(10.0)[::3], path)
    np.testing.assert_array_equal(load_vector(path, 4), [0, 3, 6, 9])
    torch.save(torch.arange(10.0)[2:6], path)
    np.testing.assert_array_equal(load_vector(path, 4), [2, 3, 4, 5])
    torch.save(torch.arange(4.0), path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputFileError, match="cannot be read"):
        load_vector(path, 4)


def test_no_vector(path, tmp_path):
    for value, shown in ((torch.zeros(2, 2), r"\(2, 2\)"), (torch.zeros(3), r"\(3,\)")):
        torch.save(value, path)
        with pytest.raises(
            InputFileError, match=f"has shape {shown}, not the 4 images of its stack"
        ):
            load_vector(path, 4)
    save_tensor(path, np.zeros(4))
    content = path.read_bytes()
    for damaged in (content[:-30], content[:200], content.replace(b"\0" * 32, b"\1" * 32), b""):
        path.write_bytes(damaged)
        with pytest.raises(InputFileError, match=r"cannot be read|is damaged"):
            load_vector(path, 4)
    trap = Trap(tmp_path / "sprung")
    torch.save(trap, path)
    with pytest.raises(InputFileError, match="is not unpickled"):
        load_vector(path, 4)
    assert not (tmp_path / "sprung").exists()
