"""Simulations that are written for the tests: a chain that moves, in files of any format."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

RESIDUES = ("ALA", "GLY", "SER", "LEU", "LYS")
ATOMS = (("N", "N", -1.2), ("CA", "C", 0.0), ("C", "C", 1.2), ("O", "O", 2.0))


@dataclass
class Simulation:
    """A chain or two of a few residues, (frame, atom, 3) angstrom, as a PDB file has it."""

    positions: np.ndarray
    n_chains: int = 1

    @classmethod
    def of(cls, rng, n_frames=5, n_residues=6, n_chains=1):
        """A zigzag with a place of its own for each chain; frames are turned, moved and shaken."""
        along = np.arange(n_residues) * 3.8
        chain = np.concatenate(
            [
                np.stack([along + x, y * (-1.0) ** np.arange(n_residues), 0 * along], axis=1)
                for x, y in ((-1.2, 0.4), (0.0, 1.2), (1.2, 0.4), (1.4, -0.8))
            ]
        ).reshape(4, n_residues, 3)
        first = chain.transpose(1, 0, 2).reshape(-1, 3)
        whole = np.concatenate([first + np.array([0, 0, 4.0 * k]) for k in range(n_chains)])
        whole -= whole.mean(axis=0)
        bent = whole[None] + rng.normal(0, 0.15, (n_frames, *whole.shape))
        return cls((bent + rng.uniform(-2, 2, (n_frames, 1, 3)) + 20).round(3), n_chains)

    @property
    def n_atoms(self) -> int:
        return self.positions.shape[1]

    def pdb(self, path: Path, frames=slice(0, 1)) -> Path:
        """The frames as models of a PDB file."""
        structure, n = gemmi.Structure(), self.n_atoms // self.n_chains
        for number, positions in enumerate(self.positions[frames], start=1):
            model = gemmi.Model(number)
            for k in range(self.n_chains):
                chain = gemmi.Chain("AB"[k])
                for i in range(n // len(ATOMS)):
                    residue = gemmi.Residue()
                    residue.name = RESIDUES[i % len(RESIDUES)]
                    residue.seqid = gemmi.SeqId(i + 1, " ")
                    for j, (name, element, _) in enumerate(ATOMS):
                        atom = gemmi.Atom()
                        atom.name, atom.element = name, gemmi.Element(element)
                        atom.pos = gemmi.Position(*positions[k * n + i * len(ATOMS) + j])
                        residue.add_atom(atom)
                    chain.add_residue(residue)
                model.add_chain(chain)
            structure.add_model(model)
        path.write_text(structure.make_pdb_string())
        return path

    def write(self, path: Path, box=None, positions=None) -> Path:
        """The frames in the format of a name."""
        import MDAnalysis

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe = MDAnalysis.Universe.empty(self.n_atoms, trajectory=True)
            with MDAnalysis.Writer(str(path), self.n_atoms) as writer:
                for frame in self.positions if positions is None else positions:
                    universe.atoms.positions = frame
                    universe.dimensions = box
                    writer.write(universe.atoms)
        return path
