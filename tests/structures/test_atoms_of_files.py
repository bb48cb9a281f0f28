"""What an atom of a file is: its element, its residue, its model; and what is no structure,
however it is packed."""

from __future__ import annotations

import gzip
import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.structures.elements import elements_by_name
from cryolike_dask.structures.models import atoms_of, find_models, read_model, read_models
from cryolike_dask.structures.opening import open_structures

RESIDUES = ImageParameters(32, 3.0, viewing_distance=2.5)
ATOMS = replace(RESIDUES, use_protein_residue_model=False)


def line(
    name,
    residue,
    number=1,
    chain="A",
    *,
    at=0.0,
    segment="",
    element="",
    record="ATOM",
    tail=None,
    altloc=" ",
):
    """A line of a PDB file; `name` fills its four columns as it is."""
    tail = f"{segment:<4}{element:>2}" if tail is None else tail
    start = f"{record:<6}{1:5d} {name:<4}{altloc}{residue:>3}{chain:>2}{number:4d}    "
    return f"{start}{at:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00      {tail}\n"


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(lines))
    return path


def elements(path: Path) -> list[int]:
    return read_models(path)[0].element.tolist()


# --- elements ---


@pytest.mark.parametrize("aligned", [True, False], ids=["as they should be", "from column 13 on"])
def test_elements_of_proteins_and_nucleic_acids_follow_from_their_names(tmp_path, aligned):
    names = {
        "ALA": "N CA C O CB OXT HA 1HB HB2",
        "TRP": "CD1 NE1 CE2 CZ3 CH2",
        "CYS": "SG HG",
        "MSE": "SE CE",
    }
    names |= {
        "DA": "P OP1 O5' C5' N9 H2'",
        "HSD": "ND1 CD2 HE1",
        "LYS": "NZ CD CE",
        "HOH": "O H1",
        "SOL": "OW HW1",
    }
    expected = {"SE": 34}
    lines, wanted = [], []
    for number, (residue, atoms) in enumerate(names.items()):
        for name in atoms.split():
            lines.append(
                line(
                    f" {name:<3}" if aligned and name not in ("SE", "1HB") else name,
                    residue,
                    number,
                )
            )
            letter = name.lstrip("0123456789")[0]
            wanted.append(
                expected.get(name, {"H": 1, "C": 6, "N": 7, "O": 8, "P": 15, "S": 16}[letter])
            )
    (model,) = read_models(write(tmp_path / "x.pdb", *lines))
    assert model.element.tolist() == wanted
    assert not model.guessed.any()
    _, notes = atoms_of(model, replace(ATOMS, atom_selection="not resname HOH SOL"))
    assert not any("guessed" in note for note in notes)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ([" C1 ", " O2 ", "CL1 ", "BR  ", "FE  ", " H3 "], [6, 8, 17, 35, 26, 1]),
        (["C1  ", "O2  ", "CL1 ", "BR  ", "FE  ", "H3  "], [6, 8, 17, 35, 26, 1]),
        ([" N1 ", "CA  ", "HG  "], [7, 20, 80]),  # in a file whose names stand where they should
        (["N1  ", "CA  ", "HG  "], [7, 6, 1]),
        ([" C1 ", "H12A", "CL10", "C10A"], [6, 1, 17, 6]),
    ],
)
def test_elements_of_ligands_are_guessed_and_counted(tmp_path, names, wanted):
    path = write(tmp_path / "x.pdb", *[line(name, "LIG", record="HETATM") for name in names])
    assert elements(path) == wanted
    atoms, (note,) = atoms_of(read_models(path)[0], ATOMS)
    assert atoms.electrons.tolist() == wanted
    assert f"the elements of {len(names)} atom(s) are guessed from their names (" in note
    assert "columns 77-78" in note


def test_guesses_in_residues_that_are_weighed_by_their_atoms_count_too(tmp_path):
    unknown = [line(" N  ", "XAA"), line(" CA ", "XAA"), line("CL1 ", "XAA")]
    path = write(tmp_path / "x.pdb", line(" CA ", "GLY", 2), *unknown, line(" C1 ", "LIG", 3))
    made, notes = atoms_of(read_models(path)[0], RESIDUES)
    assert made.electrons.tolist() == [30, 7 + 6 + 17]
    assert (
        "the elements of 3 atom(s) are guessed from their names (CA: C, CL1: Cl, N: N)" in notes[0]
    )


def test_left_aligned_proteins_say_that_columns_mean_nothing(tmp_path):
    path = write(
        tmp_path / "x.pdb", line("CA  ", "ALA"), line("CL  ", "ALA", 2), line("CD  ", "LIG", 3)
    )
    assert elements(path)[::2] == [6, 6]


@pytest.mark.parametrize(
    ("residue", "name", "element"),
    [
        *[
            ("CA", "CA", 20),
            ("SOD", "SOD", 11),
            ("CLA", "CLA", 17),
            ("CAL", "CAL", 20),
            ("ZN", "ZN", 30),
        ],
        *[("NA", "NA", 11), ("Na+", "Na+", 11), ("Cl-", "Cl-", 17)],
    ],
)
def test_ions_of_every_program(tmp_path, residue, name, element):
    for padded in (f"{name:<4}", f" {name}"):
        path = write(
            tmp_path / "x.pdb", line(padded, residue, record="HETATM"), line(" CA ", "GLY", 2)
        )
        assert elements(path) == [element, 6]
        atoms, notes = atoms_of(read_models(path)[0], ATOMS)
        assert notes == [
            f'1 ion(s) are part of the structure; "not resname {residue}" leaves them out'
        ]
        assert len(atoms) == 2


def test_a_residue_of_several_atoms_is_no_ion(tmp_path):
    """The last letter of a terminal alanine of some force fields, CALA, does not fit into its
    columns."""
    path = write(
        tmp_path / "x.pdb", *(line(f" {name:<3}", "CAL") for name in ("N", "CA", "CB", "C", "O"))
    )
    assert elements(path) == [7, 6, 6, 6, 8]


@pytest.mark.parametrize("length", [45, 47, 49, 51, 53])
def test_a_file_cut_short_within_a_position_is_refused(tmp_path, length):
    whole = line(" CA ", "GLY") + line(" CA ", "GLY", 2, at=1.5)
    path = tmp_path / "x.pdb"
    path.write_text(whole[: len(whole) // 2 + length])
    with pytest.raises(InputFileError, match="an atom has no position"):
        read_models(path)
    path.write_text(whole[: len(whole) // 2 + 54])
    assert read_models(path)[0].position_angstrom[:, 0].tolist() == [0, 1.5]


def test_elements_that_are_stated_are_believed(tmp_path):
    path = write(
        tmp_path / "x.pdb", line("CA", "LIG", element="C"), line(" C1", "LIG", element="CL")
    )
    assert elements(path) == [6, 17]
    assert not read_models(path)[0].guessed.any()


def test_mmcif_without_elements(tmp_path):
    columns = (
        "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id "
        "label_entity_id"
    )
    columns += (
        " label_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv "
        "auth_seq_id auth_asym_id"
    )
    rows = ["ATOM 1 ? CA . ALA A 1 1 ? 1 0 0 1 0 1 A", "HETATM 2 ? CL1 . LIG B 2 . ? 2 0 0 1 0 2 A"]
    text = "\n".join(
        ["data_x", "loop_", *[f"_atom_site.{column}" for column in columns.split()], *rows, ""]
    )
    (model,) = read_models(write(tmp_path / "x.cif", text))
    assert model.element.tolist() == [6, 17]
    assert model.guessed.tolist() == [False, True]
    nameless = write(tmp_path / "z.cif", text.replace("? CL1 .", "? ? ."))
    assert read_models(nameless)[0].element.tolist() == [6, 0]
    with pytest.raises(
        InputFileError, match=r"y\.cif: has no atoms that can be read: _atom_site lacks type_symbol"
    ):
        read_models(write(tmp_path / "y.cif", text.replace("type_symbol", "nothing")))


def test_elements_do_not_depend_on_the_order_of_atoms(rng):
    names = np.array([" CA ", "CL  ", " N1 ", "1HB ", "FE  ", " BB "] * 20)
    residues = np.array(["ALA", "LIG", "LIG", "GLY", "HEM", "XYZ"] * 20)
    order = rng.permutation(len(names))
    for there, here in zip(
        elements_by_name(names, residues),
        elements_by_name(names[order], residues[order]),
        strict=True,
    ):
        np.testing.assert_array_equal(there[order], here)


# --- coarse-grained models, solvent ---


@pytest.mark.parametrize(
    "lines",
    [
        [line(" BB ", "ALA", k) for k in range(4)],
        [line("BB  ", "TRP"), line("SC1 ", "TRP"), line("SC2 ", "TRP")],
        [line(" CA ", "GLY"), line(" BB ", "ALA", 2, element="B")],
        [line(" CA ", "GLY", element="C"), line(" W  ", "W", 2, record="HETATM")],
        [line("BB1 ", "DA"), line("SC1 ", "DA")],
    ],
    ids=["backbone", "side chains", "called boron", "water", "dna"],
)
def test_beads_are_no_atoms(tmp_path, lines):
    (model,) = read_models(write(tmp_path / "cg.pdb", *lines))
    with pytest.raises(
        InputError, match=r"are beads of a coarse-grained model \(.*Map it back to atoms"
    ):
        atoms_of(model, ATOMS)


def test_atoms_beside_beads_can_be_selected(tmp_path):
    (model,) = read_models(
        write(tmp_path / "cg.pdb", line(" CA ", "GLY", element="C"), line(" BB ", "ALA", 2))
    )
    assert len(atoms_of(model, replace(ATOMS, atom_selection="not name BB"))[0]) == 1
    assert len(atoms_of(model, RESIDUES)[0]) == 1


@pytest.mark.parametrize(
    ("solvent", "said"),
    [
        (
            [(" OW ", "SOL"), (" O  ", "HOH"), ("NA  ", "NA")],
            '2 water(s), 1 ion(s) are part of .*resname HOH NA SOL"',
        ),
        (
            [(" OH2", "TIP"), ("SOD ", "SOD"), ("CLA ", "CLA")],
            '1 water(s), 2 ion(s) are part .*resname CLA SOD TIP"',
        ),
        (
            [(" O  ", "WAT")] * 3,
            '3 water(s) are part of the structure; "not resname WAT" leaves them out',
        ),
    ],
)
def test_waters_and_ions_that_count_as_structure_are_told(tmp_path, solvent, said):
    lines = [line(" CA ", "GLY", k, at=k) for k in range(3)]
    lines += [line(name, residue, 10 + k, at=9.0) for k, (name, residue) in enumerate(solvent)]
    (model,) = read_models(write(tmp_path / "md.pdb", *lines))
    atoms, (note,) = atoms_of(model, ATOMS)
    assert len(atoms) == 6
    assert re.search(said.replace("(s)", r"\(s\)"), note)
    without = note.split('"')[1]
    atoms, notes = atoms_of(model, replace(ATOMS, atom_selection=without))
    assert (len(atoms), notes) == (3, [])
    assert atoms_of(model, RESIDUES)[1] == []


def test_a_ligand_named_as_water_or_ion_is_neither(tmp_path):
    ligand = [line(name, "OPC") for name in (" C1 ", " C2 ", " O3 ")]
    chlorophyll = [line(name, "CLA", 2, element=name[:2]) for name in ("MG  ", " C1 ")]
    _, notes = atoms_of(read_models(write(tmp_path / "x.pdb", *ligand, *chlorophyll))[0], ATOMS)
    assert not any("water" in note or "ion(s)" in note for note in notes)


# --- residues ---


def electrons_of_unknown(path: Path) -> list[float]:
    return atoms_of(read_models(path)[0], RESIDUES)[0].electrons.tolist()


UNKNOWN = ((" N  ", "N"), (" CA ", "C"), (" C  ", "C"))


def copies(n, between="", **each):
    """The same residue of an unknown kind several times: 19 electrons each."""
    parts = [
        "".join(
            line(name, "XAA", element=element, at=k, **dict.fromkeys(each, f"P{k}"))
            for name, element in UNKNOWN
        )
        for k in range(n)
    ]
    return between.join(parts)


@pytest.mark.parametrize(
    "text",
    [
        copies(3, "TER\n"),
        copies(3, "TER      12      XAA A   1\n"),
        copies(3, segment=True),
        copies(3, chain=True),
        copies(3),
        copies(3, line(" C1 ", "LIG", 2, element="C", at=50.0)),
    ],
    ids=[
        "TER",
        "TER with numbers",
        "segments",
        "chains",
        "nothing between",
        "other residues between",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_residues_of_one_number_are_not_merged(tmp_path, text, packed):
    path = tmp_path / ("x.pdb.gz" if packed else "x.pdb")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert electrons_of_unknown(path) == [19.0] * 3


def test_atoms_that_follow_later_belong_to_their_residue(tmp_path):
    late = [line(" H  ", "XAA", number, element="H") for number in (1, 2)]
    atoms = [line(" CA ", "XAA", number, element="C") for number in (1, 2)]
    assert electrons_of_unknown(write(tmp_path / "x.pdb", *atoms, *late)) == [7, 7]


def test_alternates_of_copies_are_their_own(tmp_path):
    pair = [
        line(" CA ", "GLY", altloc=altloc, element="C", at=at)
        for altloc, at in (("A", 1.0), ("B", 2.0))
    ]
    text = [
        "".join(pair),
        "TER\n",
        "".join(pair).replace("   1.000", "   5.000").replace("   2.000", "   6.000"),
    ]
    (model,) = read_models(write(tmp_path / "x.pdb", *text))
    assert model.position_angstrom[:, 0].tolist() == [1, 5]
    assert model.n_alternates == 2


def test_chains_are_counted_by_ids_segments_and_ends(tmp_path, caplog):
    caplog.set_level("INFO", "cryolike_dask")
    for name, text in {
        "ends": copies(3, "TER\n").replace("XAA A", "ALA  "),
        "segments": copies(3, segment=True).replace("XAA", "ALA"),
        "ids": copies(3, chain=True).replace("XAA", "ALA"),
    }.items():
        open_structures(write(tmp_path / f"{name}.pdb", text), RESIDUES)
        assert f"{name}: 3 residues of 3 chains as hard spheres" in caplog.text


# --- files of the nineties, models, compression ---


def old(k):
    return f"1ABC{90 + k:4d}"


def test_files_of_the_nineties(tmp_path):
    header = f"HEADER    {'EXAMPLE':<40}31-AUG-93   1ABC      {old(-89)}\n"
    lines = [line(" CA ", "GLY", k, chain="", at=3.0 * k, tail=old(k)) for k in range(8)]
    lines += [
        line("CL  ", "LIG", 9, tail=old(9)),
        f"{'TER':<72}{old(10)}\n",
        f"{'END':<72}{old(11)}\n",
    ]
    (model,) = read_models(write(tmp_path / "pdb1abc.ent", header, *lines))
    assert model.element.tolist() == [6] * 8 + [17]
    made, notes = atoms_of(model, RESIDUES)
    assert made.electrons.tolist() == [30] * 8
    assert notes[0] == "columns 73-80 hold an identifier and line numbers, as until 1996"


@pytest.mark.parametrize("tail", ["1ABC   C", "PROT   C", "       C", "A1    12"])
def test_other_ends_of_lines_are_not_taken_for_those_of_the_nineties(tmp_path, tail):
    path = write(
        tmp_path / "x.pdb", line(" CA ", "GLY", tail=tail), line(" CA ", "GLY", 2, tail=tail[::-1])
    )
    assert read_models(path)[0].notes == ()


@pytest.mark.parametrize(
    "frame",
    [
        "MODEL        1\n{}ENDMDL\n",
        "MODEL        1\n{}",
        "{}END\n",
        "{}ENDMDL\n",
        "model 1\n{}endmdl\n",
    ],
)
@pytest.mark.parametrize("end", ["", "END\n"])
def test_models_are_the_same_compressed_or_not(tmp_path, frame, end):
    text = (
        "".join(frame.format(line(" CA ", "ALA", element="C", at=k) * 1) for k in range(1, 4)) + end
    )
    plain, packed = write(tmp_path / "t.pdb", text), tmp_path / "tz.pdb.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    spans = find_models(plain)
    for path, where in ((plain, spans), (plain, [None] * 3), (packed, [None] * 3)):
        models = read_models(path)
        assert [m.position_angstrom[0, 0] for m in models] == [1, 2, 3]
        assert [read_model(path, k, where[k]).position_angstrom[0, 0] for k in range(3)] == [
            1,
            2,
            3,
        ]
    names = [s.structure for s in open_structures(packed, RESIDUES, models="all")]
    assert names == [f"tz_model_{k:04d}" for k in (1, 2, 3)]


@pytest.mark.parametrize("end", ["END\n", "ENDMDL\n", "END   \r\n"])
def test_atoms_after_the_end_are_told(tmp_path, end):
    path = write(tmp_path / "x.pdb", "MODEL 1\n", line(" CA ", "ALA"), end, line(" CA ", "GLY", 2))
    (model,) = read_models(path)
    assert len(model) == 1
    assert model.notes == ("atoms after the end of the model (END or ENDMDL) are left out",)


@pytest.mark.parametrize("suffix", [".pdb.gz", ".cif.gz", ".ent.gz"])
def test_what_expands_beyond_all_structures_is_refused_early(tmp_path, suffix):
    path = tmp_path / f"z{suffix}"
    path.write_bytes(gzip.compress(bytes(200_000_000), 1))
    tracemalloc.start()
    with pytest.raises(
        InputFileError, match=rf"z\{suffix}: holds more than a structure can: .*Decompress it first"
    ):
        open_structures(path, RESIDUES)
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()


def test_small_files_may_compress_well(tmp_path):
    text = "".join(line(" CA ", "ALA", k, element="C") for k in range(1, 3)) + "REMARK\n" * 200_000
    path = tmp_path / "x.pdb.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert len(text) > 100 * path.stat().st_size
    assert len(read_models(path)[0]) == 2


def test_compressed_twice(tmp_path):
    path = tmp_path / "x.pdb.gz"
    path.write_bytes(gzip.compress(gzip.compress(line(" CA ", "ALA").encode())))
    with pytest.raises(
        InputFileError, match=r"x\.pdb\.gz: is compressed twice. Decompress it once"
    ):
        read_models(path)


def test_lines_of_any_length(tmp_path):
    path = write(
        tmp_path / "x.pdb", "REMARK " + "x" * 9_000_000 + "\n", line(" CA ", "ALA", element="C")
    )
    assert len(read_models(path)[0]) == 1
    path.write_bytes(b"ATOM  " + bytes(9_000_000))
    with pytest.raises(InputFileError, match="an atom has no position"):
        read_models(path)


@pytest.mark.parametrize("suffix", ["pdb", "cif", "pdb.gz", "mrc", "npy", "pt"])
def test_special_files_are_no_structures(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    os.mkfifo(path)
    for given in (path, tmp_path):
        with pytest.raises(InputFileError, match=rf"x\.{suffix}: is a pipe"):
            open_structures(given, RESIDUES)


@pytest.mark.parametrize("name", ["x" * 300 + ".pdb", "x\0.pdb", "y" * 5000 + "/x.mrc"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(InputFileError, match=r"(cannot be read|missing input file)"):
        open_structures(name, RESIDUES)
