"""Whether an output folder may take the results of a run: nothing is mixed with others, or replaced unasked."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.layout import FILE_SUFFIX, STORE_SUFFIX, STRUCTURE_FILE, LikelihoodFiles
from cryolike_dask.io.records import differences, listed_outputs, read_record
from cryolike_dask.io.tensors import load_displacements
from cryolike_dask.plans import Run

RESULTS = "template*/*/*_stack_??????.*"
REMEDY = "Choose another output folder, or pass overwrite=True (--overwrite) to replace those results."


def claim(run: Run, *, overwrite: bool) -> bool:
    """See that the output folder holds no results of another search, structures, particles or conventions.

    Parameters
    ----------
    overwrite : bool
        Remove results of another run, instead of refusing.

    Returns
    -------
    bool
        Whether there are results of such a run as this one.

    Raises
    ------
    OutputError
        If there are results of another run, naming what differs.
    """
    if any(run.files.folder_output.glob(RESULTS)):  # else displacements are of a run that was stopped before any
        _claim_displacements(run, overwrite)
    records = sorted(run.files.folder_output.glob("template*/done/*.json"))
    if not records:
        _claim_results_of_another_program(run.files, overwrite)
    foreign = []
    for path in records:
        record = read_record(path)
        what = "" if record is None else _differs(run, record)
        if record is not None and what:
            if not overwrite:
                where = path.relative_to(run.files.folder_output)
                what = f"holds results of another run ({where}): {what}"
                raise OutputError(what, source=run.files.folder_output, remedy=REMEDY)
            foreign.append((path, record))
    for path, record in foreign:
        _remove_results(path, record)
    return len(records) > len(foreign)


def refuse_claimed(run: Run) -> None:
    """Refuse what `claim` would refuse without `overwrite`, and write nothing."""
    claim(run, overwrite=False)


def _differs(run: Run, record: Mapping[str, Any]) -> str:
    """What of the results that a record describes cannot be of this run; empty if all can."""
    theirs = record.get("settings")
    if other := differences(theirs if isinstance(theirs, dict) else {}, run.settings):
        return other
    i, k, shape = (record.get(name) for name in ("i_template", "i_stack", "shape"))
    if not isinstance(i, int) or not isinstance(k, int) or not isinstance(shape, list) or not shape:
        return ""
    if i >= run.n_structures:
        return f"{record.get('structure')} is structure {i} there, {run.n_structures} structure(s) here"
    if k >= run.n_stacks:
        return f"image stack {k} there, {run.n_stacks} image stack(s) here"
    if i in run.templates and record.get("structure") != run.templates[i].structure:
        return f"structure {i} is {record.get('structure')} there, {run.templates[i].structure} here"
    if k in run.images and shape[0] != len(run.images[k]):
        return f"image stack {k} has {shape[0]} images there, {len(run.images[k])} here"
    if i not in run.templates or k not in run.images:
        return ""
    return _other_inputs(record.get("inputs"), [*run.inputs["templates"][i], *run.inputs["images"][k]])


def _other_inputs(theirs: Any, ours: list[dict[str, Any]]) -> str:
    """Inputs by name: files of one name may have been made again."""
    there = {str(one.get("name")) for one in theirs if isinstance(one, dict)} if isinstance(theirs, list) else set()
    here = {str(one.get("name")) for one in ours}
    if there == here:
        return ""
    only_there, only_here = (", ".join(sorted(names)) or "less" for names in (there - here, here - there))
    return f"made from {only_there} there, {only_here} here"


def _claim_results_of_another_program(files: LikelihoodFiles, overwrite: bool) -> None:
    """Refuse results without a record, and without what a run of this program writes before them, or remove them."""
    if not any(files.origins(0).parent.glob("*.npz")):
        for path in files.folder_output.glob("template*/*/*_stack_??????.pt"):
            if overwrite:
                path.unlink(missing_ok=True)
                continue
            what = f"holds results that this program did not write ({path.relative_to(files.folder_output)})"
            raise OutputError(what, source=files.folder_output, remedy=REMEDY)


def _claim_displacements(run: Run, overwrite: bool) -> None:
    """Refuse a folder whose displacements are others; with `overwrite`, remove them."""
    path = run.files.displacements
    if not path.is_file():
        return
    try:
        there = load_displacements(path)
        same = there.shape == run.displacements.shape and bool(np.abs(there - run.displacements).max() < 1e-3)
        what = f"holds results of another search: {there.shape[1]} displacements up to {np.abs(there).max():g} angstrom"
    except InputFileError as error:
        same, what = False, str(error)
    if same:
        return
    if not overwrite:
        ours = f"{run.displacements.shape[1]} up to {np.abs(run.displacements).max():g} angstrom"
        raise OutputError(f"{what}; this run has {ours}", source=run.files.folder_output, remedy=REMEDY)
    path.unlink(missing_ok=True)


def _remove_results(path: Path, record: Mapping[str, Any]) -> None:
    """Remove a record, unless another run has written it anew, and the outputs that it lists, of its structure."""
    if read_record(path) != record:
        return
    path.unlink(missing_ok=True)
    names = {str(output.get("file")) for output in listed_outputs(record).values()}
    for file in path.parent.parent.glob(f"*/*{FILE_SUFFIX}"):
        if file.name in names:
            file.unlink(missing_ok=True)
    for store in path.parent.parent.glob(f"*/*{STORE_SUFFIX}"):
        if store.name in names:
            shutil.rmtree(store, ignore_errors=True)
    if not any(path.parent.glob("*.json")):
        (path.parent.parent / STRUCTURE_FILE).unlink(missing_ok=True)
