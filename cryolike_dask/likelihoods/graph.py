"""Images and templates that are to be compared: the checks before, what tasks need to know,
pieces of graph."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.delayed import Delayed
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.compute.device import real_dtype
from cryolike_dask.conventions import (
    CRYOLIKE,
    STANDARD,
    Conventions,
    ConventionsName,
    conventions_named,
)
from cryolike_dask.errors import GridMismatchError, InputError, number
from cryolike_dask.geometry.optics import OPTICS, transposed_defocus_angle
from cryolike_dask.likelihoods.blocks import radial_basis_of
from cryolike_dask.likelihoods.comparison import IMAGE_ROW, TEMPLATE_ROW, Comparison
from cryolike_dask.likelihoods.setup import realised_table
from cryolike_dask.stacks import ImageStack, TemplateStack

POSES_PER_BLOCK = {"cpu": 2**27, "cuda": 2**28}
"""(image, template, displacement) triples of a block where the caller does not chunk templates.
On a CPU a block takes 6 ms per image to prepare it and to settle its best pose, in the standard
case, and 1.2 microseconds per triple: with 1024 images 6 and 160 seconds. Fixed, not timed: the
same run is cut in the same way again, and gives the same bits."""
DEFAULT_TOLERANCE = 1e-6
"""Of compression in single precision: no worse than rounding (benchmarks/tolerance.py). Ten
times more would save a twenty-fifth of the coefficients."""
CORRELATION_CHUNK_BYTES = 2**27
"""Largest chunk of a complete cross-correlation where no batch sizes are given."""


class Pair:
    """Images and templates that are to be compared, checked, and the pieces of a graph over both.

    `by_batch` chunks both by their batches instead of their own chunks.
    """

    def __init__(
        self,
        images: ImageStack,
        templates: TemplateStack,
        conventions: str,
        device: str,
        precision: str,
        discover_batch_size: bool,
        tolerance: float | None,
        *,
        by_batch: bool = False,
    ) -> None:
        values = conventions_named(conventions)
        check_device(device)
        check_comparable(images, templates, values)
        self.images, self.templates = images, templates
        self.precision = resolved_precision(templates, precision)
        self.real = real_dtype(self.precision)
        self.comparison = Comparison(
            images=images.source,
            templates=templates.source,
            grid=templates.grid,
            displacements=templates.displacements,
            conventions=values,
            precision=self.precision,
            device=device,
            name=name_of(images, templates),
            tolerance=resolved_tolerance(tolerance, self.precision),
            n_images_per_tile=images.n_per_batch,
            n_templates_per_tile=templates.n_per_batch,
            discover_tiles=discover_batch_size,
        )
        if by_batch:
            self.image_chunks, self.template_chunks = chunks_of_correlations(
                images, templates, self.real
            )
        else:
            self.image_chunks = images.chunks
            self.template_chunks = (
                templates.chunks or spread_templates(images, templates, 1).chunks or ()
            )

    def blockwise(
        self,
        function: Callable[..., NDArray[Any]],
        name: str,
        dtype: np.dtype[Any],
        new_axes: dict[str, int] | None = None,
        *,
        one_per_chunk: bool = False,
    ) -> da.Array:
        """Call a block function on every (image chunk, template chunk)."""
        indices = "ms" + "".join(new_axes or {})
        return da.blockwise(
            function,
            indices,
            da.from_array(
                image_rows(self.images, self.comparison.conventions), chunks=(self.image_chunks,)
            ),
            "m",
            da.from_array(
                template_rows(self.templates, self.comparison.conventions),
                chunks=(self.template_chunks,),
            ),
            "s",
            basis=self._basis(),
            comparison=self.comparison,
            new_axes=new_axes,
            adjust_chunks={"s": 1} if one_per_chunk else None,
            dtype=dtype,
            meta=np.empty((0,) * len(indices), dtype),
            token=f"{name}-{self.comparison.name}",
            align_arrays=False,
            concatenate=True,
        )

    def _basis(self) -> Delayed | tuple[()]:
        """The radial basis that all blocks share: one task."""
        if self.comparison.tolerance == 0:
            return ()
        key = f"radial-basis-{tokenize(self.comparison)}"
        return dask.delayed(radial_basis_of, pure=True)(self.comparison, dask_key_name=key)

    def field(
        self,
        records: da.Array,
        name: str,
        dtype: np.dtype[Any] | None = None,
        token: str | None = None,
    ) -> da.Array:
        """Take one field out of the records, in the precision of the computation."""
        dtype = dtype or self.real
        return records.map_blocks(_take_field, name, dtype, dtype=dtype, token=token or name)

    def displacement_fields(self, records: da.Array) -> dict[str, da.Array]:
        """Turn displacement indices into angstrom."""
        tables = realised_table(self.templates.displacements, self.comparison.conventions).astype(
            self.real
        )
        names = (labels.OPTIMAL_DISPLACEMENT_X, labels.OPTIMAL_DISPLACEMENT_Y)
        return {
            name: records.map_blocks(_look_up, "displacement", table, dtype=self.real, token=name)
            for name, table in zip(names, tables, strict=True)
        }

    def rotation_field(self, records: da.Array) -> da.Array:
        """Turn rotation indices into radian."""
        angles = self.templates.grid.angles.astype(self.real)
        name = labels.OPTIMAL_INPLANE_ROTATION
        return records.map_blocks(_look_up, "rotation", angles, dtype=self.real, token=name)

    def dataset(self, variables: dict[str, da.Array], dims: tuple[str, ...]) -> xr.Dataset:
        """Label the variables."""
        data = {name: (dims, values, labels.ATTRIBUTES[name]) for name, values in variables.items()}
        coords = self._coordinates()
        used = {name: value for name, value in coords.items() if value[0] in dims}
        used[labels.STRUCTURE] = ((), self.templates.structure, {})
        return xr.Dataset(data, coords=used, attrs=self._attributes())

    def _coordinates(self) -> dict[Hashable, Any]:
        displacements = realised_table(self.templates.displacements, self.comparison.conventions)
        viewing = self.templates.viewing
        values = {
            labels.IMAGE: (labels.IMAGE, np.arange(len(self.images))),
            labels.STACK: (labels.IMAGE, self.images.stack),
            labels.IMAGE_IN_STACK: (labels.IMAGE, self.images.image_in_stack),
            labels.TEMPLATE: (labels.TEMPLATE, np.arange(len(self.templates))),
            labels.AZIMUTH: (labels.TEMPLATE, viewing.azimuth),
            labels.POLAR: (labels.TEMPLATE, viewing.polar),
            labels.VIEWING_WEIGHT: (labels.TEMPLATE, viewing.weight),
            labels.DISPLACEMENT: (
                labels.DISPLACEMENT,
                np.arange(len(self.templates.displacements)),
            ),
            labels.DISPLACEMENT_X: (labels.DISPLACEMENT, displacements[0]),
            labels.DISPLACEMENT_Y: (labels.DISPLACEMENT, displacements[1]),
            labels.ROTATION: (labels.ROTATION, self.templates.grid.angles),
        }
        return {name: (*value, labels.ATTRIBUTES.get(name, {})) for name, value in values.items()}

    def _attributes(self) -> dict[str, Any]:
        from cryolike_dask.version import __version__

        grid, search = self.templates.grid, self.templates.displacements
        return {
            "conventions": self.comparison.conventions.name,
            "precision": self.precision,
            "device": self.comparison.device,
            "tolerance": self.comparison.tolerance,
            "frame": self.images.frame,
            "template_conventions": self.templates.conventions or CRYOLIKE.name,
            "n_pixels": grid.n_pixels,
            "pixel_size_angstrom": grid.pixel_size_angstrom,
            "radius_max": grid.radius_max,
            "n_inplanes": grid.n_inplanes,
            "n_templates": len(self.templates),
            "n_displacements": len(search),
            "max_displacement_angstrom": float(np.abs(search.table()).max()),
            "image_files": list(self.images.source.paths),
            "template_files": list(self.templates.source.paths),
            "version": __version__,
        }


def spread_templates(
    images: ImageStack, templates: TemplateStack, n_parts: int, device: str = "cpu"
) -> TemplateStack:
    """Chunk templates into at least `n_parts`, and into blocks of no more poses than are worth
    one task."""
    n_poses = max(images.chunks) * len(templates.displacements)
    largest = max(1, POSES_PER_BLOCK[device] // n_poses)
    return templates.chunk(
        _even_chunks(len(templates), min(largest, math.ceil(len(templates) / n_parts)))
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
    image_chunks = tuple(c for chunk in images.chunks for c in _even_chunks(chunk, n_images))
    return image_chunks, _even_chunks(len(templates), n_templates)


def resolved_precision(templates: TemplateStack, precision: str) -> str:
    """The precision of a computation: the one asked for, or else that of the templates."""
    if precision not in ("default", "single", "double"):
        raise InputError(
            f"precision={precision!r} is not known", remedy="Use default, single or double."
        )
    if precision != "default":
        return precision
    return "double" if templates.source.dtype == "complex128" else "single"


def resolved_tolerance(tolerance: float | None, precision: str) -> float:
    """What compression may leave out: as asked, or else little in single precision and nothing
    in double."""
    if tolerance is None:
        return 0.0 if precision == "double" else DEFAULT_TOLERANCE
    value: float = number("tolerance", tolerance, at_least=0)
    if value >= 1:
        raise InputError(
            f"tolerance={value:g} is not a part of 1",
            remedy="Give 1e-6, say; 0 computes without compression.",
        )
    return value


def image_rows(images: ImageStack, conventions: Conventions) -> NDArray[np.void]:
    """What a task needs to know of each image; the defocus angle is corrected for the frame
    here."""
    rows = np.empty(len(images), IMAGE_ROW)
    rows["index"] = np.arange(len(images))
    for name in OPTICS.names or ():
        rows[name] = images.optics[name]
    if conventions.corrects_transposed_stacks and images.frame == "transposed":
        rows["defocus_angle_radian"] = transposed_defocus_angle(rows["defocus_angle_radian"])
    return rows


def template_rows(templates: TemplateStack, conventions: Conventions) -> NDArray[np.void]:
    """What a task needs to know of each template: its index and the logarithm of the prior of
    each of its poses."""
    weight = templates.viewing.weight
    rows = np.empty(len(templates), TEMPLATE_ROW)
    rows["index"] = np.arange(len(templates))
    rows["log_prior"] = weight if conventions.weight_is_log_prior else np.log(weight / weight.sum())
    rows["log_prior"] -= np.log(len(templates.displacements) * templates.grid.n_inplanes)
    return rows


def check_comparable(
    images: ImageStack, templates: TemplateStack, conventions: Conventions
) -> None:
    """Refuse stacks that cannot be compared, and log what the user should know of those that
    can."""
    if not isinstance(images, ImageStack) or not isinstance(templates, TemplateStack):
        raise InputError(
            f"images are a {type(images).__name__} and templates a {type(templates).__name__}",
            remedy="Give an ImageStack, then a TemplateStack: open_images, open_templates.",
        )
    if images.grid != templates.grid:
        raise GridMismatchError(f"images lie on {images.grid}, but templates on {templates.grid}")
    farthest, half_box = (
        np.abs(templates.displacements.table()).max(),
        templates.grid.box_size_angstrom / 2,
    )
    if farthest > half_box:
        raise InputError(
            f"displacements of up to {farthest:g} angstrom leave the box, whose half is "
            f"{half_box:g} angstrom",
            remedy="max_displacement_pixels counts pixels; give less than half of the box.",
        )
    if not conventions.optics_per_image:
        for name in ("voltage_kilovolt", "spherical_aberration_mm", "amplitude_contrast"):
            values = np.unique(images.optics[name])
            if len(values) > 1:
                raise InputError(
                    f"{name} takes {len(values)} values, {values[0]} to {values[-1]}, but "
                    f'conventions="cryolike" '
                    "knows one per stack",
                    remedy='Use conventions="standard", or one optics group at a time.',
                )


def check_device(device: str) -> None:
    """Refuse the name of a device that is none."""
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device={device!r} is not known", remedy="Use auto, cpu or cuda.")


def notes_on(
    images: ImageStack, templates: TemplateStack, conventions: ConventionsName, precision: str
) -> list[str]:
    """What a user should know about these inputs before believing the numbers, one sentence
    each."""
    notes = []
    values = conventions_named(conventions)
    if values.corrects_transposed_stacks and images.frame == "transposed":
        notes.append(
            "these stacks were made by CryoLike (x is the MRC row): the defocus angle a is read as "
            "90 degrees - a; "
            'conventions="cryolike" takes it as it is'
        )
    if values.zero_normalised and templates.conventions != STANDARD.name:
        notes.append(
            "these templates were made by CryoLike, or under its conventions: their offset box "
            "moves with the "
            "template, and correlations come out too low; make them again (make_templates, "
            "cryolike-dask templates); "
            'conventions="cryolike" gives the numbers of CryoLike from them'
        )
    used = resolved_precision(templates, precision)
    wide = {"single": "complex64", "double": "complex128"}[used]
    if images.source.dtype != wide:
        notes.append(f"images are {images.source.dtype} and are converted to {used} precision")
    return notes


def name_of(images: ImageStack, templates: TemplateStack) -> str:
    """How a comparison is called: by structure, and by stack if there is one."""
    structure = re.sub(r"[^\w.]+", "_", templates.structure)
    stacks = np.unique(images.stack)
    return f"{structure}-stack_{stacks[0]:06d}" if len(stacks) == 1 else structure


def _even_chunks(n: int, size: int) -> tuple[int, ...]:
    """As few chunks as there can be, of one size but for the last, which stores of arrays ask
    for."""
    n_chunks = -(-n // max(1, size))
    each = -(-n // n_chunks)
    return tuple(min(each, n - start) for start in range(0, n, each))


def _take_field(records: NDArray[np.void], name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    return records[name].astype(dtype)


def _look_up(records: NDArray[np.void], name: str, table: NDArray[Any]) -> NDArray[Any]:
    values: NDArray[Any] = table[records[name]]
    return values
