"""STAR files: tables of text in, tables out; what a column means is its reader's business.

Read line by line here, because starfile gives other values than the file for a path with an
apostrophe or a `#`, NaN for a value that is not there, the last of two blocks of one name, and
nothing at all for text that is not UTF-8.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.identity import reading

PLAIN = re.compile(r"\S+")
CLOSING = {quote: re.compile(rf"{quote}(?=\s|$)") for quote in ("'", '"')}
"""A quote ends only before a space."""

LONGEST_LINE = 2**23
"""Characters. Lines of RELION's have hundreds."""

LONGEST_VALUE = 10_000
"""Characters. Names of files have 4096 at most."""

AT_ONCE = 2**20
"""Bytes that are read at once."""

MOST_MEMORY = 64 * 2**20
"""Bytes that the columns of a table may take, however unequal their values are: each takes as
much as its longest."""

REMEDY = "Make the file again, or check that it is the right one."


@dataclass(frozen=True, eq=False)
class StarBlock:
    """One table of a STAR file.

    Attributes
    ----------
    name : str
        What follows `data_`; may be empty, and several tables may have one name.
    columns : dict of str to array of str, (row,)
        By label, without its underscore. A block of pairs is a table of one row.
    """

    name: str
    columns: dict[str, NDArray[np.str_]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read_star(path: str | Path) -> list[StarBlock]:
    """Read all tables of a STAR file, in the order of the file.

    Raises
    ------
    InputFileError
        If the file is missing, not text, holds no table, or a row has too few or too many values;
        names the line.
    """
    path = Path(path)
    reader = _Reader(path)
    for number, line in enumerate(_lines(path), start=1):
        if line and not line.isspace():
            reader.read(number, line)
    reader.end_table()
    if not reader.blocks:
        raise InputFileError(
            "holds no STAR table (no data_ block with values)", source=path, remedy=REMEDY
        )
    return reader.blocks


def write_star(
    path: str | Path, blocks: Mapping[str, Mapping[str, ArrayLike]], version: int | None = 30001
) -> None:
    """Write tables as RELION 3.1 does, atomically.

    Parameters
    ----------
    blocks : dict
        Columns by block name and by label without its underscore; one value per row. Numbers get 12
        digits.

    version : int, optional
        RELION's of the format; None: not said, as before RELION 3.1.

    Raises
    ------
    InputError
        If the columns of a block differ in length, or a value cannot be written on one line.
    """
    with replacing(path) as file:
        for name, columns in blocks.items():
            file.write("\n".join(_table_lines(name, columns, version)).encode())


class _Reader:
    """The tables read so far, and the one that is being read: its values row after row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: list[StarBlock] = []
        self.name: str | None = None
        self.labels: list[str] = []
        self.values: list[str] = []
        self.n_characters = 0
        self.in_loop = False

    def read(self, number: int, line: str) -> None:
        values = _values(line)
        if not values:
            return
        # as it stands: a quoted value is no keyword
        keyword = line.split(None, 1)[0] if len(values) == 1 else ""
        if keyword.lower().startswith("data_"):
            self.end_table()
            self.name = keyword[len("data_") :]
        elif self.name is None:
            self.fail(number, f"{line.strip()[:40]!r} stands before any data_ block")
        elif keyword.lower() == "loop_":
            self.end_table()
            self.in_loop = True
        elif self.in_loop:
            self.read_loop(number, line, values)
        else:
            self.read_pair(number, line, values)

    def read_loop(self, number: int, line: str, values: list[str]) -> None:
        if not self.values and _is_label(line):
            self.labels.append(values[0][1:])
        elif len(values) != len(self.labels):
            self.fail(number, f"{len(values)} value(s) for {len(self.labels)} column(s)")
        else:
            self.values += values
            self.n_characters += len(line)

    def read_pair(self, number: int, line: str, values: list[str]) -> None:
        if not _is_label(line) or len(values) != 2:
            self.fail(number, f"{line.strip()[:40]!r} is no label with one value")
        self.labels.append(values[0][1:])
        self.values.append(values[1])

    def end_table(self) -> None:
        if self.labels:
            repeated = [label for label, n in Counter(self.labels).items() if n > 1]
            if repeated:
                more = f" and {len(repeated) - 5} more" if len(repeated) > 5 else ""
                raise InputFileError(
                    f"has the column(s) {', '.join(sorted(repeated)[:5])}{more} twice in block "
                    f"'data_{self.name}'",
                    source=self.path,
                    remedy=REMEDY,
                )
            self.blocks.append(StarBlock(self.name or "", self.columns()))
        self.labels, self.values, self.n_characters, self.in_loop = [], [], 0, False

    def columns(self) -> dict[str, NDArray[np.str_]]:
        n = len(self.labels)
        columns = {label: self.values[i::n] for i, label in enumerate(self.labels)}
        widths = {label: max(map(len, column), default=0) for label, column in columns.items()}
        needed = 4 * sum(widths.values()) * len(self.values) // n
        widest = max(widths, key=lambda label: widths[label])
        if widths[widest] > LONGEST_VALUE or needed > MOST_MEMORY + 16 * self.n_characters:
            raise InputFileError(
                f"column {widest} of block 'data_{self.name}' has a value of {widths[widest]} "
                "characters, which is too long, or far longer than its others",
                source=self.path,
                remedy=REMEDY,
            )
        return {label: np.array(column, np.str_) for label, column in columns.items()}

    def fail(self, number: int, what: str) -> None:
        raise InputFileError(f"line {number}: {what}", source=self.path, remedy=REMEDY)


def _values(line: str) -> list[str]:
    """The values of a line; a comment starts only after a space."""
    if "#" not in line and '"' not in line and "'" not in line:
        return line.split()
    values, at, closing = [], 0, dict(CLOSING)
    while (match := PLAIN.search(line, at)) and line[match.start()] != "#":
        quote = line[match.start()]
        end = closing[quote].search(line, match.start() + 1) if quote in closing else None
        if end is None:
            closing.pop(quote, None)  # nor is there one further on
        values.append(line[match.start() + 1 : end.start()] if end else match[0])
        at = (end or match).end()
    return values


def _is_label(line: str) -> bool:
    return line.lstrip().startswith("_")


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, a part of it at a time; they end as they do on any system."""
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder("utf-8-sig")(), translate=True
    )
    n_characters, unfinished_line = 0, ""
    with reading(path) as file:
        while True:
            content = file.read(AT_ONCE)
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                byte = file.tell() - len(error.object) + error.start
                raise InputFileError(
                    f"is not text in UTF-8 (byte {byte})", source=path, remedy=REMEDY
                ) from None
            if "\0" in text:
                byte = n_characters + text.index("\0")
                raise InputFileError(f"is not text (byte {byte} is 0)", source=path, remedy=REMEDY)
            n_characters += len(text)
            *lines, unfinished_line = (unfinished_line + text).split("\n")
            yield from lines
            if not content:
                break
            if len(unfinished_line) > LONGEST_LINE:
                raise InputFileError(
                    f"has a line of more than {LONGEST_LINE} characters", source=path, remedy=REMEDY
                )
    yield unfinished_line


def _table_lines(name: str, columns: Mapping[str, ArrayLike], version: int | None) -> Iterable[str]:
    arrays = {label: np.atleast_1d(np.asarray(values)) for label, values in columns.items()}
    lengths = {label: array.shape for label, array in arrays.items()}
    if len(set(lengths.values())) > 1 or any(len(shape) > 1 for shape in lengths.values()):
        raise InputError(f"block data_{name}: columns of different shapes, {lengths}")
    yield from (
        "",
        *([] if version is None else [f"# version {version}", ""]),
        f"data_{name}",
        "",
        "loop_",
    )
    yield from (f"_{label} #{number}" for number, label in enumerate(arrays, start=1))
    texts = [_texts(label, array) for label, array in arrays.items()]
    yield from (" ".join(row) for row in zip(*texts, strict=True))
    yield from ("", "")


def _texts(label: str, values: NDArray[Any]) -> list[str]:
    if values.dtype.kind == "f":
        return [f"{value:.12g}" for value in values.tolist()]
    if values.dtype.kind in "iub":
        return [str(int(value)) for value in values.tolist()]
    if values.dtype.kind != "U":
        raise InputError(f"{label}: values of type {values.dtype} are not written to a STAR file")
    return [_quoted(label, value) for value in values.tolist()]


def _quoted(label: str, value: str) -> str:
    """A value as it has to be written to be read again."""
    for text in (value, f'"{value}"', f"'{value}'"):
        if "\n" not in text and "\r" not in text and _values(text) == [value] and _is_plain(text):
            return text
    raise InputError(f"{label}: {value!r} cannot be written to a STAR file")


def _is_plain(text: str) -> bool:
    """Whether no reader can take the value for a keyword or a label."""
    return not text.startswith("_") and not text.lower().startswith(("data_", "loop_"))
