"""Names of structures: those of their files; where these collide, with the folders that tell the
files apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path


def told_apart(given: Sequence[Path | str]) -> list[str]:
    """Name structures after their files, and those of one name after as many of their folders as
    tell them apart.

    Parameters
    ----------
    given : sequence of path or str
        The file of each, or the name of what has none.

    Returns
    -------
    list of str
        `NAME`, or `FOLDER_NAME`. Nothing tells apart what lies in one folder under one name: see
        `numbered`.
    """
    names = [source if isinstance(source, str) else stem_of(source) for source in given]
    folders = [() if isinstance(source, str) else _folders(source) for source in given]
    depth, rows = [0] * len(given), _rows_of_one_name(names)
    while rows:
        deeper = [
            i
            for collisions in rows
            if len({folders[i] for i in collisions}) > 1
            for i in collisions
        ]
        deeper = [i for i in deeper if depth[i] < len(folders[i])]
        for i in deeper:
            depth[i] += 1
            names[i] = f"{folders[i][depth[i] - 1]}_{names[i]}"
        rows = _rows_of_one_name(names) if deeper else []
    return names


def numbered(names: Sequence[str]) -> list[str]:
    """Make names distinct that still collide, by a counter: x, x_1, x_2."""
    taken, distinct, latest = set(names), dict[str, None](), dict[str, int]()
    for name in names:
        if name not in distinct:
            distinct[name] = None
            continue
        numbers = count(latest.get(name, 0) + 1)
        latest[name] = next(
            n for n in numbers if f"{name}_{n}" not in taken and f"{name}_{n}" not in distinct
        )
        distinct[f"{name}_{latest[name]}"] = None
    return list(distinct)


def stem_of(path: Path) -> str:
    """The name of a file without its suffix, and without that of compression."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return name[: len(name) - len(Path(name).suffix)]


def _folders(path: Path) -> tuple[str, ...]:
    """The names of the folders above a file, the nearest first."""
    return Path(os.path.abspath(path)).parent.parts[:0:-1]


def _rows_of_one_name(names: Sequence[str]) -> list[list[int]]:
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        rows.setdefault(name, []).append(i)
    return [collision for collision in rows.values() if len(collision) > 1]
