"""Templates in files: projected piece by piece, so that memory does not grow with their number."""

from __future__ import annotations

import itertools
import json
import math
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dask.delayed import Delayed
from distributed import Client

from cryolike_dask import __version__
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.execution import Piece, active_client, stream, task
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.archives import read_list, write_list
from cryolike_dask.io.layout import PARAMETERS, TEMPLATE_LIST, template_file
from cryolike_dask.io.parameters import read_parameters, write_parameters
from cryolike_dask.io.records import Job, need_folder, still_to_do, why_not_done, write_record
from cryolike_dask.io.stacks import write_template_stack
from cryolike_dask.likelihoods.telling import announce_part
from cryolike_dask.stacks import TemplateStack
from cryolike_dask.structures.opening import Models, StructureInput, open_structures

BYTES_PER_TASK = 2**25


def make_templates(
    structures: StructureInput | Sequence[StructureInput],
    params_input: str | Path | ImageParameters,
    folder_output: str | Path,
    *,
    models: Models = "first",
    viewing: ViewingAngles | None = None,
    conventions: ConventionsName = "standard",
    skip_exist: bool = False,
    overwrite: bool = False,
    client: Client | None = None,
    progress: bool = True,
) -> list[Path]:
    """Make template files from structures.

    Writes `templates_fourier_NAME.pt` for each structure, a small `.npz` beside each that says what it was made from,
    `template_file_list.npy` and `parameters.npz`.

    Parameters
    ----------
    structures : path, array, Atoms, Volume, folder, or several of these
        As for `open_structures`.
    params_input : path or ImageParameters
        `parameters.npz`, or its content.
    folder_output : path
    models : "first" | "all"
        The first model of each PDB or mmCIF file, or each model as a structure of its own.
    viewing : ViewingAngles, optional
        Directions and weights; default: the grid of the parameters.
    conventions : "standard" | "cryolike"
        "cryolike" makes the templates that CryoLike makes from the same files.
    skip_exist : bool
        Leave templates alone that are complete and came from these very inputs and parameters.
    overwrite : bool
        Replace the templates in the output folder.
    client : distributed.Client, optional
        Where to run; default: the current client, or else the threaded scheduler of this process.
    progress : bool
        Show a bar on a terminal or in a notebook.

    Returns
    -------
    list of Path
        The template files in the order of the structures, which is that of `i_template`.

    Raises
    ------
    InputError, InputFileError
        If a structure is missing, damaged or empty, or nothing in it is selected; before anything is written.
    OutputError
        If the output folder holds other templates.
    """
    client = active_client(client)
    parameters, folder = read_parameters(params_input), Path(folder_output)
    stacks = open_structures(structures, parameters, models=models, viewing=viewing, conventions=conventions)
    names = _distinct([stack.structure for stack in stacks])
    stacks = [replace(stack, structure=name) for stack, name in zip(stacks, names, strict=True)]
    files = [template_file(folder, stack.structure) for stack in stacks]
    jobs = [_job(stack, parameters, folder) for stack in stacks]
    _claim(folder, files, parameters, keep=skip_exist, overwrite=overwrite)
    _remove_leftovers(folder, {job.name for job in jobs})
    to_do = still_to_do(
        dict(enumerate(jobs)), skip_exist=skip_exist, becomes="made", done="template files are complete"
    )
    write_parameters(folder / PARAMETERS, parameters)
    scratch = {i: folder.absolute() / f".{jobs[i].name}.{uuid.uuid4().hex}.part" for i in to_do}
    graphs = [
        Piece(jobs[i].name, len(stacks[i]), partial(_graph, stacks[i], parameters, jobs[i], scratch[i]), jobs[i].name)
        for i in to_do
    ]
    try:
        n_templates = sum(piece.n_images for piece in graphs)
        stream(graphs, client, n_images=n_templates, progress=progress, title="templates")
    finally:
        for path in scratch.values():
            with suppress(OSError):
                path.unlink()
    write_list(folder / TEMPLATE_LIST, [file.name for file in files])
    return files


def _distinct(names: Sequence[str]) -> list[str]:
    """Names made distinct by a counter: x, x_1, x_2."""
    distinct: dict[str, None] = {}
    for name in names:
        candidates = (name if i == 0 else f"{name}_{i}" for i in itertools.count())
        distinct[next(c for c in candidates if c not in distinct)] = None
    return list(distinct)


def _job(stack: TemplateStack, parameters: ImageParameters, folder: Path) -> Job:
    file = template_file(folder, stack.structure)
    return Job(
        kind="templates",
        name=f"templates-{stack.structure}",
        about={"structure": stack.structure},
        outputs={"templates": file, "description": file.with_suffix(".npz")},
        shape=stack.source.shape,
        record=folder / "done" / f"{file.stem}.json",
        settings={"parameters": asdict(parameters.grid), "conventions": stack.conventions},
        precision="single" if stack.source.dtype == "complex64" else "double",
        inputs=stack.source.describe(np.arange(len(stack))),
    )


def _claim(folder: Path, files: list[Path], parameters: ImageParameters, *, keep: bool, overwrite: bool) -> None:
    """Refuse to mix with, or to replace, the templates of another call; with `overwrite`, remove what would be left."""
    need_folder(folder)
    if overwrite:
        _remove_others(folder, files)
        return
    remedy = "Choose another output folder, or pass overwrite=True (--overwrite) to replace them."
    if (folder / PARAMETERS).is_file() and read_parameters(folder / PARAMETERS) != parameters:
        raise OutputError("holds other parameters", source=folder / PARAMETERS, remedy=remedy)
    if not (folder / TEMPLATE_LIST).is_file():
        return
    try:
        listed = [Path(name).name for name in read_list(folder / TEMPLATE_LIST)]
    except InputFileError:
        listed = ["an unreadable list"]
    if not keep or not set(listed) <= {file.name for file in files}:
        raise OutputError(f"holds templates already: {', '.join(listed[:5])}", source=folder, remedy=remedy)


def _remove_others(folder: Path, files: list[Path]) -> None:
    """Remove the list of templates, and of those that it names in this folder, those that are not made again."""
    try:
        listed = [Path(name).name for name in read_list(folder / TEMPLATE_LIST)]
    except InputFileError:
        listed = []
    (folder / TEMPLATE_LIST).unlink(missing_ok=True)
    for name in set(listed) - {file.name for file in files}:
        if name.startswith("templates_fourier_"):
            old = folder / name
            for path in (folder / "done" / f"{old.stem}.json", old, old.with_suffix(".npz")):
                path.unlink(missing_ok=True)


def _remove_leftovers(folder: Path, names: set[str]) -> None:
    """Remove the scratch files that a killed process left of these jobs."""
    for path in folder.glob(".*.part"):
        if path.name[1:].rsplit(".", 2)[0] in names:
            path.unlink(missing_ok=True)


def _graph(stack: TemplateStack, parameters: ImageParameters, job: Job, scratch: Path) -> Delayed:
    """Tasks that write pieces into one scratch file, and one that makes the template file of it."""
    per_template = math.prod(stack.source.shape[1:]) * np.dtype(stack.source.dtype).itemsize
    step = max(1, BYTES_PER_TASK // per_template)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    with open(scratch, "xb") as file:
        file.truncate(len(stack) * per_template)
    pieces = []
    for k, start in enumerate(range(0, len(stack), step)):
        rows = np.arange(start, min(start + step, len(stack)))
        pieces.append(task(f"project-{job.name}-{k:06d}", _project_piece, stack.source, rows, job, str(scratch)))
    return task(f"write-{job.name}", _finish, pieces, stack, parameters, job, str(scratch))


def _project_piece(source: Any, rows: np.ndarray[Any, Any], job: Job, scratch: str) -> int:
    """Project some templates into their place in the scratch file."""
    if _made_already(job, scratch):
        return len(rows)
    values = source.take(rows)
    try:
        with open(scratch, "r+b") as file:
            file.seek(int(rows[0]) * values[0].nbytes)
            values.tofile(file)
        announce_part(job.name, (int(rows[0]),), len(rows))
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}", source=scratch, remedy="Make room on the disk."
        ) from error
    return len(rows)


def _finish(pieces: list[int], stack: TemplateStack, parameters: ImageParameters, job: Job, scratch: str) -> int:
    """Make the template file of the scratch file, mapped and never all in memory; the record last."""
    if _made_already(job, scratch):
        return sum(pieces)
    shape = stack.source.shape
    job.record.unlink(missing_ok=True)
    values = np.memmap(scratch, stack.source.dtype, mode="c", shape=shape)
    write_template_stack(
        job.outputs["templates"],
        values,
        stack.viewing,
        parameters,
        stack.conventions or "standard",
        {"structure": stack.structure, "source": json.dumps(job.inputs)},
    )
    write_record(job, {"version": __version__})
    with suppress(OSError):
        os.unlink(scratch)
    return sum(pieces)


def _made_already(job: Job, scratch: str) -> bool:
    """Whether a worker finished the job, removed the scratch file, and was lost before it could say so."""
    return not os.path.exists(scratch) and why_not_done(job) is None
