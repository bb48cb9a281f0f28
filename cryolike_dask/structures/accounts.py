"""What was taken of each structure, left out and guessed: a line for all that are alike."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.elements import is_polymer

logger = logging.getLogger("cryolike_dask")

LINES = 12
"""Of one kind, before the others are only counted."""
WATER_DALTON = 18.015
WEIGHTS = np.array([0.0, *(gemmi.Element(z).weight for z in range(1, 119))])
SHAPES = {"gaussian": "Gaussians", "hard-sphere": "hard spheres"}


@dataclass(frozen=True)
class Account:
    """What was taken of a structure, and what is to be said of it.

    Attributes
    ----------
    taken : str
    diameter_angstrom : float or None
        Of the smallest sphere about the centre.
    besides : str
        What was left out, and what was guessed.
    warnings, notes : tuple of str
        A sentence each: what may make numbers wrong, and what is merely said.
    """

    taken: str
    diameter_angstrom: float | None = None
    besides: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def taken_of(model: Model, rows: NDArray[np.int64], atoms: Atoms, by_residue: bool) -> str:
    """Say what `atoms` are, which were made of these rows of the model."""
    kinds, kind = np.unique(model.residue_name[rows], return_inverse=True)
    polymer = np.array([is_polymer(name) for name in kinds.tolist()])[kind] | by_residue
    n_chains = len(np.unique(model.part[rows][polymer]))
    chains = "" if n_chains == 0 else f" of {_counted(n_chains, 'chain')}"
    if by_residue:
        what = f"{_counted(len(rows), 'residue')}{chains}"
        mass = np.array([_residue_dalton(name) for name in kinds.tolist()])[kind]
        of_atoms = np.bincount(model.residue, weights=WEIGHTS[model.element])[model.residue[rows]]
        dalton = np.where(mass > 0, mass, of_atoms).sum()
    else:
        n_residues = _counted(len(np.unique(model.residue[rows])), "residue")
        what = f"{_counted(len(rows), 'atom')} in {n_residues}{chains}"
        dalton = WEIGHTS[model.element[rows]].sum()
    return f"{what} as {SHAPES[atoms.shape]}, {atoms.electrons.sum():,.0f} electrons, {dalton / 1000:.3g} kDa"


def said_of(accounts: Iterable[tuple[str, Account]]) -> None:
    """Log what is known of structures, each fact once, with the first structure that it holds for.

    Parameters
    ----------
    accounts : iterable of (name, Account)
    """
    alike: dict[tuple[str, str], list[tuple[str, float | None]]] = {}
    notes: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for name, account in accounts:
        alike.setdefault((account.taken, account.besides), []).append((name, account.diameter_angstrom))
        for level, sentences in ((logging.WARNING, account.warnings), (logging.INFO, account.notes)):
            for sentence in sentences:  # numbers differ from frame to frame, what is said does not
                notes.setdefault((level, re.sub(r"[\d.,]+", "#", sentence)), []).append((name, sentence))
    for (taken, besides), those in list(alike.items())[:LINES]:
        diameters = [diameter for _, diameter in those if diameter is not None]
        logger.info("%s: %s%s%s", _named([name for name, _ in those]), taken, _diameter(diameters), besides)
    if len(alike) > LINES:
        others = [name for those in list(alike.values())[LINES:] for name, _ in those]
        logger.info("%s: other numbers of atoms or voxels", _named(others))
    for (level, _), said in notes.items():
        logger.log(level, "%s: %s", _named([name for name, _ in said]), said[0][1])


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more like it"


def _diameter(angstrom: Sequence[float]) -> str:
    if not angstrom:
        return ""
    least, most = f"{min(angstrom):.0f}", f"{max(angstrom):.0f}"
    return f", diameter {least} angstrom" if least == most else f", diameter {least} to {most} angstrom"


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _residue_dalton(name: str) -> float:
    """Of a residue in a chain; 0 if it is unknown."""
    known = gemmi.find_tabulated_residue(name)
    return known.weight - WATER_DALTON if known.is_amino_acid() else 0.0
