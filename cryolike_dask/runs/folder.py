"""Whether an output folder may take the results of a run: nothing is mixed with others, or replaced
unasked.

What must be the same for all runs that write into a folder at one time is its claim (`io/claims`).
What the folder holds already is told by its records.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.claims import Claim, brief, differences, holding, refuse_beneath_others
from cryolike_dask.io.layout import FILE_SUFFIX, STORE_SUFFIX, STRUCTURE_FILE, LikelihoodFiles
from cryolike_dask.io.records import need_folder, readable_record
from cryolike_dask.io.tensors import load_displacements
from cryolike_dask.runs.run import Run

KIND = "results"
RESULTS = "template*/*/*_stack_??????.*"
REMEDY = (
    "Choose another output folder, or pass overwrite=True (--overwrite) to replace those results."
)
SAME_ANGSTROM = 1e-3


@contextmanager
def claim(run: Run, *, overwrite: bool) -> Iterator[Claim]:
    """Claim the output folder while the body runs.

    Parameters
    ----------
    overwrite : bool
        Remove results of another run, instead of refusing; unless it lives.

    Raises
    ------
    OutputError
        If there are results of another run, naming what differs, or another run writes there; and
        at the end, if the folder was taken away.
    """
    need_folder(run.files.folder_output)
    refuse = partial(refuse_others, run)
    with holding(
        run.files.folder_output, KIND, _identity(run), overwrite=overwrite, refuse_others=refuse
    ) as own_claim:
        if overwrite:
            _remove_others(run)
        yield own_claim


def refuse_claimed(run: Run) -> None:
    """Refuse what `claim` would refuse without `overwrite`, and write nothing."""
    need_folder(run.files.folder_output)
    refuse_beneath_others(run.files.folder_output, KIND, _identity(run))
    refuse_others(run)


def refuse_others(run: Run) -> None:
    """Refuse results of another search, structures, particles or conventions."""
    records = _records(run)
    if not records:
        _refuse_displacements(run)
        for path in _results_of_another_program(run.files):
            what = (
                f"holds results that this program did not write "
                f"({path.relative_to(run.files.folder_output)})"
            )
            raise OutputError(what, source=run.files.folder_output, remedy=REMEDY)
    for path, record in records:
        if what := _differs(run, record):
            search = record["settings"].get("search", {})
            which = "run" if search == run.identity.entries["search"] else "search"
            what = (
                f"holds results of another {which} "
                f"({path.relative_to(run.files.folder_output)}): {what}"
            )
            raise OutputError(what, source=run.files.folder_output, remedy=REMEDY)


def has_displacements(run: Run) -> bool:
    """Whether the displacements of the run stand in their file, whole."""
    try:
        return _same(load_displacements(run.files.displacements), run.displacements)
    except InputFileError:
        return False


def holds_results(run: Run) -> bool:
    """Whether there are results at all."""
    return any(run.files.folder_output.glob("template*/done/*.json"))


def _identity(run: Run) -> dict[str, Any]:
    """Everything that must be the same for all runs that write here; of particles, their first
    stack stands for all."""
    k = min(run.images)
    names = sorted({str(one.get("name")) for one in run.inputs.images[k]})
    structures = brief(run.structure_names)
    return {
        **run.identity.entries,
        "structures": structures,
        f"image stack {k}": {"n_images": len(run.images[k]), "made_from": brief(names)},
    }


def _records(run: Run) -> list[tuple[Path, dict[str, Any]]]:
    """Records that can be believed: others describe nothing, and are written again."""
    paths = sorted(run.files.folder_output.glob("template*/done/*.json"))
    return [(path, record) for path in paths if (record := readable_record(path)) is not None]


def _differs(run: Run, record: Mapping[str, Any]) -> str:
    """Say why the results that a record describes cannot be of this run; empty if they can."""
    if other := differences(record["settings"], run.identity.entries):
        return other
    i, k, shape = record["i_template"], record["i_stack"], record["shape"]
    if i is None or k is None:
        return ""
    if i >= run.n_structures:
        return f"{record['structure']} is structure {i} there, {run.n_structures} structure(s) here"
    if k >= run.n_stacks:
        return f"image stack {k} there, {run.n_stacks} image stack(s) here"
    if i in run.templates and record["structure"] != run.templates[i].structure:
        return f"structure {i} is {record['structure']} there, {run.templates[i].structure} here"
    if k in run.images and shape[0] != len(run.images[k]):
        return f"image stack {k} has {shape[0]} images there, {len(run.images[k])} here"
    if i not in run.templates or k not in run.images:
        return ""
    return _other_inputs(record["inputs"], run.inputs.of(i, k))


def _other_inputs(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> str:
    """Say which inputs differ, by name: files of one name may have been made again."""
    their_names, our_names = (
        {str(entry.get("name")) for entry in inputs} for inputs in (theirs, ours)
    )
    if their_names == our_names:
        return ""
    only_there, only_here = (
        ", ".join(sorted(names)) or "less"
        for names in (their_names - our_names, our_names - their_names)
    )
    return f"made from {only_there} there, {only_here} here"


def _results_of_another_program(files: LikelihoodFiles) -> Iterator[Path]:
    """Results, if there is nothing of what a run of this program writes before them."""
    if not any(files.origins(0).parent.glob("*.npz")):
        yield from files.folder_output.glob("template*/*/*_stack_??????.pt")


def _refuse_displacements(run: Run) -> None:
    """Refuse results without records whose displacements are others; without results, they are
    of no run."""
    path = run.files.displacements
    if not path.is_file() or not any(run.files.folder_output.glob(RESULTS)):
        return
    try:
        written = load_displacements(path)
    except InputFileError as error:
        raise OutputError(str(error), remedy=REMEDY) from error
    if not _same(written, run.displacements):
        what = (
            f"holds results of another search: {written.shape[1]} displacements up to "
            f"{np.abs(written).max():g} angstrom"
        )
        ours = f"{run.displacements.shape[1]} up to {np.abs(run.displacements).max():g} angstrom"
        raise OutputError(
            f"{what}; this run has {ours}", source=run.files.folder_output, remedy=REMEDY
        )


def _same(written: NDArray[np.float64], wanted: NDArray[np.float64]) -> bool:
    return written.shape == wanted.shape and bool(np.abs(written - wanted).max() < SAME_ANGSTROM)


def _remove_others(run: Run) -> None:
    """Remove what `refuse_others` refuses."""
    records = _records(run)
    for path, record in records:
        if _differs(run, record):
            _remove_results(path, record)
    if not records:
        for path in _results_of_another_program(run.files):
            path.unlink(missing_ok=True)


def _remove_results(path: Path, record: Mapping[str, Any]) -> None:
    """Remove a record, unless another run has written it anew, and the outputs that it lists, of
    its structure."""
    if readable_record(path) != record:
        return
    path.unlink(missing_ok=True)
    names = {output["file"] for output in record["outputs"].values()}
    for file in path.parent.parent.glob(f"*/*{FILE_SUFFIX}"):
        if file.name in names:
            file.unlink(missing_ok=True)
    for store in path.parent.parent.glob(f"*/*{STORE_SUFFIX}"):
        if store.name in names:
            shutil.rmtree(store, ignore_errors=True)
    if not any(path.parent.glob("*.json")):
        (path.parent.parent / STRUCTURE_FILE).unlink(missing_ok=True)
