"""PDB and mmCIF files into atoms, or one sphere per residue."""

from __future__ import annotations

import gzip
import mmap
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.selection import selected

RESIDUES = {
    "ALA": (38, 2.50), "ARG": (84, 3.30), "ASN": (60, 2.85), "ASP": (60, 2.80), "CYS": (54, 2.75),
    "GLN": (68, 3.00), "GLU": (68, 2.95), "GLY": (30, 2.25), "HIS": (72, 3.05), "ILE": (62, 3.10),
    "LEU": (62, 3.10), "LYS": (70, 3.20), "MET": (70, 3.10), "PHE": (78, 3.20), "PRO": (52, 2.80),
    "SER": (46, 2.60), "THR": (54, 2.80), "TRP": (98, 3.40), "TYR": (86, 3.25), "VAL": (54, 2.95),
}  # fmt: skip
"""Electrons and radius (angstrom) of the sphere that stands for each residue, on its C-alpha."""

OTHER_RESIDUE_RADIUS = 3.0

Span = tuple[int, int]
"""First byte of a model in its file, and the byte after its last."""

PDB_SUFFIXES, CIF_SUFFIXES = (".pdb", ".ent"), (".cif", ".mmcif")
ATOM = re.compile(rb"^(?:ATOM  |HETATM)", re.MULTILINE)
WITHOUT_POSITION = re.compile(rb"^(?:ATOM  |HETATM)(?!.{24}(?:(?= {0,7}[-+]?[.0-9])[-+. 0-9]{8}){3})", re.MULTILINE)

BLANK_ALTLOC = (0, ord(" "))


@dataclass(frozen=True, eq=False)
class Model:
    """The atoms of one model of a file, one of each set of alternates, as columns.

    Attributes
    ----------
    name, residue_name, chain : (atom,) str
    residue_number, element : (atom,) int
        `element` is the atomic number.
    residue : (atom,) int
        Counts the residues of the model.
    hetero : (atom,) bool
    position_angstrom : (atom, 3) float64
    """

    name: NDArray[np.str_]
    residue_name: NDArray[np.str_]
    chain: NDArray[np.str_]
    residue_number: NDArray[np.int64]
    element: NDArray[np.int64]
    residue: NDArray[np.int64]
    hetero: NDArray[np.bool_]
    position_angstrom: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.name)

    def take(self, atoms: NDArray[Any]) -> Model:
        """Some of the atoms."""
        return Model(**{name: column[atoms] for name, column in vars(self).items()})


def read_models(path: str | Path) -> list[Model]:
    """Read every model of a PDB or mmCIF file, which may be compressed by gzip.

    Of alternate locations the one of highest occupancy is kept, the first of equals.

    Raises
    ------
    InputFileError
        If the file is missing, is neither PDB nor mmCIF, has no atoms, or an atom without a position.
    """
    return _parsed(Path(path), _bytes_of(Path(path)))


def suffix_of(path: Path) -> str:
    """What a file is by its name, compressed or not."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def find_models(path: str | Path) -> list[Span] | None:
    """Find the models of an uncompressed PDB file without reading them; None if there is one, and for other files.

    Models begin with MODEL, or end with END where there is no MODEL. A file of a thousand frames is then read one
    frame at a time: by the tasks that need them, and never as a whole.
    """
    path = Path(path)
    if path.suffix.lower() not in PDB_SUFFIXES or not path.is_file() or path.stat().st_size == 0:
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        starts = [match.start() for match in re.finditer(rb"^MODEL\b", content, re.MULTILINE)]
        if not starts:
            starts = [0, *(match.end() for match in re.finditer(rb"^END[ \r]*$", content, re.MULTILINE))]
        elif ATOM.search(content[: starts[0]]):
            return None
        spans = list(zip(starts, [*starts[1:], len(content)], strict=True))
        with_atoms = [span for span in spans if ATOM.search(content, *span)]
        return with_atoms if len(with_atoms) > 1 else None


def read_model(path: str | Path, position: int, span: Span | None = None) -> Model:
    """Read one model, by its span where `find_models` knows it; errors are those of `read_models`."""
    path = Path(path)
    return read_models(path)[position] if span is None else _parsed(path, _bytes_of(path, span), position)[0]


def _bytes_of(path: Path, span: Span | None = None) -> bytes:
    if not path.is_file():
        raise InputFileError("there is no such file", source=path)
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            if span is None:
                return bytes(file.read())
            file.seek(span[0])
            return bytes(file.read(span[1] - span[0]))
    except (OSError, EOFError, zlib.error) as error:
        raise InputFileError(f"is not a readable PDB or mmCIF file ({error})", source=path) from error


def _parsed(path: Path, content: bytes, position: int | None = None) -> list[Model]:
    where = str(path) if position is None else f"{path}, model {position + 1}"
    try:
        if suffix_of(path) in PDB_SUFFIXES:
            _refuse_missing_positions(content, where)
            ascii_alone = content.translate(bytes(range(128)) + b"?" * 128)  # columns count bytes
            structure = gemmi.read_pdb_string(ascii_alone.decode())
        else:
            structure = gemmi.make_structure_from_block(gemmi.cif.read_string(content.decode("latin-1"))[0])
        flat = gemmi.FlatStructure(structure)
    except InputFileError:
        raise
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise InputFileError(f"is not a readable PDB or mmCIF file ({error})", source=where) from error
    number = np.asarray(flat.model_num)
    if not len(number):
        raise InputFileError("has no atoms", source=where, remedy="Give a PDB or mmCIF file with coordinates.")
    positions = np.asarray(flat.pos, np.float64)
    if not np.isfinite(positions).all():
        raise InputFileError("has coordinates that are not finite", source=where)
    starts = np.flatnonzero(np.diff(number, prepend=number[0] - 1))
    everything = _columns(flat, positions)
    kept = [_without_alternates(flat, atoms) for atoms in np.split(np.arange(len(number)), starts[1:])]
    return [everything.take(atoms) for atoms in kept]


def _refuse_missing_positions(content: bytes, where: str) -> None:
    """Refuse coordinates that are blank or overflowed (********): gemmi would take them as 0."""
    bad = WITHOUT_POSITION.search(content)
    if bad is not None:
        line = content[bad.start() : bad.start() + 54].decode("latin-1").rstrip()
        raise InputFileError(
            f"an atom has no position: {line!r}", source=where, remedy="Write the file again, the structure about 0."
        )


def atoms_of(model: Model, parameters: ImageParameters) -> tuple[Atoms, list[str]]:
    """Turn a model into atoms as the parameters say; also give what the user should know of it, one sentence each.

    Raises
    ------
    InputError
        If nothing is selected, or no residue has a C-alpha.
    """
    shape = "gaussian" if parameters.atom_shape == "gaussian" else "hard-sphere"
    chosen = selected(model, parameters.atom_selection)
    if parameters.use_protein_residue_model:
        rows, electrons, radii, notes = _residues(model, chosen)
    else:
        rows, notes = np.flatnonzero(chosen), []
        electrons = model.element[rows].astype(np.float64)
        radii = np.array([gemmi.Element(int(z)).vdw_r for z in range(119)])[model.element[rows]]
        unknown = sorted(set(model.name[rows][electrons == 0].tolist()))
        if unknown:
            raise InputError(
                f"atoms of unknown element: {', '.join(unknown[:5])}", remedy="Fill in the element column, or select."
            )
    if not len(rows):
        raise InputError(
            "no atom is selected", remedy=f"Look at atom_selection={parameters.atom_selection!r} (--atom-selection)."
        )
    if parameters.atom_radii is not None:
        radii = np.full(len(rows), parameters.atom_radii)
    return Atoms(model.position_angstrom[rows], electrons, radii, shape), notes  # type: ignore[arg-type]


def _columns(flat: Any, position: NDArray[np.float64]) -> Model:
    chain, number, insertion = _text(flat.chain_ids), np.asarray(flat.resnums), np.asarray(flat.icodes)
    new = np.ones(len(number), np.bool_)
    new[1:] = (chain[1:] != chain[:-1]) | (number[1:] != number[:-1]) | (insertion[1:] != insertion[:-1])
    atomic_number = np.array([gemmi.Element(int(z)).atomic_number for z in range(119)] + [1])  # the last is deuterium
    return Model(
        name=_text(flat.atom_names),
        residue_name=_text(flat.residue_names),
        chain=chain,
        residue_number=number.astype(np.int64),
        element=atomic_number[np.asarray(flat.elements)],
        residue=np.cumsum(new),
        hetero=np.asarray(flat.het_flags) == ord("H"),
        position_angstrom=position,
    )


def _without_alternates(flat: Any, atoms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of `atoms`, those that have no alternate, and of each set of alternates the one of highest occupancy."""
    altloc = np.asarray(flat.altlocs)[atoms]
    alternate = ~np.isin(altloc, BLANK_ALTLOC)
    if not alternate.any():
        return atoms
    place = list(zip(_text(flat.chain_ids).tolist(), flat.resnums.tolist(), flat.icodes.tolist(), strict=True))
    residue, name = _text(flat.residue_names).tolist(), _text(flat.atom_names).tolist()
    occupancy = flat.occ.tolist()
    kind: dict[Any, tuple[float, str]] = {}  # the residue of highest occupancy, where alternates are two residues
    best: dict[Any, int] = {}
    for i in atoms[alternate].tolist():
        if place[i] not in kind or occupancy[i] > kind[place[i]][0]:
            kind[place[i]] = occupancy[i], residue[i]
    for i in atoms[alternate].tolist():
        key = (place[i], name[i])
        if residue[i] == kind[place[i]][1] and (key not in best or occupancy[i] > occupancy[best[key]]):
            best[key] = i
    return np.sort(np.concatenate([atoms[~alternate], np.array(list(best.values()), np.int64)]))


def _residues(
    model: Model, chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], list[str]]:
    """The C-alpha atoms among those chosen, their electrons and radii, and notes."""
    kinds, kind = np.unique(model.residue_name, return_inverse=True)
    protein = np.array([n in RESIDUES or gemmi.find_tabulated_residue(n).is_amino_acid() for n in kinds.tolist()])
    alpha = (model.name == "CA") & (model.element == 6) & (protein[kind] | ~model.hetero)
    rows = np.flatnonzero(alpha & chosen)
    if not len(rows):
        raise InputError(
            "no residue with a C-alpha is selected", remedy="Use all atoms: use_protein_residue_model=False (--atoms)."
        )
    names = model.residue_name[rows].tolist()
    of_residue = np.bincount(model.residue, weights=model.element)
    electrons = [RESIDUES[n][0] if n in RESIDUES else of_residue[r] for n, r in zip(names, model.residue[rows])]  # noqa: B905
    radii = [RESIDUES[n][1] if n in RESIDUES else OTHER_RESIDUE_RADIUS for n in names]
    notes = []
    other = sorted({n for n in names if n not in RESIDUES})
    if other:
        notes.append(
            f"residue(s) {', '.join(other)} have the electrons of their atoms in the file, and radius 3 angstrom"
        )
    water = np.isin(model.residue_name, ["HOH", "WAT", "DOD"])
    without = np.setdiff1d(model.residue[chosen & ~water], model.residue[alpha])
    if len(without):
        first = sorted(set(model.residue_name[np.isin(model.residue, without)].tolist()))
        notes.append(
            f"{len(without)} residue(s) without a C-alpha are left out ({', '.join(first[:5])}); "
            "use_protein_residue_model=False (--atoms) takes all atoms"
        )
    return rows, np.array(electrons, np.float64), np.array(radii, np.float64), notes


def _text(characters: Any) -> NDArray[np.str_]:
    """Fixed-width characters, (atom, width), as strings."""
    values = np.ascontiguousarray(np.asarray(characters)).view(np.uint8)
    return np.char.decode(values.view(f"S{values.shape[1]}")[:, 0], "latin-1")
