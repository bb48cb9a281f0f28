"""Decoys by residues that are moved to each other's places."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.errors import InputError
from cryolike_dask.structures.decoys.residues import residues_shuffled
from cryolike_dask.structures.models import read_models
from tests.structures.decoys.proteins import write_protein


@pytest.fixture
def model(tmp_path):
    """30 residues, and a water."""
    return read_models(write_protein(tmp_path / "a.pdb", 30))[0]


def centres(model, of):
    return np.stack([model.position_angstrom[model.residue == r].mean(0) for r in of])


def test_residues_are_rigid_and_fill_the_same_places(model, rng):
    decoy = residues_shuffled(model, np.ones(len(model), bool), rng)
    polymer = np.unique(model.residue[model.residue_name != "HOH"])
    before, after = centres(model, polymer), centres(decoy, polymer)
    apart = np.linalg.norm(after[:, None] - before, axis=2)
    to = apart.argmin(axis=1)
    assert apart.min(axis=1).max() < 1e-9
    assert sorted(to) == list(range(30))
    assert (to != np.arange(30)).all()
    for r in polymer:
        rows = model.residue == r
        moved = decoy.position_angstrom[rows] - model.position_angstrom[rows]
        np.testing.assert_allclose(moved, moved[:1].repeat(len(moved), 0), atol=1e-9)
    water = model.residue_name == "HOH"
    np.testing.assert_array_equal(decoy.position_angstrom[water], model.position_angstrom[water])
    assert (decoy.name == model.name).all()


def test_what_is_not_chosen_stays(model, rng):
    chosen = model.residue < 12
    decoy = residues_shuffled(model, chosen, rng)
    moved = (decoy.position_angstrom != model.position_angstrom).any(axis=1)
    np.testing.assert_array_equal(moved, chosen)
    with pytest.raises(InputError, match=r"5 residue.* too few.*--kind phases"):
        residues_shuffled(model, model.residue < 5, rng)
