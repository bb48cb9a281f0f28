"""A protein of all atoms in a file."""

from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np

ATOMS = {"N": (1.46, 0, 0), "CA": (0, 0, 0), "C": (-0.55, 1.42, 0), "O": (0.1, 2.4, 0.4)}
SIDE = {"ALA": ("CB",), "MET": ("CB", "CG", "SD", "CE"), "LYS": ("CB", "CG", "CD", "CE", "NZ")}


def write_protein(path: Path, n_residues: int, seed: int = 0, chain_name: str = "A") -> Path:
    """Write residues about places in a ball, and a water, as PDB or mmCIF by the name."""
    rng = np.random.default_rng(seed)
    chain = gemmi.Chain(chain_name)
    for number in range(n_residues + 1):
        residue = gemmi.Residue()
        is_water = number == n_residues
        residue.name = "HOH" if is_water else str(rng.choice(list(SIDE)))
        residue.seqid = gemmi.SeqId(number + 1, " ")
        residue.het_flag = "H" if is_water else "A"
        place = rng.normal(0, 7, 3)
        local = {"O": (0, 0, 0)} if is_water else dict(ATOMS)
        for i, name in enumerate(() if is_water else SIDE[residue.name], start=1):
            local[name] = (-0.5, -0.75 * i, 1.1 * (i % 2) - 0.5)
        for name, position in local.items():
            atom = gemmi.Atom()
            atom.name, atom.element, atom.b_iso = name, gemmi.Element(name[0]), 20.0 + number
            atom.pos = gemmi.Position(*(place + position))
            residue.add_atom(atom)
        chain.add_residue(residue)
    structure, model = gemmi.Structure(), gemmi.Model(1)
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    if path.suffix == ".cif":
        structure.make_mmcif_document().write_file(str(path))
    else:
        structure.write_pdb(str(path))
    return path
