"""Names of images in `rlnImageName`: `000003@file`, the third image of a file; a name alone, the
only image of its file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError

ALONE = -1
"""The index of an image that is named by its file alone."""
MOST_DIGITS = 18
"""Digits of the number of an image: more are beyond any file, and beyond 64 bits."""


def split_names(image_names: NDArray[np.str_]) -> tuple[list[str], NDArray[np.int64]]:
    """Give the file that each name is of, and the index there, from 0; `ALONE` where there is no
    number.

    Raises
    ------
    InputError
        If a number is 0, or beyond what can be counted; names the row.
    """
    parts = [_split(row, name) for row, name in enumerate(image_names.tolist())]
    return [file for file, _ in parts], np.array([index for _, index in parts], np.int64)


def split_number(image_name: str) -> tuple[str, str, str]:
    """Number, @ and file; of a file alone, the first two are empty."""
    number, at, file = image_name.partition("@")
    return (
        (number, at, file)
        if at and number.isascii() and number.isdecimal()
        else ("", "", image_name)
    )


def _split(row: int, image_name: str) -> tuple[str, int]:
    number, at, file = split_number(image_name)
    if not at:
        return image_name, ALONE
    digits = number.lstrip("0")
    if not digits or len(digits) > MOST_DIGITS:
        shown = image_name if len(image_name) <= 80 else f"{image_name[:40]}...{image_name[-30:]}"
        why = "no file holds so many images" if digits else "images are counted from 1"
        raise InputError(f"rlnImageName is {shown!r} in row {row} (from 0), but {why}")
    return file, int(digits) - 1
