"""The B-factor column of structure files: whether it holds refined B-factors, or something else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.structures.columns import Model
from cryolike_dask.structures.content import content_of, is_compressed

FloatArray = NDArray[np.float64]

LARGEST = 1000.0
"""Angstrom^2: more is no B-factor."""
HEADER_BYTES = 2**18
"""Of a PDB file that is not compressed, in which its remarks are looked for."""
PREDICTORS = re.compile(
    rb"(?i)ALPHA ?FOLD|ESM ?FOLD|COLAB ?FOLD|ROSETTA ?FOLD|OPEN ?FOLD|OMEGA ?FOLD|BOLTZ|PLDDT|"
    rb"THEORETICAL MODEL"
)
CONFIDENCE = b"_ma_qa_metric"
"""Category of mmCIF files whose models say how far they can be trusted, in place of B-factors."""
EXPERIMENT = re.compile(
    rb"(?i)^(?:EXPDTA|_exptl\.method).*(?:X-RAY|NEUTRON|ELECTRON|DIFFRACTION)", re.MULTILINE
)
ATOMS = re.compile(rb"(?i)^(?:ATOM  |HETATM|_atom_site\.)", re.MULTILINE)

CONTACT_ANGSTROM = 10.0
FALLS, RISES = -0.2, 0.2
"""Correlations with the number of residues in contact: B-factors fall towards the core of a
molecule, a model's confidence rises."""
FEWEST = 20
"""Residues that a correlation is taken of."""
INSTEAD = (
    "Give one number for all atoms of all structures (--atomic-b 60), or none; all structures of a "
    "run have to be alike in it."
)


def refuse_predicted(path: Path) -> None:
    """Refuse a file that says of itself that it is a prediction, whose B-factors are none.

    Raises
    ------
    InputFileError
    """
    # mmCIF has its categories in any order; a PDB file of many models is not read as a whole
    is_pdb = path.suffix.lower() in (".pdb", ".ent")
    span = (0, min(HEADER_BYTES, path.stat().st_size)) if is_pdb else None
    content = content_of(path, None if is_compressed(path) else span)
    atoms = ATOMS.search(content)
    header = content[: atoms.start()] if atoms is not None else content
    found = PREDICTORS.search(header)
    if CONFIDENCE in content:
        what = f"{CONFIDENCE.decode()} says"
    elif found is not None and EXPERIMENT.search(header) is None:
        what = f"its header ({found[0].decode('latin-1')}) says"
    else:
        return
    raise InputFileError(
        f"has no B-factors but, as {what}, the confidence of a predicted model (pLDDT) in their "
        f"place",
        source=path,
        remedy=INSTEAD,
    )


def refined_b_factors(model: Model, rows: NDArray[np.int64]) -> FloatArray:
    """B-factors of some of a model's atoms, angstrom^2, if they can have been refined.

    Parameters
    ----------
    model : Model
    rows : (row,) int

    Raises
    ------
    InputError
        If there are none; they are all the same, negative or too large; or they are what a
        predicted model has in their place: all within 0 and 100 and larger in the core than
        outside, or one for each residue and not clearly smaller in the core.
    """
    values = model.b_factor[rows]
    fault = _fault(values) or _likeness(model, rows, values)
    if fault:
        raise InputError(f"atomic_b='file', but its B-factors {fault}", remedy=INSTEAD)
    return values


def _fault(values: FloatArray) -> str:
    n_lacking = int(np.sum(~np.isfinite(values)))
    if n_lacking:
        return f"lack for {n_lacking:,} of {len(values):,} atoms"
    least, most = values.min(), values.max()
    if least == most:
        return f"are all {least:g}: they were not refined"
    if least < 0 or most > LARGEST:
        return f"reach from {least:g} to {most:g}, beyond 0 to {LARGEST:g}"
    if most <= 1:
        return f"reach from {least:g} to {most:g} only, as the confidence of a predicted model does"
    return ""


def _likeness(model: Model, rows: NDArray[np.int64], values: FloatArray) -> str:
    """In what they are like the confidence (pLDDT) of a predicted model, which is on a scale of
    100."""
    if values.max() > 100:
        return ""
    _, residue, n_atoms = np.unique(model.residue[rows], return_inverse=True, return_counts=True)
    mean = np.bincount(residue, values) / n_atoms
    spread = np.abs(values - mean[residue]).max()
    one_each = spread < 0.005 and np.mean(n_atoms > 1) > 0.5
    correlation = _with_contacts(model.position_angstrom[rows], residue, n_atoms, mean)
    if correlation is not None and correlation > RISES:
        return (
            "are within 0 and 100 and rise towards the core of the molecule, as the confidence of "
            "a predicted model (pLDDT) does"
        )
    if one_each and (correlation is None or correlation > FALLS):
        return (
            "are one for each residue and within 0 and 100, as the confidence of a predicted model "
            "(pLDDT) is"
        )
    return ""


def _with_contacts(
    positions: FloatArray, residue: NDArray[np.int64], n_atoms: NDArray[np.int64], mean: FloatArray
) -> float | None:
    """Correlation of the residues' values with how many others are near; None if they are too
    few, or all alike."""
    if len(mean) < FEWEST:
        return None
    centres = np.stack([np.bincount(residue, x) / n_atoms for x in positions.T], axis=1)
    near = cKDTree(centres).query_ball_point(centres, CONTACT_ANGSTROM, return_length=True)
    if np.ptp(near) == 0 or np.ptp(mean) == 0:
        return None
    return float(np.corrcoef(near, mean)[0, 1])
