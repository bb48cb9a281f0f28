"""STAR files: every way of writing them that programs have, and clear words for those that are
damaged."""

from __future__ import annotations

import os
import re
import time

import numpy as np
import pytest
import starfile

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.io import star
from cryolike_dask.io.star import read_star, write_star

PLAIN = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
1 300.000000
2 200.000000

data_particles

loop_
_rlnImageName #1
_rlnDefocusU #2
_rlnOpticsGroup #3
000001@Extract/a.mrcs 15301.125 2
000002@Extract/a.mrcs 14000.5 1
"""


@pytest.fixture
def path(tmp_path):
    """Where a STAR file goes."""
    return tmp_path / "particles.star"


def read(path, content):
    """The tables of a STAR file with this content: (name, {label: list of text})."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [
        (block.name, {k: v.tolist() for k, v in block.columns.items()}) for block in read_star(path)
    ]


def table(text, header="data_\nloop_\n_a #1\n_b #2\n"):
    return header + text


def test_starfile_reads_the_same(path):
    path.write_text(PLAIN)
    theirs = starfile.read(path, always_dict=True)
    ours = read_star(path)
    assert [block.name for block in ours] == list(theirs) == ["optics", "particles"]
    for block in ours:
        for label, values in block.columns.items():
            expected = theirs[block.name][label].to_numpy()
            np.testing.assert_array_equal(values.astype(expected.dtype), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "   \t\n"),
        lambda text: text.replace("_rlnVoltage #2", "_rlnVoltage").replace(" #1\n", "\n"),
        lambda text: text.replace("loop_", "loop_   # a comment"),
        lambda text: text.replace("200.000000", "200.000000   # made up"),
        lambda text: text.replace("1 300.000000", " 1\t\t 300.000000"),
        lambda text: text.replace("1 300.000000\n", "\n# a comment between rows\n1 300.000000\n\n"),
        lambda text: text.replace("300.000000", "'300.000000'"),
        lambda text: text.replace("_rlnVoltage #2\n", "\n# a comment\n_rlnVoltage #2\n\n"),
    ],
    ids=[
        "plain",
        "CRLF",
        "CR",
        "byte order mark",
        "no final newline",
        "trailing blanks",
        "labels without numbers",
        "comment after loop_",
        "comment after a row",
        "leading blanks and tabs",
        "comment and blank lines between rows",
        "quoted number",
        "comment between labels",
    ],
)
def test_ways_of_writing_the_same(path, change):
    assert read(path, change(PLAIN)) == [
        ("optics", {"rlnOpticsGroup": ["1", "2"], "rlnVoltage": ["300.000000", "200.000000"]}),
        (
            "particles",
            {
                "rlnImageName": ["000001@Extract/a.mrcs", "000002@Extract/a.mrcs"],
                "rlnDefocusU": ["15301.125", "14000.5"],
                "rlnOpticsGroup": ["2", "1"],
            },
        ),
    ]


@pytest.mark.parametrize("name", ["", "images", "model_class_1", "J25/particles", "ü"])
def test_any_block_name(path, name):
    assert read(path, f"data_{name}\nloop_\n_a\n1\n") == [(name, {"a": ["1"]})]


def test_blocks_of_one_name_are_all_kept(path):
    text = "data_\nloop_\n_a\n1\n2\ndata_\nloop_\n_b\n3\n"
    assert read(path, text) == [("", {"a": ["1", "2"]}), ("", {"b": ["3"]})]


def test_pairs_are_a_table_of_one_row(path):
    text = "data_general\n\n_rlnFinalResolution   3.5 # good\n_rlnTitle 'two words'\n"
    assert read(path, text) == [
        ("general", {"rlnFinalResolution": ["3.5"], "rlnTitle": ["two words"]})
    ]


def test_a_table_of_one_row_and_one_without(path):
    assert read(path, table("1 2")) == [("", {"a": ["1"], "b": ["2"]})]
    assert read(path, table("")) == [("", {"a": [], "b": []})]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"two words.mrcs"', "two words.mrcs"),
        ("'two words.mrcs'", "two words.mrcs"),
        ("'O\"Brien'", 'O"Brien'),
        ("O'Brien/it's.mrcs", "O'Brien/it's.mrcs"),
        ("'O'Brien'", "O'Brien"),
        ("a#1.mrcs", "a#1.mrcs"),
        ("'# no comment'", "# no comment"),
        ('""', ""),
        ("data_set/a.mrcs", "data_set/a.mrcs"),
        ("nan", "nan"),
        ("<NA>", "<NA>"),
        ("1e3", "1e3"),
        ("ü/ñ.mrcs", "ü/ñ.mrcs"),
    ],
)
def test_values_are_what_is_written(path, written, meant):
    assert read(path, table(f"{written} 1\n{written} 2\n")) == [
        ("", {"a": [meant, meant], "b": ["1", "2"]})
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table("1 2\n3\n"), r"line 6: 1 value\(s\) for 2 column"),
        (table("1 2 3\n"), r"line 5: 3 value\(s\) for 2 column"),
        ("data_\nloop_\n1 2\n", r"line 3: 2 value\(s\) for 0 column"),
        ("data_\n_a\n", "line 2: '_a' is no label with one value"),
        ("data_\n_a 1 2\n", "line 2"),
        ("data_\nstray\n", "line 2: 'stray'"),
        ("loop_\n_a\n1\n", "line 1: 'loop_' stands before any data_ block"),
        ("data_\nloop_\n_a\n_a\n1 2\n", "column.s. a twice"),
        ("", "no STAR table"),
        ("# only a comment\n", "no STAR table"),
        ("data_\n", "no STAR table"),
        ("a,b\n1,2\n", "line 1: 'a,b'"),
        (b"data_\nloop_\n_a\n\xe9.mrcs\n", "not text in UTF-8 .byte 15"),
        (b"data_\nloop_\n_a\n\0\n", "byte 15 is 0"),
        (PLAIN.encode("utf-16"), "not text"),
    ],
)
def test_damaged_files_are_refused(path, content, message):
    with pytest.raises(InputFileError, match=message) as caught:
        read(path, content)
    assert str(path) in str(caught.value)


def test_a_mended_file_is_read_again(path):
    with pytest.raises(InputFileError, match="line 6"):
        read(path, table("1 2\n3\n"))
    assert read(path, table("1 2\n3 4\n")) == [("", {"a": ["1", "3"], "b": ["2", "4"]})]


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputFileError, match=r"absent\.star: there is no such file"):
        read_star(tmp_path / "absent.star")
    with pytest.raises(InputFileError, match="is a folder"):
        read_star(tmp_path)


def test_what_is_written_is_read_by_both(path, rng):
    defocus = rng.standard_normal(50) * 10.0 ** rng.integers(-12, 12, 50)
    names = [f"{i:06d}@path with space/{'xy'[i % 2]}.mrcs" for i in range(50)]
    blocks = {
        "optics": {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["group 1"], "rlnVoltage": [300.0]},
        "particles": {
            "rlnImageName": names,
            "rlnDefocusU": defocus,
            "rlnClassNumber": np.arange(50),
        },
    }
    write_star(path, blocks)
    ours = {block.name: block.columns for block in read_star(path)}
    theirs = starfile.read(path)
    for read_back in (ours, theirs):
        assert list(read_back) == ["optics", "particles"]
        assert list(read_back["particles"]["rlnImageName"]) == names
        assert list(read_back["optics"]["rlnOpticsGroupName"]) == ["group 1"]
        np.testing.assert_array_equal(
            np.asarray(read_back["particles"]["rlnClassNumber"]).astype(int), np.arange(50)
        )
        np.testing.assert_allclose(
            np.asarray(read_back["particles"]["rlnDefocusU"]).astype(float), defocus, rtol=1e-9
        )
    assert path.read_text().startswith(
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n"
    )


@pytest.mark.parametrize(
    "value",
    ["plain", "two words", "", "#x", "_x", "data_x", "loop_", "it's", "a 'b' c", 'a"b', "\t"],
)
def test_awkward_text_comes_back(path, value):
    write_star(path, {"": {"a": [value], "b": [1]}, "one": {"c": [value]}})
    assert [block.columns[k].tolist() for block, k in zip(read_star(path), "ac", strict=True)] == [
        [value],
        [value],
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 2], "b": [1]}, r"different shapes.*\(2,\).*\(1,\)"),
        ({"a": [[1, 2]]}, "different shapes"),
        ({"a": ["two\nlines"]}, "a: .two.*cannot be written"),
        ({"a": np.array([None])}, "type object"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_no_file(path, columns, message):
    with pytest.raises(InputError, match=message):
        write_star(path, {"x": columns})
    assert list(path.parent.iterdir()) == []


TOKEN = re.compile(r"""\s*(?:#.*|"(.*?)"(?=\s|$)|'(.*?)'(?=\s|$)|(\S+))""")
"""What a value is: a quote ends only before a space, a comment starts only after one. Takes long
if quotes do not."""


def test_values_of_any_line_are_what_their_definition_says(rng):
    pieces = np.array(['"', "'", "#", "a", "b", " ", " ", "\t", "\u2003", "ü"])
    lines = ["".join(rng.choice(pieces, rng.integers(1, 30))) for _ in range(5000)]
    for line in lines:
        groups = (m.group(1, 2, 3) for m in TOKEN.finditer(line.rstrip()))
        expected = [next(v for v in g if v is not None) for g in groups if g != (None, None, None)]
        assert star._values(line) == expected, repr(line)


MANY = 60_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data_\nloop_\n" + "".join(f"_c{i}\n" for i in range(MANY)) + "1 " * MANY + "\n", None),
        ("data_\n" + "".join(f"_c{i} 1\n" for i in range(MANY)), None),
        (
            "data_\n" + "".join(f"_c{i // 2} 1\n" for i in range(MANY)),
            r"c0, c1, c\d+, c\d+, c\d+ and \d+ more twice",
        ),
        (table('"a ' * MANY), rf"line 5: {MANY} value\(s\) for 2 column"),
        (table("'a \"b " * MANY), rf"line 5: {2 * MANY} value"),
        (table('"' * MANY), r"line 5: 1 value\(s\) for 2 column"),
        (table('"a b" ' * MANY), rf"line 5: {MANY} value\(s\) for 2 column"),
        (table("1 2\n" * MANY + ";\n" * MANY), rf"line {MANY + 5}: 1 value"),
        ("data_\n" * MANY, "no STAR table"),
        ("data_\n" + "".join(f"data_{i}\n_a 1\n" for i in range(MANY // 6)), None),
        (" " * MANY * 100, "no STAR table"),
        (table("1 " + "x" * 20_000), "column b of block 'data_' has a value of 20000 characters"),
        (
            table("1 2\n" * MANY + "x" * 9_999 + " 2\n"),
            "column a of block 'data_' has a value of 9999 characters",
        ),
        ("data_\n_a " + "x" * 20_000, "column a of block 'data_' has a value of 20000 characters"),
        ("data_\n_a " + "x" * (2**23 + 2**20), "has a line of more than 8388608 characters"),
        (b"data_\n" + b"#" * (2**20 + 1) + b"\n_\xe9 1\n", r"not text in UTF-8 .byte 1048585"),
        ("data_\n" + "#" * (2**20 + 1) + "\0", r"byte 1048583 is 0"),
    ],
    ids=[
        *(
            "columns",
            "pairs",
            "repeated",
            "quotes",
            "both quotes",
            "only quotes",
            "quoted quotes",
            "text",
            "blocks",
        ),
        *(
            "tables",
            "blanks",
            "wide",
            "one wide value",
            "wide pair",
            "endless",
            "late bytes",
            "late zero",
        ),
    ],
)
def test_time_and_memory_grow_with_the_size_of_the_file(path, content, message):
    started = time.process_time()
    if message is None:
        assert read(path, content)[-1][1]
    else:
        with pytest.raises(InputFileError, match=message) as caught:
            read(path, content)
        assert len(str(caught.value)) < 500 + len(str(path))
    assert time.process_time() - started < 3  # what grows with its square took a minute and more


def test_lines_that_reach_over_parts_of_a_file(path, monkeypatch):
    monkeypatch.setattr(star, "AT_ONCE", 7)
    for newline in ("\n", "\r\n", "\r"):
        text = "\ufeff" + table("'ü ñ' 𝛼\n" * 5).replace("\n", newline)
        assert read(path, text) == [("", {"a": ["ü ñ"] * 5, "b": ["𝛼"] * 5})]


@pytest.mark.parametrize(
    ("name", "what"), [("pipe", "is a pipe"), ("a" * 300, "File name too long")]
)
def test_no_file_is_said_at_once(tmp_path, name, what):
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    with pytest.raises(InputFileError, match=what):
        read_star(tmp_path / name)
