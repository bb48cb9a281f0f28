"""Topologies: which atoms the frames of a trajectory have, and which of them hang together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.identity import refuse_changed
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.elements import elements_by_name
from cryolike_dask.structures.models import (
    CIF_SUFFIXES,
    PDB_SUFFIXES,
    find_models,
    read_model,
    suffix_of,
)
from cryolike_dask.structures.trajectories.library import library, quiet, reading_by_library
from cryolike_dask.structures.trajectories.whole import Links, links_of_bonds, links_of_neighbours

TOPOLOGY_SUFFIXES = (".gro", ".psf", ".prmtop", ".parm7", ".top", ".tpr", ".pqr", ".mol2")
"""Topologies that MDAnalysis reads; the others are read as structures are."""
NO_BONDS = np.empty((0, 2), np.int64)


@dataclass(frozen=True, eq=False)
class Topology:
    """The atoms of a trajectory.

    Attributes
    ----------
    model : Model
        With the positions of the topology, which may have none: then they are 0.
    links : Links
        By which periodic images are made whole.
    """

    model: Model
    links: Links


@dataclass(frozen=True)
class TopologyFile:
    """The file of a topology; small, for it travels with tasks.

    Attributes
    ----------
    path : str
        Absolute.
    size, mtime_ns : int
        Of the file when it was opened; a file that has changed since is refused.
    """

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: Path) -> TopologyFile:
        """The file as it is now."""
        status = path.stat()
        return cls(str(path.absolute()), status.st_size, status.st_mtime_ns)

    def read(self) -> Topology:
        """Read it, once in each process.

        Raises
        ------
        InputFileError
            If it is damaged, of no format that is known, or has changed.
        """
        refuse_changed(self.path, self.size, self.mtime_ns)
        return _read(self)


@lru_cache(maxsize=2)
def _read(file: TopologyFile) -> Topology:
    path = Path(file.path)
    suffix = suffix_of(path)
    if suffix in (*PDB_SUFFIXES, *CIF_SUFFIXES):
        spans = find_models(path)
        model = read_model(path, 0, None if spans is None else spans[0])
        return Topology(model, links_of_neighbours(model))
    if path.suffix.lower() not in TOPOLOGY_SUFFIXES:
        known = ", ".join((*PDB_SUFFIXES, *CIF_SUFFIXES, *TOPOLOGY_SUFFIXES))
        raise InputFileError(
            "is not a topology by its name", source=path, remedy=f"Topologies are {known} files."
        )
    mdanalysis = library()
    with reading_by_library(path, "cannot be read as a topology"), quiet():
        universe = mdanalysis.Universe(str(path), to_guess=())
        bonds = np.asarray(universe.bonds.indices) if hasattr(universe, "bonds") else NO_BONDS
        model = _model(universe)
    if len(bonds) or not model.position_angstrom.any():
        return Topology(model, links_of_bonds(model, bonds.reshape(-1, 2).astype(np.int64)))
    return Topology(model, links_of_neighbours(model))


def _model(universe: Any) -> Model:
    """The atoms of a topology that MDAnalysis has read, as columns."""
    atoms = universe.atoms
    n = len(atoms)
    name, residue_name = (np.array(_of(atoms, x, ""), np.str_) for x in ("names", "resnames"))
    chain = np.array(_of(atoms, "chainIDs", None) or _of(atoms, "segids", ""), np.str_)
    stated = _of(atoms, "elements", "")
    element = np.array([gemmi.Element(symbol).atomic_number for symbol in stated], np.int64)
    guessed = np.zeros(n, np.bool_)
    silent = np.flatnonzero(element == 0)
    if len(silent):
        element[silent], guessed[silent] = elements_by_name(name[silent], residue_name[silent])
    has_positions = hasattr(universe, "trajectory")
    return Model(
        name=name,
        residue_name=residue_name,
        chain=chain,
        residue_number=np.array(_of(atoms, "resids", 0), np.int64),
        element=element,
        residue=np.asarray(atoms.resindices, np.int64),
        part=np.asarray(atoms.segindices, np.int64),
        hetero=np.zeros(n, np.bool_),
        guessed=guessed,
        position_angstrom=(
            atoms.positions.astype(np.float64) if has_positions else np.zeros((n, 3))
        ),
        b_factor=np.full(n, np.nan),
    )


def _of(atoms: Any, name: str, otherwise: Any) -> Any:
    """An attribute of all atoms, which a topology may lack."""
    values = getattr(atoms, name, None)
    if values is None:
        return otherwise if otherwise is None else [otherwise] * len(atoms)
    return list(values)
