"""PDB and mmCIF files into atoms: models, alternates, selections, the residue model, and what is
no structure."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, replace
from pathlib import Path

import gemmi
import numpy as np
import pytest

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.structures.models import RESIDUES, atoms_of, find_models, read_model, read_models
from cryolike_dask.structures.selection import selected

RESIDUE_MODEL = ImageParameters(12, 1.5)
ALL_ATOMS = replace(RESIDUE_MODEL, use_protein_residue_model=False)

# Electrons and radius (angstrom) of a residue, written out: a change of the table is noticed.
TABLE = """
ALA 38 2.50  ARG 84 3.30  ASN 60 2.85  ASP 60 2.80  CYS 54 2.75  GLN 68 3.00  GLU 68 2.95
GLY 30 2.25  HIS 72 3.05  ILE 62 3.10  LEU 62 3.10  LYS 70 3.20  MET 70 3.10  PHE 78 3.20
PRO 52 2.80  SER 46 2.60  THR 54 2.80  TRP 98 3.40  TYR 86 3.25  VAL 54 2.95
"""


@dataclass
class Atom:
    """One atom to be written."""

    name: str = "CA"
    element: str = "C"
    residue: str = "GLY"
    number: int = 1
    chain: str = "A"
    altloc: str = ""
    occupancy: float = 1.0
    icode: str = " "
    hetero: bool = False
    at: tuple[float, float, float] = (1.0, 2.0, 3.0)


def structure_of(*models: list[Atom]) -> gemmi.Structure:
    """A gemmi structure; consecutive atoms of one residue are put into one."""
    structure = gemmi.Structure()
    for number, atoms in enumerate(models, start=1):
        model, chains, residue, last = gemmi.Model(number), {}, None, None
        for one in atoms:
            key = (one.chain, one.number, one.icode, one.residue)
            if residue is None or key != last:
                residue, last = gemmi.Residue(), key
                residue.name, residue.seqid = one.residue, gemmi.SeqId(one.number, one.icode)
                residue.het_flag = "H" if one.hetero else "A"
                chains.setdefault(one.chain, []).append(residue)
            atom = gemmi.Atom()
            atom.name, atom.element, atom.pos = (
                one.name,
                gemmi.Element(one.element),
                gemmi.Position(*one.at),
            )
            atom.occ, atom.altloc = one.occupancy, one.altloc or "\0"
            residue.add_atom(atom)
        for name, residues in chains.items():
            chain = gemmi.Chain(name)
            for residue in residues:
                chain.add_residue(residue)
            model.add_chain(chain)
        structure.add_model(model)
    structure.setup_entities()
    return structure


def write(path: Path, *models: list[Atom]) -> Path:
    """Write models in the format that the name says."""
    structure = structure_of(*models)
    if path.suffix == ".cif":
        structure.make_mmcif_document().write_file(str(path))
    else:
        structure.write_pdb(str(path))
    return path


def placed(atoms: list[Atom]) -> list[Atom]:
    """Give atoms distinct places: atom k is at x = k."""
    return [replace(atom, at=(float(k), 0.5, -0.25)) for k, atom in enumerate(atoms)]


def kept(path: Path, model: int = 0) -> list[int]:
    """Which of the placed atoms are read."""
    return read_models(path)[model].position_angstrom[:, 0].round().astype(int).tolist()


@pytest.fixture(params=[".pdb", ".cif"])
def path(request, tmp_path):
    """A file of each format."""
    return tmp_path / f"model ä #1{request.param}"


def test_columns(path):
    atoms = [
        Atom("N", "N", "ALA", 7, "B", at=(1.25, -2.5, 3.125)),
        Atom("CA", "C", "ALA", 7, "B", at=(2.5, -3.5, 4.5)),
        Atom("FE", "Fe", "HEM", 8, "B", hetero=True, at=(-0.001, 0, 99.999)),
    ]
    (model,) = read_models(write(path, atoms))
    assert len(model) == 3
    assert model.name.tolist() == ["N", "CA", "FE"]
    assert model.residue_name.tolist() == ["ALA", "ALA", "HEM"]
    assert model.chain.tolist() == ["B"] * 3
    assert model.residue_number.tolist() == [7, 7, 8]
    assert model.element.tolist() == [7, 6, 26]
    assert model.hetero.tolist() == [False, False, True]
    assert model.residue[0] == model.residue[1] != model.residue[2]
    np.testing.assert_allclose(model.position_angstrom, [a.at for a in atoms], atol=1e-6)


def test_pdb_and_mmcif_of_one_structure_are_alike(tmp_path, rng):
    atoms = [
        Atom(
            name,
            name[0],
            residue,
            number,
            chain,
            at=tuple(rng.uniform(-30, 30, 3).round(3).tolist()),
        )
        for chain in "AB"
        for number, residue in enumerate(["GLY", "TRP", "LYS"], start=1)
        for name in ("N", "CA", "C", "O")
    ]
    both = [
        read_models(write(tmp_path / f"x{suffix}", atoms, atoms[:4])) for suffix in (".pdb", ".cif")
    ]
    for pdb, cif in zip(*both, strict=True):
        for name, column in vars(pdb).items():
            np.testing.assert_array_equal(column, vars(cif)[name], err_msg=name)
    assert [len(m) for m in both[0]] == [24, 4]


def test_every_model_is_read_in_order(path):
    models = [[Atom(at=(float(k), 0, 0))] * (k + 1) for k in range(3)]
    found = read_models(write(path, *models))
    assert [len(m) for m in found] == [1, 2, 3]
    assert [m.position_angstrom[0, 0] for m in found] == [0, 1, 2]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_model_read_alone_is_the_same(tmp_path, newline):
    path = write(
        tmp_path / "x.pdb",
        *[placed([Atom(), Atom("O", "O", "HOH", k, hetero=True)]) for k in range(2, 5)],
    )
    path.write_bytes(path.read_text().replace("\n", newline).encode())
    spans = find_models(path)
    for position, whole in enumerate(read_models(path)):
        for span in (None, spans[position]):
            alone = read_model(path, position, span)
            for name in (
                "name",
                "residue_name",
                "chain",
                "residue_number",
                "element",
                "hetero",
                "position_angstrom",
            ):
                np.testing.assert_array_equal(
                    getattr(alone, name), getattr(whole, name), err_msg=name
                )
            np.testing.assert_array_equal(np.diff(alone.residue), np.diff(whole.residue))
    assert len(spans) == 3


@pytest.mark.parametrize("end", ["END\n", "END   \r\n"])
def test_frames_that_are_ended_and_not_numbered(tmp_path, end):
    frames = [
        write(tmp_path / f"{k}.pdb", [Atom(at=(float(k), 0, 0)), Atom(number=2)]) for k in range(3)
    ]
    assert not any("MODEL" in frame.read_text() for frame in frames)
    path = tmp_path / "frames.pdb"
    path.write_bytes(
        "".join(re.sub(r"END\s*$", end, frame.read_text()) for frame in frames).encode()
    )
    spans = find_models(path)
    read = [read_model(path, k, span).position_angstrom for k, span in enumerate(spans)]
    np.testing.assert_array_equal(
        read, [read_models(frame)[0].position_angstrom for frame in frames]
    )


def test_models_are_not_found_where_there_is_only_one_way_to_read_them(tmp_path):
    for name, atoms in (("x.cif", [[Atom()]] * 2), ("x.pdb", [[Atom()]])):
        assert find_models(write(tmp_path / name, *atoms)) is None


def test_of_alternates_the_one_of_highest_occupancy_is_kept(path):
    atoms = placed(
        [
            Atom("N", "N"),
            Atom("CA", altloc="A", occupancy=0.3),
            Atom("CA", altloc="B", occupancy=0.7),
            Atom("C", altloc="A", occupancy=0.5),
            Atom("C", altloc="B", occupancy=0.5),
            Atom("O", "O", altloc="A", occupancy=0.6),
            Atom("O", "O", altloc="B", occupancy=0.3),
            Atom("O", "O", altloc="C", occupancy=0.1),
        ]
    )
    assert kept(write(path, atoms)) == [0, 2, 3, 5]


def test_alternates_of_each_model_and_residue_are_their_own(path):
    atoms = placed(
        [
            Atom("CA", number=1, altloc="A", occupancy=0.4),
            Atom("CA", number=1, altloc="B", occupancy=0.6),
            Atom("CA", number=2, altloc="A", occupancy=0.9),
            Atom("CA", number=2, altloc="B", occupancy=0.1),
            Atom("CA", number=2, icode="A", altloc="A", occupancy=0.2),
            Atom("CA", number=2, icode="A", altloc="B", occupancy=0.8),
            Atom("CA", number=1, chain="B", altloc="A", occupancy=0.1),
            Atom("CA", number=1, chain="B", altloc="B", occupancy=0.9),
        ]
    )
    swapped = [replace(atom, occupancy=1 - atom.occupancy) for atom in atoms]
    write(path, atoms, swapped)
    assert kept(path) == [1, 2, 5, 7]
    assert kept(path, 1) == [0, 3, 4, 6]


def test_of_two_residues_at_one_place_the_one_of_highest_occupancy_is_kept(path):
    serine = [Atom(name, name[0], "SER", altloc="A", occupancy=0.6) for name in ("CA", "OG")]
    threonine = [
        Atom(name, name[0], "THR", altloc="B", occupancy=0.4) for name in ("CA", "OG1", "CG2")
    ]
    assert kept(write(path, placed([*serine, *threonine]))) == [0, 1]


def test_an_alternate_without_a_partner_is_kept(path):
    atoms = placed([Atom("N", "N"), Atom("CA", altloc="B", occupancy=0.1), Atom("C")])
    assert kept(write(path, atoms)) == [0, 1, 2]


def test_atoms_without_altloc_are_kept_though_numbers_repeat(tmp_path):
    """Residue numbers of a PDB file start again after 9999: waters of a simulation repeat chain,
    number and name."""
    waters = [
        Atom("O", "O", "HOH", 1, "W", hetero=True),
        Atom("O", "O", "HOH", 2, "W", hetero=True),
    ]
    path = write(
        tmp_path / "x.pdb",
        placed([*waters, *waters, Atom("CA", altloc="A"), Atom("CA", altloc="B")]),
    )
    assert sorted(kept(path)) == [0, 1, 2, 3, 4]


def test_insertion_codes_are_residues_of_their_own(path):
    atoms = placed([Atom(number=5, icode=code, residue="MSE") for code in " AB"])
    (model,) = read_models(write(path, atoms))
    assert len(set(model.residue.tolist())) == 3
    made, _ = atoms_of(model, RESIDUE_MODEL)
    assert made.electrons.tolist() == [6, 6, 6]  # of one carbon each, not of three


# --- selections ---


@pytest.fixture
def model(tmp_path):
    """Two chains of GLY, ALA and LYS at 9 to 11, one number negative."""
    atoms = [
        Atom(name, name[0], residue, number, chain)
        for chain in "AB"
        for number, residue in ((-3, "GLY"), (9, "GLY"), (10, "ALA"), (11, "LYS"))
        for name in ("N", "CA")
    ]
    return read_models(write(tmp_path / "x.pdb", atoms))[0]


SELECTIONS = {
    "name CA": lambda m: m.name == "CA",
    "name CA N": lambda m: m.name != "",
    "resname GLY ALA": lambda m: np.isin(m.residue_name, ["GLY", "ALA"]),
    "chain B": lambda m: m.chain == "B",
    "resid 10": lambda m: m.residue_number == 10,
    "resid 9-10": lambda m: np.isin(m.residue_number, [9, 10]),
    "resid 9 11": lambda m: np.isin(m.residue_number, [9, 11]),
    "resid -3": lambda m: m.residue_number == -3,
    "resid -5--1": lambda m: m.residue_number == -3,
    "resid -5-9 11-20": lambda m: np.isin(m.residue_number, [-3, 9, 11]),
    "not name CA": lambda m: m.name == "N",
    "not resname GLY ALA": lambda m: m.residue_name == "LYS",
    "not resid 0-10": lambda m: np.isin(m.residue_number, [-3, 11]),
    "resname GLY ALA and not chain B": lambda m: (
        np.isin(m.residue_name, ["GLY", "ALA"]) & (m.chain != "B")
    ),
    "  name CA   and resid 10-50\nand chain A ": lambda m: (
        (m.name == "CA") & (m.residue_number >= 10) & (m.chain == "A")
    ),
    "name XX": lambda m: np.zeros(len(m), bool),
}


@pytest.mark.parametrize("text", SELECTIONS)
def test_selections(model, text):
    np.testing.assert_array_equal(selected(model, text), SELECTIONS[text](model))


def test_no_selection_is_everything(model):
    assert selected(model, None).all()


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("", "''"),
        ("   ", "''"),
        ("protein", "'protein'"),
        ("name", "'name'"),
        ("not", "'not'"),
        ("name CA and protein", "'protein'"),
        ("chain A and and name CA", "'and name CA'"),
        ("(name CA)", "'(name CA)'"),
        ("Name CA", "'Name CA'"),
        ("resid ten", "'ten'"),
        ("resid 1-", "'1-'"),
        ("resid 1:9", "'1:9'"),
        ("not not name CA", "'not not name CA'"),
        ("name CA and", "'name CA and'"),
        ("name CA or chain B", "'name CA or chain B'"),
        ("name CA AND chain B", "'name CA AND chain B'"),
        ("name CA not chain B", "'name CA not chain B'"),
        ("name CA, CB", "'name CA, CB'"),
        ("resid 5-1", "'5-1'"),
    ],
)
def test_a_selection_that_is_not_understood_is_quoted(model, text, clause):
    reason = "(is not understood|is no residue number|runs backwards)"
    with pytest.raises(
        InputError, match=rf"atom_selection={re.escape(repr(text))}: {re.escape(clause)} {reason}"
    ):
        selected(model, text)


@pytest.mark.parametrize("parameters", [RESIDUE_MODEL, ALL_ATOMS])
def test_a_selection_that_finds_nothing_is_quoted(model, parameters):
    chosen = replace(parameters, atom_selection="resname TRP")
    with pytest.raises(InputError, match=r"resname TRP|C-alpha is selected"):
        atoms_of(model, chosen)


# --- one sphere per residue ---


def test_electrons_and_radii_of_the_twenty_residues(path):
    words = TABLE.split()
    table = {words[i]: (float(words[i + 1]), float(words[i + 2])) for i in range(0, len(words), 3)}
    assert len(table) == 20
    assert {name: (float(e), r) for name, (e, r) in RESIDUES.items()} == table
    atoms = [
        Atom(name, name[0], residue, number)
        for number, residue in enumerate(table, start=1)
        for name in ("N", "CA", "C", "O")
    ]
    made, notes = atoms_of(read_models(write(path, atoms))[0], RESIDUE_MODEL)
    assert notes == []
    assert made.electrons.tolist() == [e for e, _ in table.values()]
    assert made.radii_angstrom.tolist() == [r for _, r in table.values()]
    assert made.shape == "hard-sphere"


def test_electrons_of_the_table_are_those_of_its_residues():
    """A residue in a chain: its free form, as tabulated, without one water."""
    letters = {"H": 1, "C": 6, "N": 7, "O": 8, "S": 16}
    formulas = {
        "GLY": "C2H3NO",
        "ALA": "C3H5NO",
        "CYS": "C3H5NOS",
        "TRP": "C11H10N2O",
        "PRO": "C5H7NO",
    }
    for name, formula in formulas.items():
        parts = re.findall(r"([A-Z])(\d*)", formula)
        assert RESIDUES[name][0] == sum(letters[e] * int(n or 1) for e, n in parts)


def test_a_residue_sits_on_its_c_alpha(path):
    atoms = [Atom("N", "N", at=(9.0, 9, 9)), Atom("CA", at=(1.0, 2, 3)), Atom("C", at=(-9.0, 0, 0))]
    made, _ = atoms_of(read_models(write(path, atoms))[0], RESIDUE_MODEL)
    assert made.positions_angstrom.tolist() == [[1, 2, 3]]


def test_an_unknown_residue_has_the_electrons_of_its_atoms(path):
    selenomethionine = [Atom("N", "N"), Atom("CA"), Atom("C"), Atom("O", "O"), Atom("SE", "Se")]
    atoms = [
        *[replace(a, residue="MSE", number=1, hetero=True) for a in selenomethionine],
        Atom("CA", residue="MET", number=2),
        *[replace(a, residue="MSE", number=3, hetero=True) for a in selenomethionine[:2]],
    ]
    made, notes = atoms_of(read_models(write(path, atoms))[0], RESIDUE_MODEL)
    assert made.electrons.tolist() == [7 + 6 + 6 + 8 + 34, 70, 13]
    assert made.radii_angstrom.tolist() == [3.0, 3.1, 3.0]
    (note,) = notes
    assert re.search(r"residue\(s\) MSE have the electrons of their atoms", note)


def test_an_unknown_residue_is_weighed_whole_though_only_its_c_alpha_is_selected(path):
    atoms = [Atom("N", "N", "MSE", hetero=True), Atom("CA", residue="MSE", hetero=True)]
    made, _ = atoms_of(
        read_models(write(path, atoms))[0],
        replace(RESIDUE_MODEL, atom_selection="name CA and resname MSE"),
    )
    assert made.electrons.tolist() == [13]


def test_water_is_left_out_silently_and_ligands_with_a_note(path):
    atoms = [
        Atom(),
        Atom("O", "O", "HOH", 2, hetero=True),
        Atom("O", "O", "HOH", 3, hetero=True),
        Atom("C1", "C", "ATP", 4, hetero=True),
        Atom("P", "P", "DA", 5),
    ]
    made, notes = atoms_of(read_models(write(path, atoms))[0], RESIDUE_MODEL)
    assert len(made) == 1
    (note,) = notes
    assert re.search(
        r"2 residue\(s\) without a C-alpha are left out \(ATP, DA\); "
        r"use_protein_residue_model=False \(--atoms\) takes",
        note,
    )


def test_a_calcium_ion_is_no_c_alpha(path):
    atoms = placed(
        [
            Atom("CA", "Ca", "CA", 1, hetero=True),
            Atom("CA", "C", "GLY", 2),
            Atom("CA", "C", "LIG", 3, hetero=True),
            Atom("CA", "Ca", "GLY", 4),
        ]
    )
    made, _ = atoms_of(read_models(write(path, atoms))[0], RESIDUE_MODEL)
    assert made.positions_angstrom[:, 0].tolist() == [1]


def test_calcium_alone_has_no_residues(path):
    write(path, [Atom("CA", "Ca", "CA", 1, hetero=True)])
    with pytest.raises(
        InputError,
        match=r"no residue with a C-alpha is selected. Use all atoms: "
        r"use_protein_residue_model=False",
    ):
        atoms_of(read_models(path)[0], RESIDUE_MODEL)


# --- all atoms ---


def test_all_atoms_have_their_atomic_number_and_van_der_waals_radius(path):
    elements = ["H", "C", "N", "O", "P", "S", "Se", "Zn"]
    atoms = [Atom(e.upper(), e, "LIG", hetero=True) for e in elements]
    made, notes = atoms_of(read_models(write(path, atoms))[0], ALL_ATOMS)
    assert made.electrons.tolist() == [1, 6, 7, 8, 15, 16, 34, 30]
    radii = dict(zip(elements, made.radii_angstrom.tolist(), strict=True))
    expected = {"H": 1.2, "C": 1.7, "N": 1.55, "O": 1.52, "P": 1.8, "S": 1.8}
    assert {e: pytest.approx(r, abs=1e-6) for e, r in expected.items()} == {
        e: radii[e] for e in expected
    }
    assert notes == []


@pytest.mark.parametrize("parameters", [RESIDUE_MODEL, ALL_ATOMS])
@pytest.mark.parametrize("shape", ["gaussian", "hard-sphere"])
def test_atom_radii_override_all(path, parameters, shape):
    write(path, [Atom("N", "N"), Atom("CA"), Atom("CA", residue="TRP", number=2)])
    made, _ = atoms_of(read_models(path)[0], replace(parameters, atom_radii=1.25, atom_shape=shape))
    assert set(made.radii_angstrom.tolist()) == {1.25}
    assert made.shape == shape


def test_hydrogens_count_where_they_are(path):
    atoms = [Atom("CA"), Atom("HA2", "H"), Atom("HA3", "H")]
    model = read_models(write(path, atoms))[0]
    assert atoms_of(model, ALL_ATOMS)[0].electrons.sum() == 8
    without = replace(ALL_ATOMS, atom_selection="not name HA2 HA3")
    assert atoms_of(model, without)[0].electrons.sum() == 6
    assert atoms_of(model, RESIDUE_MODEL)[0].electrons.tolist() == [30]


def test_deuterium_is_hydrogen(path):
    model = read_models(write(path, [Atom(), Atom("D", "D")]))[0]
    assert atoms_of(model, ALL_ATOMS)[0].electrons.tolist() == [6, 1]


def test_an_unknown_element_is_refused_by_name_for_all_atoms(path):
    model = read_models(write(path, [Atom(), Atom("XX", "X", "DUM", 2, hetero=True)]))[0]
    with pytest.raises(
        InputError, match=r"atoms of unknown element: XX. Fill in the element column"
    ):
        atoms_of(model, ALL_ATOMS)
    assert len(atoms_of(model, replace(ALL_ATOMS, atom_selection="not name XX"))[0]) == 1
    assert len(atoms_of(model, RESIDUE_MODEL)[0]) == 1


# --- files as they come ---


@pytest.mark.parametrize("suffix", [".pdb", ".cif"])
def test_compressed_by_gzip(tmp_path, suffix):
    plain = write(tmp_path / f"x{suffix}", placed([Atom(), Atom(number=2)]))
    packed = tmp_path / f"y{suffix}.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert kept(packed) == kept(plain) == [0, 1]


def test_elements_are_found_by_the_columns_of_the_name_where_they_are_missing(tmp_path):
    path = write(
        tmp_path / "x.pdb", [Atom("N", "N"), Atom("CA"), Atom("CA", "Ca", "CA", 2, hetero=True)]
    )
    path.write_text("\n".join(line[:66] for line in path.read_text().splitlines()))
    (model,) = read_models(path)
    assert model.element.tolist() == [7, 6, 20]


@pytest.mark.parametrize("change", [str.lower, lambda text: text.replace("\n", "\r\n"), str.rstrip])
def test_other_layouts_of_a_pdb_file(tmp_path, change):
    path = write(tmp_path / "x.pdb", placed([Atom(), Atom(number=2)]))
    path.write_bytes(change(path.read_text()).encode())
    assert kept(path) == [0, 1]


def test_names_that_are_not_ascii(tmp_path):
    path = write(
        tmp_path / "x.pdb", [Atom(at=(-12.345, 2.125, 3.0)), Atom("O", "O", at=(4.0, 5.0, 6.0))]
    )
    path.write_bytes(path.read_bytes().replace(b" CA  GLY", b" C\xe9  GLY"))
    (model,) = read_models(path)
    assert model.residue_name.tolist() == ["GLY", "GLY"]
    np.testing.assert_allclose(model.position_angstrom, [[-12.345, 2.125, 3], [4, 5, 6]], atol=1e-6)


@pytest.mark.parametrize("number", [9999, 10000, 99999, -999])
def test_huge_residue_numbers(path, number):
    (model,) = read_models(write(path, [Atom(number=number)]))
    assert model.residue_number.tolist() == [number]
    assert selected(model, f"resid {number}").all()


def test_many_atoms(tmp_path):
    """More than 99999 atoms: serial numbers of PDB files become letters."""
    path = write(tmp_path / "x.pdb", [Atom(number=i % 9999 + 1) for i in range(100_005)])
    assert len(read_models(path)[0]) == 100_005


BAD = {
    "empty.pdb": (b"", "has no atoms"),
    "empty.cif": (b"", "is not a readable PDB or mmCIF file"),
    "text.pdb": (b"Dear colleague,\n\nplease find attached\n", "has no atoms"),
    "header.pdb": (b"HEADER    LYASE\nTITLE     NOTHING\nEND\n", "has no atoms"),
    "text.cif": (b"Dear colleague,\n", "is not a readable PDB or mmCIF file"),
    "header.cif": (b"data_x\n_entry.id x\n", "has no atoms"),
    "garbage.pdb": (bytes(range(256)) * 40, "has no atoms"),
    "garbage.cif": (bytes(range(256)) * 40, "is not a readable PDB or mmCIF file"),
    "garbage.cif.gz": (b"\x1f\x8b" + bytes(100), "is not a readable PDB or mmCIF file"),
    "text.cif.gz": (b"data_x\n", "is not a readable PDB or mmCIF file"),
    "short.pdb": (
        b"ATOM      1  CA  GLY A   1       1.000   2.0",
        "an atom has no position: 'ATOM",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_structure(tmp_path, name):
    content, complaint = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=rf"{re.escape(str(path))}: {complaint}"):
        read_models(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputFileError, match=r"nowhere\.pdb: there is no such file"):
        read_models(tmp_path / "nowhere.pdb")
    with pytest.raises(InputFileError, match=r"is a folder"):
        read_models(tmp_path)


@pytest.mark.parametrize("word", ["nan", "inf", "?", "abc"])
def test_mmcif_coordinates_that_are_no_numbers(tmp_path, word):
    path = write(tmp_path / "x.cif", [Atom(at=(-77.125, 0, 0)), Atom(number=2)])
    path.write_text(path.read_text().replace("-77.125", word))
    with pytest.raises(InputFileError, match=r"x\.cif: has coordinates that are not finite"):
        read_models(path)


@pytest.mark.parametrize("word", ["     nan", "********", "        "])
def test_pdb_coordinates_that_are_no_numbers(tmp_path, word):
    path = write(tmp_path / "x.pdb", [Atom(at=(-77.125, 0, 0)), Atom(number=2)])
    path.write_text(path.read_text().replace(" -77.125", word))
    with pytest.raises(
        InputFileError,
        match=rf"x\.pdb: an atom has no position: 'ATOM .*{re.escape(word)}   0\.000",
    ):
        read_models(path)
