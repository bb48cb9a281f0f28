"""Files that a list names, which may have been moved with the list, or stand where it was made."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, ZipFile

from cryolike_dask.errors import InputFileError


def listed_file(name: Path, folder: Path, source: Path) -> Path | None:
    """The file that a list calls `name`, or None; two that differ are refused."""
    as_given = name if _is_file(name) else None
    beside = next((path for path in (folder / name, folder / name.name) if _is_file(path)), None)
    if as_given is None or beside is None or as_given.samefile(beside):
        return as_given or beside
    if _content(as_given) != _content(beside):
        raise InputFileError(
            f"{name} is both {as_given.absolute()} and {beside.absolute()}, which differ",
            source=source,
            remedy="Remove one of them, start from another folder, or make the templates again.",
        )
    return beside


def _content(path: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and checksums of the entries of an archive; the path alone of another file."""
    try:
        with ZipFile(path) as archive:
            return [(entry.filename, entry.file_size, entry.CRC) for entry in archive.infolist()]
    except (OSError, BadZipFile):
        return [(str(path), 0, 0)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False
