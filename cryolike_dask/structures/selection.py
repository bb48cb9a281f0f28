"""Selections of atoms: a small language of names."""

from __future__ import annotations

import re
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError

FIELDS = {"name": "name", "resname": "residue_name", "chain": "chain", "resid": "residue_number"}
EVERYTHING = "all"
"""The clause that selects every atom, and asks for waters and ions where they are left out."""
WORDS = ("and", "or", "not", *FIELDS)
"""Words that no value can be: the text was meant for another program."""
REMEDY = (
    'Write for example "name CA", "resname GLY ALA and not chain B" or "resid 10-50 and chain A".'
)
RANGE = re.compile(r"(-?\d+)(?:-(-?\d+))?")


class Columns(Protocol):
    """Columns of a model, as `FIELDS` names them."""

    def __len__(self) -> int: ...


def selected(model: Columns, selection: str | None) -> NDArray[np.bool_]:
    """Say of every atom whether it is selected.

    Parameters
    ----------
    model : Model
    selection : str or None
        Clauses joined by `and`, each of them a field and its values, `not` before it for all
        others. Fields: `name`, `resname`, `chain`, `resid` (numbers and ranges such as 10-50). The
        clause `all`, and None, select everything.

    Raises
    ------
    InputError
        If the text is not of this form.
    """
    chosen = np.ones(len(model), np.bool_)
    for clause in _clauses(selection):
        words = clause.split()
        if words == [EVERYTHING]:
            continue
        negated = words[:1] == ["not"]
        field, *values = words[negated:] or [""]
        foreign = [word for word in values if word.lower() in WORDS or "," in word]
        if field not in FIELDS or not values or foreign:
            raise InputError(
                f"atom_selection={selection!r}: {clause!r} is not understood", remedy=REMEDY
            )
        column = getattr(model, FIELDS[field])
        matches = (
            _in_ranges(column, values, selection) if field == "resid" else np.isin(column, values)
        )
        chosen &= ~matches if negated else matches
    return chosen


def asked_for(model: Columns, selection: str | None) -> NDArray[np.bool_]:
    """Say of every atom whether a selection asks for it though it were water or an ion: by the
    name of its residue, or by `all`."""
    asked = np.zeros(len(model), np.bool_)
    for words in map(str.split, _clauses(selection)):
        if words == [EVERYTHING]:
            return ~asked
        if words[:1] == ["resname"]:
            asked |= np.isin(getattr(model, FIELDS["resname"]), words[1:])
    return asked


def _clauses(selection: str | None) -> list[str]:
    return [] if selection is None else re.split(r"\s+and\s+", selection.strip())


def _in_ranges(
    numbers: NDArray[Any], ranges: list[str], selection: str | None
) -> NDArray[np.bool_]:
    in_ranges = np.zeros(len(numbers), np.bool_)
    for text in ranges:
        match = RANGE.fullmatch(text)
        if match is None:
            raise InputError(
                f"atom_selection={selection!r}: {text!r} is no residue number or range",
                remedy=REMEDY,
            )
        first, last = int(match[1]), int(match[2] if match[2] is not None else match[1])
        if last < first:
            raise InputError(
                f"atom_selection={selection!r}: {text!r} runs backwards", remedy=REMEDY
            )
        in_ranges |= (numbers >= first) & (numbers <= last)
    return in_ranges
