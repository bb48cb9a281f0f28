"""What is not a file is refused before it is opened: reading a pipe or a device might never end."""

from __future__ import annotations

import os

import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.archives import read_archive, read_list
from cryolike_dask.io.inputs import regular_file


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe.npz"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("read", [regular_file, lambda path: read_archive(path, optional=()), read_list])
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


def test_a_link_to_a_file_is_a_file(tmp_path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    assert regular_file(tmp_path / "link") == tmp_path / "link"
