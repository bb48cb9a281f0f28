"""A run before it does anything: its inputs, all open and checked; its identity; its jobs."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.device import real_dtype, resolve_device
from cryolike_dask.errors import GridMismatchError, InputError, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.search_method import AskedSearch
from cryolike_dask.io.archives import read_list
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.io.jobs import Job
from cryolike_dask.io.layout import (
    STORE_SUFFIX,
    LikelihoodFiles,
    image_stack_numbers,
    need_files,
    structure_of,
)
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.records import FolderSettings
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.labels import AUTO
from cryolike_dask.likelihoods.comparable import check_comparable, notes_on
from cryolike_dask.likelihoods.cutting import Cut, largest_first
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.settings import Settings, Tiling
from cryolike_dask.likelihoods.setup import realised_table
from cryolike_dask.runs.decoys import described, that_images_may_show
from cryolike_dask.runs.envelope import MOST_STRUCTURES
from cryolike_dask.runs.kinds import Kind
from cryolike_dask.runs.options import NoiseRequest
from cryolike_dask.stacks import (
    ImageStack,
    TemplateStack,
    note_left_out,
    one_or_several,
    open_image_stacks,
    open_template_file,
)

logger = logging.getLogger("cryolike_dask")

Displacer = Callable[[TemplateStack], TemplateStack]

OF_RINGS = "summed over rings"
"""How the power of images is known, where they tell it: log-likelihoods of other sums of it are not
to be compared with these."""

FULL_CORRELATION_COPIES = 2.5
"""Memory that writing a full cross-correlation takes, in units of its size: its chunks, and the
whole of them."""


@dataclass(frozen=True)
class RunInputs:
    """The files that each structure and each image stack of a run was made from, as records
    describe them."""

    templates: dict[int, list[InputDescription]]
    images: dict[int, list[InputDescription]]

    def of(self, i_template: int, i_stack: int) -> list[InputDescription]:
        """The files that one stack under one structure was made from."""
        return [*self.templates[i_template], *self.images[i_stack]]


@dataclass(frozen=True, eq=False)
class Run:
    """A run whose inputs are all open and checked. Nothing is written or computed yet.

    Attributes
    ----------
    files : LikelihoodFiles
    images, templates : dict
        By stack and by structure number.
    settings : Settings
    identity : FolderSettings
        Everything that must be the same for all results of an output folder.
    inputs : RunInputs
    displacements : ndarray, float64, (2, displacement)
        Angstrom.
    structure_names : tuple of str
        Of all structures of the inputs, whether the run covers all of them or not.
    n_stacks, n_images : int
        All that the inputs have; None: not counted, since stacks in files are left out.
    some_templates : callable
        Opens the templates of some structures, spread over all of the inputs, with their
        displacements.
    noise : NoiseRequest
    search_method : "exhaustive" | "adaptive" | "recorded" | "auto" | Around | None
        Before it is settled, what is asked for; then that of the run, None if it keeps every pose.
    largest_file_bytes : float
        A result that is larger is not written as a file, but as a store, region by region.
    discover_tiles : bool
        Choose tiles inside tasks instead of taking the stacks' batch sizes.
    """

    files: LikelihoodFiles
    images: dict[int, ImageStack]
    templates: dict[int, TemplateStack]
    settings: Settings
    identity: FolderSettings
    inputs: RunInputs
    displacements: NDArray[np.float64]
    structure_names: tuple[str, ...]
    n_stacks: int
    n_images: int | None
    some_templates: Callable[[], list[TemplateStack]]
    noise: NoiseRequest
    search_method: AskedSearch | None = None
    largest_file_bytes: float = math.inf
    discover_tiles: bool = False

    @property
    def n_structures(self) -> int:
        """Structures of the inputs, whether the run covers all of them or not."""
        return len(self.structure_names)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(structure, stack) in the order of work: structures are the outer loop, large ones come
        first, so that in the end workers wait for small ones."""
        images = largest_first(self.images)
        return ((i, k) for i in largest_first(self.templates) for k in images)

    def note_left_out(self) -> None:
        """Say how many stacks the run takes, where it leaves some out."""
        note_left_out(
            len(self.images), self.n_stacks, sum(map(len, self.images.values())), self.n_images
        )

    def cut(self, n_workers: int, device: str) -> Cut:
        """Cut stacks so that every worker gets some of them; 0 workers: this process."""
        return Cut(n_workers, len(self.images) * len(self.templates), device)

    def in_batches(self, tiling: Tiling) -> Run:
        """Give the same run with these tiles inside its tasks."""
        images = {k: replace(s, n_per_batch=tiling.n_images) for k, s in self.images.items()}
        templates = {
            i: replace(t, n_per_batch=tiling.n_templates) for i, t in self.templates.items()
        }
        return replace(self, images=images, templates=templates, discover_tiles=tiling.discover)

    def in_memory(self, n_bytes: int) -> Run:
        """Give the same run for workers with so much memory."""
        return replace(self, largest_file_bytes=n_bytes / FULL_CORRELATION_COPIES)

    def graph(self, kind: Kind, i_template: int, i_stack: int, cut: Cut) -> ComparisonGraph:
        """The graph of one stack under one structure."""
        images, templates = self.images[i_stack], self.templates[i_template]
        if self.settings.search != "exhaustive":
            images = cut.images_alone(images)
        elif not kind.keeps_every_pose:
            images, templates = cut.stacks(images, templates)
        # recorded poses are checked with the first stack of each structure
        settings = self.settings if i_stack == min(self.images) else self.settings.checked
        return kind.graph(images, templates, settings, self.discover_tiles, cut)

    def job(self, kind: Kind, i_template: int, i_stack: int) -> Job:
        """Say what one stack under one structure reads and writes."""
        images, templates = self.images[i_stack], self.templates[i_template]
        shape, precision = kind.shape(images, templates), self.settings.precision_with(templates)
        outputs = {
            variable: self.files.output(i_template, variable, folder, i_stack)
            for variable, folder in kind.folders_in(self.settings).items()
        }
        n_bytes = math.prod(shape) * real_dtype(precision).itemsize
        if kind.keeps_every_pose and n_bytes > self.largest_file_bytes:
            outputs = {name: path.with_suffix(STORE_SUFFIX) for name, path in outputs.items()}
        return Job(
            kind=kind.name,
            name=f"template{i_template}-stack_{i_stack:06d}",
            about={"i_template": i_template, "i_stack": i_stack, "structure": templates.structure},
            outputs=outputs,
            shape=shape,
            record=self.files.record(i_template, i_stack, kind.name),
            settings=self.identity,
            precision=precision,
            inputs=self.inputs.of(i_template, i_stack),
        )


def open_run(
    files: LikelihoodFiles,
    params_input: str | Path | ImageParameters,
    displacer: Displacer,
    settings: Settings,
    images: ImageStack | None = None,
    templates: TemplateStack | Sequence[TemplateStack] | None = None,
    noise: NoiseRequest | None = None,
    search_method: AskedSearch | None = None,
) -> Run:
    """Open every input and hold them against each other, so that no run fails late for what
    headers can tell.

    `images` and `templates` are given in place of those of the files. What is asked of the noise
    and of the search is kept, and not looked at further than to see whether conventions know it.
    """
    if search_method is not None and search_method != AUTO:
        settings = replace(settings, search=search_method)
    need_files(files)
    if not callable(displacer):
        raise InputError(
            f"displacer={displacer!r} cannot be called",
            remedy="Make it with configure_displacement.",
        )
    parameters = read_parameters(params_input)
    if settings.device == "cuda":
        resolve_device(settings.device)
    image_stacks = _images(files, parameters, images)
    template_stacks = {
        i: _displaced(displacer, stack)
        for i, stack in _templates(files, parameters, templates).items()
    }
    noise = noise or NoiseRequest()
    noise.check(settings.rules)
    displacements = _need_comparable(image_stacks, template_stacks, parameters, settings)
    structure_names, n_stacks = _all_of_the_inputs(files, templates, images)
    if images is not None:
        files = replace(files, n_stacks=len(image_stacks))
    if templates is not None and files.i_template == "all":
        files = replace(files, i_template=list(template_stacks))
    return Run(
        files=files,
        images=image_stacks,
        templates=template_stacks,
        settings=settings,
        identity=_identity(
            displacements,
            parameters,
            settings,
            of_rings=settings.rules.knows_noise
            and any(images.source.knows_rings for images in image_stacks.values()),
        ),
        inputs=RunInputs(
            {i: described(t) for i, t in template_stacks.items()},
            {k: s.source.describe(np.arange(len(s))) for k, s in image_stacks.items()},
        ),
        displacements=displacements,
        structure_names=structure_names,
        n_stacks=n_stacks,
        n_images=None if images is None else len(images),
        some_templates=partial(_some_templates, files, parameters, displacer, templates),
        noise=noise,
        search_method=search_method,
    )


def _need_comparable(
    images: dict[int, ImageStack],
    templates: dict[int, TemplateStack],
    parameters: ImageParameters,
    settings: Settings,
) -> NDArray[np.float64]:
    """Refuse stacks that do not fit together, log what should be known of them, and give the
    displacements of all."""
    for stack in templates.values():
        if stack.grid != parameters.grid:
            raise GridMismatchError(
                f"templates lie on {stack.grid}, but the parameters describe {parameters.grid}"
            )
    for image_stack in images.values():
        check_comparable(image_stack, next(iter(templates.values())), settings)
    # one of each form is enough: a run of thousands of stacks says nothing twice
    different = {(s.frame, s.source.dtype): s for s in images.values()}.values()
    notes = {n for t in templates.values() for s in different for n in notes_on(s, t, settings)}
    for note in sorted(notes):
        logger.warning(note)
    tables = [realised_table(t.displacements, settings.rules) for t in templates.values()]
    if any(t.shape != tables[0].shape or (t != tables[0]).any() for t in tables):
        raise InputError("the displacer gives different displacements for different structures")
    return tables[0]


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
    listed = one_or_several(given, TemplateStack)
    if not listed or not all(isinstance(t, TemplateStack) for t in listed):
        raise InputError(
            "templates are not TemplateStacks",
            remedy="Give what open_structures or open_templates give.",
        )
    that_images_may_show(listed)
    if files.folder_templates is not None:
        raise InputError(
            f"templates are given, and folder_templates={files.folder_templates} too",
            remedy="Configure the files with folder_templates=None, or leave templates out.",
        )
    return {
        i: listed[i] for i in files.chosen(len(listed), f"the {len(listed)} structure(s) given")
    }


def _some_templates(
    files: LikelihoodFiles,
    parameters: ImageParameters,
    displacer: Displacer,
    given: TemplateStack | Sequence[TemplateStack] | None,
) -> list[TemplateStack]:
    """The templates of at most `MOST_STRUCTURES`, whether the run covers them or not; of no
    decoys, which explain nothing of the images."""
    if given is None:
        shown = np.arange(len(files.template_files()))
    else:
        shown = that_images_may_show(one_or_several(given, TemplateStack))
    chosen = shown[evenly_spread(len(shown), MOST_STRUCTURES)].tolist()
    some = _templates(replace(files, i_template=chosen), parameters, given)
    return [_displaced(displacer, stack) for stack in some.values()]


def _all_of_the_inputs(
    files: LikelihoodFiles,
    templates: TemplateStack | Sequence[TemplateStack] | None,
    images: ImageStack | None,
) -> tuple[tuple[str, ...], int]:
    """The names of all structures, and how many stacks there are."""
    if templates is None:
        names = tuple(structure_of(Path(name)) for name in read_list(files.template_list))
    else:
        names = tuple(t.structure for t in one_or_several(templates, TemplateStack))
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


def _identity(
    displacements: NDArray[np.float64],
    parameters: ImageParameters,
    settings: Settings,
    *,
    of_rings: bool,
) -> FolderSettings:
    """Everything that must be the same for all results of a folder, as JSON keeps it exactly."""
    rounded = np.round(displacements, 4) + 0.0  # no negative zero
    return {
        "search": {
            "n_displacements": displacements.shape[1],
            "max_displacement_angstrom": float(np.abs(rounded).max()),
            "sha256": hashlib.sha256(np.ascontiguousarray(rounded).tobytes()).hexdigest(),
        },
        "parameters": asdict(parameters.grid),
        "conventions": settings.conventions,
        "tolerance": settings.tolerance,
        **({"image_power": OF_RINGS} if of_rings else {}),
    }
