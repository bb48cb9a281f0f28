"""What is not a file is refused before it is opened: reading a pipe or a device might never end."""

from __future__ import annotations

import os

import pytest

from cryolike_dask.analysis.block_times import read_blocks
from cryolike_dask.compute.addresses import address_in
from cryolike_dask.compute.remote import connect
from cryolike_dask.config import text as config_text
from cryolike_dask.config.text import mapping_of, read_text
from cryolike_dask.errors import InputFileError
from cryolike_dask.io import viewing
from cryolike_dask.io.archives import read_archive, read_list
from cryolike_dask.io.identity import reading, regular_file
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.tensors import (
    load_displacements,
    load_vector,
    open_tensor,
)
from cryolike_dask.io.viewing import read_viewing_angles


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe.npz"
    os.mkfifo(path)
    return path


def connect_with(path):
    connect("tls://127.0.0.1:1", tls_ca_file=path, tls_cert=path, tls_key=path)


READERS = [
    *(
        regular_file,
        read_list,
        read_parameters,
        read_text,
        address_in,
        read_viewing_angles,
        read_blocks,
        connect_with,
    ),
    *(open_tensor, load_vector, load_displacements),
    lambda path: read_archive(path, optional=()),
]


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_refused_and_not_waited_for(read, pipe):
    with pytest.raises(InputFileError, match=r"pipe\.npz: is a pipe, a socket or a device"):
        read(pipe)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/dev/zero", "is a pipe, a socket or a device"),
        (".", "is a folder"),
        ("nothing.npz", "there is no such file"),
        ("pyproject.toml/x", "there is no such file"),
        ("a" * 300, "cannot be read: File name too long"),
        ("a\0b", "cannot be read: embedded null byte"),
    ],
)
def test_what_is_no_file_is_told_with_its_name(path, what):
    with pytest.raises(InputFileError, match=what) as raised:
        regular_file(path)
    assert path in str(raised.value)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("name", "what"), [("folder", "is a folder"), ("a" * 300, "File name too long|3 missing")]
)
def test_readers_say_what_is_no_file_without_numbers(read, tmp_path, name, what):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputFileError, match=what) as caught:
        read(tmp_path / name)
    assert "[Errno" not in str(caught.value)


def test_what_the_disk_does_not_give_is_told_with_its_name(tmp_path):
    (tmp_path / "file").write_text("content")

    def read():
        with reading(tmp_path / "file"):
            raise OSError(5, "Input/output error")

    with pytest.raises(InputFileError, match=r"file: cannot be read: Input/output error$"):
        read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 2\n\xff 3\n", "is not a table of numbers"),
        (b"1 " * 10**5, "has 1 lines of 100000 columns"),
        (b"x" * 10**5, "is not a table of numbers"),
        (b"1 2\n1 2 3\n", "is not a table of numbers"),
        (b"\0" * 100, "is not a table of numbers"),
        (b"1 2 -1\n", "has a weight of -1"),
        (b"1 2\n" * 10**5, "has more than 300000 bytes"),
    ],
)
def test_directions_that_are_none(tmp_path, content, message, monkeypatch):
    monkeypatch.setattr(viewing, "MOST_BYTES", 300_000)
    (tmp_path / "views.txt").write_bytes(content)
    with pytest.raises(InputFileError, match=rf"views\.txt: {message}") as caught:
        read_viewing_angles(tmp_path / "views.txt")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 10**5, b'{"address": 1', b"\xff" * 10**6, b"3"]
)
def test_scheduler_files_that_are_none(tmp_path, content):
    (tmp_path / "scheduler.json").write_bytes(content)
    with pytest.raises(InputFileError, match=r"scheduler\.json: is not a scheduler file") as caught:
        address_in(tmp_path / "scheduler.json")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "1:" * 10**5 + "1", "a value of 200001 characters is too long"),
        ("a: " + "9" * 20_000, "a value of 20000 characters is too long"),
        ("a: [" + "1," * 1000 + "]", "there are more than 1000 values"),
        ("a: " + "[" * 10**4, "nested too deeply"),
        ("b: &b [1]\na: [" + "*b," * 900 + "]", "does not refer to a single value"),
        ("a: !!python/object/apply:os.system ['id']", "could not determine a constructor"),
    ],
)
def test_configurations_made_to_do_harm(tmp_path, text, message, monkeypatch):
    monkeypatch.setattr(config_text, "MOST_VALUES", 1000)
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputFileError, match=message) as caught:
        mapping_of(read_text(tmp_path / "run.yaml"), tmp_path / "run.yaml")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_link_to_a_file_is_a_file(tmp_path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    assert regular_file(tmp_path / "link") == tmp_path / "link"
