"""Decoys in files: maps, and models of shuffled residues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gemmi
import numpy as np

from cryolike_dask.compute.progress import counted
from cryolike_dask.errors import OutputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.mrc import open_mrc_map, write_mrc_map
from cryolike_dask.io.outputs import refuse_special
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.labels import DecoyKind, Models
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.decoys.opening import open_decoys
from cryolike_dask.structures.decoys.sources import PHASES, Decoy
from cryolike_dask.structures.maps import ARRAY_SUFFIXES
from cryolike_dask.structures.models import CIF_SUFFIXES, PDB_SUFFIXES, suffix_of
from cryolike_dask.structures.opening import StructureInput, open_structures
from cryolike_dask.structures.sources import MapInFile, Projections

MAP_SUFFIX = ".mrc"


def make_decoys(
    structures: StructureInput | Sequence[StructureInput],
    params_input: str | Path | ImageParameters,
    folder_output: str | Path,
    n: int = 4,
    *,
    kind: DecoyKind = "phases",
    seed: int = 0,
    models: Models = "first",
    voxel_size_angstrom: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Write decoys of structures as files that templates are made from as from any structure.

    A run that is given structures makes the same decoys by itself (`open_decoys`). Of files it has
    to be told that they are decoys: `as_decoys`, `--decoy-structures`.

    Parameters
    ----------
    structures : path, array, Atoms, Volume, folder, or several of these
        As for `open_structures`.
    params_input : path or ImageParameters
        `parameters.npz`, or its content: how atoms are made, and how finely maps are sampled.
    folder_output : path
        Is created.
    n, kind, seed
        As for `open_decoys`.
    models : "first" | "all"
        The first model of each PDB or mmCIF file, or each model as a structure of its own.
    voxel_size_angstrom : float, optional
        Of maps and arrays, in place of what the header says, or of the size of the pixels.
    overwrite : bool
        Replace files that are there.
    progress : bool
        Show a bar on a terminal or in a notebook, elsewhere a line of the log now and then.

    Returns
    -------
    list of Path
        `NAME~decoy1.mrc` of random phases, `NAME~decoy1.pdb` or `.cif` of shuffled residues; all of
        number 1 first.

    Raises
    ------
    InputError, InputFileError
        As for `open_decoys`; before anything is written.
    OutputError
        If there is such a file, or the folder cannot be written.
    """
    parameters, folder = read_parameters(params_input), Path(folder_output)
    opened = open_structures(
        structures, parameters, models=models, voxel_size_angstrom=voxel_size_angstrom
    )
    decoys = [_decoy(stack.source) for stack in open_decoys(opened, n, kind=kind, seed=seed)]
    paths = [folder / f"{name}{_suffix(decoy)}" for name, decoy in decoys]
    for path in paths:
        if refuse_special(path).exists() and not overwrite:
            raise OutputError(
                "is there already",
                source=path,
                remedy="Choose another folder, or pass overwrite=True (--overwrite) to replace it.",
            )
    for path, (_, decoy) in counted([*zip(paths, decoys, strict=True)], "decoys", shown=progress):
        _write(path, decoy)
    return paths


def _decoy(projections: object) -> tuple[str, Decoy]:
    assert isinstance(projections, Projections)
    assert isinstance(projections.structure, Decoy)
    return projections.name, projections.structure


def _suffix(decoy: Decoy) -> str:
    """The end of the name of its file; a model stays what it is."""
    if decoy.kind == PHASES:
        return MAP_SUFFIX
    return (CIF_SUFFIXES if suffix_of(Path(decoy.path)) in CIF_SUFFIXES else PDB_SUFFIXES)[0]


def _write(path: Path, decoy: Decoy) -> None:
    how = decoy.describe()[-1]["value"]
    if decoy.kind == PHASES:
        volume = decoy.density()
        write_mrc_map(path, volume.values, volume.voxel_size_angstrom, _middle(decoy), how)
        return
    text = _text(decoy.model(), is_cif=path.suffix in CIF_SUFFIXES)
    with replacing(path) as file:
        file.write(text.encode())


def _middle(decoy: Decoy) -> tuple[float, float, float]:
    """Where the middle of its map lies, in the coordinates of the structure."""
    source = decoy.structure
    if isinstance(source, MapInFile):
        has_header = Path(source.path).suffix.lower() not in ARRAY_SUFFIXES
        known = open_mrc_map(source.path) if has_header else None
        return known.middle() if known and known.voxel_size_angstrom else (0.0, 0.0, 0.0)
    structure = source.load()
    x, y, z = structure.origin.tolist() if isinstance(structure, Atoms) else (0.0, 0.0, 0.0)
    return x, y, z


def _text(model: Model, *, is_cif: bool) -> str:
    """Write a model as the text of a PDB or mmCIF file."""
    written = gemmi.Model(1)
    starts = np.flatnonzero(np.diff(model.residue, prepend=-1))
    chain, part = gemmi.Chain(""), (-1, "")
    for rows in np.split(np.arange(len(model)), starts[1:]):
        first = rows[0]
        if part != (model.part[first], model.chain[first]):
            part = int(model.part[first]), str(model.chain[first])
            chain = written.add_chain(gemmi.Chain(part[1]))
        residue = gemmi.Residue()
        residue.name = str(model.residue_name[first])
        residue.seqid = gemmi.SeqId(int(model.residue_number[first]), " ")
        residue.het_flag = "H" if model.hetero[first] else "A"
        for row in rows:
            atom = gemmi.Atom()
            atom.name, atom.element = str(model.name[row]), gemmi.Element(int(model.element[row]))
            atom.pos = gemmi.Position(*model.position_angstrom[row])
            atom.b_iso = float(np.nan_to_num(model.b_factor[row]))
            residue.add_atom(atom)
        chain.add_residue(residue)
    structure = gemmi.Structure()
    structure.add_model(written)
    structure.setup_entities()
    text: str = (
        structure.make_mmcif_document().as_string() if is_cif else structure.make_pdb_string()
    )
    return text
