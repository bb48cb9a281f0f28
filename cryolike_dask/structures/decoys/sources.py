"""Decoys as sources of structures: small enough to travel with tasks, made where needed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from cryolike_dask.errors import InputError
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.labels import DecoyKind
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.decoys.density import density_of, phases_randomised
from cryolike_dask.structures.decoys.residues import residues_shuffled
from cryolike_dask.structures.selection import selected
from cryolike_dask.structures.sources import ModelInFile, StructureSource
from cryolike_dask.structures.volumes import Volume

PHASES: DecoyKind = "phases"
DECOY, HOW = "decoy", "{kind} {number} of seed {seed}"
"""What a decoy is described by, and how it is said."""
SAID = re.compile(r"(phases|residues) (\d{1,9}) of seed (\d{1,18})")


@dataclass(frozen=True)
class Decoy:
    """A decoy of a structure: a `StructureSource`.

    Decoys of one number are made of the same random numbers, so that those of similar structures
    resemble each other as the structures do: each number is a set like that of the structures.

    Attributes
    ----------
    structure : StructureSource
    kind : "phases" | "residues"
    number, seed : int
        From 1 on; that of all decoys.
    n_voxels : int
        Along a side of the density that atoms are sampled as.
    voxel_size_angstrom : float
        Of that density.
    """

    structure: StructureSource
    kind: DecoyKind
    number: int
    seed: int
    n_voxels: int
    voxel_size_angstrom: float

    @property
    def path(self) -> str:
        """The file of the structure."""
        return self.structure.path

    def load(self) -> Atoms | Volume:
        """Read the structure, and make the decoy."""
        if self.kind == PHASES:
            return self.density()
        return self._of_residues().atoms(self.model())

    def density(self) -> Volume:
        """The density whose phases are random."""
        structure = self.structure.load()
        if isinstance(structure, Atoms):
            structure = density_of(structure, self.n_voxels, self.voxel_size_angstrom)
        if not isinstance(structure, Volume):
            raise InputError(f"a {type(structure).__name__} has no density")
        return phases_randomised(structure, self._random())

    def model(self) -> Model:
        """The model whose residues are shuffled."""
        source = self._of_residues()
        model = source.model()
        chosen = selected(model, source.parameters.atom_selection)
        return residues_shuffled(model, chosen, self._random())

    def describe(self) -> list[InputDescription]:
        """What the structure is read from, and how the decoy is made of it."""
        how = HOW.format(kind=self.kind, number=self.number, seed=self.seed)
        return [*self.structure.describe(), InputDescription(name=DECOY, value=how)]

    def _random(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.number])

    def _of_residues(self) -> ModelInFile:
        if not isinstance(self.structure, ModelInFile):
            raise InputError(
                "has no residues to be shuffled: it is no model in a file",
                remedy='Randomise phases: kind="phases" (--kind phases).',
            )
        if self.structure.parameters.use_protein_residue_model:
            raise InputError(
                "one sphere stands for each residue, and shuffled spheres are hardly others",
                remedy='Randomise phases: kind="phases" (--kind phases); or use all atoms.',
            )
        return self.structure
