"""Graphs over images and templates: cut into chunks, one block function called on every pair of
chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import Task
from dask.base import tokenize
from dask.delayed import Delayed
from numpy.typing import NDArray

from cryolike_dask.compute.device import real_dtype
from cryolike_dask.conventions import Conventions
from cryolike_dask.geometry.optics import OPTICS, transposed_defocus_angle
from cryolike_dask.likelihoods.blocks import radial_basis_of
from cryolike_dask.likelihoods.comparable import check_comparable, name_of
from cryolike_dask.likelihoods.comparison import (
    IMAGE_ROW,
    TEMPLATE_ROW,
    Comparison,
    Whitening,
)
from cryolike_dask.likelihoods.cutting import POSES_PER_BLOCK, even_chunks
from cryolike_dask.likelihoods.poses import POSE, combine_along_templates
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.setup import degrees_of_freedom
from cryolike_dask.stacks import ImageStack, TemplateStack

CORRELATION_CHUNK_BYTES = 2**27
"""Largest chunk of a complete cross-correlation where no batch sizes are given."""


class ComparisonGraph:
    """Images and templates that are to be compared, checked, and graphs over their chunks.

    Parameters
    ----------
    images : ImageStack
    templates : TemplateStack
    settings : Settings
    discover_tiles : bool
        Choose tiles inside the task instead of taking the stacks' batch sizes.
    by_batch : bool
        Chunk both by their batches instead of their own chunks.
    withheld : bool
        What it begins with waits at the scheduler until a worker has nothing else to do.
    """

    def __init__(
        self,
        images: ImageStack,
        templates: TemplateStack,
        settings: Settings,
        *,
        discover_tiles: bool = False,
        by_batch: bool = False,
        withheld: bool = False,
    ) -> None:
        check_comparable(images, templates, settings)
        self.images, self.templates, self.settings = images, templates, settings
        # poses around recorded ones are few, and blocks of all correlations are written one by one
        self.withheld = withheld and settings.around is None and not by_batch
        self.precision = settings.precision_with(templates)
        self.real = real_dtype(self.precision)
        self.group_of_image, whitening = whitening_of(images, settings)
        self.comparison = Comparison(
            images=images.source,
            templates=templates.source,
            grid=templates.grid,
            displacements=templates.displacements,
            conventions=settings.rules,
            whitening=whitening,
            precision=self.precision,
            device=settings.device,
            name=name_of(images, templates),
            tolerance=settings.tolerance_in(self.precision),
            n_images_per_tile=images.n_per_batch,
            n_templates_per_tile=templates.n_per_batch,
            discover_tiles=discover_tiles,
        )
        if by_batch:
            self.image_chunks, self.template_chunks = chunks_of_correlations(
                images, templates, self.real
            )
        else:
            spread = templates.chunks or spread_templates(images, templates, 1).chunks
            self.image_chunks, self.template_chunks = images.chunks, spread or ()

    def blockwise(
        self,
        function: Callable[..., object],
        name: str,
        dtype: np.dtype[Any],
        new_axes: dict[str, int] | None = None,
        *,
        one_per_chunk: bool = False,
        more: Sequence[tuple[da.Array, str]] = (),
        **options: Any,
    ) -> da.Array:
        """Call a block function on every (image chunk, template chunk), and on the chunks of more
        arrays along these, "m" and "s", with their own options."""
        indices = "ms" + "".join(new_axes or {})
        return da.blockwise(
            function,
            indices,
            self._image_rows(),
            "m",
            da.from_array(
                template_rows(self.templates, self.comparison.conventions),
                chunks=(self.template_chunks,),
            ),
            "s",
            *(item for pair in more for item in pair),
            basis=self.basis(),
            comparison=self.comparison,
            new_axes=new_axes,
            adjust_chunks={"s": 1} if one_per_chunk else None,
            dtype=dtype,
            meta=np.empty((0,) * len(indices), dtype),
            token=f"{name}-{self.comparison.name}",
            align_arrays=False,
            concatenate=True,
            **options,
        )

    def of_images(
        self,
        function: Callable[..., NDArray[Any]],
        name: str,
        dtype: np.dtype[Any],
        more: Sequence[tuple[da.Array, str]] = (),
        **options: object,
    ) -> da.Array:
        """Call a block function on every chunk of images, and on the chunks of more arrays along
        "m", with these options."""
        return da.blockwise(
            function,
            "m",
            self._image_rows(),
            "m",
            *(item for pair in more for item in pair),
            comparison=self.comparison,
            **options,
            dtype=dtype,
            meta=np.empty(0, dtype),
            token=f"{name}-{self.comparison.name}",
            align_arrays=False,
        )

    def _image_rows(self) -> da.Array:
        return da.from_array(
            image_rows(self.images, self.comparison.conventions, self.group_of_image),
            chunks=(self.image_chunks,),
        )

    @property
    def first(self) -> dict[str, Any]:
        """Options of the blocks that it begins with."""
        return {"_data_producer": True} if self.withheld else {}

    def basis(self) -> Delayed | tuple[()]:
        """The radial basis that all blocks share: one task."""
        if self.comparison.tolerance == 0:
            return ()
        key = f"radial-basis-{self.comparison.name}-{tokenize(self.comparison)}"
        return Delayed(key, {key: Task(key, radial_basis_of, self.comparison, **self.first)})


def combined(records: da.Array, name: str) -> da.Array:
    """One record of each image, of those of all chunks of templates."""
    return da.reduction(
        records,
        chunk=_unchanged,
        combine=combine_along_templates,
        aggregate=combine_along_templates,
        axis=1,
        dtype=POSE,
        split_every=16,
        concatenate=True,
        meta=np.empty((0,), POSE),
        name=name,
    )


def spread_templates(
    images: ImageStack, templates: TemplateStack, n_parts: int, device: str = "cpu"
) -> TemplateStack:
    """Chunk templates into at least `n_parts`, and into blocks of no more poses than are worth
    one task."""
    n_poses = max(images.chunks) * len(templates.displacements)
    largest = max(1, POSES_PER_BLOCK[device] // n_poses)
    return templates.chunk(
        even_chunks(len(templates), min(largest, math.ceil(len(templates) / n_parts)))
    )


def chunks_of_correlations(
    images: ImageStack, templates: TemplateStack, real: np.dtype[Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks of both for results that keep every pose: their batches, or else chunks of a fixed
    size."""
    per_pair = len(templates.displacements) * templates.grid.n_inplanes * real.itemsize
    n_templates = templates.n_per_batch or max(1, CORRELATION_CHUNK_BYTES // (16 * per_pair))
    n_images = images.n_per_batch or CORRELATION_CHUNK_BYTES // (
        min(n_templates, len(templates)) * per_pair
    )
    image_chunks = tuple(c for chunk in images.chunks for c in even_chunks(chunk, n_images))
    return image_chunks, even_chunks(len(templates), n_templates)


def whitening_of(images: ImageStack, settings: Settings) -> tuple[NDArray[np.int64], Whitening]:
    """The group of each image, and what makes the noise of these groups white; of those groups
    alone that these images are of."""
    grid, model = images.grid, settings.noise
    if model is None:
        groups = np.zeros(len(images), np.int64)
        factors, added = np.ones((1, grid.n_shells)), np.zeros(1)
        n_free = np.full(1, degrees_of_freedom(grid, settings.rules))
    else:
        used, groups = np.unique(model.find(images.groups, len(images)), return_inverse=True)
        model = model.take(used)
        factors, added = 1 / np.sqrt(model.spectra(grid)), model.b_factor_angstrom2
        n_free = model.degrees_of_freedom(grid)
    if settings.degrees_of_freedom is not None:
        n_free = np.full(len(factors), float(settings.degrees_of_freedom))
    added = added + settings.b_factor
    envelopes = np.exp(-added[:, None] * grid.spatial_frequencies**2 / 4)
    return groups, Whitening(factors, envelopes, n_free)


def image_rows(
    images: ImageStack, conventions: Conventions, groups: NDArray[np.int64] | None = None
) -> NDArray[np.void]:
    """Rows that tell a task of each image; the defocus angle is corrected for the frame
    here."""
    rows = np.empty(len(images), IMAGE_ROW)
    rows["index"] = np.arange(len(images))
    rows["group"] = 0 if groups is None else groups
    for name in OPTICS.names or ():
        rows[name] = images.optics[name]
    if conventions.corrects_transposed_stacks and images.frame == "transposed":
        rows["defocus_angle_radian"] = transposed_defocus_angle(rows["defocus_angle_radian"])
    return rows


def template_rows(templates: TemplateStack, conventions: Conventions) -> NDArray[np.void]:
    """Rows that tell a task of each template: its index and the logarithm of the prior of
    each of its poses."""
    weight = templates.viewing.weight
    rows = np.empty(len(templates), TEMPLATE_ROW)
    rows["index"] = np.arange(len(templates))
    rows["log_prior"] = weight if conventions.weight_is_log_prior else np.log(weight / weight.sum())
    rows["log_prior"] -= np.log(len(templates.displacements) * templates.grid.n_inplanes)
    return rows


def _unchanged(records: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return records
