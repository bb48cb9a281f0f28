"""Decoys in files are those that a run makes by itself."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.cli import app
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.structures.models import read_models
from tests.structures.decoys.proteins import write_protein

PARAMETERS = ImageParameters(24, 3.0, viewing_distance=2.0, use_protein_residue_model=False)


def templates(given):
    (stack,) = cld.open_structures(given, PARAMETERS) if not hasattr(given, "source") else (given,)
    return stack.source.take(np.arange(len(stack)))


@pytest.mark.parametrize(
    ("kind", "suffix", "written"),
    [("phases", ".pdb", ".mrc"), ("residues", ".pdb", ".pdb"), ("residues", ".cif", ".cif")],
)
def test_files_hold_the_decoys_of_runs(tmp_path, kind, suffix, written):
    file = write_protein(tmp_path / f"a b{suffix}", 40)
    paths = cld.make_decoys(file, PARAMETERS, tmp_path / "out", 2, kind=kind, progress=False)
    assert [path.name for path in paths] == [f"a b~decoy1{written}", f"a b~decoy2{written}"]
    opened = cld.open_structures(file, PARAMETERS)
    for path, decoy in zip(paths, cld.open_decoys(opened, 2, kind=kind), strict=True):
        # what a file of atoms keeps is 0.001 angstrom, and its own mean the origin
        np.testing.assert_allclose(templates(path), templates(decoy), atol=2e-3)


def test_a_model_keeps_what_it_says_of_its_atoms(tmp_path):
    file = write_protein(tmp_path / "a.pdb", 40, chain_name="B")
    (path,) = cld.make_decoys(file, PARAMETERS, tmp_path, 1, kind="residues", progress=False)
    (before,), (after,) = read_models(file), read_models(path)
    for column in ("name", "residue_name", "chain", "residue_number", "element", "residue"):
        np.testing.assert_array_equal(getattr(before, column), getattr(after, column))
    np.testing.assert_allclose(before.b_factor, after.b_factor)
    np.testing.assert_array_equal(before.hetero, after.hetero)


def test_a_map_lies_where_its_structure_lies(tmp_path):
    file = write_protein(tmp_path / "a.pdb", 40)
    (path,) = cld.make_decoys(file, PARAMETERS, tmp_path, 1, progress=False)
    with mrcfile.open(path) as mrc:
        assert mrc.is_volume()
        assert b"phases 1 of seed 0" in mrc.header.label[0]
    middle = read_models(file)[0].position_angstrom.mean(axis=0)
    np.testing.assert_allclose(cld.io.mrc.open_mrc_map(path).middle(), middle, atol=1e-3)
    (again,) = cld.make_decoys(path, PARAMETERS, tmp_path / "b", 1, progress=False)
    np.testing.assert_allclose(cld.io.mrc.open_mrc_map(again).middle(), middle, atol=1e-3)


def test_nothing_is_replaced_unless_asked_for(tmp_path):
    file = write_protein(tmp_path / "a.pdb", 40)
    other = tmp_path / "a~decoy2.mrc"
    other.write_text("mine")
    with pytest.raises(OutputError, match=r"a~decoy2\.mrc: is there already.*--overwrite"):
        cld.make_decoys(file, PARAMETERS, tmp_path, 2, progress=False)
    assert not (tmp_path / "a~decoy1.mrc").exists()
    cld.make_decoys(file, PARAMETERS, tmp_path, 2, overwrite=True, progress=False)
    assert other.stat().st_size > 1000
    with pytest.raises(InputError, match="n=0"):
        cld.make_decoys(file, PARAMETERS, tmp_path / "none", 0, progress=False)
    assert not (tmp_path / "none").exists()


def test_the_command_writes_files(tmp_path):
    file = write_protein(tmp_path / "a.pdb", 40)
    cld.io.parameters.write_parameters(tmp_path / "parameters.npz", PARAMETERS)
    options = ["--parameters", tmp_path / "parameters.npz", "--output", tmp_path / "out"]
    command = ["decoys", file, *options, "--n", 1, "--kind", "residues"]
    done = CliRunner().invoke(app, [str(part) for part in command])
    assert done.exit_code == 0, done.output
    assert "1 decoys are in" in done.output
    assert (tmp_path / "out/a~decoy1.pdb").is_file()
    done = CliRunner().invoke(app, [str(part) for part in [*command, "--n", 0]])
    assert done.exit_code == 3
    assert "--n 0 is not a positive number" in done.output
