"""Templates in files: projected part by part, so that memory does not grow with their number."""

from __future__ import annotations

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

from cryolike_dask.compute.block_reports import announce_part
from cryolike_dask.compute.device import active_client
from cryolike_dask.compute.stream import WorkItem, stream, task
from cryolike_dask.conventions import STANDARD, ConventionsName
from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.archives import read_list, write_list
from cryolike_dask.io.claims import brief
from cryolike_dask.io.jobs import (
    Job,
    job_states,
    make_room,
    why_not_done,
    withdraw_record,
    write_record,
)
from cryolike_dask.io.layout import (
    PARAMETERS,
    TEMPLATE_LIST,
    is_of_templates,
    metadata_file,
    template_file,
    template_record,
)
from cryolike_dask.io.output_folder import OutputFolder
from cryolike_dask.io.parameters import read_parameters, write_parameters
from cryolike_dask.io.stacks import write_template_stack
from cryolike_dask.labels import Models
from cryolike_dask.stacks import TemplateStack
from cryolike_dask.structures.accounts import say
from cryolike_dask.structures.opening import StructureInput, look_at_structures
from cryolike_dask.version import __version__

BYTES_PER_TASK = 2**25
LONGEST_NAME = 190
"""Bytes; file systems take 255, and the parts of a template file are named by 61 more."""
KIND = "templates"


def make_templates(
    structures: StructureInput | Sequence[StructureInput],
    params_input: str | Path | ImageParameters,
    folder_output: str | Path,
    *,
    models: Models = "first",
    viewing: ViewingAngles | None = None,
    conventions: ConventionsName = "standard",
    voxel_size_angstrom: float | None = None,
    skip_exist: bool = False,
    overwrite: bool = False,
    client: Client | None = None,
    progress: bool = True,
) -> list[Path]:
    """Make template files from structures.

    Writes `templates_fourier_NAME.pt` for each structure, a small `.npz` beside each that says what
    it was made from, `template_file_list.npy` and `parameters.npz`. The list names files below
    `folder_output` as it is given: CryoLike finds them when it is started in the folder that was
    the current one.

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
    voxel_size_angstrom : float, optional
        Of maps and arrays, in place of what the header says, or of the size of the pixels.
    skip_exist : bool
        Leave templates alone that are complete and came from these very inputs and parameters;
        otherwise they are replaced.
    overwrite : bool
        Replace templates of other structures or parameters in the output folder.
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
        If a structure is missing, damaged or empty, or nothing in it is selected; before anything
        is written.
    OutputError
        If the output folder holds templates of other structures or parameters, or another call
        writes there.
    """
    client = active_client(client)
    parameters, folder = read_parameters(params_input), Path(folder_output)
    stacks, accounts = look_at_structures(
        structures,
        parameters,
        models=models,
        viewing=viewing,
        conventions=conventions,
        voxel_size_angstrom=voxel_size_angstrom,
    )
    _refuse_long_names([stack.structure for stack in stacks])
    files = [template_file(folder, stack.structure) for stack in stacks]
    jobs = [_job(stack, parameters, folder, conventions) for stack in stacks]
    outputs = OutputFolder(
        folder,
        KIND,
        {"parameters": asdict(parameters), "files": brief([file.name for file in files])},
        partial(_refuse_others, folder, files, parameters),
        partial(_remove_others, folder, files),
    )

    def jobs_to_do() -> list[tuple[TemplateStack, Job]]:
        states = job_states(
            zip(stacks, jobs, strict=True),
            skip_exist=skip_exist,
            becomes="made",
            done="template files are complete",
        )
        return [(stack, job) for stack, job, is_done in states if not is_done]

    with outputs.claimed(
        lambda: [*jobs_to_do(), *_unlisted(folder, files)],
        skip_exist=skip_exist,
        overwrite=overwrite,
    ) as claim:
        say(accounts)
        if claim is not None:
            to_do = jobs_to_do()
            write_parameters(folder / PARAMETERS, parameters)
            claimed_jobs = [(stack, replace(job, claim=claim)) for stack, job in to_do]
            _make(claimed_jobs, parameters, client, progress)
            write_list(folder / TEMPLATE_LIST, [str(file) for file in files])
    return files


def _refuse_long_names(names: Sequence[str]) -> None:
    """Refuse names of which no template file, and none of its forerunners, can be made."""
    long = [name for name in names if len(os.fsencode(name)) > LONGEST_NAME]
    if long:
        raise InputError(
            f"{len(long)} name(s) of structures are longer than {LONGEST_NAME} bytes: "
            f"{long[0][:60]}...",
            remedy="Files of templates are named after them: rename the structures.",
        )


def _make(
    to_do: list[tuple[TemplateStack, Job]],
    parameters: ImageParameters,
    client: Client | None,
    progress: bool,
) -> None:
    """Make template files, each by way of a scratch file."""
    items, scratches = [], []
    for stack, job in to_do:
        scratch = job.outputs["templates"].with_name(f".{job.name}.{uuid.uuid4().hex}.part")
        items.append(
            WorkItem(
                job.name, len(stack), partial(_graph, stack, parameters, job, scratch), job.name
            )
        )
        scratches.append(scratch)
    try:
        n_templates = sum(item.n_images for item in items)
        stream(items, client, n_images=n_templates, progress=progress, title="templates")
    finally:
        for scratch in scratches:
            with suppress(OSError):
                scratch.unlink()


def _job(
    stack: TemplateStack, parameters: ImageParameters, folder: Path, conventions: ConventionsName
) -> Job:
    file = template_file(folder, stack.structure)
    return Job(
        kind="templates",
        name=f"templates-{stack.structure}",
        about={"structure": stack.structure},
        outputs={"templates": file, "description": metadata_file(file)},
        shape=stack.source.shape,
        record=template_record(file),
        settings={"parameters": asdict(parameters.grid), "conventions": conventions},
        precision="single" if stack.source.dtype == "complex64" else "double",
        inputs=stack.source.describe(np.arange(len(stack))),
    )


def _refuse_others(folder: Path, files: list[Path], parameters: ImageParameters) -> None:
    """Refuse to mix with, or to replace, templates of other structures or parameters."""
    remedy = "Choose another output folder, or pass overwrite=True (--overwrite) to replace them."
    if (folder / PARAMETERS).is_file() and read_parameters(folder / PARAMETERS) != parameters:
        raise OutputError("holds other parameters", source=folder / PARAMETERS, remedy=remedy)
    if not (folder / TEMPLATE_LIST).is_file():
        return
    listed = _listed(folder) or ["an unreadable list"]
    if not set(listed) <= {file.name for file in files}:
        raise OutputError(
            f"holds templates already: {', '.join(listed[:5])}", source=folder, remedy=remedy
        )


def _listed(folder: Path) -> list[str]:
    """The names of the templates in a folder; none if the list cannot be read."""
    try:
        return [Path(name).name for name in read_list(folder / TEMPLATE_LIST)]
    except InputFileError:
        return []


def _unlisted(folder: Path, files: list[Path]) -> list[Path]:
    """Files that a folder lacks besides templates."""
    lacking = [] if _listed(folder) == [file.name for file in files] else [folder / TEMPLATE_LIST]
    return lacking if (folder / PARAMETERS).is_file() else [*lacking, folder / PARAMETERS]


def _remove_others(folder: Path, files: list[Path]) -> None:
    """Remove the list of templates, and of those that it names in this folder, those that are
    not made again."""
    listed = _listed(folder)
    (folder / TEMPLATE_LIST).unlink(missing_ok=True)
    for name in set(listed) - {file.name for file in files}:
        old = folder / name
        if is_of_templates(old):
            for path in (template_record(old), old, metadata_file(old)):
                path.unlink(missing_ok=True)


def _graph(stack: TemplateStack, parameters: ImageParameters, job: Job, scratch: Path) -> Delayed:
    """Tasks that write parts into one scratch file, and one that makes the template file of it."""
    per_template = math.prod(stack.source.shape[1:]) * np.dtype(stack.source.dtype).itemsize
    step = max(1, BYTES_PER_TASK // per_template)
    make_room(job)
    with open(scratch, "xb") as file:
        file.truncate(len(stack) * per_template)
    parts = []
    for k, start in enumerate(range(0, len(stack), step)):
        rows = np.arange(start, min(start + step, len(stack)))
        parts.append(
            task(
                f"project-{job.name}-{k:06d}", _project_part, stack.source, rows, job, str(scratch)
            )
        )
    return task(f"write-{job.name}", _finish, parts, stack, parameters, job, str(scratch))


def _project_part(source: Any, rows: np.ndarray[Any, Any], job: Job, scratch: str) -> int:
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
            f"cannot be written: {error.strerror or error}",
            source=scratch,
            remedy="Make room on the disk.",
        ) from error
    return len(rows)


def _finish(
    parts: list[int], stack: TemplateStack, parameters: ImageParameters, job: Job, scratch: str
) -> int:
    """Make the template file of the scratch file, mapped and never all in memory; the record
    last."""
    if _made_already(job, scratch):
        return sum(parts)
    shape = stack.source.shape
    withdraw_record(job)
    values = np.memmap(scratch, stack.source.dtype, mode="c", shape=shape)
    write_template_stack(
        job.outputs["templates"],
        values,
        stack.viewing,
        parameters,
        stack.conventions or STANDARD.name,
        {"structure": stack.structure, "source": json.dumps(job.inputs)},
    )
    write_record(job, {"version": __version__})
    with suppress(OSError):
        os.unlink(scratch)
    return sum(parts)


def _made_already(job: Job, scratch: str) -> bool:
    """Whether a worker finished the job, removed the scratch file, and was lost before it could
    say so."""
    return not os.path.exists(scratch) and why_not_done(job) is None
