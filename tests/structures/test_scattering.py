"""Atoms that scatter: against sums of Peng's factors written out here, against a map of their
potential made in space, and what is taken, left out and refused."""

from __future__ import annotations

import logging
from dataclasses import replace

import gemmi
import numpy as np
import pytest

from cryolike_dask import Atoms, ImageParameters, ViewingAngles, Volume, open_structures
from cryolike_dask.conventions import CRYOLIKE, STANDARD
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.structures.models import atoms_of, read_models
from cryolike_dask.structures.projection import project

SCATTERING = ImageParameters(48, 1.5, atom_shape="scattering", viewing_distance=1.5)
DIRECT_SUM = {"single": 8e-7, "double": 5e-12}
"""Of the largest value; the same as for spheres."""
FRC = 0.9999

# Residues with side chains, a nucleotide, a heme's iron among its ligands, a zinc and a water:
# name, element, residue, number, x, y, z. Bonds are of about the right length.
MOLECULE = """
N N TRP 1 0.0 0.0 0.0  CA C TRP 1 1.46 0.0 0.0  C C TRP 1 2.0 1.42 0.0  O O TRP 1 1.2 2.35 0.1
CB C TRP 1 2.0 -0.8 1.2  CG C TRP 1 1.6 -2.2 1.2  CD1 C TRP 1 2.1 -3.2 0.4  NE1 N TRP 1 1.5 -4.4 .7
CE2 C TRP 1 0.6 -4.2 1.7  CD2 C TRP 1 0.7 -2.8 2.0  CZ2 C TRP 1 -.2 -5.1 2.3  CH2 C TRP 1 -1 -4.6 3
N N MET 2 3.3 1.6 -0.1  CA C MET 2 4.0 2.9 -0.1  C C MET 2 5.5 2.7 -0.2  O O MET 2 6.0 1.6 -0.4
CB C MET 2 3.6 3.7 1.1  CG C MET 2 2.1 4.0 1.2  SD S MET 2 1.5 5.0 2.6  CE C MET 2 -.2 5.1 2.2
N N LYS 3 6.2 3.8 0.0  CA C LYS 3 7.7 3.8 0.0  CB C LYS 3 8.2 5.2 .4  CG C LYS 3 9.7 5.3 .4
CD C LYS 3 10.2 6.7 .8  CE C LYS 3 11.7 6.8 .9  NZ N LYS 3 12.2 8.2 1.2  HZ1 H LYS 3 13.2 8.2 1.3
P P DA 4 -4 3 -5  OP1 O DA 4 -5.2 2.4 -4.4  OP2 O DA 4 -3.9 4.5 -5  O5' O DA 4 -2.7 2.4 -4.3
C5' C DA 4 -1.4 2.9 -4.7  C4' C DA 4 -.3 2.2 -3.9  N9 N DA 4 -1 .2 -3  C8 C DA 4 -2.2 -.3 -3.3
FE FE HEM 5 8 -4 4  NA N HEM 5 9.4 -2.6 4  NB N HEM 5 6.6 -2.6 4.2  NC N HEM 5 6.6 -5.4 4
"""


def rows_of(text):
    words = text.split()
    return [words[i : i + 7] for i in range(0, len(words), 7)]


def pdb_of(rows, b_factors=None, hetero=("HEM", "HOH", "ZN"), header=""):
    """A PDB file, whose B-factors are as they are given, a text or a number for each atom."""
    given = [20.0] * len(rows) if b_factors is None else b_factors
    lines = [header]
    for (name, element, residue, number, *at), b in zip(rows, given, strict=True):
        record = "HETATM" if residue in hetero else "ATOM"
        padded = f"{name:<4}" if len(element) > 1 or len(name) > 3 else f" {name:<3}"
        x, y, z = map(float, at)
        b = b if isinstance(b, str) else f"{b:6.2f}"
        lines.append(
            f"{record:<6}{1:5d} {padded} {residue:>3} A{int(number):4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{b}          {element:>2}\n"
        )
    return "".join([*lines, "END\n"])


@pytest.fixture
def file(tmp_path):
    """The molecule with a zinc and two waters, its B-factors falling towards one end."""
    rows = rows_of(MOLECULE + "ZN ZN ZN 6 -6 -6 6  O O HOH 7 12 0 9  O O HOH 8 -9 3 9")
    path = tmp_path / "x.pdb"
    path.write_text(pdb_of(rows, np.linspace(20, 90, len(rows)).round(2)))
    return path


def directions(rng, n):
    return ViewingAngles(rng.uniform(0, 2 * np.pi, n), np.arccos(rng.uniform(-1, 1, n)), np.ones(n))


def axes_of(viewing):
    """The x and y axes of images in the frame of the structure: rot about z, tilt about y."""
    c, s = np.cos(viewing.azimuth), np.sin(viewing.azimuth)
    ct, st = np.cos(viewing.polar), np.sin(viewing.polar)
    x = np.stack([c * ct, s * ct, -st], axis=1)
    y = np.stack([-s, c, np.zeros_like(s)], axis=1)
    return x, y


def direct_sum(positions, elements, b_factors, viewing, grid, solvent=(0.0, 0.0)):
    """sum_a f_a(s) exp(-B_a s^2 / 4) exp(-2 pi i s . u_a), s in 1/angstrom, point by point."""
    kx, ky = (k * 2 / grid.box_size_angstrom for k in grid.points())
    quarter = (kx**2 + ky**2) / 4
    values = []
    for x, y in zip(*axes_of(viewing), strict=True):
        value = np.zeros(kx.shape, np.complex128)
        for position, element, b in zip(positions, elements, b_factors, strict=True):
            table = gemmi.Element(int(element)).c4322
            factor = sum(
                a * np.exp(-w * quarter) for a, w in zip(table.a, table.b, strict=True)
            ) * np.exp(-b * quarter)
            value += factor * np.exp(-2j * np.pi * (kx * (position @ x) + ky * (position @ y)))
        values.append(value * (1 - solvent[0] * np.exp(-solvent[1] * quarter)))
    return np.array(values)


def relative_error(found, wanted, grid):
    wanted = wanted / np.sqrt(grid.integrate(np.abs(wanted) ** 2))[:, None, None]
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    print(f"error {error:.1e} of the largest value")
    return error


def ring_correlations(a, b):
    """Fourier ring correlation of each view at each shell, but for the one at 0."""
    cross = np.sum(a * b.conj(), axis=2).real
    return (cross / np.linalg.norm(a, axis=2) / np.linalg.norm(b, axis=2))[:, 1:]


# --- templates ---


@pytest.mark.parametrize("conventions", ["none", "file", 60.0, "solvent"])
def test_templates_of_a_file_are_the_sum_of_pengs_factors(file, conventions, rng):
    """To 3 angstrom, the Nyquist frequency, in single precision."""
    solvent = (0.7, 150.0) if conventions == "solvent" else None
    b = "none" if solvent else conventions
    parameters = replace(SCATTERING, atomic_b=b, bulk_solvent=solvent)
    viewing, grid = directions(rng, 5), parameters.grid
    (stack,) = open_structures(file, parameters, viewing=viewing)
    found = stack.source.take(np.arange(5))
    rows = rows_of(MOLECULE)
    positions = np.array([row[4:] for row in rows], float)
    elements = [gemmi.Element(row[1]).atomic_number for row in rows]
    b_factors = {"none": np.zeros(len(rows)), 60.0: np.full(len(rows), 60.0)}.get(
        b, np.linspace(20, 90, len(rows) + 3)[: len(rows)].round(2)
    )
    wanted = direct_sum(
        positions - positions.mean(axis=0), elements, b_factors, viewing, grid, solvent or (0, 0)
    )
    assert ring_correlations(found, wanted).min() > FRC
    assert relative_error(found, wanted, grid) < DIRECT_SUM["single"]


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("n_b_factors", [1, 3, 200])
def test_any_elements_and_b_factors(n_b_factors, precision, rng):
    """Elements from hydrogen to californium; as many B-factors as atoms, which are interpolated."""
    grid, n = PolarGrid(32, 1.0, 8.0, 64), 200
    positions = rng.normal(size=(n, 3)) * 4
    elements = rng.choice([1, 6, 7, 8, 15, 26, 98], n)
    b_factors = rng.choice(rng.uniform(0, 500, n_b_factors), n)
    atoms = Atoms.scattering(positions + 7, elements, b_factors)
    viewing = directions(rng, 2)
    found = project(atoms, grid, viewing, STANDARD, precision)
    wanted = direct_sum(positions - positions.mean(axis=0), elements, b_factors, viewing, grid)
    assert relative_error(found, wanted, grid) < DIRECT_SUM[precision]


def test_a_map_of_the_potential_gives_the_same_templates(rng):
    """The potential in space, written as other programs do: on each voxel Gaussians
    a (4 pi / b)^1.5 exp(-4 pi^2 r^2 / b), b with the atomic B added."""
    n, voxel, b_factor = 64, 0.75, 20.0
    rows = rows_of(MOLECULE)
    positions = np.array([row[4:] for row in rows], float)
    positions -= positions.mean(axis=0)
    at = (np.arange(n) - n // 2) * voxel
    values = np.zeros((n, n, n))
    for position, row in zip(positions, rows, strict=True):
        table = gemmi.Element(row[1]).c4322
        for a, b in zip(table.a, table.b, strict=True):
            width = b + b_factor
            x, y, z = (np.exp(-4 * np.pi**2 * (at - p) ** 2 / width) for p in position)
            values += a * (4 * np.pi / width) ** 1.5 * (z[:, None, None] * y[:, None] * x)
    parameters = ImageParameters(32, 1.5, atom_shape="scattering", atomic_b=b_factor)
    viewing = directions(rng, 4)
    atoms = Atoms.scattering(
        positions, [gemmi.Element(row[1]).atomic_number for row in rows], b_factor
    )
    of_atoms, of_map = (
        project(structure, parameters.grid, viewing)
        for structure in (atoms, Volume(values, (voxel,) * 3))
    )
    correlations = ring_correlations(of_atoms, of_map)
    print(f"lowest ring correlation {correlations.min():.6f}")
    assert correlations.min() > FRC
    assert np.abs(of_atoms - of_map).max() < 2e-3 * np.abs(of_map).max()  # one scale for all shells


def test_spheres_are_another_thing(file, rng):
    """The ring correlation sees it: hard spheres are far from 0.9999."""
    viewing = directions(rng, 3)
    found, wanted = (
        open_structures(file, parameters, viewing=viewing)[0].source.take(np.arange(3))
        for parameters in (
            SCATTERING,
            replace(
                SCATTERING,
                atom_shape="hard-sphere",
                atom_selection="not resname HOH ZN",
            ),
        )
    )
    assert ring_correlations(found, wanted).min() < 0.99


# --- what is taken ---


def test_waters_and_ions_are_left_out_unless_asked_for(file, caplog):
    n = len(rows_of(MOLECULE))
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        open_structures(file, SCATTERING)
    (line, note) = caplog.messages
    assert f"x: {n} atoms in 5 residues" in line
    assert "as atoms that scatter (B 0)" in line
    assert line.endswith("; left out: 2 water(s), 1 ion(s)")
    assert "2 water(s), 1 ion(s) are left out; atom_selection takes them by" in note
    (model,) = read_models(file)
    for selection, expected in {
        "all": n + 3,
        "not resname LYS": n - 8,
        "all and not resname LYS": n - 5,
        "resname TRP ZN": 13,
        "not resname HOH and all": n + 1,
    }.items():
        atoms, _ = atoms_of(model, replace(SCATTERING, atom_selection=selection))
        assert len(atoms) == expected, selection
    with pytest.raises(InputError, match=r"no atom is selected: 1 ion\(s\) are left out"):
        atoms_of(model, replace(SCATTERING, atom_selection="resid 6"))


def test_hydrogens_are_as_in_the_file_and_deuterium_is_hydrogen(tmp_path):
    rows = rows_of("CA C GLY 1 0 0 0  HA2 H GLY 1 1 0 0  DA3 D GLY 1 0 1 0  N N GLY 1 0 0 1")
    (tmp_path / "x.pdb").write_text(pdb_of(rows))
    (model,) = read_models(tmp_path / "x.pdb")
    assert atoms_of(model, SCATTERING)[0].electrons.tolist() == [6, 1, 1, 7]


def test_traces_are_refused(tmp_path):
    rows = [("CA", "C", "LEU", k, 3.8 * k, 0, 0) for k in range(1, 5)]
    (tmp_path / "x.pdb").write_text(pdb_of(rows))
    with pytest.raises(InputFileError, match=r"x\.pdb: has one atom of each residue.*--residues"):
        open_structures(tmp_path / "x.pdb", SCATTERING)


def test_elements_without_factors_are_refused(tmp_path):
    (tmp_path / "x.pdb").write_text(pdb_of(rows_of("ES ES LIG 2 9 0 0")))
    with pytest.raises(InputFileError, match=r"x\.pdb: there are no scattering factors for Es"):
        open_structures(tmp_path / "x.pdb", SCATTERING)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"b_factors": -1.0}, "negative or not finite"),
        ({"b_factors": np.nan}, "negative or not finite"),
        ({"elements": [6, 0]}, "no scattering factors for X|for 0"),
        ({"elements": [6.5, 7]}, r"no scattering factors for 6\.5"),
        ({"elements": [np.nan, 7]}, "no scattering factors for nan"),
        ({"bulk_solvent": (1.2, 50.0)}, "bulk_solvent"),
    ],
    ids=str,
)
def test_atoms_in_memory_that_cannot_be(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        Atoms.scattering(**{"positions_angstrom": np.eye(3)[:2], "elements": [6, 7], **changes})


def test_spheres_have_no_b_factors():
    with pytest.raises(InputError, match="B-factors or bulk solvent"):
        Atoms(np.eye(3), np.ones(3), np.ones(3), b_factors=np.ones(3))


def test_the_older_conventions_refuse_it(file):
    with pytest.raises(InputError, match="atoms scatter, but conventions="):
        open_structures(file, SCATTERING, conventions=CRYOLIKE.name)
    atoms = Atoms.scattering(np.eye(3), [6, 7, 8])
    with pytest.raises(InputError, match="atoms scatter, but conventions="):
        open_structures(atoms, ImageParameters(16, 3.0), conventions=CRYOLIKE.name)
    with pytest.raises(InputError, match="atoms scatter, but conventions="):
        project(atoms, SCATTERING.grid, ViewingAngles(*np.ones((3, 1))), CRYOLIKE)


# --- what is said of spheres ---


def test_one_line_says_where_spheres_mislead(file, caplog):
    said = {
        "residues": (ImageParameters(48, 1.5), "one sphere per residue misleads below about 10"),
        "hard": (
            ImageParameters(48, 1.5, use_protein_residue_model=False),
            "hard spheres mislead below about 4 angstrom, and the images reach 3",
        ),
        "coarse": (ImageParameters(48, 5.0), None),
        "both": (
            ImageParameters(48, 1.5, atom_shape="scattering", use_protein_residue_model=True),
            "use_protein_residue_model=True wins over",
        ),
        "scattering": (SCATTERING, None),
    }
    for name, (parameters, sentence) in said.items():
        caplog.clear()
        with caplog.at_level(logging.INFO, "cryolike_dask"):
            open_structures(file, parameters)
        found = [m for m in caplog.messages if "mislead" in m or "wins over" in m]
        assert len(found) == (sentence is not None), (name, caplog.messages)
        assert sentence is None or sentence in found[0]
    caplog.clear()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        open_structures(Volume(np.eye(8)[:, :, None] + np.zeros(8), (4.0,) * 3), said["hard"][0])
        open_structures(file, said["hard"][0], conventions=CRYOLIKE.name)
    assert not [m for m in caplog.messages if "mislead" in m]


# --- B-factors of files ---


def globule(rng, n=60):
    """A compact chain of residues with four atoms each, and how deep each residue is."""
    centres = rng.normal(size=(n, 3)) * 9
    rows = [
        (name, name[0], "GLY", k + 1, *(centres[k] + 1.4 * offset))
        for k in range(n)
        for name, offset in zip(("N", "CA", "C", "O"), np.eye(4)[:, :3], strict=True)
    ]
    depth = -np.linalg.norm(centres, axis=1)
    return rows, (depth - depth.min()) / np.ptp(depth)


def b_factors_of(tmp_path, rows, b_factors, **options):
    path = tmp_path / "x.pdb"
    path.write_text(pdb_of(rows, b_factors, **options))
    (stack,) = open_structures(path, replace(SCATTERING, atomic_b="file"))
    return stack.source.structure.load().b_factors


def test_refined_b_factors_are_taken(tmp_path, rng):
    rows, depth = globule(rng)
    each = (80 - 60 * depth).repeat(4) + rng.uniform(0, 15, len(rows))
    for b_factors in (each, 1.5 * each, (80 - 60 * depth).repeat(4)):  # the last: one per residue
        found = b_factors_of(tmp_path, rows, b_factors.round(2))
        np.testing.assert_allclose(found, b_factors, atol=0.0051)
    deposited = "EXPDTA    X-RAY DIFFRACTION\nREMARK 200 STARTING MODEL: ALPHAFOLD\n"
    assert len(b_factors_of(tmp_path, rows, each.round(2), header=deposited)) == len(rows)


def test_what_is_no_refined_b_factor_is_refused(tmp_path):
    rng = np.random.default_rng(1)  # of others some values rise towards the core by chance
    rows, depth = globule(rng)
    n = len(rows)
    confidence = (55 + 40 * depth).repeat(4)
    noise = rng.uniform(-3, 3, n)
    refused = {
        "are all 20: they were not refined": np.full(n, 20.0),
        "are all 0: they were not": np.zeros(n),
        f"lack for {n} of {n} atoms": ["      "] * n,
        "lack for 1 of": ["      ", *confidence[1:]],
        "beyond 0 to 1000": np.linspace(-5, 60, n),
        "one for each residue and within 0 and 100": rng.uniform(40, 99, n // 4).repeat(4),
        "rise towards the core": confidence,
        "rise towards the core of": confidence + noise,
        "as the confidence of a predicted model does": confidence / 100,
    }
    for complaint, b_factors in refused.items():
        with pytest.raises(InputFileError, match=complaint) as caught:
            b_factors_of(tmp_path, rows, b_factors)
        assert "x.pdb" in str(caught.value)
        assert "--atomic-b 60" in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        "TITLE     ALPHAFOLD MONOMER V2.0 PREDICTION FOR SOMETHING\n",
        "TITLE     ESMFOLD V1 PREDICTION FOR INPUT\n",
        "EXPDTA    THEORETICAL MODEL\n",
    ],
)
def test_predictions_are_known_by_their_headers(tmp_path, header, rng):
    rows, depth = globule(rng)
    b_factors = (80 - 60 * depth).repeat(4) + rng.uniform(0, 15, len(rows))
    with pytest.raises(InputFileError, match=r"its header \(.*\) says, the confidence"):
        b_factors_of(tmp_path, rows, b_factors, header=header)


def test_mmcif_of_models_and_without_the_column(tmp_path, rng):
    rows, depth = globule(rng)
    source, path = tmp_path / "x.pdb", tmp_path / "x.cif"
    source.write_text(pdb_of(rows, ((80 - 60 * depth).repeat(4) + rng.uniform(0, 9, len(rows)))))
    document = gemmi.read_structure(str(source)).make_mmcif_document()
    parameters = replace(SCATTERING, atomic_b="file")
    document.write_file(str(path))
    (stack,) = open_structures(path, parameters)
    assert np.ptp(stack.source.structure.load().b_factors) > 50
    text = path.read_text()
    path.write_text(text + "\n_ma_qa_metric.name pLDDT\n")
    with pytest.raises(InputFileError, match=r"x\.cif: .*_ma_qa_metric says"):
        open_structures(path, parameters)
    for unknown in ("?", "."):
        atoms = document.sole_block().find("_atom_site.", ["B_iso_or_equiv"])
        for row in atoms:
            row[0] = unknown
        document.write_file(str(path))
        with pytest.raises(InputFileError, match=r"x\.cif: .*lack for"):
            open_structures(path, parameters)


def test_maps_have_none(tmp_path):
    parameters = replace(SCATTERING, atomic_b="file")
    np.save(tmp_path / "x.npy", np.ones((8, 8, 8)))
    for given in (tmp_path / "x.npy", np.ones((8, 8, 8)), Volume(np.ones((8, 8, 8)), (1.0,) * 3)):
        with pytest.raises(InputFileError, match="is a map, which has no B-factors of atoms"):
            open_structures(given, parameters)
    assert len(open_structures(tmp_path / "x.npy", replace(SCATTERING, atomic_b=60))) == 1
