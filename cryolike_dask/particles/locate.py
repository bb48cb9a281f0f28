"""Places of the image files that metadata name: names start from a project folder that the metadata
do not know."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import missing_files

REMEDY = "Give the project folder that the names start from (folder=, --folder)."


@dataclass(frozen=True, eq=False)
class ImagePlaces:
    """File and position of the image of each particle.

    Attributes
    ----------
    files : tuple of str
        Absolute paths, each once, in the order of their first use.
    number : (image,) int64
        Which of `files`.
    position : (image,) int64
        In that file, from 0.
    """

    files: tuple[str, ...]
    number: NDArray[np.int64]
    position: NDArray[np.int64]


def locate_images(
    names: Sequence[str],
    position: NDArray[np.int64],
    metadata: str | Path,
    folder: str | Path | None = None,
) -> ImagePlaces:
    """Find the image of each particle by the name of its file; parameters and errors as in
    `resolve`."""
    each_once, number = distinct(names)
    files, number_of_name = distinct(resolve(each_once, metadata, folder))
    return ImagePlaces(files, number_of_name[number], position)


def distinct(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Number names in the order of their first use.

    Returns
    -------
    names : tuple of str
        Each once.
    number : (name,) int64
        Of every given name.
    """
    numbers: dict[str, int] = {}
    number = np.fromiter(
        (numbers.setdefault(name, len(numbers)) for name in names), np.int64, len(names)
    )
    return tuple(numbers), number


def resolve(
    names: Sequence[str], metadata: str | Path, folder: str | Path | None = None
) -> tuple[str, ...]:
    """Find files by the names that metadata give them.

    Parameters
    ----------
    names : sequence of str
        Distinct. Absolute names stand for themselves.
    metadata : path
        The file that names them.
    folder : path, optional
        Where relative names start. None: from the first that has the first of the names, of the
        folder of the metadata, its parents upwards, and the current folder; a name that is not
        there is looked for in the others.

    Returns
    -------
    tuple of str
        Absolute paths.

    Raises
    ------
    InputFileError
        If there are no such files; names the first of them, and counts the others.
    """
    bases = _bases(Path(metadata)) if folder is None else [os.path.abspath(folder)]
    relative = next((name for name in names if not os.path.isabs(name)), None)
    if relative is not None:
        # stable: the first comes first
        bases.sort(key=lambda base: not os.path.isfile(os.path.join(base, relative)))
    paths = [_first_file(name, bases) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        shown = missing if folder is None else [os.path.join(bases[0], name) for name in missing]
        raise missing_files(shown, f"They are named in {metadata}. {REMEDY}")
    return tuple(path for path in paths if path is not None)


def _bases(metadata: Path) -> list[str]:
    """Upwards from where the metadata are, also from where a link to them leads, then the
    current folder."""
    as_given, real_path = metadata.absolute(), metadata.resolve()
    return list(
        dict.fromkeys(str(base) for base in (*as_given.parents, *real_path.parents, Path.cwd()))
    )


def _first_file(name: str, bases: Iterable[str]) -> str | None:
    paths = (os.path.join(base, name) for base in bases)  # an absolute name stays as it is
    return next((path for path in paths if os.path.isfile(path)), None)
