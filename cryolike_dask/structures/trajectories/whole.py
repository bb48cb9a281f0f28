"""Periodic images made whole: atoms that hang together are moved beside each other, by whole edges
of the box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, depth_first_order, minimum_spanning_tree
from scipy.spatial import cKDTree

from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.solvent import Kinds

NEAR = 5.0
"""Angstrom. Atoms that are so near in the topology hang together: of a chain by its bonds, which
are shorter than all else, and chains by what is nearest between them."""
BOND, LONGEST_BOND = 2.0, 2.2
"""Of a bond that a topology without positions states; and of those between atoms, of which models
of one atom a residue have none."""
STRETCHED, PLAY = 2.0, 1.0
"""So many times as long as in the topology, and so many angstrom more, is no bond any more."""
MOST_STRETCHED = 0.1
"""Share of bonds: with more, the frames are not of the topology."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Links:
    """A tree through the atoms that hang together, from each to one before it.

    Attributes
    ----------
    atom, to : (link,) int
        Depth first: what hangs on an atom follows it.
    n_below : (link,) int
        Atoms that hang on the atom of each, itself included.
    length_angstrom : (link,) float
        In the topology, or the longest that it can be.
    n_apart : int
        Molecules, apart from waters and ions, that do not hang together.
    """

    atom: IntArray
    to: IntArray
    n_below: IntArray
    length_angstrom: FloatArray
    n_apart: int

    def made_whole(self, positions: FloatArray, box: FloatArray) -> FloatArray:
        """Move every atom to that image which is nearest to the one before it.

        Parameters
        ----------
        positions : (atom, 3)
        box : (3, 3)
            By rows.

        Returns
        -------
        (atom, 3)
        """
        edges = -np.round((positions[self.atom] - positions[self.to]) @ np.linalg.inv(box))
        steps = np.zeros((len(self.atom) + 1, 3))
        steps[:-1] = edges  # an edge that is crossed moves all that hangs on it
        np.subtract.at(steps, np.arange(len(self.atom)) + self.n_below, edges)
        whole = positions.copy()
        whole[self.atom] += np.cumsum(steps[:-1], axis=0) @ box
        return whole

    def stretched(self, positions: FloatArray) -> float:
        """The share of bonds that are far longer than in the topology: of the shorter links, for
        chains that are in contact there may have come apart."""
        if not len(self.atom):
            return 0.0
        bonds = self.length_angstrom <= max(LONGEST_BOND, float(np.median(self.length_angstrom)))
        atom, to, length = self.atom[bonds], self.to[bonds], self.length_angstrom[bonds]
        found = np.linalg.norm(positions[atom] - positions[to], axis=1)
        return float(np.mean(found > STRETCHED * length + PLAY))


def links_of_neighbours(model: Model) -> Links:
    """Link the atoms that are near each other in the topology, waters and ions apart."""
    kinds = Kinds.of(model)
    atoms = np.flatnonzero(~(kinds.water | kinds.ion))
    if len(atoms) < 2:
        return _tree(atoms, np.empty((0, 2), np.int64), np.empty(0))
    positions = model.position_angstrom[atoms]
    pairs = cKDTree(positions).query_pairs(NEAR, output_type="ndarray").astype(np.int64)
    length = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    return _tree(atoms, pairs, np.maximum(length, 1e-6))  # scipy takes 0 for no link


def links_of_bonds(model: Model, bonds: IntArray) -> Links:
    """Link the atoms between which a topology has bonds, waters and ions apart."""
    kinds = Kinds.of(model)
    is_solvent = kinds.water | kinds.ion
    atoms = np.flatnonzero(~is_solvent)
    row = np.cumsum(~is_solvent) - 1
    pairs = row[bonds[~is_solvent[bonds].any(axis=1)]]
    return _tree(atoms, pairs, np.full(len(pairs), BOND))


def _tree(atoms: IntArray, pairs: IntArray, length: FloatArray) -> Links:
    """The shortest links that connect what is connected, in an order in which each is after what it
    hangs on."""
    n = len(atoms)
    forest = minimum_spanning_tree(coo_array((length, (pairs[:, 0], pairs[:, 1])), shape=(n, n)))
    n_apart, molecule = connected_components(forest, directed=False)
    # a root that all molecules hang on, so that one walk visits all
    _, firsts = np.unique(molecule, return_index=True)
    links = forest.tocoo()
    rooted = csr_array(
        (
            np.ones(links.nnz + len(firsts)),
            (np.append(links.row, np.full(len(firsts), n)), np.append(links.col, firsts)),
        ),
        shape=(n + 1, n + 1),
    )
    order, before = depth_first_order(rooted, n, directed=False)
    n_below = np.ones(n + 1, np.int64)
    for atom in order[:0:-1].tolist():
        n_below[before[atom]] += n_below[atom]
    chosen = order[before[order] != n]
    chosen = chosen[chosen != n]
    key = _key(links.row, links.col, n)
    by_key = np.argsort(key)
    found = by_key[np.searchsorted(key, _key(chosen, before[chosen], n), sorter=by_key)]
    return Links(
        atoms[chosen], atoms[before[chosen]], n_below[chosen], links.data[found], int(n_apart)
    )


def _key(one: IntArray, other: IntArray, n: int) -> IntArray:
    """A number for each two of n atoms, whichever is the first."""
    first, second = np.minimum(one, other), np.maximum(one, other)
    key: IntArray = first.astype(np.int64) * n + second
    return key
