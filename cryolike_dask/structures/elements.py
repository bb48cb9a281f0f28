"""Elements of atoms whose files do not state them, by residue and name."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

import gemmi
import numpy as np
from numpy.typing import NDArray

IONS = {
    "LI": "LI", "LI+": "LI", "LIT": "LI", "NA": "NA", "NA+": "NA", "SOD": "NA", "K": "K", "K+": "K",
    "POT": "K", "RB": "RB", "RUB": "RB", "CS": "CS", "CES": "CS", "CIO": "CS", "MG": "MG", "MG2":
    "MG", "CA": "CA", "CA2": "CA", "CAL": "CA", "SR": "SR", "BA": "BA", "BAR": "BA", "ZN": "ZN",
    "ZN2": "ZN", "CD": "CD", "CAD": "CD", "MN": "MN", "MN3": "MN", "FE": "FE", "FE2": "FE", "CO":
    "CO", "3CO": "CO", "NI": "NI", "3NI": "NI", "CU": "CU", "CU1": "CU", "AG": "AG", "AU": "AU",
    "HG": "HG", "PB": "PB", "AL": "AL", "F": "F", "CL": "CL", "CL-": "CL", "CLA": "CL", "BR": "BR",
    "IB+": "BR", "IOD": "I",
}  # fmt: skip
"""Residues that are one ion, by the names of the Protein Data Bank, GROMACS, AMBER and CHARMM,
and their elements."""
WATERS = (
    "HOH", "WAT", "DOD", "H2O", "SOL", "TIP", "TIP3", "TIP4", "TIP5", "TP3", "TP4", "TP5", "T3P",
    "T4P", "T5P", "SPC", "SPCE", "OPC",
)  # fmt: skip
OF_SIMULATIONS = (
    "HIE", "HID", "HIP", "HSD", "HSE", "HSP", "CYX", "CYM", "ASH", "GLH", "LYN", "ACE", "NME",
    "NMA", "NH2", "ADE", "GUA", "CYT", "THY", "URA", "DA5", "DA3", "DG5", "DG3", "DC5", "DC3",
    "DT5", "DT3", "A5", "A3", "G5", "G3", "C5", "C3", "U5", "U3", "RA", "RG", "RC", "RU",
)  # fmt: skip
"""Residues of proteins and nucleic acids that only force fields know."""
OF_POLYMERS = re.compile(r"SE$|\d*[HD]|[NOPS]|C(?!L\d?$)")
"""Beginnings of names in proteins and nucleic acids, whose last letter is the element; but for
selenium."""
TWO_LETTERS = {"CL", "BR", "FE", "ZN", "MG", "MN", "CU", "NI", "SE", "SI", "MO", "RU", "AL", "LI"}
"""Elements that names in unknown residues stand for, though their first letters are elements
too."""
ONE_LETTER = "HDCNOSPFI"
BEADS = re.compile(r"BB\d?|SC\d|BAS")
"""Names of coarse-grained beads in residues of proteins and nucleic acids."""
BEADS_ALONE = ("W", "WF", "PW", "WN")


@lru_cache(maxsize=4096)
def is_polymer(residue: str) -> bool:
    """Whether atoms of a residue are named as those of proteins and nucleic acids are."""
    known = gemmi.find_tabulated_residue(residue)
    return known.is_amino_acid() or known.is_nucleic_acid() or residue in OF_SIMULATIONS


@lru_cache(maxsize=4096)
def is_bead(name: str, residue: str) -> bool:
    """Whether an atom is none, but stands for several in a coarse-grained model."""
    if is_polymer(residue):
        return BEADS.fullmatch(name) is not None
    return name in BEADS_ALONE and residue in BEADS_ALONE


def elements_by_name(
    padded: NDArray[np.str_], residue: NDArray[np.str_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find the elements of atoms by their names.

    Parameters
    ----------
    padded : (atom,) str
        Names as they stand in the four columns of a PDB file, where elements of one letter begin in
        the second; or names alone, where nothing is known of columns.
    residue : (atom,) str
        Names of their residues.

    Returns
    -------
    element : (atom,) int
        Atomic numbers; 0 if there is no such element.
    guessed : (atom,) bool
        Which of them do not follow from residue and name.
    """
    names, name = np.unique(padded, return_inverse=True)
    kinds, kind = np.unique(residue, return_inverse=True)
    pairs, inverse = np.unique(name * len(kinds) + kind, return_inverse=True)
    named = [
        (str(names[pair // len(kinds)]), str(kinds[pair % len(kinds)])) for pair in pairs.tolist()
    ]
    aligned, n_atoms = _are_aligned(named), Counter(residue for _, residue in named)
    elements = [_element(name, residue, aligned, n_atoms[residue] == 1) for name, residue in named]
    symbols, sure = [symbol for symbol, _ in elements], [known for _, known in elements]
    number = np.array([gemmi.Element(symbol).atomic_number for symbol in symbols], np.int64)
    return number[inverse], ~np.array(sure, np.bool_)[inverse]


def _are_aligned(named: list[tuple[str, str]]) -> bool:
    """Whether names begin in the column that their element wants: some short ones in the second,
    none of polymers'."""
    short = [
        (name, residue)
        for name, residue in named
        if 0 < len(name.strip()) < 4 and not name[0].isdigit()
    ]
    wrong = any(
        name[0] != " " and is_polymer(residue) and name[0] not in "HD" for name, residue in short
    )
    return not wrong and any(name[0] == " " for name, _ in short)


def _element(padded: str, residue: str, aligned: bool, is_alone: bool) -> tuple[str, bool]:
    """The symbol, X for none, and whether it follows from residue and name; an ion is alone in
    its residue."""
    name, ion = padded.strip().upper(), residue.upper()
    if (
        is_alone
        and ion in IONS
        and name.strip("0123456789+-") in (ion.strip("0123456789+-"), IONS[ion])
    ):
        return IONS[ion], True
    if is_bead(name, residue):
        return "X", True
    named = is_polymer(residue) or residue in WATERS
    match = OF_POLYMERS.match(name) if named else None
    if match is not None:
        return ("SE" if match[0] == "SE" else match[0][-1]), True
    return ("X", True) if residue in WATERS else (_guess(padded, name, aligned), False)


def _guess(padded: str, name: str, aligned: bool) -> str:
    letters = re.match(r"[A-Z]*", name.lstrip("0123456789"))[0]  # type: ignore[index]
    if not letters:
        return "X"
    in_first_column = not padded.startswith(" ") and not padded[:1].isdigit() and len(name) < 4
    is_two = len(letters) > 1 and gemmi.Element(letters[:2]).atomic_number > 0
    if aligned and len(name) < 4:
        return letters[:2] if in_first_column and is_two else letters[0]
    if letters in TWO_LETTERS or letters[:2] in ("CL", "BR"):
        return letters[:2]
    return letters[0] if letters[0] in ONE_LETTER else letters[:2] if is_two else "X"
