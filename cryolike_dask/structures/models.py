"""PDB and mmCIF files into atoms, or one sphere per residue."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.structures.accounts import Account, in_box, text_of_taken
from cryolike_dask.structures.atoms import VAN_DER_WAALS, Atoms
from cryolike_dask.structures.b_factors import refined_b_factors
from cryolike_dask.structures.columns import Model, residues, without_alternates
from cryolike_dask.structures.content import content_of, is_compressed
from cryolike_dask.structures.elements import elements_by_name, is_polymer
from cryolike_dask.structures.pdb import Span, model_spans, read_pdb_model
from cryolike_dask.structures.selection import asked_for, selected
from cryolike_dask.structures.solvent import Kinds

RESIDUES = {
    "ALA": (38, 2.50), "ARG": (84, 3.30), "ASN": (60, 2.85), "ASP": (60, 2.80), "CYS": (54, 2.75),
    "GLN": (68, 3.00), "GLU": (68, 2.95), "GLY": (30, 2.25), "HIS": (72, 3.05), "ILE": (62, 3.10),
    "LEU": (62, 3.10), "LYS": (70, 3.20), "MET": (70, 3.10), "PHE": (78, 3.20), "PRO": (52, 2.80),
    "SER": (46, 2.60), "THR": (54, 2.80), "TRP": (98, 3.40), "TYR": (86, 3.25), "VAL": (54, 2.95),
}  # fmt: skip
"""Electrons and radius (angstrom) of the sphere that stands for each residue, on its C-alpha."""

OTHER_RESIDUE_RADIUS = 3.0

ATOM_SITE = (
    "id",
    "type_symbol",
    "label_atom_id",
    "label_comp_id",
    "label_asym_id",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
)
"""Columns that atoms of an mmCIF file need."""
PDB_SUFFIXES, CIF_SUFFIXES = (".pdb", ".ent"), (".cif", ".mmcif")


def read_models(path: str | Path) -> list[Model]:
    """Read every model of a PDB or mmCIF file, which may be compressed by gzip.

    Of alternate locations the one of highest occupancy is kept, the first of equals.

    Raises
    ------
    InputFileError
        If the file is missing, is neither PDB nor mmCIF, has no atoms, or an atom without a
        position.
    """
    path = Path(path)
    content = content_of(path)
    if suffix_of(path) not in PDB_SUFFIXES:
        return _mmcif_models(content, str(path))
    spans = model_spans(content)
    if len(spans) < 2:
        return [read_pdb_model(content[slice(*spans[0])] if spans else content, str(path))]
    return [
        read_pdb_model(content[slice(*span)], f"{path}, model {i}")
        for i, span in enumerate(spans, start=1)
    ]


def suffix_of(path: Path) -> str:
    """Suffix of the name of a file, without that of compression."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def find_models(path: str | Path) -> list[Span] | None:
    """Find the models of an uncompressed PDB file without reading them; None if there is one, and
    for other files.

    A file of a thousand models is then read one model at a time: by the tasks that need them, and
    never as a whole.
    """
    path = Path(path)
    if path.suffix.lower() not in PDB_SUFFIXES or not path.is_file() or path.stat().st_size == 0:
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        spans = model_spans(content)
        return spans if len(spans) > 1 else None


def read_model(path: str | Path, position: int, span: Span | None = None) -> Model:
    """Read one model, by its span where `find_models` knows it; errors are those of
    `read_models`."""
    path = Path(path)
    if span is not None:
        return read_pdb_model(content_of(path, span), f"{path}, model {position + 1}")
    if not is_compressed(path) or suffix_of(path) not in PDB_SUFFIXES:
        return read_models(path)[position]
    content = content_of(path)
    spans = model_spans(content) or [(0, len(content))]
    return read_pdb_model(content[slice(*spans[position])], f"{path}, model {position + 1}")


def _mmcif_models(content: bytes, where: str) -> list[Model]:
    try:
        block = gemmi.cif.read_string(content.decode("latin-1"))[0]
        flat = gemmi.FlatStructure(gemmi.make_structure_from_block(block))
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise InputFileError(
            f"is not a readable PDB or mmCIF file ({str(error) or 'it is empty'})", source=where
        ) from error
    number = np.asarray(flat.model_num)
    if not len(number):
        lacking = [name for name in ATOM_SITE if not block.find_loop(f"_atom_site.{name}")]
        what = (
            ""
            if len(lacking) == len(ATOM_SITE)
            else f" that can be read: _atom_site lacks {', '.join(lacking)}"
        )
        raise InputFileError(
            f"has no atoms{what}", source=where, remedy="Give a PDB or mmCIF file with coordinates."
        )
    positions = np.asarray(flat.pos, np.float64)
    if not np.isfinite(positions).all():
        raise InputFileError("has coordinates that are not finite", source=where)
    everything, place = _columns(flat, positions)
    stated = set(block.find_values("_atom_site.B_iso_or_equiv"))
    if not stated or stated & {"?", "."}:  # gemmi fills in a number of its own
        everything = replace(everything, b_factor=np.full(len(number), np.nan))
    altloc, occupancy = np.asarray(flat.altlocs), np.asarray(flat.occ, np.float64)
    starts = np.flatnonzero(np.diff(number, prepend=number[0] - 1))
    models = []
    for atoms in np.split(np.arange(len(number)), starts[1:]):
        model = everything.take(atoms)
        of_residue = residues(place[atoms], model.name, model.residue_name, altloc[atoms])
        models.append(
            without_alternates(replace(model, residue=of_residue), altloc[atoms], occupancy[atoms])
        )
    return models


def atoms_of(model: Model, parameters: ImageParameters) -> tuple[Atoms, list[str]]:
    """Turn a model into atoms as the parameters say; also give what the user should know of it, one
    sentence each.

    Raises
    ------
    InputError
        If nothing is selected, no residue has a C-alpha, or atoms are beads or of unknown element.
    """
    atoms, account = atoms_and_account(model, parameters)
    return atoms, [*account.warnings, *account.notes]


def atoms_and_account(model: Model, parameters: ImageParameters) -> tuple[Atoms, Account]:
    """Turn a model into atoms as `atoms_of` does, with an account of what was taken, left out and
    guessed."""
    chosen, kinds = selected(model, parameters.atom_selection), Kinds.of(model)
    by_residue = bool(parameters.use_protein_residue_model)
    if by_residue:
        spheres = _residues(model, chosen, kinds)
    elif parameters.scatters:
        spheres = _scatterers(model, chosen, kinds, parameters.atom_selection)
    else:
        spheres = _all_atoms(model, chosen, kinds)
    if not len(spheres.rows):
        besides = f": {', '.join(spheres.left_out)} are left out" if spheres.left_out else ""
        raise InputError(
            f"no atom is selected{besides}",
            remedy=f"Look at atom_selection={parameters.atom_selection!r} (--atom-selection).",
        )
    atoms = _made(spheres, model, parameters)
    if parameters.frame_origin is not None:
        atoms = replace(atoms, origin_angstrom=np.array(parameters.frame_origin))
    left_out = [*spheres.left_out]
    left_out += [f"{np.sum(~chosen):,} atom(s) that are not selected"] if not chosen.all() else []
    left_out += [f"{model.n_alternates:,} alternate(s)"] if model.n_alternates else []
    besides = f"; left out: {', '.join(left_out)}" if left_out else ""
    besides += (
        f"; guessed from names: {spheres.n_guessed:,} element(s)" if spheres.n_guessed else ""
    )
    account = Account(
        text_of_taken(model, spheres.rows, atoms, by_residue),
        besides=besides,
        warnings=tuple(spheres.warnings),
        notes=(*model.notes, *spheres.notes),
    )
    return atoms, in_box(account, atoms, parameters)


def _made(spheres: _Spheres, model: Model, parameters: ImageParameters) -> Atoms:
    positions = model.position_angstrom[spheres.rows]
    if parameters.scatters:
        b_factors = (
            refined_b_factors(model, spheres.rows)
            if isinstance(parameters.atomic_b, str)
            else parameters.atomic_b
        )
        solvent = parameters.bulk_solvent
        return Atoms.scattering(
            positions, spheres.electrons, b_factors, None if isinstance(solvent, str) else solvent
        )
    given = parameters.atom_radii
    radii = spheres.radii if given is None else np.full(len(spheres.rows), given)
    shape = parameters.atom_shape
    return Atoms(
        positions, spheres.electrons, radii, "gaussian" if shape == "gaussian" else "hard-sphere"
    )


@dataclass(frozen=True, eq=False)
class _Spheres:
    """Atoms of a model that stand for it, with their electrons and radii, and remarks on them."""

    rows: NDArray[np.int64]
    electrons: NDArray[np.float64]
    radii: NDArray[np.float64]
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_guessed: int = 0


def _all_atoms(model: Model, chosen: NDArray[np.bool_], kinds: Kinds) -> _Spheres:
    """The atoms chosen; beads and atoms of unknown element are refused."""
    rows = np.flatnonzero(chosen)
    electrons = model.element[rows].astype(np.float64)
    beads = kinds.beads(model, chosen)
    if len(beads):
        raise InputError(
            f"{len(beads):,} of {len(rows):,} atoms are beads of a coarse-grained model "
            f"({', '.join(sorted(set(model.name[beads].tolist()))[:5])})",
            remedy="Map it back to atoms; or name its backbone beads CA, of carbon, and use one "
            "sphere per residue.",
        )
    unknown = sorted(set(model.name[rows][electrons == 0].tolist()))
    if unknown:
        raise InputError(
            f"atoms of unknown element: {', '.join(unknown[:5])}",
            remedy=f'Fill in the element column, or select, such as "not name '
            f'{" ".join(unknown[:5])}".',
        )
    guessed, warnings = rows[model.guessed[rows]], kinds.solvent_taken(chosen)
    if len(guessed):
        warnings.append(_remark_on_guesses(model, guessed))
    return _Spheres(
        rows,
        electrons,
        VAN_DER_WAALS[model.element[rows]],
        warnings=warnings,
        n_guessed=len(guessed),
    )


def _scatterers(
    model: Model, chosen: NDArray[np.bool_], kinds: Kinds, selection: str | None
) -> _Spheres:
    """The atoms chosen, but for waters and ions that are not asked for; what has one atom of each
    residue is refused."""
    solvent = (kinds.water | kinds.ion) & chosen & ~asked_for(model, selection)
    atoms = _all_atoms(model, chosen & ~solvent, kinds)
    polymer = np.array([is_polymer(name) for name in kinds.names])[kinds.index[atoms.rows]]
    if polymer.any() and np.bincount(model.residue[atoms.rows][polymer]).max() == 1:
        raise InputError(
            "has one atom of each residue, such as its C-alpha, and atoms that scatter have to be "
            "all there",
            remedy="Complete the structure; or take one sphere per residue: "
            "use_protein_residue_model=True (--residues).",
        )
    left_out, notes = kinds.solvent_counted(solvent), list[str]()
    if left_out:
        notes.append(
            f"{', '.join(left_out)} are left out; atom_selection takes them by the names of their "
            f'residues ("resname ZN"), or with the clause "all"'
        )
    return replace(atoms, left_out=left_out, notes=notes)


def _remark_on_guesses(model: Model, guessed: NDArray[np.int64]) -> str:
    pairs = sorted(
        set(zip(model.name[guessed].tolist(), model.element[guessed].tolist(), strict=True))
    )
    shown = [f"{name}: {gemmi.Element(element).name}" for name, element in pairs[:6]] + ["..."] * (
        len(pairs) > 6
    )
    return (
        f"the elements of {len(guessed):,} atom(s) are guessed from their names "
        f"({', '.join(shown)}); columns 77-78 of PDB files, or type_symbol of mmCIF, state them"
    )


def _residues(model: Model, chosen: NDArray[np.bool_], kinds: Kinds) -> _Spheres:
    """The C-alpha atoms among those chosen, which stand for their residues."""
    protein = np.array(
        [n in RESIDUES or gemmi.find_tabulated_residue(n).is_amino_acid() for n in kinds.names]
    )
    alpha = (model.name == "CA") & (model.element == 6) & (protein[kinds.index] | ~model.hetero)
    rows = np.flatnonzero(alpha & chosen)
    if not len(rows):
        raise InputError(
            "no residue with a C-alpha is selected",
            remedy="Use all atoms: use_protein_residue_model=False (--atoms).",
        )
    names = model.residue_name[rows].tolist()
    of_residue = np.bincount(model.residue, weights=model.element)
    electrons = [
        RESIDUES[n][0] if n in RESIDUES else of_residue[r]
        for n, r in zip(names, model.residue[rows])  # noqa: B905
    ]
    radii = [RESIDUES[n][1] if n in RESIDUES else OTHER_RESIDUE_RADIUS for n in names]
    notes, left_out = [], kinds.solvent_counted(chosen)
    other = sorted({n for n in names if n not in RESIDUES})
    guessed, warnings = np.empty(0, np.int64), list[str]()
    if other:
        weighed = model.residue[rows[np.isin(names, other)]]
        guessed = np.flatnonzero(np.isin(model.residue, weighed) & model.guessed)
        warnings = [_remark_on_guesses(model, guessed)] if len(guessed) else []
        notes.append(
            f"residue(s) {', '.join(other)} have the electrons of their atoms in the file, and "
            f"radius 3 angstrom"
        )
    without = np.setdiff1d(model.residue[chosen & ~kinds.water & ~kinds.ion], model.residue[alpha])
    if len(without):
        first = sorted(set(model.residue_name[np.isin(model.residue, without)].tolist()))
        left_out.append(f"{len(without):,} residue(s) without a C-alpha")
        notes.append(
            f"{len(without)} residue(s) without a C-alpha are left out ({', '.join(first[:5])}); "
            "use_protein_residue_model=False (--atoms) takes all atoms"
        )
    return _Spheres(
        rows,
        np.array(electrons, np.float64),
        np.array(radii, np.float64),
        left_out,
        warnings,
        notes,
        len(guessed),
    )


def _columns(flat: Any, position: NDArray[np.float64]) -> tuple[Model, NDArray[np.int64]]:
    """The atoms of all models, their residues not counted yet, and a number for each place in a
    chain."""
    name = _text(flat.atom_names)
    residue_name = _text(flat.residue_names)
    chain = _text(flat.chain_ids)
    _, part = np.unique(
        np.char.add(np.char.add(chain, " "), _text(flat.subchains)), return_inverse=True
    )
    number = np.asarray(flat.resnums, np.int64)
    # the last is deuterium
    atomic_number = np.array([gemmi.Element(int(z)).atomic_number for z in range(119)] + [1])
    element = atomic_number[np.asarray(flat.elements)]
    guessed = np.zeros(len(element), np.bool_)
    silent = np.flatnonzero(element == 0)
    if len(silent):
        element[silent], guessed[silent] = elements_by_name(name[silent], residue_name[silent])
    model = Model(
        name=name,
        residue_name=residue_name,
        chain=chain,
        residue_number=number,
        element=element,
        residue=number,
        part=part.astype(np.int64),
        hetero=np.asarray(flat.het_flags) == ord("H"),
        guessed=guessed,
        position_angstrom=position,
        b_factor=np.asarray(flat.b_iso, np.float64).round(4),  # they are stored in single precision
    )
    return model, (model.part << 42) + ((number + 2**32) << 8) + np.asarray(flat.icodes)


def _text(characters: Any) -> NDArray[np.str_]:
    """Fixed-width characters, (atom, width), as strings."""
    values = np.ascontiguousarray(np.asarray(characters)).view(np.uint8)
    return np.char.decode(values.view(f"S{values.shape[1]}")[:, 0], "latin-1")
