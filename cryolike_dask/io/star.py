"""STAR files: tables of text in, tables out; what a column means is its reader's business.

Read line by line here, because starfile gives other values than the file for a path with an apostrophe or a `#`, NaN
for a value that is not there, the last of two blocks of one name, and nothing at all for text that is not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.io.atomic import replacing

TOKEN = re.compile(r"""\s*(?:#.*|"(.*?)"(?=\s|$)|'(.*?)'(?=\s|$)|(\S+))""")
"""A comment, a quoted value or a plain one: a quote ends only before a space, a comment starts only after one."""

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
        If the file is missing, not text, holds no table, or a row has too few or too many values; names the line.
    """
    path = Path(path)
    reader = _Reader(path)
    for number, line in enumerate(_lines(path), start=1):
        if line and not line.isspace():
            reader.read(number, line)
    reader.end_table()
    if not reader.blocks:
        raise InputFileError("holds no STAR table (no data_ block with values)", source=path, remedy=REMEDY)
    return reader.blocks


def write_star(path: str | Path, blocks: Mapping[str, Mapping[str, ArrayLike]], version: int | None = 30001) -> None:
    """Write tables as RELION 3.1 does, atomically.

    Parameters
    ----------
    blocks : dict
        Columns by block name and by label without its underscore; one value per row. Numbers get 12 digits.

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
    """The tables read so far, and the one that is being read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: list[StarBlock] = []
        self.name: str | None = None
        self.labels: list[str] = []
        self.rows: list[list[str]] = []
        self.in_loop = False

    def read(self, number: int, line: str) -> None:
        values = _values(line)
        if not values:
            return
        keyword = line.split(None, 1)[0] if len(values) == 1 else ""  # as it stands: a quoted value is no keyword
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
        if not self.rows and _is_label(line):
            self.labels.append(values[0][1:])
        elif len(values) != len(self.labels):
            self.fail(number, f"{len(values)} value(s) for {len(self.labels)} column(s)")
        else:
            self.rows.append(values)

    def read_pair(self, number: int, line: str, values: list[str]) -> None:
        if not _is_label(line) or len(values) != 2:
            self.fail(number, f"{line.strip()[:40]!r} is no label with one value")
        self.labels.append(values[0][1:])
        self.rows = [[*self.rows[0], values[1]]] if self.rows else [[values[1]]]

    def end_table(self) -> None:
        if self.labels:
            repeated = sorted({label for label in self.labels if self.labels.count(label) > 1})
            if repeated:
                raise InputFileError(
                    f"has the column(s) {', '.join(repeated)} twice in block 'data_{self.name}'",
                    source=self.path,
                    remedy=REMEDY,
                )
            columns = zip(*self.rows, strict=True) if self.rows else [() for _ in self.labels]
            arrays = {label: np.array(c, np.str_) for label, c in zip(self.labels, columns, strict=True)}
            self.blocks.append(StarBlock(self.name or "", arrays))
        self.labels, self.rows, self.in_loop = [], [], False

    def fail(self, number: int, what: str) -> None:
        raise InputFileError(f"line {number}: {what}", source=self.path, remedy=REMEDY)


def _values(line: str) -> list[str]:
    if "#" not in line and '"' not in line and "'" not in line:
        return line.split()
    found = (m.group(1, 2, 3) for m in TOKEN.finditer(line.rstrip()))
    return [next(v for v in groups if v is not None) for groups in found if groups != (None, None, None)]


def _is_label(line: str) -> bool:
    return line.lstrip().startswith("_")


def _lines(path: Path) -> Iterator[str]:
    if path.is_dir():
        raise InputFileError("is a folder", source=path, remedy="Give the file itself.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputFileError("there is no such file", source=path) from None
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}", source=path) from error
    except UnicodeDecodeError as error:
        raise InputFileError(f"is not text in UTF-8 (byte {error.start})", source=path, remedy=REMEDY) from None
    if "\0" in text:
        raise InputFileError(f"is not text (byte {text.index(chr(0))} is 0)", source=path, remedy=REMEDY)
    yield from text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _table_lines(name: str, columns: Mapping[str, ArrayLike], version: int | None) -> Iterable[str]:
    arrays = {label: np.atleast_1d(np.asarray(values)) for label, values in columns.items()}
    lengths = {label: array.shape for label, array in arrays.items()}
    if len(set(lengths.values())) > 1 or any(len(shape) > 1 for shape in lengths.values()):
        raise InputError(f"block data_{name}: columns of different shapes, {lengths}")
    yield from ("", *([] if version is None else [f"# version {version}", ""]), f"data_{name}", "", "loop_")
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
