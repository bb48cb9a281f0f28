"""Pairs of similar structures to simulate particles of: residues as one Gaussian each, or proteins
of all atoms that scatter electrons. Nothing of the package is used here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from numpy.typing import NDArray

from benchmarks.independent_simulator import FloatArray, Molecule, about_z, two_lobes

RESIDUE_ELECTRONS, RESIDUE_SPREAD = 62.0, 3.0
"""Integral and standard deviation (angstrom) of a residue's Gaussian."""
BACKBONE = {"N": (1.46, 0, 0), "CA": (0, 0, 0), "C": (-0.55, 1.42, 0), "O": (0.1, 2.4, 0.4)}
"""Positions of atoms about the C-alpha, angstrom."""
SIDE_CHAINS = {
    "ALA": ("CB",),
    "SER": ("CB", "OG"),
    "CYS": ("CB", "SG"),
    "ASP": ("CB", "CG", "OD1", "OD2"),
    "LEU": ("CB", "CG", "CD1", "CD2"),
    "MET": ("CB", "CG", "SD", "CE"),
    "LYS": ("CB", "CG", "CD", "CE", "NZ"),
    "PHE": ("CB", "CG", "CD1", "CD2", "CE1", "CE2", "CZ"),
}
STEP = (0.75, 1.1)
"""Angstrom from one atom of a side chain to the next, outwards and to alternating sides."""
LEAST_DISTANCE = 3.8
"""Of C-alphas, angstrom."""
ATOMIC_B = 60.0
"""Angstrom^2, of all atoms."""
VOLUME_OF_RESIDUE = 136.0
"""Angstrom^3, in proteins."""


@dataclass(frozen=True, eq=False)
class Protein:
    """Atoms, in the order of a PDB file.

    Attributes
    ----------
    positions : (atom, 3)
        Angstrom.
    names : tuple of str
        "CA", "OD1", ...; their first letter is the element.
    residues : (atom,) int
    residue_names : tuple of str
        One for each residue.
    """

    positions: FloatArray
    names: tuple[str, ...]
    residues: NDArray[np.int64]
    residue_names: tuple[str, ...]

    def scattering(self, b_factor: float) -> Molecule:
        """Gaussians by the table of five for each element (International Tables C, 4.3.2.2), their
        mean displacements by one B-factor."""
        tables = [gemmi.Element(name[0]).c4322 for name in self.names]
        weights = np.array([table.a for table in tables])
        widths = np.array([table.b for table in tables]) + b_factor
        return Molecule(self.positions, weights, widths / (8 * np.pi**2))

    def write(self, path: Path, b_factor: float) -> None:
        """Write a PDB file."""
        chain = gemmi.Chain("A")
        for number, residue_name in enumerate(self.residue_names):
            residue = gemmi.Residue()
            residue.name, residue.seqid = residue_name, gemmi.SeqId(number + 1, " ")
            for i in np.flatnonzero(self.residues == number):
                atom = gemmi.Atom()
                atom.name, atom.element = self.names[i], gemmi.Element(self.names[i][0])
                atom.pos = gemmi.Position(*self.positions[i])
                atom.b_iso = b_factor
                residue.add_atom(atom)
            chain.add_residue(residue)
        model = gemmi.Model(1)
        model.add_chain(chain)
        structure = gemmi.Structure()
        structure.add_model(model)
        structure.setup_entities()
        structure.write_pdb(str(path))


def residues(opening_degrees: float) -> Molecule:
    """48 residues in two lobes, the second turned by the opening."""
    positions = two_lobes(opening_degrees)
    shape = (len(positions), 1)
    return Molecule(positions, np.full(shape, RESIDUE_ELECTRONS), np.full(shape, RESIDUE_SPREAD**2))


def protein(opening_degrees: float, n_residues: int = 60, seed: int = 0) -> Protein:
    """Two lobes of residues of all atoms, as dense as in proteins, the second turned about z by the
    opening. Stereochemistry is rough: electrons do not know it."""
    rng = np.random.default_rng(seed)
    radius = (VOLUME_OF_RESIDUE * n_residues / 2 * 3 / (4 * np.pi)) ** (1 / 3)
    positions, names, numbers, residue_names = [], [], [], []
    for lobe in (0, 1):
        turn = about_z(np.float64(opening_degrees if lobe else 0.0))
        middle = np.array([-radius if lobe else radius, 0, 0])
        for place in _apart(n_residues // 2, radius, rng):
            name = str(rng.choice(list(SIDE_CHAINS)))
            local = np.array([*BACKBONE.values(), *_side_chain(name)])
            turned = local @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
            positions.append((turned + place + middle) @ turn.T)
            names += [*BACKBONE, *SIDE_CHAINS[name]]
            numbers += [len(residue_names)] * len(local)
            residue_names.append(name)
    rounded = np.concatenate(positions).round(3)  # as in a PDB file
    return Protein(rounded, tuple(names), np.array(numbers), tuple(residue_names))


def _side_chain(name: str) -> list[tuple[float, float, float]]:
    """Positions about the C-alpha of the atoms of a side chain, which zigzags away from it."""
    along, aside = STEP
    steps = range(1, len(SIDE_CHAINS[name]) + 1)
    return [(-0.5, -along * i, aside * (0.5 if i % 2 else -0.5) - 0.5) for i in steps]


def _apart(n: int, radius: float, rng: np.random.Generator) -> list[FloatArray]:
    """Places in a sphere that keep their distance."""
    found: list[FloatArray] = []
    while len(found) < n:
        place = rng.uniform(-radius, radius, 3)
        clear = all(np.linalg.norm(place - other) >= LEAST_DISTANCE for other in found)
        if np.linalg.norm(place) <= radius and clear:
            found.append(place)
    return found
