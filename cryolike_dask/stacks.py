"""Image stacks and template stacks: a lazy array with its grid, and its optics or viewing angles
and displacements.

A stack holds a descriptor of its data (a file, several files, or an array in memory), never the
data of a file. Tasks carry the descriptor and read the rows that they need; `.data` gives the same
as a Dask array.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import GridMismatchError, InputError, number
from cryolike_dask.geometry.displacements import DisplacementGrid, not_displaced
from cryolike_dask.geometry.known_poses import joined_poses
from cryolike_dask.geometry.optics import OPTICS, optics_in_words
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.layout import LikelihoodFiles, need_files, structure_of
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.io.sources import ArraySource, Files, InMemory, lazy_array
from cryolike_dask.io.stack_checks import check_batch, check_source, chunks_of
from cryolike_dask.io.stacks import (
    ImageStackFile,
    joined_groups,
    open_image_stack,
    open_template_stack,
    warn_of_optics,
)
from cryolike_dask.notebook import html_table

logger = logging.getLogger("cryolike_dask")

Stack = TypeVar("Stack", "ImageStack", "TemplateStack")


@dataclass(frozen=True, eq=False, repr=False)
class ImageStack:
    """Particle images on the Fourier polar grid, lazily.

    Attributes
    ----------
    source : ArraySource
        Complex, (image, shell, angle).
    grid : PolarGrid
    optics : structured array, `OPTICS`, (image,)
    frame : "xy" | "transposed"
        "xy": x is the MRC column. "transposed": x is the MRC row, as in stacks that CryoLike made.
    stack, image_in_stack : int array, (image,)
        The file number of each image, and its position there.
    chunks : tuple of int
        Images per task.
    n_per_batch : int or None
        Images per tile inside a task; None lets the kernel choose. Changes no result beyond
        rounding.
    groups : str array, (image, 2), or None
        Micrograph and optics group, by which noise differs; "" where they are not known.
    poses : structured array, `RECORDED_POSE`, (image,), or None
        As recorded with the particles; None if nothing is.
    """

    source: ArraySource
    grid: PolarGrid
    optics: NDArray[np.void]
    frame: str
    stack: NDArray[np.int64]
    image_in_stack: NDArray[np.int64]
    chunks: tuple[int, ...]
    n_per_batch: int | None = None
    groups: NDArray[np.str_] | None = None
    poses: NDArray[np.void] | None = None

    def __post_init__(self) -> None:
        check_source(self.source, self.grid, "images")
        n = len(self)
        if self.optics.dtype != OPTICS or self.optics.shape != (n,):
            raise InputError(
                f"optics has type {self.optics.dtype} and shape {self.optics.shape}, but there are "
                f"{n} images",
                remedy="Make it with optics_table(n_images, ...).",
            )
        if self.frame not in ("xy", "transposed"):
            raise InputError(f"frame={self.frame!r} is neither 'xy' nor 'transposed'")
        if self.groups is not None and self.groups.shape != (n, 2):
            raise InputError(
                f"groups have the shape {self.groups.shape}, but there are {n} images",
                remedy="Give micrograph and optics group of each.",
            )
        check_batch(self.n_per_batch, "n_images_per_batch")
        chunks_of(self.chunks, n, "image")

    @classmethod
    def from_array(
        cls,
        values: NDArray[Any],
        parameters: ImageParameters,
        optics: NDArray[np.void],
        frame: str = "xy",
    ) -> ImageStack:
        """Wrap an array in memory, complex (image, shell, angle)."""
        source = InMemory(np.asarray(values))
        n = source.shape[0]
        return cls(
            source, parameters.grid, optics, frame, np.zeros(n, np.int64), np.arange(n), (n,)
        )

    def __len__(self) -> int:
        return self.source.shape[0]

    @property
    def data(self) -> da.Array:
        """The images as a Dask array, complex, (image, shell, angle)."""
        return lazy_array(self.source, self.chunks, "images")

    def __repr__(self) -> str:
        return (
            f"<ImageStack: {len(self)} images of {self.grid.n_shells} shells x "
            f"{self.grid.n_inplanes} angles, {self.source.dtype}, chunks {self.chunks}, from "
            f"{self.source.locate(0)[0]}>"
        )

    def _repr_html_(self) -> str:
        micrographs = "" if self.groups is None else len({*self.groups[:, 0].tolist()} - {""})
        entries = {
            "images": f"{len(self):,} in {len(self.chunks):,} chunk(s)",
            **self.grid.in_words(),
            **optics_in_words(self.optics),
            "micrographs": micrographs or "",
            "recorded poses": "none" if self.poses is None else "yes",
            "from": self.source.locate(0)[0],
        }
        return html_table("Image stack", entries)

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[Any]) -> ImageStack:
        """Give some of the images, by a slice, positions, or one boolean each; in one chunk,
        still lazily."""
        if not isinstance(rows, (slice, Sequence, np.ndarray)) or isinstance(rows, str):
            raise InputError(f"images[{rows!r}]", remedy="Give a slice, or a list of positions.")
        try:
            chosen = np.atleast_1d(np.arange(len(self))[rows])
        except IndexError as error:
            raise InputError(f"images[...]: {error}") from error
        return replace(
            self,
            source=self.source.subset(chosen),
            optics=self.optics[chosen],
            stack=self.stack[chosen],
            image_in_stack=self.image_in_stack[chosen],
            chunks=(len(chosen),),
            groups=None if self.groups is None else self.groups[chosen],
            poses=None if self.poses is None else self.poses[chosen],
        )

    def chunk(self, n_images: int | Sequence[int]) -> ImageStack:
        """Give the same images with other chunks: one size, or the size of every chunk."""
        return replace(self, chunks=chunks_of(n_images, len(self), "image"))


@dataclass(frozen=True, eq=False, repr=False)
class TemplateStack:
    """Projections of one structure on the Fourier polar grid, lazily.

    Attributes
    ----------
    source : ArraySource
        Complex, (template, shell, angle).
    grid : PolarGrid
    viewing : ViewingAngles
    displacements : DisplacementGrid
        What is tried; only (0, 0) until a displacer is applied.
    structure : str
        Name of the structure.
    conventions : "standard", "cryolike" or None
        Those that the templates were made under; None for CryoLike's files, which do not say.
    chunks : tuple of int or None
        Templates per task; None: as many as make a block worth its overhead.
    n_per_batch : int or None
        Templates per tile inside a task; None lets the kernel choose. Changes no result beyond
        rounding.
    decoy_of : str
        Structure that this is a decoy of, its own name if of none; "": images may show it.
    """

    source: ArraySource
    grid: PolarGrid
    viewing: ViewingAngles
    displacements: DisplacementGrid = field(default_factory=not_displaced)
    structure: str = "structure"
    conventions: ConventionsName | None = None
    chunks: tuple[int, ...] | None = None
    n_per_batch: int | None = None
    decoy_of: str = ""

    def __post_init__(self) -> None:
        check_source(self.source, self.grid, "templates")
        if len(self.viewing) != len(self):
            raise GridMismatchError(
                f"{len(self)} templates, but {len(self.viewing)} viewing directions"
            )
        check_batch(self.n_per_batch, "n_templates_per_batch")
        if self.chunks is not None:
            chunks_of(self.chunks, len(self), "template")

    @classmethod
    def from_array(
        cls,
        values: NDArray[Any],
        parameters: ImageParameters,
        viewing: ViewingAngles | None = None,
        structure: str = "structure",
        conventions: ConventionsName | None = "standard",
    ) -> TemplateStack:
        """Wrap an array in memory, complex (template, shell, angle)."""
        viewing = parameters.viewing_angles() if viewing is None else viewing
        source = InMemory(np.asarray(values))
        return cls(source, parameters.grid, viewing, structure=structure, conventions=conventions)

    def __len__(self) -> int:
        return self.source.shape[0]

    @property
    def data(self) -> da.Array:
        """The templates as a Dask array, complex, (template, shell, angle), not displaced."""
        return lazy_array(self.source, self.chunks or (len(self),), "templates")

    def __repr__(self) -> str:
        return (
            f"<TemplateStack {self.structure!r}: {len(self)} templates of {self.grid.n_shells} "
            f"shells x {self.grid.n_inplanes} angles, {self.source.dtype}, "
            f"{len(self.displacements)} displacement(s), from {self.source.locate(0)[0]}>"
        )

    def _repr_html_(self) -> str:
        reach = abs(self.displacements.table()).max()
        entries = {
            "templates": f"{len(self):,} views, symmetry {self.viewing.symmetry}",
            **self.grid.in_words(),
            "displacements": f"{len(self.displacements):,}, up to {reach:.3g} angstrom",
            "decoy of": self.decoy_of,
            "from": self.source.locate(0)[0],
        }
        return html_table(f"Template stack: {self.structure}", entries)

    def chunk(self, n_templates: int | Sequence[int]) -> TemplateStack:
        """Give the same templates with other chunks: one size, or the size of every chunk."""
        return replace(self, chunks=chunks_of(n_templates, len(self), "template"))


def open_images(
    file_config: LikelihoodFiles,
    params_input: str | Path | ImageParameters,
    i_stack: int | None = None,
    n_images_per_batch: int | None = None,
) -> ImageStack:
    """Open image stacks; only headers are read.

    Parameters
    ----------
    file_config : LikelihoodFiles
    params_input : path or ImageParameters
        `parameters.npz`, or its content.
    i_stack : int, optional
        One stack; None: all of the configured stacks, one after the other, one chunk each.
    n_images_per_batch : int, optional
        Images per tile inside a task. Changes no result beyond rounding.

    Raises
    ------
    InputFileError, GridMismatchError
        Missing files (the first of them, and how many), damaged files, files on another grid.
    """
    need_files(file_config)
    parameters = read_parameters(params_input)
    available = file_config.stack_numbers()
    if i_stack is not None and number("i_stack", i_stack, whole=True) not in available:
        has = f"{file_config.folder_particles} is configured with stacks 0 to {available[-1]}"
        raise InputError(f"i_stack={i_stack}, but {has}")
    numbers = available if i_stack is None else [i_stack]
    opened = [open_image_stack(*file_config.image_stack(k), parameters) for k in numbers]
    images = _joined(opened, numbers, parameters, n_images_per_batch)
    if i_stack is None:
        warn_of_optics(file_config.folder_particles, [images.optics])
    return images


def open_image_stacks(
    file_config: LikelihoodFiles, parameters: ImageParameters
) -> dict[int, ImageStack]:
    """Open each of the configured stacks by itself; the folder is looked at once."""
    images = {
        k: _joined([open_image_stack(*file_config.image_stack(k), parameters)], [k], parameters)
        for k in file_config.stack_numbers()
    }
    warn_of_optics(file_config.folder_particles, [stack.optics for stack in images.values()])
    return images


def _joined(
    stacks: Sequence[ImageStackFile],
    numbers: Sequence[int],
    parameters: ImageParameters,
    n_per_batch: int | None = None,
) -> ImageStack:
    """One stack of several files, which must be in one frame."""
    frames = {s.frame for s in stacks}
    if len(frames) > 1:
        first = [next(s for s in stacks if s.frame == f).metadata for f in sorted(frames)]
        raise InputError(
            f"stacks in different frames: {first[0]} and {first[1]}",
            remedy="Open them one by one, or convert them alike.",
        )
    sizes = [s.tensor.shape[0] for s in stacks]
    return ImageStack(
        source=Files(tuple(s.tensor for s in stacks), all(s.knows_rings for s in stacks)),
        grid=parameters.grid,
        optics=np.concatenate([s.optics for s in stacks]),
        frame=frames.pop(),
        stack=np.repeat(numbers, sizes),
        image_in_stack=np.concatenate([np.arange(n) for n in sizes]),
        chunks=tuple(sizes),
        n_per_batch=n_per_batch,
        groups=joined_groups(stacks),
        poses=joined_poses([(s.poses, s.tensor.shape[0]) for s in stacks]),
    )


def open_templates(
    file_config: LikelihoodFiles,
    params_input: str | Path | ImageParameters,
    i_template: int | None = None,
    n_templates_per_batch: int | None = None,
) -> TemplateStack:
    """Open the templates of one structure; only headers are read.

    Parameters
    ----------
    file_config : LikelihoodFiles
    params_input : path or ImageParameters
        `parameters.npz`, or its content.
    i_template : int, optional
        Position in `template_file_list.npy`; default: the configured one.
    n_templates_per_batch : int, optional
        Templates per tile inside a task. Changes no result beyond rounding.

    Raises
    ------
    InputFileError, GridMismatchError, InputError
        Missing or damaged files, another grid, another number of templates than viewing directions,
        or a position beyond the list.
    """
    need_files(file_config)
    parameters = read_parameters(params_input)
    files = file_config if i_template is None else replace(file_config, i_template=i_template)
    numbers = files.structures()
    if len(numbers) != 1:
        raise InputError(
            f"{len(numbers)} structures are configured", remedy="Choose one with i_template."
        )
    return open_template_file(files.template_files()[numbers[0]], parameters, n_templates_per_batch)


def open_template_file(
    path: Path, parameters: ImageParameters, n_templates_per_batch: int | None = None
) -> TemplateStack:
    """Open one template file; `open_templates` finds it by its position in the list."""
    opened = open_template_stack(path, parameters)
    return TemplateStack(
        source=Files((opened.tensor,)),
        grid=parameters.grid,
        viewing=opened.viewing,
        structure=structure_of(path),
        conventions=opened.conventions,
        n_per_batch=n_templates_per_batch,
    )


def one_or_several(given: Stack | Sequence[Stack], kind: type[Stack]) -> list[Stack]:
    """A list of the one stack, or of the several, that are given."""
    return [given] if isinstance(given, kind) else list(cast(Sequence[Stack], given))


def note_left_out(n_stacks: int, of_stacks: int, n_images: int, of_images: int | None) -> None:
    """Say how much is taken, where it is not all: populations of a part may be others than those
    of the whole."""
    if n_stacks < of_stacks:
        of = "" if of_images is None else f" of {of_images:,}"
        taken = f"{n_stacks:,} of {of_stacks:,} image stacks ({n_images:,}{of} images)"
        logger.warning("takes %s", taken)
