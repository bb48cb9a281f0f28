"""What is said of structures: a line for all that are alike; and what they are named."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.simulation.simulate import simulate_particles
from cryolike_dask.structures.accounts import LINES
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.making import make_templates
from cryolike_dask.structures.naming import numbered, stem_of, told_apart
from cryolike_dask.structures.opening import open_structure, open_structures

PARAMETERS = ImageParameters(12, 3.0, viewing_distance=2.5, atom_shape="gaussian")
ALL_ATOMS = replace(PARAMETERS, use_protein_residue_model=False)
ATOM = "{:<6}{:5d}  {:<3} {:>3} {}{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          {:>2}\n"


def residue(name="GLY", number=1, chain="A", x=0.0, atoms="N CA C O", record="ATOM"):
    """Lines of a residue."""
    return "".join(
        ATOM.format(record, 1, atom, name, chain, number, x, 0.1 * k, 0.0, atom[0])
        for k, atom in enumerate(atoms.split())
    )


def write(path: Path, *residues: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(residues) + "END\n")
    return path


@pytest.fixture
def said(caplog):
    """The messages of opening structures, but for where spheres mislead."""

    def opened(given, parameters=PARAMETERS, **options):
        caplog.clear()
        with caplog.at_level(logging.INFO, "cryolike_dask"):
            open_structures(given, parameters, **options)
        return [message for message in caplog.messages if "mislead" not in message]

    return opened


GLY_TRP = residue("GLY", 1), residue("TRP", 2, x=4.0), residue("GLY", 1, "B", x=8.0)


def test_residues_are_counted_and_weighed(tmp_path, said):
    solvent = (
        residue("HOH", 9, atoms="O", record="HETATM"),
        residue("ZN", 10, atoms="ZN", record="HETATM"),
    )
    path = write(
        tmp_path / "x.pdb", *GLY_TRP, *solvent, residue("ATP", 11, atoms="P C1", record="HETATM")
    )
    line, note = said(path)
    assert line == (  # 2 x 57.05 and 186.21 dalton
        "x: 3 residues of 2 chains as Gaussians, 158 electrons, 0.3 kDa, diameter 8 angstrom; "
        "left out: 1 water(s), 1 ion(s), 1 residue(s) without a C-alpha"
    )
    assert "ATP" in note


def test_atoms_are_counted_and_weighed(tmp_path, said):
    (line,) = said(write(tmp_path / "x.pdb", *GLY_TRP), ALL_ATOMS)
    assert line == (
        "x: 12 atoms in 3 residues of 2 chains as Gaussians, 81 electrons, 0.162 kDa, diameter 8 "
        "angstrom"
    )
    (line,) = said(
        tmp_path / "x.pdb", replace(ALL_ATOMS, atom_selection="chain A", atom_shape="hard-sphere")
    )
    assert "8 atoms in 2 residues of 1 chain as hard spheres" in line
    assert line.endswith("; left out: 4 atom(s) that are not selected")


def test_alternates_and_guesses_are_counted(tmp_path, said):
    alternate = residue("GLY", 1, atoms="CA")
    lines = [alternate[:16] + altloc + alternate[17:] for altloc in "ABC"]
    ligand = residue("LIG", 2, atoms="C1 CL2", record="HETATM").replace("           C\n", "\n")
    warning_last = said(write(tmp_path / "x.pdb", *lines, ligand), ALL_ATOMS)
    assert warning_last[0].endswith("; left out: 2 alternate(s); guessed from names: 2 element(s)")
    assert "(C1: C, CL2: " in warning_last[1]


def test_frames_that_are_alike_are_said_once(tmp_path, said, rng):
    frames = [
        f"MODEL     {k:4d}\n" + residue(x=0.0) + residue(number=2, x=40.0 + k) + "ENDMDL\n"
        for k in range(50)
    ]
    messages = said(write(tmp_path / "md.pdb", *frames), models="all")
    assert messages == [
        "md_model_0001 and 49 more: each 2 residues of 1 chain as Gaussians, 60 electrons, 0.114 "
        "kDa, diameter 40 to 89 angstrom",
        "md_model_0001 and 49 more: reaches 20 angstrom from its centre, but half a box is 18",
    ]


def test_few_structures_are_named_and_many_of_all_kinds_are_counted(tmp_path, said):
    two = [write(tmp_path / f"{name}.pdb", residue()) for name in "ab"]
    assert said(two)[0].startswith("a, b: each 1 residue of 1 chain as Gaussians")
    many = [
        write(tmp_path / f"{k:03d}.pdb", *[residue(number=i) for i in range(1, k + 1)])
        for k in range(1, 41)
    ]
    messages = said(many)
    assert len(messages) == LINES + 1
    assert (
        messages[-1] == f"{LINES + 1:03d} and {39 - LINES} more: other numbers of atoms or voxels"
    )


def test_templates_say_it_once_the_folder_is_theirs(tmp_path, caplog):
    path = write(tmp_path / "x.pdb", residue(), residue(number=2, x=3.0))
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        make_templates(path, PARAMETERS, tmp_path / "out", progress=False)
    assert len([m for m in caplog.messages if m.startswith("x: 2 residues of 1 chain")]) == 1


def test_atoms_in_memory_are_counted_too(said):
    messages = said(Atoms(np.eye(3) * 60, np.full(3, 7.0), np.ones(3)))
    assert messages == [
        "structure: 3 Gaussians, 21 electrons, diameter 98 angstrom",
        "structure: reaches 49 angstrom from its centre, but half a box is 18",
    ]


# --- what is too large ---


@pytest.mark.parametrize("radius", [37.0, 1e5, 1e154, 1e200, 9e299])
@pytest.mark.parametrize("shape", ["gaussian", "hard-sphere"])
def test_radii_beyond_the_box_are_refused(tmp_path, radius, shape):
    path = write(tmp_path / "x.pdb", residue(), residue(number=2, x=3.0))
    with pytest.raises(
        InputFileError,
        match=r"x\.pdb: a radius of .* angstrom is larger than the box, 36. Is atom_radii",
    ):
        open_structure(path, replace(PARAMETERS, atom_radii=radius, atom_shape=shape))
    with pytest.raises(InputError, match=r"a radius of .* is larger than the box, 36"):
        open_structure(Atoms(np.eye(3), np.ones(3), np.array([1, 1, radius]), shape), PARAMETERS)


@pytest.mark.parametrize("x", [1e4, 1e30, 1e300])
def test_atoms_far_beyond_the_box_are_refused(x):
    with pytest.raises(
        InputError,
        match=r"an atom is .* angstrom from the centre, which is .* boxes of 36. Are the coor",
    ):
        open_structure(
            Atoms(np.array([[0.0, 0, 0], [x, 0, 0]]), np.ones(2), np.ones(2)), PARAMETERS
        )


@pytest.mark.parametrize(
    ("name", "fits"),
    [("x" * 190, True), ("x" * 191, False), ("é" * 96, False), ("é" * 95, True)],
    ids=["fits", "one too many", "one too many of two bytes", "of two bytes"],
)
def test_names_longer_than_a_file_system_takes(tmp_path, name, fits):
    path = write(tmp_path / f"{name}.pdb", residue(), residue(number=2, x=3.0))
    if fits:
        (file,) = make_templates(path, PARAMETERS, tmp_path / "out", progress=False)
        assert file.is_file()
    else:
        with pytest.raises(
            InputError, match=r"1 name\(s\) of structures are longer than 190 bytes: .*rename"
        ):
            make_templates(path, PARAMETERS, tmp_path / "out", progress=False)
        assert not (tmp_path / "out").exists()


# --- names ---


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/model.pdb", "b/model.pdb"], ["a_model", "b_model"]),
        (["a/model.pdb", "b/model.cif.gz", "b/other.pdb"], ["a_model", "b_model", "other"]),
        (
            ["x/a/model.pdb", "y/a/model.pdb", "y/b/model.pdb"],
            ["x_a_model", "y_a_model", "b_model"],
        ),
        (["a/model.pdb", "b/model.pdb", "c/a_model.pdb"], ["r_a_model", "b_model", "c_a_model"]),
        (["model.pdb", "b/model.pdb"], ["r_model", "b_model"]),
        (["a/one.pdb", "b/two.pdb"], ["one", "two"]),
        (["a/model.pdb", "a/model.cif"], ["model", "model"]),
        (["a/x.y.pdb", "b/x.y.ent.gz"], ["a_x.y", "b_x.y"]),
    ],
)
def test_names_that_collide_take_folders(paths, names, rng):
    given = [Path("/r") / path for path in paths]
    assert told_apart(given) == names
    order = rng.permutation(len(given))
    assert told_apart([given[i] for i in order]) == [names[i] for i in order]


def test_what_folders_do_not_tell_apart_is_counted(rng):
    assert numbered(["x", "x", "x_1", "x", "y"]) == ["x", "x_2", "x_1", "x_3", "y"]
    names = rng.choice(["x", "x_1", "x_1_1", "y", "x_2"], 60).tolist()
    distinct = numbered(names)
    assert len(set(distinct)) == 60
    for name in set(names):
        assert distinct[names.index(name)] == name


def test_stems():
    for name, stem in (
        ("x.pdb", "x"),
        ("x.PDB.GZ", "x"),
        ("a.b.cif", "a.b"),
        ("m.MRC", "m"),
        (".x.pdb", ".x"),
    ):
        assert stem_of(Path(name)) == stem


def test_namesakes_have_one_name_everywhere(tmp_path, said, monkeypatch):
    paths = [
        write(tmp_path / sub / "model.pdb", residue(), residue(number=2, x=3.0))
        for sub in ("closed", "open")
    ]
    messages = said(paths)
    assert messages[0] == (
        f"structures of one name are named after their folders: closed_model ({paths[0]}), "
        f"open_model ({paths[1]})"
    )
    assert [s.structure for s in open_structures(paths, PARAMETERS)] == [
        "closed_model",
        "open_model",
    ]
    monkeypatch.chdir(tmp_path)
    files = make_templates(
        ["closed/model.pdb", "open/model.pdb"], PARAMETERS, "out", progress=False
    )
    assert [f.stem for f in files] == [
        "templates_fourier_closed_model",
        "templates_fourier_open_model",
    ]
    star = simulate_particles(paths, PARAMETERS, tmp_path / "s", n_images=8, progress=False)
    assert {"closed_model", "open_model"} <= set(star.read_text().split())
    assert [s.structure for s in open_structures(paths[::-1], PARAMETERS, models="all")] == [
        "open_model_model_0001",
        "closed_model_model_0001",
    ]
