"""Numbers of what each structure stands for, as users write them."""

from __future__ import annotations

import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.counts import read_counts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4111\n16469\n", [4111, 16469]),
        ("# frames\n\n  3 # one\n1e3\n", [3, 1000]),
        ("open 3\nclosed state, 7\n", {"open": 3, "closed state": 7}),
    ],
)
def test_a_number_a_line_or_a_name_and_a_number(tmp_path, text, expected):
    path = tmp_path / "counts.txt"
    path.write_text(text)
    assert read_counts(path) == expected


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "says no number"),
        ("1\n0\n", "line 2: '0' is no positive number"),
        ("1\nnan\n", "line 2: 'nan'"),
        ("a 1\na 2\n", "line 2: 'a' stands there twice"),
        ("a 1\n2\n", "some lines have names"),
        ("a\n", "line 1: 'a'"),
    ],
)
def test_what_is_no_list_of_counts_is_one_clear_error(tmp_path, text, match):
    path = tmp_path / "counts.txt"
    path.write_text(text)
    with pytest.raises(InputFileError, match=match) as raised:
        read_counts(path)
    assert str(path) in str(raised.value)


def test_files_that_cannot_be_read_say_so(tmp_path):
    with pytest.raises(InputFileError, match="cannot be read: No such file"):
        read_counts(tmp_path / "nothing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputFileError, match="is no text"):
        read_counts(tmp_path / "binary")
