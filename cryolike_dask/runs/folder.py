"""Whether an output folder may take the results of a run: nothing is mixed with others, or replaced
unasked.

What must be the same for all runs that write into a folder at one time is its claim (`io/claims`).
What the folder holds already is told by its records.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.claims import brief, differences
from cryolike_dask.io.layout import (
    FILE_SUFFIX,
    METADATA_SUFFIX,
    RECORDS_OF_RESULTS,
    RESULT_TENSORS,
    RESULTS,
    STORE_SUFFIX,
    STRUCTURE_FILE,
    LikelihoodFiles,
)
from cryolike_dask.io.output_folder import OutputFolder
from cryolike_dask.io.records import Record, other_names, readable_record
from cryolike_dask.io.tensors import load_displacements
from cryolike_dask.runs.kinds import Kind
from cryolike_dask.runs.noise_of_run import (
    OF_NOISE,
    claimed_noise,
    noise_difference,
    settle_noise,
)
from cryolike_dask.runs.run import Run
from cryolike_dask.runs.search_of_run import OF_SEARCH, search_difference, settle_search

KIND = "results"
REMEDY = (
    "Choose another output folder, or pass overwrite=True (--overwrite) to replace those results."
)
SAME_ANGSTROM = 1e-3


def settled(run: Run, kind: Kind, *, starts_anew: bool = False) -> Run:
    """Give the same run with what its folder has a say in: what noise is taken for, as far as that
    is known by now, and how poses are searched.

    Parameters
    ----------
    run : Run
    kind : Kind
        Of its results.
    starts_anew : bool
        What lies there does not count, for it is replaced.

    Raises
    ------
    InputError, InputFileError
        If what is asked for cannot be used.
    """
    run = settle_noise(run, records_there(run), starts_anew=starts_anew)
    return settle_search(run, kind, records_there(run), starts_anew=starts_anew)


def output_folder(run: Run) -> OutputFolder:
    """The output folder of a run, which may claim it."""
    return OutputFolder(
        run.files.folder_output,
        KIND,
        _identity(run),
        refuse_others=partial(refuse_others, run),
        remove_others=partial(remove_others, run),
    )


def refuse_others(run: Run) -> None:
    """Refuse results of another search, structures, particles or conventions."""
    records = _records(run)
    if not records:
        _refuse_displacements(run)
        _refuse_noise(run)
        for path in _results_of_another_program(run.files):
            what = (
                f"holds results that this program did not write "
                f"({path.relative_to(run.files.folder_output)})"
            )
            raise OutputError(what, source=run.files.folder_output, remedy=REMEDY)
    for path, record in records:
        if what := _differs(run, record):
            search = record["settings"].get("search", {})
            which = "run" if search == run.identity["search"] else "search"
            if which == "run" and what == noise_difference(record["settings"], run.identity):
                which = "noise model"
            if which == "run" and what == search_difference(run, record):
                which = "search"
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
    return any(run.files.folder_output.glob(RECORDS_OF_RESULTS))


def _identity(run: Run) -> dict[str, object]:
    """Everything that must be the same for all runs that write here; of particles, their first
    stack stands for all."""
    k = min(run.images)
    names = sorted({str(one.get("name")) for one in run.inputs.images[k]})
    structures = brief(run.structure_names)
    return {
        **run.identity,
        "noise": claimed_noise(run.identity),
        "search method": str(run.settings.search),
        "structures": structures,
        f"image stack {k}": {"n_images": len(run.images[k]), "made_from": brief(names)},
    }


def records_there(run: Run) -> Iterator[Record]:
    """Records of results that can be believed, one after the other."""
    paths = sorted(run.files.folder_output.glob(RECORDS_OF_RESULTS))
    return (record for path in paths if (record := readable_record(path)) is not None)


def _records(run: Run) -> list[tuple[Path, Record]]:
    """Records that can be believed: others describe nothing, and are written again."""
    paths = sorted(run.files.folder_output.glob(RECORDS_OF_RESULTS))
    return [(path, record) for path in paths if (record := readable_record(path)) is not None]


def _differs(run: Run, record: Record) -> str:
    """Say why the results that a record describes cannot be of this run; empty if they can."""
    settled_apart = (*OF_NOISE, OF_SEARCH)
    identity = {name: value for name, value in run.identity.items() if name not in settled_apart}
    if other := differences(record["settings"], identity):
        return other
    if other := noise_difference(record["settings"], run.identity):
        return other
    if other := search_difference(run, record):
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
    # by name alone: files of one name may have been made again
    return other_names(record["inputs"], run.inputs.of(i, k))


def _results_of_another_program(files: LikelihoodFiles) -> Iterator[Path]:
    """Results, if there is nothing of what a run of this program writes before them."""
    if not any(files.origins(0).parent.glob(f"*{METADATA_SUFFIX}")):
        yield from files.folder_output.glob(RESULT_TENSORS)


def _refuse_noise(run: Run) -> None:
    """Refuse a noise model of no results, where noise is taken as white."""
    if run.identity.get("noise") is None and run.files.noise.exists():
        raise OutputError(
            "is a noise model, but this run takes noise as white",
            source=run.files.noise,
            remedy='Remove it, or pass noise="estimate" (--noise), which takes it.',
        )


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


def remove_others(run: Run) -> None:
    """Remove what `refuse_others` refuses, and what was calibrated with it."""
    records = _records(run)
    if any(_differs(run, record) for _, record in records):
        run.files.calibration.unlink(missing_ok=True)
    for path, record in records:
        if _differs(run, record):
            _remove_results(path, record)
    if not records:
        for path in _results_of_another_program(run.files):
            path.unlink(missing_ok=True)


def _remove_results(path: Path, record: Record) -> None:
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
