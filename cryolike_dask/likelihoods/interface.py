"""Lazy stacks in, lazy labelled Datasets out. The border between Dask and xarray.

Every `compute_*` builds a graph and computes nothing: one block function over (image chunk,
template chunk), and where templates are reduced, one associative combine. Only images and templates
are ever chunked.
"""

from __future__ import annotations

from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputError
from cryolike_dask.likelihoods import blocks
from cryolike_dask.likelihoods.graph import Pair
from cryolike_dask.likelihoods.poses import POSE, combine_along_templates
from cryolike_dask.stacks import ImageStack, TemplateStack

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["default", "single", "double"]

INT64, FLOAT64 = np.dtype("i8"), np.dtype("f8")


def compute_optimal_pose(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
    tolerance: float | None = None,
) -> xr.Dataset:
    """Find the best pose of every image, its log-likelihood, and the log-likelihood integrated over
    all poses.

    Parameters
    ----------
    images : ImageStack
    templates : TemplateStack
        With the displacements to try: `search(templates)`.
    conventions : "standard" | "cryolike"
        "cryolike" reproduces CryoLike's numbers, its errors included.
    device : "auto" | "cpu" | "cuda"
        Resolved where a task runs. "auto": the worker's GPU if it has one. "cuda" without a GPU is
        an error.
    precision : "default" | "single" | "double"
        "default" is that of the templates.
    discover_batch_size : bool
        Choose tiles inside the task by the device and its free memory instead of taking the batch
        sizes. Changes no result beyond rounding.
    tolerance : float, optional
        Root mean square part of the norm of displaced templates that compression may leave out.
        Default: 1e-6 in single precision, which changes results no more than rounding does; 0, no
        compression, in double precision.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image): cross_correlation in [-1, 1]; optimal_template (index);
        optimal_displacement_x/_y (angstrom); optimal_inplane_rotation (radian, [0, 2 pi));
        log_likelihood_optimal and log_likelihood_integrated (natural log; the latter with the prior
        weight / sum of weights over viewing directions and flat over displacements and rotations);
        correlation_error_bound, on what compression changes of any of the image's correlations.

    Raises
    ------
    GridMismatchError, InputError
        At once if the stacks do not lie on one grid, or a setting is not known.
    NotFiniteError, ZeroPowerError, DeviceError
        When it is computed: images or templates with NaN or no power (files and indices named), no
        GPU.
    """
    pair = Pair(images, templates, conventions, device, precision, discover_batch_size, tolerance)
    records = pair.blockwise(blocks.optimal_poses, "optimal-pose-block", POSE, one_per_chunk=True)
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
        name="optimal-pose",
    )
    variables = {
        labels.CROSS_CORRELATION: pair.field(poses, "cross_correlation"),
        labels.OPTIMAL_TEMPLATE: pair.field(
            poses, "template", dtype=INT64, token=labels.OPTIMAL_TEMPLATE
        ),
        **pair.displacement_fields(poses),
        labels.OPTIMAL_INPLANE_ROTATION: pair.rotation_field(poses),
        labels.LOG_LIKELIHOOD_INTEGRATED: pair.field(
            poses, "log_likelihood_integrated", dtype=FLOAT64
        ),
        labels.LOG_LIKELIHOOD_OPTIMAL: pair.field(poses, "log_likelihood_optimal", dtype=FLOAT64),
        labels.CORRELATION_ERROR_BOUND: pair.field(poses, "correlation_error_bound"),
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
    tolerance: float | None = None,
) -> xr.Dataset:
    """Find the best displacement and rotation of every image under every template.

    Parameters are those of `compute_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template): cross_correlation; optimal_displacement_x/_y (angstrom);
        optimal_inplane_rotation (radian); log_likelihood, summed over displacements and rotations
        without a prior (natural log).
    """
    pair = Pair(images, templates, conventions, device, precision, discover_batch_size, tolerance)
    records = pair.blockwise(blocks.best_of_pairs, "optimal-displacement-and-rotation", blocks.PAIR)
    variables = {
        labels.CROSS_CORRELATION: pair.field(records, "cross_correlation"),
        **pair.displacement_fields(records),
        labels.OPTIMAL_INPLANE_ROTATION: pair.rotation_field(records),
        labels.LOG_LIKELIHOOD: pair.field(records, "log_likelihood", dtype=FLOAT64),
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
    tolerance: float | None = None,
) -> xr.Dataset:
    """Find the best displacement of every image under every template at every rotation.

    Parameters are those of `compute_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template, rotation): cross_correlation; optimal_displacement_x/_y
        (angstrom).
    """
    pair = Pair(images, templates, conventions, device, precision, discover_batch_size, tolerance)
    size = {"w": templates.grid.n_inplanes}
    records = pair.blockwise(
        blocks.best_displacements, "optimal-displacement", blocks.BEST_DISPLACEMENT, size
    )
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
    tolerance: float | None = None,
) -> xr.Dataset:
    """Find the best rotation of every image under every template at every displacement.

    Parameters are those of `compute_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template, displacement): cross_correlation; optimal_inplane_rotation
        (radian).
    """
    pair = Pair(images, templates, conventions, device, precision, discover_batch_size, tolerance)
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
    tolerance: float | None = None,
) -> xr.Dataset:
    """Correlate every image with every template at every displacement and rotation.

    Parameters are those of `compute_optimal_pose`. The result is chunked by the batch sizes of the
    stacks, or else in chunks of about 128 MB, so that it can be reduced or stored piece by piece;
    it need not fit in memory.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template, displacement, rotation): cross_correlation.
    """
    pair = Pair(
        images,
        templates,
        conventions,
        device,
        precision,
        discover_batch_size,
        tolerance,
        by_batch=True,
    )
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
    tolerance: float | None = None,
) -> xr.Dataset:
    """Integrate the likelihood of every image over poses.

    Parameters
    ----------
    dims : ("image",) or ("image", "template")
        Per image: over all poses, with the prior over viewing directions; variable
        `log_likelihood_integrated`. Per image and template: summed over displacements and
        rotations, no prior; variable `log_likelihood`.

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
        "tolerance": tolerance,
    }
    if tuple(dims) == (labels.IMAGE,):
        return compute_optimal_pose(images, templates, **settings)[
            [labels.LOG_LIKELIHOOD_INTEGRATED]
        ]
    if tuple(dims) == (labels.IMAGE, labels.TEMPLATE):
        return compute_optimal_displacement_and_rotation(images, templates, **settings)[
            [labels.LOG_LIKELIHOOD]
        ]
    raise InputError(f"dims={dims!r}", remedy="Give ('image',) or ('image', 'template').")


def _unchanged(records: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return records
