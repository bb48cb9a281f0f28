"""Zip files, as `.npz` and `.pt` files are: whatever they say of themselves, nothing is expanded
unasked."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

from cryolike_dask.io.identity import reading

LONGEST_DIRECTORY = 2**18
"""Bytes: thousands of entries. zipfile reads it as a whole, and makes ten times as much of it."""

ENCRYPTED = 1
LOCAL_HEADER = 30
"""Bytes before each entry, beside its name and an extra field, whose lengths are the last two
numbers there."""


class _Wary(io.BufferedReader):
    """A file that does not give more than a directory at once, until that is read."""

    wary = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.wary and size is not None and size > LONGEST_DIRECTORY:
            raise BadZipFile(f"its directory takes {size} bytes")
        return super().read(size)


@dataclass(frozen=True, eq=False)
class Zip:
    """An open zip file, and its entries by name."""

    archive: ZipFile
    file: io.BufferedReader
    entries: dict[str, ZipInfo]

    def open(self, name: str) -> IO[bytes]:
        """Open an entry, of which no more is expanded than is read."""
        entry = self._entry(name)
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadZipFile(f"{name} is compressed in a way that is not read")
        return self.archive.open(entry)

    def read(self, name: str, most: int) -> bytes:
        """Read an entry of at most so many bytes."""
        size = self._entry(name).file_size
        if size > most:
            raise BadZipFile(f"{name} has {size} bytes, but {most} at most are needed")
        with self.open(name) as file:
            return file.read()

    def place(self, name: str) -> tuple[int, int]:
        """Start of an entry in the file, and its size in bytes; it must not be compressed."""
        entry = self._entry(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise BadZipFile(f"{name} is compressed, which values of tensors never are")
        self.file.seek(entry.header_offset)
        header = self.file.read(LOCAL_HEADER)
        lengths = int.from_bytes(header[-4:-2], "little") + int.from_bytes(header[-2:], "little")
        start = entry.header_offset + LOCAL_HEADER + lengths
        if header[:4] != b"PK\3\4" or start + entry.file_size > self.archive.start_dir:
            raise BadZipFile(f"{name} is not where the directory says")
        return start, entry.file_size

    def _entry(self, name: str) -> ZipInfo:
        if name not in self.entries:
            raise BadZipFile(f"there is no {name} in it")
        return self.entries[name]


@contextmanager
def open_zip(path: str | Path) -> Iterator[Zip]:
    """Open a zip file; nothing is expanded.

    Raises
    ------
    InputFileError
        If there is no such file, or it is none.
    BadZipFile, and others of zipfile
        If it is damaged, or its directory is too long, has a name twice, or encrypted entries.
    """
    with reading(path) as file, _Wary(file.raw) as wary, ZipFile(wary) as archive:
        wary.wary = False
        entries: dict[str, ZipInfo] = {}
        for entry in archive.infolist():
            if entries.setdefault(entry.filename, entry) is not entry:
                raise BadZipFile(f"{entry.filename} is in it twice")
            if entry.flag_bits & ENCRYPTED:
                raise BadZipFile(f"{entry.filename} is encrypted")
        yield Zip(archive, wary, entries)
