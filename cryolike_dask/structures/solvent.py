"""Waters, ions and coarse-grained beads in a model: what is rarely meant to be atoms of the
structure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.elements import IONS, WATERS, is_bead

WATER_ELECTRONS = 10


@dataclass(frozen=True, eq=False)
class Kinds:
    """Names of residues, and which atoms are of waters and ions.

    Attributes
    ----------
    names : list of str
    index : (atom,) int
        Which of the names each atom has.
    residue : (atom,) int
    water, ion : (atom,) bool
    """

    names: list[str]
    index: NDArray[np.int64]
    residue: NDArray[np.int64]
    water: NDArray[np.bool_]
    ion: NDArray[np.bool_]

    @classmethod
    def of(cls, model: Model) -> Kinds:
        """Find them: residues named as waters with the electrons of one, residues named as ions
        with one atom."""
        kinds, index = np.unique(model.residue_name, return_inverse=True)
        names = kinds.tolist()
        water, ion = (
            np.array([name.upper() in known for name in names])[index] for known in (WATERS, IONS)
        )
        if water.any():
            water &= (
                np.bincount(model.residue, weights=model.element)[model.residue] <= WATER_ELECTRONS
            )
        if ion.any():
            ion &= np.bincount(model.residue)[model.residue] == 1
        return cls(names, index, model.residue, water, ion)

    def solvent_counted(self, chosen: NDArray[np.bool_]) -> list[str]:
        """Count the waters and ions among atoms, in words."""
        counts = {
            what: len(np.unique(self.residue[of_it & chosen])) if of_it.any() else 0
            for what, of_it in (("water(s)", self.water), ("ion(s)", self.ion))
        }
        return [f"{n:,} {what}" for what, n in counts.items() if n]

    def solvent_taken(self, chosen: NDArray[np.bool_]) -> list[str]:
        """Say how many waters and ions are taken, and how they would not be."""
        counts = self.solvent_counted(chosen)
        if not counts:
            return []
        names = sorted(
            {self.names[i] for i in self.index[(self.water | self.ion) & chosen].tolist()}
        )
        return [
            f'{", ".join(counts)} are part of the structure; "not resname {" ".join(names)}" '
            f"leaves them out"
        ]

    def beads(self, model: Model, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Find those of the atoms that are beads."""
        names, index = np.unique(model.name, return_inverse=True)
        pairs, inverse = np.unique(index * len(self.names) + self.index, return_inverse=True)
        both = [divmod(pair, len(self.names)) for pair in pairs.tolist()]
        bead = np.array([is_bead(str(names[i]), self.names[j]) for i, j in both])
        return np.flatnonzero(bead[inverse] & chosen)
