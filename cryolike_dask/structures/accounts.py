"""Accounts of structures, of what was taken, left out and guessed: a line for all that are
alike."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, counted
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.elements import is_polymer

logger = logging.getLogger("cryolike_dask")

LINES = 12
"""Lines of one kind, before the others are only counted."""
MOST_BOXES = 100
"""Boxes of the images that a structure may be large: the grid of its non-uniform FFT grows with its
area."""
WATER_DALTON = 18.015
WEIGHTS = np.array([0.0, *(gemmi.Element(z).weight for z in range(1, 119))])
SHAPES = {
    "gaussian": "Gaussians",
    "hard-sphere": "hard spheres",
    "scattering": "atoms that scatter",
}


@dataclass(frozen=True)
class Account:
    """Account of what was taken of a structure, and of what is to be said of it.

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


def text_of_taken(model: Model, rows: NDArray[np.int64], atoms: Atoms, by_residue: bool) -> str:
    """Say what `atoms` are, which were made of these rows of the model."""
    kinds, kind = np.unique(model.residue_name[rows], return_inverse=True)
    polymer = np.array([is_polymer(name) for name in kinds.tolist()])[kind] | by_residue
    n_chains = len(np.unique(model.part[rows][polymer]))
    chains = "" if n_chains == 0 else f" of {counted(n_chains, 'chain')}"
    if by_residue:
        what = f"{counted(len(rows), 'residue')}{chains}"
        mass = np.array([_residue_dalton(name) for name in kinds.tolist()])[kind]
        of_atoms = np.bincount(model.residue, weights=WEIGHTS[model.element])[model.residue[rows]]
        dalton = np.where(mass > 0, mass, of_atoms).sum()
    else:
        n_residues = counted(len(np.unique(model.residue[rows])), "residue")
        what = f"{counted(len(rows), 'atom')} in {n_residues}{chains}"
        dalton = WEIGHTS[model.element[rows]].sum()
    return (
        f"{what} as {_in_words(atoms)}, {atoms.electrons.sum():,.0f} electrons, "
        f"{dalton / 1000:.3g} kDa"
    )


def account_of_atoms(atoms: Atoms, parameters: ImageParameters) -> Account:
    """Account for atoms that are no file."""
    taken = f"{len(atoms):,} {_in_words(atoms)}, {atoms.electrons.sum():,.0f} electrons"
    return in_box(Account(taken), atoms, parameters)


def _in_words(atoms: Atoms) -> str:
    """The shape of atoms, and their B-factors and solvent."""
    words = [SHAPES[atoms.shape]]
    if atoms.b_factors is not None:
        least, most = atoms.b_factors.min(), atoms.b_factors.max()
        words.append(f"B {least:g}" if least == most else f"B {least:g} to {most:g}")
    if atoms.bulk_solvent is not None:
        share, b_factor = atoms.bulk_solvent
        words.append(f"bulk solvent {share:g} of B {b_factor:g}")
    return words[0] if len(words) == 1 else f"{words[0]} ({', '.join(words[1:])})"


def misleading(parameters: ImageParameters) -> tuple[str, ...]:
    """Say below which resolution what stands for atoms misleads, where the images reach it."""
    if parameters.scatters:
        return ()
    if parameters.atom_shape == "scattering":
        return (
            "one hard sphere per residue: use_protein_residue_model=True wins over "
            'atom_shape="scattering"',
        )
    if parameters.atom_radii is not None and not parameters.use_protein_residue_model:
        return ()
    if parameters.use_protein_residue_model:
        what, limit = "one sphere per residue misleads", 10.0
    elif parameters.atom_shape == "gaussian":
        what, limit = "Gaussians as wide as atoms mislead", 10.0
    else:
        what, limit = "hard spheres mislead", 4.0
    finest = parameters.grid.box_size_angstrom / (2 * parameters.radius_max)
    if finest >= limit:
        return ()
    return (
        f"{what} below about {limit:g} angstrom, and the images reach {finest:.3g}; "
        f'atom_shape="scattering" (--atom-shape scattering) is right there, for structures with '
        f"side chains",
    )


def in_box(account: Account, atoms: Atoms, parameters: ImageParameters) -> Account:
    """Add how large the structure is, with a warning if the box of the images is smaller.

    Raises
    ------
    InputError
        If a radius is larger than the box, or the structure a hundred times as large.
    """
    box, reach = parameters.grid.box_size_angstrom, atoms.reach_angstrom
    if atoms.radii_angstrom.max() > box:
        raise InputError(
            f"a radius of {atoms.radii_angstrom.max():g} angstrom is larger than the box, {box:g}",
            remedy="Is atom_radii in angstrom?",
        )
    if reach > MOST_BOXES * box:
        raise InputError(
            f"an atom is {reach:g} angstrom from the centre, which is {reach / box:,.0f} boxes of "
            f"{box:g}",
            remedy="Are the coordinates in angstrom?",
        )
    larger = f"reaches {reach:.0f} angstrom from its centre, but half a box is {box / 2:g}"
    warnings = (*account.warnings, larger) if reach > box / 2 else account.warnings
    return replace(account, diameter_angstrom=2 * reach, warnings=warnings)


def say(accounts: Iterable[tuple[str, Account]]) -> None:
    """Log what is known of structures, each fact once, with the first structure that it holds for.

    Parameters
    ----------
    accounts : iterable of (name, Account)
    """
    alike: dict[tuple[str, str], list[tuple[str, float | None]]] = {}
    notes: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for name, account in accounts:
        alike.setdefault((account.taken, account.besides), []).append(
            (name, account.diameter_angstrom)
        )
        for level, sentences in (
            (logging.WARNING, account.warnings),
            (logging.INFO, account.notes),
        ):
            for sentence in sentences:  # numbers differ between models, what is said does not
                notes.setdefault((level, re.sub(r"[\d.,]+", "#", sentence)), []).append(
                    (name, sentence)
                )
    for (taken, besides), structures in list(alike.items())[:LINES]:
        diameters = [diameter for _, diameter in structures if diameter is not None]
        each = "each " if len(structures) > 1 else ""
        names = _named([name for name, _ in structures])
        logger.info("%s: %s%s%s%s", names, each, taken, _diameter(diameters), besides)
    if len(alike) > LINES:
        others = [name for structures in list(alike.values())[LINES:] for name, _ in structures]
        logger.info("%s: other numbers of atoms or voxels", _named(others))
    for (level, _), remarks in notes.items():
        logger.log(level, "%s: %s", _named([name for name, _ in remarks]), remarks[0][1])


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1:,} more"


def _diameter(angstrom: Sequence[float]) -> str:
    if not angstrom:
        return ""
    least, most = f"{min(angstrom):.0f}", f"{max(angstrom):.0f}"
    return (
        f", diameter {least} angstrom"
        if least == most
        else f", diameter {least} to {most} angstrom"
    )


def _residue_dalton(name: str) -> float:
    """Mass of a residue in a chain; 0 if it is unknown."""
    known = gemmi.find_tabulated_residue(name)
    return known.weight - WATER_DALTON if known.is_amino_acid() else 0.0
