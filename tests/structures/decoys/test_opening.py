"""Decoys of open structures: named, reproducible, and projected as structures are."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.errors import InputError, InputFileError, NotFiniteError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.structures.atoms import Atoms
from tests.structures.decoys.proteins import write_protein

PARAMETERS = ImageParameters(24, 3.0, viewing_distance=2.0, use_protein_residue_model=False)


@pytest.fixture
def structures(tmp_path):
    files = [write_protein(tmp_path / f"{name}.pdb", 40, seed) for seed, name in enumerate("ab")]
    return cld.open_structures(files, PARAMETERS)


def correlations(one, other):
    """Of templates of two structures, each of power 1, view by view."""
    a, b = (stack.source.take(np.arange(len(stack))) for stack in (one, other))
    power = PARAMETERS.grid.integrate((a * a.conj()).real)
    np.testing.assert_allclose(power, 1, rtol=1e-4)
    return PARAMETERS.grid.integrate((a * b.conj()).real)


@pytest.mark.parametrize("kind", ["phases", "residues"])
def test_decoys_are_named_and_resemble_their_structure(structures, kind):
    decoys = cld.open_decoys(structures, 2, kind=kind)
    assert [d.structure for d in decoys] == ["a~decoy1", "b~decoy1", "a~decoy2", "b~decoy2"]
    assert [d.decoy_of for d in decoys] == ["a", "b"] * 2
    assert not any(s.decoy_of for s in structures)
    alike = correlations(structures[0], decoys[0])
    assert (alike < 0.9999).all()
    assert alike.mean() > 0.5
    again = pickle.loads(pickle.dumps(cld.open_decoys(structures, 1, kind=kind)[0]))
    np.testing.assert_allclose(correlations(decoys[0], again), 1, rtol=1e-5)
    other = cld.open_decoys(structures, 1, kind=kind, seed=1)[0]
    assert (correlations(decoys[0], other) < 0.9999).all()
    assert (correlations(decoys[0], decoys[2]) < 0.9999).all()


def test_decoys_say_what_they_are_made_from(structures):
    (decoy,) = cld.open_decoys(structures[0], 1, seed=7)
    described = decoy.source.describe(np.arange(len(decoy)))
    plain = structures[0].source.describe(np.arange(len(decoy)))
    assert described == [plain[0], {"name": "decoy", "value": "phases 1 of seed 7"}, *plain[1:]]


def test_a_decoy_of_a_map(rng):
    atoms = Atoms(rng.uniform(-15, 15, (40, 3)), np.full(40, 6.0), np.full(40, 2.0))
    values = np.zeros((24, 24, 24), np.float32)
    values[8:16, 6:18, 8:17] = rng.random((8, 12, 9))
    given = [cld.Volume(values, (3.0,) * 3), atoms]
    stacks = cld.open_structures(given, PARAMETERS)
    for stack, decoy in zip(stacks, cld.open_decoys(stacks, 1), strict=True):
        assert 0.3 < correlations(stack, decoy).mean() < 0.999


def test_of_many_structures_some_are_drawn_and_named(rng, caplog):
    def atoms():
        return Atoms(rng.uniform(-9, 9, (5, 3)), np.full(5, 6.0), np.full(5, 2.0))

    many = cld.open_structures([atoms() for _ in range(23)], PARAMETERS)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        decoys = cld.open_decoys(many, 1)
    assert len(decoys) == 20
    assert "decoys are made of 20 of 23 structures: " in caplog.text
    assert all(decoy.decoy_of in caplog.text for decoy in decoys)


def test_structures_that_are_named_are_decoys_of_nothing(structures):
    decoys = cld.as_decoys(structures)
    assert [d.decoy_of for d in decoys] == [d.structure for d in decoys] == ["a", "b"]
    assert [d.decoy_of for d in cld.as_decoys(structures[1])] == ["b"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: s, {"n": 0}, "n=0 is not a positive number"),
        (lambda s: s, {"n": 1.5}, "n=1.5 is not a positive number|not a whole number"),
        (lambda s: s, {"n": 101}, "n=101 decoys.*at most 100"),
        (lambda s: s, {"seed": -1}, "seed=-1"),
        (lambda s: s, {"kind": "atoms"}, "kind='atoms' is neither phases nor residues"),
        (lambda s: [], {}, "no structures to make decoys of"),
        (cld.as_decoys, {}, "a is a decoy itself"),
        (
            lambda s: [replace(s[0], source=s[0].source.subset(np.arange(len(s[0]))))],
            {"kind": "residues", "n": "2"},
            "n='2'",
        ),
    ],
)
def test_what_makes_no_decoys_is_refused(structures, change, options, message):
    with pytest.raises(InputError, match=message):
        cld.open_decoys(change(structures), **options)


def test_structures_without_residues_density_or_a_file_are_refused(tmp_path, rng):
    atoms = Atoms(rng.uniform(-9, 9, (5, 3)), np.full(5, 6.0), np.full(5, 2.0))
    (stack,) = cld.open_structures(atoms, PARAMETERS)
    with pytest.raises(InputFileError, match=r"no residues to be shuffled.*--kind phases"):
        cld.open_decoys(stack, kind="residues")
    file = write_protein(tmp_path / "a.pdb", 40)
    (spheres,) = cld.open_structures(file, replace(PARAMETERS, use_protein_residue_model=True))
    with pytest.raises(InputFileError, match=r"a\.pdb: one sphere stands for each residue"):
        cld.open_decoys(spheres, kind="residues")
    (few,) = cld.open_structures(write_protein(tmp_path / "few.pdb", 4), PARAMETERS)
    with pytest.raises(InputFileError, match=r"few\.pdb: 4 residue"):
        cld.open_decoys(few, kind="residues")
    volume = np.ones((8, 8, 8), np.float32)
    volume[4, 4, 4] = np.nan
    np.save(tmp_path / "nan.npy", volume)
    (unknown,) = cld.open_structures(tmp_path / "nan.npy", PARAMETERS)
    with pytest.raises(NotFiniteError) as raised:
        cld.open_decoys(unknown)
    assert str(raised.value).count("nan.npy") == 1
    (flat,) = cld.open_structures(cld.Volume(np.ones((8, 8, 8)), (3.0,) * 3), PARAMETERS)
    with pytest.raises(InputFileError, match="no density above"):
        cld.open_decoys(flat)
    values = np.ones((1, *PARAMETERS.grid.shape), np.complex64)
    templates = cld.TemplateStack.from_array(
        values, PARAMETERS, cld.ViewingAngles(np.zeros(1), np.zeros(1), np.ones(1))
    )
    with pytest.raises(InputError, match=r"is given as templates.*decoys"):
        cld.open_decoys(templates)
    (theirs,) = cld.open_structures(file, PARAMETERS, conventions="cryolike")
    with pytest.raises(InputError, match="decoys are made in conventions 'standard'"):
        cld.open_decoys(theirs)
