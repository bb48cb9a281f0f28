"""Older words for what a person types, which go on being read: each with the word of today, in
degrees, angstrom or pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any


def words_of_today(values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, float]]:
    """The older words among values that are given, each with the word of today and its value.

    Parameters
    ----------
    values : mapping
        Of one section of a run, or of one command, by their names in Python; None: not given.

    Yields
    ------
    older : tuple of str
    word : str
    value : float
    """
    if values.get("viewing_distance"):
        degrees = math.degrees(values["viewing_distance"])
        yield ("viewing_distance",), "view_step_degrees", degrees
    if values.get("resolution_factor") and values.get("pixel_size_angstrom"):
        angstrom = 2 * values["pixel_size_angstrom"] / values["resolution_factor"]
        yield ("resolution_factor",), "resolution_angstrom", angstrom
    n_x, n_y = (values.get(f"n_displacements_{axis}") or 0 for axis in "xy")
    farthest = values.get("max_displacement_pixels")
    # other searches, of two axes or of none, are said as they were
    if n_x == n_y > 1 and farthest:
        step = 2 * farthest / (n_x - 1)
        yield ("n_displacements_x", "n_displacements_y"), "displacement_step_pixels", step


def exactly(value: float) -> str:
    """A number in as few digits as tell it for what it is used."""
    return f"{value:.5g}"
