"""The atoms of one model as columns: which residue each is of, and which alternates are left
out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLANK_ALTLOC = (0, ord(" "))


@dataclass(frozen=True, eq=False)
class Model:
    """The atoms of one model of a file, one of each set of alternates, as columns.

    Attributes
    ----------
    name, residue_name, chain : (atom,) str
    residue_number, element : (atom,) int
        `element` is the atomic number.
    residue, part : (atom,) int
        Count the residues, and the parts between ends of chains (TER) and segments, of the model.
    hetero, guessed : (atom,) bool
        `guessed`: the element is not stated, and does not follow from residue and name.
    position_angstrom : (atom, 3) float64
    b_factor : (atom,) float64
        Of the file, angstrom^2, whatever it stands for there; NaN where there is none.
    n_alternates : int
        Atoms that were left out, for others stand in their place.
    notes : tuple of str
        What is odd about the file.
    """

    name: NDArray[np.str_]
    residue_name: NDArray[np.str_]
    chain: NDArray[np.str_]
    residue_number: NDArray[np.int64]
    element: NDArray[np.int64]
    residue: NDArray[np.int64]
    part: NDArray[np.int64]
    hetero: NDArray[np.bool_]
    guessed: NDArray[np.bool_]
    position_angstrom: NDArray[np.float64]
    b_factor: NDArray[np.float64]
    n_alternates: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.name)

    def take(self, atoms: NDArray[Any]) -> Model:
        """Some of the atoms."""
        columns = {
            name: column[atoms]
            for name, column in vars(self).items()
            if isinstance(column, np.ndarray)
        }
        return replace(self, **columns)


def residues(
    place: NDArray[Any], name: NDArray[Any], residue_name: NDArray[Any], altloc: NDArray[Any]
) -> NDArray[np.int64]:
    """Count residues: atoms of one place (chain, segment, number), one after another, without one
    atom twice.

    Parameters
    ----------
    place, name, residue_name, altloc : (atom,)
        Anything that can be compared.

    Returns
    -------
    (atom,) int
        From 0 on. Atoms that follow later, such as hydrogens at the end of a chain, belong to the
        residue of their place, unless it has atoms of these names: then they are another copy.
    """
    alternate = ~np.isin(altloc, BLANK_ALTLOC)
    new = np.ones(len(place), np.bool_)
    both = alternate[1:] & alternate[:-1]
    new[1:] = (place[1:] != place[:-1]) | ((residue_name[1:] != residue_name[:-1]) & ~both)
    first = np.flatnonzero(new)[np.cumsum(new) - 1]
    again = (
        (name == name[first]) & (altloc == altloc[first]) & (residue_name == residue_name[first])
    )
    run = np.cumsum(new | again) - 1
    starts = np.flatnonzero(np.diff(run, prepend=-1))
    _, which, count = np.unique(place[starts], return_inverse=True, return_counts=True)
    scattered = np.flatnonzero(count[which] > 1)
    if not len(scattered):
        return run
    ends = np.append(starts[1:], len(place))
    of_run, atoms_of = np.arange(len(starts)), dict[tuple[int, Any], set[Any]]()
    latest: dict[tuple[int, Any], int] = {}
    for i in scattered.tolist():
        rows = slice(starts[i], ends[i])
        atoms = set(zip(name[rows].tolist(), altloc[rows].tolist(), strict=True))
        key = int(which[i]), residue_name[starts[i]].item()
        if key in latest and not atoms_of[key] & atoms:
            of_run[i] = latest[key]
            atoms_of[key] |= atoms
        else:
            latest[key], atoms_of[key] = i, atoms
    counted: NDArray[np.int64] = of_run[run]
    return counted


def without_alternates(model: Model, altloc: NDArray[Any], occupancy: NDArray[np.float64]) -> Model:
    """Leave out of each set of alternates all but the one of highest occupancy, the first of
    equals."""
    alternate = ~np.isin(altloc, BLANK_ALTLOC)
    if not alternate.any():
        return model
    atoms = np.flatnonzero(alternate)
    columns = (model.residue, model.residue_name, model.name, occupancy)
    rows = list(zip(atoms.tolist(), *(column[atoms].tolist() for column in columns), strict=True))
    # the residue of highest occupancy, where alternates are two residues
    kind: dict[Any, tuple[float, str]] = {}
    best: dict[Any, tuple[float, int]] = {}
    for _, place, residue, _, weight in rows:
        if place not in kind or weight > kind[place][0]:
            kind[place] = weight, residue
    for i, place, residue, name, weight in rows:
        key = (place, name)
        if residue == kind[place][1] and (key not in best or weight > best[key][0]):
            best[key] = weight, i
    kept_rows = np.array([i for _, i in best.values()], np.int64)
    chosen = model.take(np.sort(np.concatenate([np.flatnonzero(~alternate), kept_rows])))
    return replace(chosen, n_alternates=len(model) - len(chosen))
