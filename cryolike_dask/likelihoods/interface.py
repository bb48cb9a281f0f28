"""Lazy stacks in, lazy labelled Datasets out. The border between Dask and xarray.

Every `compute_*` builds a graph and computes nothing: one block function over (image chunk, template chunk), and where
templates are reduced, one associative combine. Only images and templates are ever chunked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.conventions import Conventions, ConventionsName, conventions_named
from cryolike_dask.errors import GridMismatchError, InputError
from cryolike_dask.geometry.optics import OPTICS, transposed_defocus_angle
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.blocks import IMAGE_ROW, TEMPLATE_ROW, Comparison, real_dtype
from cryolike_dask.likelihoods.poses import POSE, combine_along_templates
from cryolike_dask.stacks import Files, ImageStack, TemplateStack

logger = logging.getLogger("cryolike_dask")

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["default", "single", "double"]

POSES_PER_BLOCK = 2**21
"""(image, template, displacement) triples of a block where the caller does not chunk templates: seconds of kernel."""
CORRELATION_CHUNK_BYTES = 2**27
"""Largest chunk of a complete cross-correlation where no batch sizes are given."""


def compute_optimal_pose(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
) -> xr.Dataset:
    """Find the best pose of every image, its log-likelihood, and the log-likelihood integrated over all poses.

    Parameters
    ----------
    images : ImageStack
    templates : TemplateStack
        With the displacements to try: `search(templates)`.
    conventions : "standard" | "cryolike"
        "cryolike" reproduces CryoLike's numbers, its errors included.
    device : "auto" | "cpu" | "cuda"
        Resolved where a task runs. "auto": the worker's GPU if it has one. "cuda" without a GPU is an error.
    precision : "default" | "single" | "double"
        "default" is that of the templates.
    discover_batch_size : bool
        Find the largest tile that fits in memory, inside the task. Never changes a result.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image): cross_correlation in [-1, 1]; optimal_template (index); optimal_displacement_x/_y
        (angstrom); optimal_inplane_rotation (radian, [0, 2 pi)); log_likelihood_optimal and log_likelihood_integrated
        (natural log; the latter with the prior weight / sum of weights over viewing directions and flat over
        displacements and rotations).

    Raises
    ------
    GridMismatchError, InputError
        At once if the stacks do not lie on one grid, or a setting is not known.
    NotFiniteError, ZeroPowerError, DeviceError
        When it is computed: images or templates with NaN or no power (files and indices named), no GPU.
    """
    pair = _Pair(images, templates, conventions, device, precision, discover_batch_size)
    records = pair.blockwise(blocks.optimal_poses, "optimal-pose", POSE, one_per_chunk=True)
    poses = da.reduction(
        records,
        chunk=_unchanged,
        combine=combine_along_templates,
        aggregate=combine_along_templates,
        axis=1,
        dtype=POSE,
        split_every=16,
        concatenate=True,
        meta=np.empty((0,), POSE),
        name="merge-optimal-pose",
    )
    variables = {
        labels.CROSS_CORRELATION: pair.field(poses, "cross_correlation"),
        labels.OPTIMAL_TEMPLATE: pair.field(poses, "template", dtype=np.dtype("i8")),
        **pair.displacement_fields(poses),
        labels.OPTIMAL_INPLANE_ROTATION: pair.rotation_field(poses),
        labels.LOG_LIKELIHOOD_INTEGRATED: pair.field(poses, "log_likelihood_integrated"),
        labels.LOG_LIKELIHOOD_OPTIMAL: pair.field(poses, "log_likelihood_optimal"),
    }
    return pair.dataset(variables, (labels.IMAGE,))


def compute_optimal_displacement_and_rotation(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
) -> xr.Dataset:
    """Find the best displacement and rotation of every image under every template.

    Parameters are those of `compute_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template): cross_correlation; optimal_displacement_x/_y (angstrom); optimal_inplane_rotation
        (radian); log_likelihood, summed over displacements and rotations without a prior (natural log).
    """
    pair = _Pair(images, templates, conventions, device, precision, discover_batch_size)
    records = pair.blockwise(blocks.best_of_pairs, "optimal-displacement-and-rotation", blocks.PAIR)
    variables = {
        labels.CROSS_CORRELATION: pair.field(records, "cross_correlation"),
        **pair.displacement_fields(records),
        labels.OPTIMAL_INPLANE_ROTATION: pair.rotation_field(records),
        labels.LOG_LIKELIHOOD: pair.field(records, "log_likelihood"),
    }
    return pair.dataset(variables, (labels.IMAGE, labels.TEMPLATE))


def compute_optimal_displacement(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
) -> xr.Dataset:
    """Find the best displacement of every image under every template at every rotation.

    Parameters are those of `compute_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template, rotation): cross_correlation; optimal_displacement_x/_y (angstrom).
    """
    pair = _Pair(images, templates, conventions, device, precision, discover_batch_size)
    size = {"w": templates.grid.n_inplanes}
    records = pair.blockwise(blocks.best_displacements, "optimal-displacement", blocks.BEST_DISPLACEMENT, size)
    variables = {
        labels.CROSS_CORRELATION: pair.field(records, "cross_correlation"),
        **pair.displacement_fields(records),
    }
    return pair.dataset(variables, (labels.IMAGE, labels.TEMPLATE, labels.ROTATION))


def compute_optimal_rotation(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
) -> xr.Dataset:
    """Find the best rotation of every image under every template at every displacement.

    Parameters are those of `compute_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template, displacement): cross_correlation; optimal_inplane_rotation (radian).
    """
    pair = _Pair(images, templates, conventions, device, precision, discover_batch_size)
    size = {"d": len(templates.displacements)}
    records = pair.blockwise(blocks.best_rotations, "optimal-rotation", blocks.BEST_ROTATION, size)
    variables = {
        labels.CROSS_CORRELATION: pair.field(records, "cross_correlation"),
        labels.OPTIMAL_INPLANE_ROTATION: pair.rotation_field(records),
    }
    return pair.dataset(variables, (labels.IMAGE, labels.TEMPLATE, labels.DISPLACEMENT))


def compute_cross_correlation_complete(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
) -> xr.Dataset:
    """Correlate every image with every template at every displacement and rotation.

    Parameters are those of `compute_optimal_pose`. The result is chunked by the batch sizes of the stacks, or else in
    chunks of about 128 MB, so that it can be reduced or stored piece by piece; it need not fit in memory.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template, displacement, rotation): cross_correlation.
    """
    pair = _Pair(images, templates, conventions, device, precision, discover_batch_size).chunked_by_batch()
    sizes = {"d": len(templates.displacements), "w": templates.grid.n_inplanes}
    correlation = pair.blockwise(blocks.all_correlations, "cross-correlation", pair.real, sizes)
    dims = (labels.IMAGE, labels.TEMPLATE, labels.DISPLACEMENT, labels.ROTATION)
    return pair.dataset({labels.CROSS_CORRELATION: correlation}, dims)


def compute_integrated_log_likelihood(
    images: ImageStack,
    templates: TemplateStack,
    *,
    dims: tuple[str, ...] = (labels.IMAGE,),
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
) -> xr.Dataset:
    """Integrate the likelihood of every image over poses.

    Parameters
    ----------
    dims : ("image",) or ("image", "template")
        Per image: over all poses, with the prior over viewing directions; variable `log_likelihood_integrated`.
        Per image and template: summed over displacements and rotations, no prior; variable `log_likelihood`.

    The other parameters are those of `compute_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        Lazy, natural logarithm.
    """
    settings: dict[str, Any] = {
        "conventions": conventions,
        "device": device,
        "precision": precision,
        "discover_batch_size": discover_batch_size,
    }
    if tuple(dims) == (labels.IMAGE,):
        return compute_optimal_pose(images, templates, **settings)[[labels.LOG_LIKELIHOOD_INTEGRATED]]
    if tuple(dims) == (labels.IMAGE, labels.TEMPLATE):
        return compute_optimal_displacement_and_rotation(images, templates, **settings)[[labels.LOG_LIKELIHOOD]]
    raise InputError(f"dims={dims!r}", remedy="Give ('image',) or ('image', 'template').")


class _Pair:
    """Images and templates that are to be compared, checked, and the pieces of a graph over both."""

    def __init__(
        self,
        images: ImageStack,
        templates: TemplateStack,
        conventions: str,
        device: str,
        precision: str,
        discover_batch_size: bool,
    ) -> None:
        values = conventions_named(conventions)
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"device={device!r} is not known", remedy="Use auto, cpu or cuda.")
        self.images, self.templates = images, templates
        self.precision = resolved_precision(templates, precision)
        self.real = real_dtype(self.precision)
        check_comparable(images, templates, values)
        self.comparison = Comparison(
            images=images.source,
            templates=templates.source,
            grid=templates.grid,
            displacements=templates.displacements,
            conventions=values,
            precision=self.precision,
            device=device,
            n_images_per_tile=images.n_per_batch,
            n_templates_per_tile=templates.n_per_batch,
            discover_tiles=discover_batch_size,
        )
        self.image_chunks = images.chunks
        self.template_chunks = templates.chunks or _even_chunks(
            len(templates), POSES_PER_BLOCK // (max(images.chunks) * len(templates.displacements))
        )

    def chunked_by_batch(self) -> _Pair:
        """Chunk both by their batches: for results that keep every pose."""
        per_pair = len(self.templates.displacements) * self.templates.grid.n_inplanes * self.real.itemsize
        n_templates = self.templates.n_per_batch or max(1, CORRELATION_CHUNK_BYTES // (16 * per_pair))
        n_images = self.images.n_per_batch or max(
            1, CORRELATION_CHUNK_BYTES // (min(n_templates, len(self.templates)) * per_pair)
        )
        self.image_chunks = tuple(c for chunk in self.image_chunks for c in _even_chunks(chunk, n_images))
        self.template_chunks = _even_chunks(len(self.templates), n_templates)
        return self

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
            da.from_array(image_rows(self.images, self.comparison.conventions), chunks=(self.image_chunks,)),
            "m",
            da.from_array(template_rows(self.templates, self.comparison.conventions), chunks=(self.template_chunks,)),
            "s",
            comparison=self.comparison,
            new_axes=new_axes,
            adjust_chunks={"s": 1} if one_per_chunk else None,
            dtype=dtype,
            meta=np.empty((0,) * len(indices), dtype),
            token=name,
            align_arrays=False,
            concatenate=True,
        )

    def field(self, records: da.Array, name: str, dtype: np.dtype[Any] | None = None) -> da.Array:
        """Take one field out of the records, in the precision of the computation."""
        return records.map_blocks(_take_field, name, dtype or self.real, dtype=dtype or self.real, token=name)

    def displacement_fields(self, records: da.Array) -> dict[str, da.Array]:
        """Turn displacement indices into angstrom."""
        x, y = realised_displacements(self.templates, self.comparison.conventions).astype(self.real)
        return {
            labels.OPTIMAL_DISPLACEMENT_X: records.map_blocks(_look_up, "displacement", x, dtype=self.real, token="x"),
            labels.OPTIMAL_DISPLACEMENT_Y: records.map_blocks(_look_up, "displacement", y, dtype=self.real, token="y"),
        }

    def rotation_field(self, records: da.Array) -> da.Array:
        """Turn rotation indices into radian."""
        angles = self.templates.grid.angles.astype(self.real)
        return records.map_blocks(_look_up, "rotation", angles, dtype=self.real, token="rotation")

    def dataset(self, variables: dict[str, da.Array], dims: tuple[str, ...]) -> xr.Dataset:
        """Label the variables."""
        data = {name: (dims, values, labels.ATTRIBUTES[name]) for name, values in variables.items()}
        coords = self._coordinates()
        used = {name: value for name, value in coords.items() if value[0] in dims}
        return xr.Dataset(data, coords=used, attrs=self._attributes())

    def _coordinates(self) -> dict[Hashable, Any]:
        displacements = realised_displacements(self.templates, self.comparison.conventions)
        viewing = self.templates.viewing
        values = {
            labels.IMAGE: (labels.IMAGE, np.arange(len(self.images))),
            labels.STACK: (labels.IMAGE, self.images.stack),
            labels.IMAGE_IN_STACK: (labels.IMAGE, self.images.image_in_stack),
            labels.TEMPLATE: (labels.TEMPLATE, np.arange(len(self.templates))),
            labels.AZIMUTH: (labels.TEMPLATE, viewing.azimuth),
            labels.POLAR: (labels.TEMPLATE, viewing.polar),
            labels.VIEWING_WEIGHT: (labels.TEMPLATE, viewing.weight),
            labels.DISPLACEMENT: (labels.DISPLACEMENT, np.arange(len(self.templates.displacements))),
            labels.DISPLACEMENT_X: (labels.DISPLACEMENT, displacements[0]),
            labels.DISPLACEMENT_Y: (labels.DISPLACEMENT, displacements[1]),
            labels.ROTATION: (labels.ROTATION, self.templates.grid.angles),
        }
        return {name: (*value, labels.ATTRIBUTES.get(name, {})) for name, value in values.items()}

    def _attributes(self) -> dict[str, Any]:
        from cryolike_dask import __version__

        grid, search = self.templates.grid, self.templates.displacements
        return {
            "structure": self.templates.structure,
            "conventions": self.comparison.conventions.name,
            "precision": self.precision,
            "device": self.comparison.device,
            "frame": self.images.frame,
            "template_conventions": self.templates.conventions or "cryolike",
            "n_pixels": grid.n_pixels,
            "pixel_size_angstrom": grid.pixel_size_angstrom,
            "radius_max": grid.radius_max,
            "n_inplanes": grid.n_inplanes,
            "n_templates": len(self.templates),
            "n_displacements": len(search),
            "max_displacement_angstrom": float(np.abs(search.table()).max()),
            "image_files": _file_names(self.images),
            "template_files": _file_names(self.templates),
            "version": __version__,
        }


def resolved_precision(templates: TemplateStack, precision: str) -> str:
    """The precision of a computation: the one asked for, or else that of the templates."""
    if precision not in ("default", "single", "double"):
        raise InputError(f"precision={precision!r} is not known", remedy="Use default, single or double.")
    if precision != "default":
        return precision
    return "double" if templates.source.dtype == "complex128" else "single"


def realised_displacements(templates: TemplateStack, conventions: Conventions) -> NDArray[np.float64]:
    """The displacements that are reported, angstrom, (2, displacement)."""
    table = templates.displacements.table()
    return table.astype(np.float32).astype(np.float64) if conventions.rounds_to_single else table


def image_rows(images: ImageStack, conventions: Conventions) -> NDArray[np.void]:
    """What a task needs to know of each image; the defocus angle is corrected for the frame here."""
    rows = np.empty(len(images), IMAGE_ROW)
    rows["index"] = np.arange(len(images))
    for name in OPTICS.names or ():
        rows[name] = images.optics[name]
    if conventions.corrects_transposed_stacks and images.frame == "transposed":
        rows["defocus_angle_radian"] = transposed_defocus_angle(rows["defocus_angle_radian"])
    return rows


def template_rows(templates: TemplateStack, conventions: Conventions) -> NDArray[np.void]:
    """What a task needs to know of each template: its index and the logarithm of the prior of each of its poses."""
    weight = templates.viewing.weight
    rows = np.empty(len(templates), TEMPLATE_ROW)
    rows["index"] = np.arange(len(templates))
    rows["log_prior"] = weight if conventions.weight_is_log_prior else np.log(weight / weight.sum())
    rows["log_prior"] -= np.log(len(templates.displacements) * templates.grid.n_inplanes)
    return rows


def check_comparable(images: ImageStack, templates: TemplateStack, conventions: Conventions) -> None:
    """Refuse stacks that cannot be compared, and log what the user should know of those that can."""
    if images.grid != templates.grid:
        raise GridMismatchError(f"images lie on {images.grid}, but templates on {templates.grid}")
    if not conventions.optics_per_image:
        for name in ("voltage_kilovolt", "spherical_aberration_mm", "amplitude_contrast"):
            values = np.unique(images.optics[name])
            if len(values) > 1:
                raise InputError(
                    f'{name} takes {len(values)} values, {values[0]} to {values[-1]}, but conventions="cryolike" '
                    "knows one per stack",
                    remedy='Use conventions="standard", or one optics group at a time.',
                )


def notes_on(images: ImageStack, templates: TemplateStack, conventions: ConventionsName, precision: str) -> list[str]:
    """What a user should know about these inputs before believing the numbers, one sentence each."""
    notes = []
    values = conventions_named(conventions)
    if values.corrects_transposed_stacks and images.frame == "transposed":
        notes.append(
            "these stacks were made by CryoLike (x is the MRC row): the defocus angle a is read as 90 degrees - a; "
            'conventions="cryolike" takes it as it is'
        )
    if values.zero_normalised and templates.conventions != "standard":
        notes.append(
            "these templates were made by CryoLike, or under its conventions: their offset box moves with the "
            "template, and correlations come out up to 14% low; make the templates again"
        )
    used = resolved_precision(templates, precision)
    wide = {"single": "complex64", "double": "complex128"}[used]
    if images.source.dtype != wide:
        notes.append(f"images are {images.source.dtype} and are converted to {used} precision")
    return notes


def _file_names(stack: ImageStack | TemplateStack) -> list[str]:
    return [p.path for p in stack.source.parts] if isinstance(stack.source, Files) else ["array in memory"]


def _even_chunks(n: int, size: int) -> tuple[int, ...]:
    n_chunks = -(-n // max(1, size))
    return tuple(int(c) for c in np.diff(np.linspace(0, n, n_chunks + 1).round().astype(int)))


def _unchanged(records: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return records


def _take_field(records: NDArray[np.void], name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    return records[name].astype(dtype)


def _look_up(records: NDArray[np.void], name: str, table: NDArray[Any]) -> NDArray[Any]:
    return table[records[name]]
