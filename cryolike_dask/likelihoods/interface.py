"""Lazy stacks in, lazy labelled Datasets out. The border between Dask and xarray.

Every `compute_*` builds a graph and computes nothing: one block function over (image chunk,
template chunk), and where templates are reduced, one associative combine. Only images and templates
are ever chunked.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.conventions import ConventionsName
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.noise import NoiseModel
from cryolike_dask.geometry.search_method import Search
from cryolike_dask.labels import Device, Precision
from cryolike_dask.likelihoods import blocks, variables
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.pose_graph import pose_records, searched_poses
from cryolike_dask.likelihoods.poses import POSE
from cryolike_dask.likelihoods.posterior_variables import posterior_variables
from cryolike_dask.likelihoods.search.adaptive import Searched
from cryolike_dask.likelihoods.search.known import AroundKnown
from cryolike_dask.likelihoods.search.posterior_graph import posterior_records
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.stacks import ImageStack, TemplateStack

OPTIMAL_POSE = "optimal-pose"
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
    noise: NoiseModel | None = None,
    b_factor: float = 0.0,
    degrees_of_freedom: float | None = None,
    search: Search = "exhaustive",
    pose_posteriors: bool = False,
    n_top_poses: int = 5,
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
        Default: 1e-7 in single precision, which changes results no more than rounding does; 0, no
        compression, in double precision.
    noise : NoiseModel, optional
        As `estimate_noise` gives it; default: white. Correlations are those of whitened images.
    b_factor : float
        Angstrom^2, added to what metadata and noise model say of each image's envelope.
    degrees_of_freedom : float, optional
        Independent values of the noise of an image. Default: what the noise model says, or else all
        of the band, 4 pi K^2.
    search : "exhaustive" | "adaptive" | "recorded" | Adaptive | Around
        "adaptive": a part of the band tells which views and displacements of each image are worth
        more of it, and likelihoods are interpolated between these; images that it tells nothing of
        are compared with everything. `Adaptive(0.01)`: the same to 0.01 nat. `Around(10, 2)`: poses
        within 10 degrees and 2 pixels of those that are recorded with the images. "recorded": the
        nearest view and rotation alone, with the particle where it is recorded. Poses are given on
        the grids of the whole search, and the prior is that of the whole search.
    pose_posteriors : bool
        Say how the posterior of each image is spread over poses: what holds nearly all of it is
        compared once more, or everything in an exhaustive search.
    n_top_poses : int
        How many of the best poses are told then, each three spacings or more from all better ones
        in orientation, or three steps in displacement.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image): cross_correlation in [-1, 1]; optimal_template (index);
        optimal_displacement_x/_y (angstrom); optimal_inplane_rotation (radian, [0, 2 pi));
        log_likelihood_optimal and log_likelihood_integrated (natural log; the latter with the prior
        weight / sum of weights over viewing directions and flat over displacements and rotations);
        correlation_error_bound, on what compression changes of any of the image's correlations, of
        more than ten displacements an estimate from above; on GPUs also on what products of split
        numbers round, if all errors had one sign. Unless all poses are compared also
        log_likelihood_error, an estimate of what log_likelihood_integrated lacks (nat): what lies
        in views that are left out by an adaptive search, by the part of the band that says so, and
        beyond windows of displacements, as much as in the step at their edge; NaN without windows;
        nothing is said of what lies beyond an angle. And n_poses_compared, in the whole band.

        With `pose_posteriors` also best_pose_probability, of the best pose of the search;
        n_significant_poses, the fewest poses of the search that hold 99.9%; n_effective_poses,
        1 / sum p^2 (poses between those of the search count as parts, one at least in all);
        view_entropy (nat); orientation_radius_95 (degree), the angle about the best pose, view and
        rotation together and the nearest of symmetric mates, within which 95% of the posterior
        lies; displacement_radius_95 (angstrom), the same about the posterior mean, which is that of
        the particle's place in its image, told as a displacement under the best rotation:
        posterior_mean_displacement_x/_y (angstrom). And, dims (image, top_pose), top_template (-1
        where there are no more), top_displacement_x/_y, top_inplane_rotation and top_probability.

    Raises
    ------
    GridMismatchError, InputError
        At once if the stacks do not lie on one grid, a setting is not known, or the noise model is
        for other images.
    NotFiniteError, ZeroPowerError, DeviceError
        When it is computed: images or templates with NaN or no power (files and indices named), no
        GPU.
    """
    settings = Settings(
        conventions,
        device,
        precision,
        tolerance,
        noise,
        b_factor,
        degrees_of_freedom,
        search,
        pose_posteriors,
        n_top_poses,
    )
    return optimal_poses(
        ComparisonGraph(images, templates, settings, discover_tiles=discover_batch_size)
    )


def optimal_poses(graph: ComparisonGraph) -> xr.Dataset:
    """The best poses and likelihoods of a graph, as `compute_optimal_pose` gives them."""
    poses, searched = searched_poses(graph, OPTIMAL_POSE)
    poses = graph.of_images(
        blocks.with_log_likelihoods,  # it is known which poses they are once all templates are
        f"{OPTIMAL_POSE}-likelihood",
        POSE,
        more=((poses, "m"),),
        of_windows=isinstance(searched, Searched),
    )
    is_whole = graph.settings.search == "exhaustive"
    of_search = {} if is_whole else variables.fields_of_search(graph, poses)
    if isinstance(searched, AroundKnown) and searched.around.refine:
        of_search |= variables.refined_fields(graph, searched.refined(poses))
    fields = {
        labels.CROSS_CORRELATION: variables.field(graph, poses, "cross_correlation"),
        labels.OPTIMAL_TEMPLATE: variables.field(
            graph, poses, "template", dtype=INT64, token=labels.OPTIMAL_TEMPLATE
        ),
        **variables.displacement_fields(graph, poses),
        labels.OPTIMAL_INPLANE_ROTATION: variables.rotation_field(graph, poses),
        labels.LOG_LIKELIHOOD_INTEGRATED: variables.field(
            graph, poses, "log_likelihood_integrated", dtype=FLOAT64
        ),
        labels.LOG_LIKELIHOOD_OPTIMAL: variables.field(
            graph, poses, "log_likelihood_optimal", dtype=FLOAT64
        ),
        labels.CORRELATION_ERROR_BOUND: variables.field(graph, poses, "correlation_error_bound"),
        **of_search,
    }
    found = variables.dataset(graph, fields, (labels.IMAGE,))
    if not graph.settings.pose_posteriors:
        return found
    coarse_to_fine = searched if isinstance(searched, Searched) else None
    of_posteriors = posterior_records(graph, poses, coarse_to_fine)
    return found.assign(posterior_variables(graph, poses, of_posteriors).data_vars)


def pair_likelihoods(graph: ComparisonGraph, name: str) -> da.Array:
    """Log-likelihood of each image under each template, float64, (image, template)."""
    return graph.blockwise(blocks.log_likelihoods_of_pairs, name, FLOAT64)


def integrated_likelihoods(graph: ComparisonGraph, name: str) -> da.Array:
    """Log-likelihood of each image, integrated over the poses of each chunk of templates, float64,
    (image, chunk)."""
    return graph.blockwise(blocks.integrated_log_likelihoods, name, FLOAT64, one_per_chunk=True)


def compute_optimal_displacement_and_rotation(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
    tolerance: float | None = None,
    noise: NoiseModel | None = None,
    b_factor: float = 0.0,
    degrees_of_freedom: float | None = None,
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
    settings = Settings(
        conventions, device, precision, tolerance, noise, b_factor, degrees_of_freedom
    )
    return optimal_displacements_and_rotations(
        ComparisonGraph(images, templates, settings, discover_tiles=discover_batch_size)
    )


def optimal_displacements_and_rotations(graph: ComparisonGraph) -> xr.Dataset:
    """The best of each image and template of a graph, as
    `compute_optimal_displacement_and_rotation` gives it."""
    name = "optimal-displacement-and-rotation"
    records = graph.blockwise(blocks.best_of_pairs, name, blocks.PAIR)
    fields = {
        labels.CROSS_CORRELATION: variables.field(graph, records, "cross_correlation"),
        **variables.displacement_fields(graph, records),
        labels.OPTIMAL_INPLANE_ROTATION: variables.rotation_field(graph, records),
        labels.LOG_LIKELIHOOD: variables.field(graph, records, "log_likelihood", dtype=FLOAT64),
    }
    return variables.dataset(graph, fields, (labels.IMAGE, labels.TEMPLATE))


def compute_optimal_displacement(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
    tolerance: float | None = None,
    noise: NoiseModel | None = None,
    b_factor: float = 0.0,
    degrees_of_freedom: float | None = None,
) -> xr.Dataset:
    """Find the best displacement of every image under every template at every rotation.

    Parameters are those of `compute_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template, rotation): cross_correlation; optimal_displacement_x/_y
        (angstrom).
    """
    settings = Settings(
        conventions, device, precision, tolerance, noise, b_factor, degrees_of_freedom
    )
    graph = ComparisonGraph(images, templates, settings, discover_tiles=discover_batch_size)
    size = {"w": templates.grid.n_inplanes}
    records = graph.blockwise(
        blocks.best_displacements, "optimal-displacement", blocks.BEST_DISPLACEMENT, size
    )
    fields = {
        labels.CROSS_CORRELATION: variables.field(graph, records, "cross_correlation"),
        **variables.displacement_fields(graph, records),
    }
    return variables.dataset(graph, fields, (labels.IMAGE, labels.TEMPLATE, labels.ROTATION))


def compute_optimal_rotation(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
    tolerance: float | None = None,
    noise: NoiseModel | None = None,
    b_factor: float = 0.0,
    degrees_of_freedom: float | None = None,
) -> xr.Dataset:
    """Find the best rotation of every image under every template at every displacement.

    Parameters are those of `compute_optimal_pose`.

    Returns
    -------
    xarray.Dataset
        Lazy, dims (image, template, displacement): cross_correlation; optimal_inplane_rotation
        (radian).
    """
    settings = Settings(
        conventions, device, precision, tolerance, noise, b_factor, degrees_of_freedom
    )
    graph = ComparisonGraph(images, templates, settings, discover_tiles=discover_batch_size)
    size = {"d": len(templates.displacements)}
    records = graph.blockwise(blocks.best_rotations, "optimal-rotation", blocks.BEST_ROTATION, size)
    fields = {
        labels.CROSS_CORRELATION: variables.field(graph, records, "cross_correlation"),
        labels.OPTIMAL_INPLANE_ROTATION: variables.rotation_field(graph, records),
    }
    return variables.dataset(graph, fields, (labels.IMAGE, labels.TEMPLATE, labels.DISPLACEMENT))


def compute_cross_correlation_complete(
    images: ImageStack,
    templates: TemplateStack,
    *,
    conventions: ConventionsName = "standard",
    device: Device = "auto",
    precision: Precision = "default",
    discover_batch_size: bool = False,
    tolerance: float | None = None,
    noise: NoiseModel | None = None,
    b_factor: float = 0.0,
    degrees_of_freedom: float | None = None,
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
    settings = Settings(
        conventions, device, precision, tolerance, noise, b_factor, degrees_of_freedom
    )
    return all_correlations(
        ComparisonGraph(
            images, templates, settings, discover_tiles=discover_batch_size, by_batch=True
        )
    )


def all_correlations(graph: ComparisonGraph) -> xr.Dataset:
    """The correlations of a graph, as `compute_cross_correlation_complete` gives them."""
    sizes = {"d": len(graph.templates.displacements), "w": graph.templates.grid.n_inplanes}
    correlation = graph.blockwise(blocks.all_correlations, "cross-correlation", graph.real, sizes)
    dims = (labels.IMAGE, labels.TEMPLATE, labels.DISPLACEMENT, labels.ROTATION)
    return variables.dataset(graph, {labels.CROSS_CORRELATION: correlation}, dims)


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
    noise: NoiseModel | None = None,
    b_factor: float = 0.0,
    degrees_of_freedom: float | None = None,
    search: Search = "exhaustive",
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
    settings = Settings(
        conventions, device, precision, tolerance, noise, b_factor, degrees_of_freedom, search
    )
    graph = ComparisonGraph(images, templates, settings, discover_tiles=discover_batch_size)
    if tuple(dims) == (labels.IMAGE,):
        name = labels.LOG_LIKELIHOOD_INTEGRATED
        values = variables.field(graph, pose_records(graph, OPTIMAL_POSE), name, dtype=FLOAT64)
        return variables.dataset(graph, {name: values}, (labels.IMAGE,))
    if tuple(dims) == (labels.IMAGE, labels.TEMPLATE):
        return optimal_displacements_and_rotations(graph)[[labels.LOG_LIKELIHOOD]]
    raise InputError(f"dims={dims!r}", remedy="Give ('image',) or ('image', 'template').")
