"""Frames that are chosen of a trajectory: by numbers from 0 on, ranges, slices, or a list in a
file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError, counted, number
from cryolike_dask.io.identity import reading

Frames = int | str | Path | slice | Iterable[int]
"""Frames as they are asked for; text is of numbers and ranges, or the name of a file of these."""

PART = re.compile(r"(\d{1,15})(?:(-)(\d{1,15})?)?")
LIST = re.compile(r"[\d\s,-]*")
MOST_BYTES = 2**24
"""Of a list in a file: a million numbers."""
REMEDY = "Write for example 0, 5, 10-20, 100- (from there on)."


def chosen_frames(
    asked: Frames | None, every: int, n_frames: int, *, is_cut_off: bool = False
) -> NDArray[np.int64]:
    """Choose frames.

    Parameters
    ----------
    asked : int, slice, list of int, text, path of a list, or None
        None: all.
    every : int
        Only the first of each so many of them.
    n_frames : int
        That there are.
    is_cut_off : bool
        The file ends inside the frame after these: all of it cannot be had, but frames can.

    Returns
    -------
    (frame,) int64
        In the order in which they are asked for.

    Raises
    ------
    InputError
        If one is not there, or is asked for twice, or none is left.
    """
    every = number("every", every, whole=True, at_least=1)
    if is_cut_off and (asked is None or isinstance(asked, slice)):
        raise InputError(
            f"is cut off inside frame {n_frames:,}: it has {counted(n_frames, 'whole frame')}",
            remedy=f"Copy it again; or take what is there: frames='0-{n_frames - 1}' "
            f"(--frames 0-{n_frames - 1}).",
        )
    if asked is None:
        return np.arange(0, n_frames, every)
    frames = _numbers(asked, n_frames)
    beyond = frames[(frames < 0) | (frames >= n_frames)]
    if len(beyond):
        raise InputError(
            f"frame {beyond[0]:,} is asked for, but there are {n_frames:,}",
            remedy="They are counted from 0.",
        )
    values, count = np.unique(frames, return_counts=True)
    if len(values) < len(frames):
        raise InputError(
            f"frame {values[count > 1][0]:,} is asked for more than once", remedy="Name it once."
        )
    if not len(frames):
        raise InputError(f"frames={asked!r} are none", remedy=REMEDY)
    return frames[::every]


def are_numbers(text: str) -> bool:
    """Whether text is meant to be numbers and ranges, and not the name of a file."""
    return LIST.fullmatch(text) is not None


def _numbers(asked: Any, n_frames: int) -> NDArray[np.int64]:
    if isinstance(asked, slice):
        try:
            return np.arange(n_frames)[asked]
        except (TypeError, ValueError) as error:
            raise InputError(f"frames={asked!r}: {error}", remedy=REMEDY) from error
    if isinstance(asked, str) and are_numbers(asked):
        return _in_text(asked, n_frames)
    if isinstance(asked, (str, Path)):
        return _in_file(Path(asked), n_frames)
    if not isinstance(asked, Iterable):
        asked = [asked]
    return np.array([number("frames", frame, whole=True, at_least=0) for frame in asked], np.int64)


def _in_file(path: Path, n_frames: int) -> NDArray[np.int64]:
    with reading(path, f"frames are numbers, or the name of a file of them. {REMEDY}") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES or b"\0" in content:
        raise InputFileError("is no list of frames", source=path, remedy=REMEDY)
    lines = content.decode("utf-8", "replace").splitlines()
    try:
        return _in_text("\n".join(line.partition("#")[0] for line in lines), n_frames)
    except InputError as error:
        raise InputFileError(str(error), source=path) from error


def _in_text(text: str, n_frames: int) -> NDArray[np.int64]:
    ranges = []
    for part in re.split(r"[\s,]+", text.strip(" \t\r\n,")):
        match = PART.fullmatch(part)
        if match is None:
            raise InputError(f"frames: {part[:40]!r} is no number or range", remedy=REMEDY)
        first = int(match[1])
        last = first if match[2] is None else int(match[3] or n_frames - 1)
        if last < first:
            raise InputError(f"frames: {part!r} runs backwards", remedy=REMEDY)
        if last >= n_frames:
            first, last = max(first, n_frames), max(first, n_frames)  # one beyond says it all
        ranges.append(range(first, last + 1))
    return np.fromiter(chain(*ranges), np.int64)
