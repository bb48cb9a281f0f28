"""What a run will do, before it does anything: its inputs, all open and checked; its jobs; and
whether they fit."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.device import resolve_device
from cryolike_dask.conventions import ConventionsName, conventions_named
from cryolike_dask.errors import GridMismatchError, InputError, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.archives import read_list
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.io.jobs import Job
from cryolike_dask.io.layout import (
    LikelihoodFiles,
    Templates,
    image_stack_numbers,
    need_files,
    structure_of,
)
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.records import FolderSettings
from cryolike_dask.likelihoods.graph import (
    check_comparable,
    check_device,
    notes_on,
    resolved_precision,
    resolved_tolerance,
)
from cryolike_dask.likelihoods.interface import Device, Precision
from cryolike_dask.likelihoods.setup import realised_table
from cryolike_dask.stacks import (
    ImageStack,
    TemplateStack,
    note_left_out,
    open_image_stacks,
    open_template_file,
)

logger = logging.getLogger("cryolike_dask")

Displacer = Callable[[TemplateStack], TemplateStack]


FULL_CORRELATION_COPIES = 2.5
"""Memory that writing a full cross-correlation takes, in units of its size: its chunks, and the
whole of them."""

TASKS_PER_WORKER = 4
"""Blocks per worker that a run is cut into when there are fewer stacks than that."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run whose inputs are all open and checked. Nothing is written or computed yet.

    `images` and `templates` are keyed by stack and structure number, and so is what each was made
    from (`inputs`); `settings` is what must be the same throughout an output folder;
    `n_structures`, `n_stacks` and `n_images` is how many the inputs have, whether the run covers
    all of them or not; images in files that it leaves out are not counted (None). A full
    cross-correlation that is larger than `largest_file_bytes` is not written as a file, but as a
    store, region by region.
    """

    files: LikelihoodFiles
    images: dict[int, ImageStack]
    templates: dict[int, TemplateStack]
    options: dict[str, Any]
    settings: FolderSettings
    inputs: dict[str, dict[int, list[InputDescription]]]
    displacements: NDArray[np.float64]
    structure_names: tuple[str, ...]
    n_stacks: int
    n_images: int | None
    largest_file_bytes: float = math.inf

    @property
    def n_structures(self) -> int:
        """Of the inputs, whether the run covers all of them or not."""
        return len(self.structure_names)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(structure, stack) in the order of work: structures are the outer loop."""
        return ((i, k) for i in self.templates for k in self.images)

    def note_left_out(self) -> None:
        """Say how many stacks the run takes, where it leaves some out."""
        note_left_out(
            len(self.images), self.n_stacks, sum(map(len, self.images.values())), self.n_images
        )

    def n_parts(self, n_workers: int) -> int:
        """Blocks, at least, that each stack under a structure is cut into, so that every worker
        gets some; 0: alone."""
        return (
            math.ceil(TASKS_PER_WORKER * n_workers / (len(self.images) * len(self.templates))) or 1
        )

    def in_batches(self, n_templates: int | None, n_images: int | None) -> Run:
        """Give the same run with these tiles inside its tasks."""
        images = {k: replace(stack, n_per_batch=n_images) for k, stack in self.images.items()}
        templates = {
            i: replace(stack, n_per_batch=n_templates) for i, stack in self.templates.items()
        }
        return replace(self, images=images, templates=templates)

    def in_memory(self, n_bytes: int) -> Run:
        """Give the same run for workers with so much memory."""
        return replace(self, largest_file_bytes=n_bytes / FULL_CORRELATION_COPIES)

    def job(
        self,
        kind: str,
        folders: dict[str, str],
        shape: tuple[int, ...],
        i_template: int,
        i_stack: int,
    ) -> Job:
        """Say what one stack under one structure reads and writes."""
        templates = self.templates[i_template]
        return Job(
            kind=kind,
            name=f"template{i_template}-stack_{i_stack:06d}",
            about={"i_template": i_template, "i_stack": i_stack, "structure": templates.structure},
            outputs={
                v: self.files.output(i_template, v, folder, i_stack)
                for v, folder in folders.items()
            },
            shape=shape,
            record=self.files.record(i_template, i_stack, kind),
            settings=self.settings,
            precision=resolved_precision(templates, self.options["precision"]),
            inputs=[*self.inputs["templates"][i_template], *self.inputs["images"][i_stack]],
        )


def open_run(
    file_config: LikelihoodFiles,
    params_input: str | Path | ImageParameters,
    displacer: Displacer,
    i_template: Templates | None,
    n_stacks: int | None,
    conventions: ConventionsName,
    device: Device,
    precision: Precision,
    tolerance: float | None,
    given_images: ImageStack | None,
    given_templates: TemplateStack | Sequence[TemplateStack] | None,
) -> Run:
    """Open every input and hold them against each other, so that no run fails late for what
    headers can tell."""
    need_files(file_config)
    if not callable(displacer):
        raise InputError(
            f"displacer={displacer!r} cannot be called",
            remedy="Make it with configure_displacement.",
        )
    parameters, values = read_parameters(params_input), conventions_named(conventions)
    check_device(device)
    if tolerance is not None:
        tolerance = resolved_tolerance(tolerance, precision)
    if device == "cuda":
        resolve_device(device)
    files = file_config
    if i_template is not None:
        files = replace(files, i_template=i_template)
    if n_stacks is not None:
        files = replace(files, n_stacks=n_stacks)
    images = _images(files, parameters, given_images)
    templates = {
        i: _displaced(displacer, t)
        for i, t in _templates(files, parameters, given_templates).items()
    }
    for stack in templates.values():
        if stack.grid != parameters.grid:
            raise GridMismatchError(
                f"templates lie on {stack.grid}, but the parameters describe {parameters.grid}"
            )
    for images_of_one in images.values():
        check_comparable(images_of_one, next(iter(templates.values())), values)
    different = {(s.frame, s.source.dtype): s for s in images.values()}.values()
    notes = {
        n
        for t in templates.values()
        for s in different
        for n in notes_on(s, t, conventions, precision)
    }
    for note in sorted(notes):
        logger.warning(note)
    tables = [realised_table(t.displacements, values) for t in templates.values()]
    if any(t.shape != tables[0].shape or (t != tables[0]).any() for t in tables):
        raise InputError("the displacer gives different displacements for different structures")
    structure_names, n_stacks = _what_there_is(files, given_templates, given_images)
    if given_images is not None:
        files = replace(files, n_stacks=len(images))
    if given_templates is not None and files.i_template == "all":
        files = replace(files, i_template=list(templates))
    return Run(
        files=files,
        images=images,
        templates=templates,
        options={
            "conventions": conventions,
            "device": device,
            "precision": precision,
            "tolerance": tolerance,
        },
        settings=_settings(tables[0], parameters, conventions, tolerance),
        inputs={
            "templates": {i: t.source.describe(np.arange(len(t))) for i, t in templates.items()},
            "images": {k: s.source.describe(np.arange(len(s))) for k, s in images.items()},
        },
        displacements=tables[0],
        structure_names=structure_names,
        n_stacks=n_stacks,
        n_images=None if given_images is None else len(given_images),
    )


def _images(
    files: LikelihoodFiles, parameters: ImageParameters, given: ImageStack | None
) -> dict[int, ImageStack]:
    """The image stacks of the files, or each chunk of the images given as a stack."""
    if given is None:
        return open_image_stacks(files, parameters)
    if not isinstance(given, ImageStack):
        raise InputError(
            f"images are a {type(given).__name__}", remedy="Give an ImageStack: open_particles."
        )
    if files.folder_particles is not None:
        raise InputError(
            f"images are given, and folder_particles={files.folder_particles} too",
            remedy="Configure the files with folder_particles=None, or leave images out.",
        )
    ends = np.cumsum(given.chunks)
    n = (
        len(ends)
        if files.n_stacks is None
        else number("n_stacks", files.n_stacks, whole=True, at_least=1)
    )
    if n > len(ends):
        raise InputError(f"n_stacks={n}, but the images have {len(ends)} chunk(s)")
    return {k: given[ends[k] - given.chunks[k] : ends[k]] for k in range(n)}


def _templates(
    files: LikelihoodFiles,
    parameters: ImageParameters,
    given: TemplateStack | Sequence[TemplateStack] | None,
) -> dict[int, TemplateStack]:
    """The templates of the files, or those given, as far as `i_template` chooses them."""
    if given is None:
        paths = files.template_files()
        return {i: open_template_file(paths[i], parameters) for i in files.structures()}
    listed = [given] if isinstance(given, TemplateStack) else list(given)
    if not listed or not all(isinstance(t, TemplateStack) for t in listed):
        raise InputError(
            "templates are not TemplateStacks",
            remedy="Give what open_structures or open_templates give.",
        )
    if files.folder_templates is not None:
        raise InputError(
            f"templates are given, and folder_templates={files.folder_templates} too",
            remedy="Configure the files with folder_templates=None, or leave templates out.",
        )
    return {
        i: listed[i] for i in files.chosen(len(listed), f"the {len(listed)} structure(s) given")
    }


def _what_there_is(
    files: LikelihoodFiles,
    templates: TemplateStack | Sequence[TemplateStack] | None,
    images: ImageStack | None,
) -> tuple[tuple[str, ...], int]:
    """The names of all structures, and how many stacks there are."""
    if templates is None:
        names = tuple(structure_of(Path(name)) for name in read_list(files.template_list))
    else:
        names = tuple(
            t.structure
            for t in ([templates] if isinstance(templates, TemplateStack) else templates)
        )
    if images is not None:
        return names, len(images.chunks)
    folder = files.folder_particles
    return names, 0 if folder is None else max(image_stack_numbers(folder), default=0) + 1


def _displaced(displacer: Displacer, templates: TemplateStack) -> TemplateStack:
    displaced = displacer(templates)
    if not isinstance(displaced, TemplateStack):
        raise InputError(
            f"the displacer gives a {type(displaced).__name__} for a TemplateStack",
            remedy="Let it give the templates with other displacements, as "
            "configure_displacement's does.",
        )
    return displaced


def _settings(
    displacements: NDArray[np.float64],
    parameters: ImageParameters,
    conventions: ConventionsName,
    tolerance: float | None,
) -> FolderSettings:
    """What must be the same for all results of a folder, in a form that JSON keeps exactly."""
    rounded = np.round(displacements, 4) + 0.0  # no negative zero
    return {
        "search": {
            "n_displacements": displacements.shape[1],
            "max_displacement_angstrom": float(np.abs(rounded).max()),
            "sha256": hashlib.sha256(np.ascontiguousarray(rounded).tobytes()).hexdigest(),
        },
        "parameters": asdict(parameters.grid),
        "conventions": conventions,
        "tolerance": tolerance,
    }
