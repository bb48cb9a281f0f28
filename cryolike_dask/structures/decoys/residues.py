"""Residues moved to each other's places, each as a rigid body: the envelope is filled otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.elements import is_polymer

FEWEST = 10
"""Residues: fewer have too few other orders."""


def residues_shuffled(model: Model, chosen: NDArray[np.bool_], rng: np.random.Generator) -> Model:
    """Make a decoy of a model.

    Parameters
    ----------
    model : Model
    chosen : (atom,) bool
        Atoms that are taken; residues of proteins and nucleic acids that have some of them are
        moved, each by its centre to that of another, and whatever else stays.
    rng : numpy.random.Generator

    Raises
    ------
    InputError
        If there are too few such residues.
    """
    kinds, which = np.unique(model.residue_name, return_inverse=True)
    of_polymer = np.array([is_polymer(str(kind)) for kind in kinds])[which]
    moved = np.isin(model.residue, model.residue[of_polymer & chosen]) & of_polymer
    numbers, place = np.unique(model.residue[moved], return_inverse=True)
    if len(numbers) < FEWEST:
        raise InputError(
            f"{len(numbers)} residue(s) of proteins or nucleic acids are too few to be shuffled",
            remedy='Randomise phases: kind="phases" (--kind phases).',
        )
    positions = model.position_angstrom[moved]
    sums = np.stack([np.bincount(place, axis) for axis in positions.T], axis=1)
    centres = sums / np.bincount(place)[:, None]
    to = centres[_deranged(len(numbers), rng)]
    everywhere = model.position_angstrom.copy()
    everywhere[moved] = positions + (to - centres)[place]
    return replace(model, position_angstrom=everywhere)


def _deranged(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """An order in which nothing is in its place: one large cycle through all, in random order."""
    around = rng.permutation(n)
    order = np.empty(n, np.int64)
    order[around] = np.roll(around, 1)
    return order
