"""Poses that are recorded with images, as rows for tasks, and how far they are from others (numpy
only)."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError, listed
from cryolike_dask.geometry.known_poses import (
    SIGMAS,
    Around,
    recorded_places,
    recorded_rotations,
)
from cryolike_dask.geometry.symmetry import point_group
from cryolike_dask.geometry.viewing_angles import angles_of_rotation, viewing_rotation
from cryolike_dask.likelihoods.comparison import Rows
from cryolike_dask.likelihoods.search.coarser import spacing_of_views
from cryolike_dask.likelihoods.search.places import FloatArray, turns
from cryolike_dask.stacks import ImageStack, TemplateStack

KNOWN = np.dtype(
    [
        ("rotation", "f8", (3, 3)),
        ("place", "f8", (2,)),
        ("covers", "?"),
        ("least_trace", "f8"),
        ("log_prior", "f8"),
    ]
)
"""Of an image: Rz(azimuth) Ry(polar) Rz(gamma) of its recorded pose, where its particle lies
(angstrom, in the frame of the image), whether its window covers all displacements, the trace that
the rotation from there to another pose has at least, and the logarithm of the prior of a rotation
there and of a displacement, beside that of templates."""

ROUNDED = 1e-9
"""Of a trace."""
IMAGES_AT_ONCE, PAIRS_AT_ONCE = 128, 8192
NEGLIGIBLE = 40.0
"""Nat, below the likeliest view."""
LARGEST_MEDIAN = 10.0
"""Degrees between recorded poses and those that are found."""

LACKING = {
    "rot_radian": (
        "poses",
        "rlnAngleRot, rlnAngleTilt and rlnAnglePsi, or alignments3D/pose",
    ),
    "x_angstrom": (
        "origins",
        "rlnOriginXAngst and rlnOriginYAngst, or alignments3D/shift and the pixel size",
    ),
}

logger = logging.getLogger("cryolike_dask")


@dataclass(frozen=True, eq=False)
class Nodes:
    """The poses of a search, besides its views.

    Attributes
    ----------
    angles : (rotation,) float64
        Radian.
    displacements : (2, displacement) float64
        Angstrom.
    steps : (float, float)
        Between them.
    degrees_between_views : float
    pixel_size : float
        Angstrom.
    mates : (mate, 3, 3) float64
        Rotations of the structure that leave it as it is.
    """

    angles: FloatArray
    displacements: FloatArray
    steps: tuple[float, float]
    degrees_between_views: float
    pixel_size: float
    mates: FloatArray

    @classmethod
    def of(cls, templates: TemplateStack) -> Nodes:
        """Those of templates."""
        grid, search = templates.grid, templates.displacements
        spacing = math.degrees(spacing_of_views(templates.viewing))
        mates = point_group(templates.viewing.symmetry).rotations
        steps, pixel = search.steps, grid.pixel_size_angstrom
        return cls(grid.angles, search.table(), steps, spacing, pixel, mates)


def known_poses(images: ImageStack, templates: TemplateStack, around: Around) -> Rows:
    """Recorded poses of images, for the tasks: KNOWN, without what trace they ask for.

    Raises
    ------
    InputError
        If templates are in another frame, a pose is not recorded, or a particle is recorded outside
        of the search.
    """
    if templates.conventions != STANDARD.name:
        raise InputError(
            f"templates of {templates.structure!r} were made by CryoLike, or under its "
            "conventions, which recorded poses are not of",
            remedy="Make them again (make_templates, cryolike-dask templates).",
        )
    _refuse_overlapping(around, templates)
    poses = images.poses
    for name, (what, columns) in LACKING.items():
        n_lacking = len(images) if poses is None else int(np.isnan(poses[name]).sum())
        if n_lacking:
            raise InputError(
                f"no {what} are recorded of {n_lacking} of {len(images)} images",
                source=file_of(images),
                remedy=f"Open or convert particles whose metadata have {columns}; or search all "
                'poses, search="adaptive" or "exhaustive".',
            )
    assert poses is not None  # or it would lack something
    is_transposed = images.frame == "transposed"
    known = np.zeros(len(images), KNOWN)
    known["rotation"] = recorded_rotations(poses, transposed=is_transposed)
    known["place"] = recorded_places(poses, transposed=is_transposed)
    search = templates.displacements
    farthest = np.abs(search.table()).max(axis=1)
    far = np.hypot(*known["place"].T)
    limit = float((farthest + np.array(search.steps) / 2).min()) * (1 + ROUNDED)
    outside = np.flatnonzero(far > limit)
    if len(outside):
        pixel = templates.grid.pixel_size_angstrom
        raise InputError(
            f"{len(outside)} of {len(images)} particles are recorded up to "
            f"{far.max() / pixel:.3g} pixels off the middle, beyond the search, which ends at "
            f"{limit / pixel:.3g}: row(s) {listed(outside)} (from 0)",
            source=file_of(images),
            remedy="Search larger displacements, or convert the particles with recenter=True "
            "(--recenter).",
        )
    width = around.within_pixels * templates.grid.pixel_size_angstrom
    if around.is_gaussian:
        known["log_prior"] = _log_prior_of_places(known, around, templates)
    else:
        known["covers"] = width * (1 + ROUNDED) >= farthest.max() + far
    return known


def _refuse_overlapping(around: Around, templates: TemplateStack) -> None:
    """Refuse angles within which poses of a symmetric structure lie that look the same."""
    rotations = point_group(templates.viewing.symmetry).rotations[1:]
    if not len(rotations):
        return
    largest = max(float(np.trace(rotation)) for rotation in rotations)
    half = math.degrees(math.acos((largest - 1) / 2)) / 2
    if around.within_degrees >= half:
        raise InputError(
            f"templates are the views of one unit of {templates.viewing.symmetry}, where poses "
            f"look the same that are {2 * half:.3g} degrees apart, but within_degrees is "
            f"{around.within_degrees:g}",
            remedy=f'Look within less than {half:.3g} degrees; or use search="adaptive".',
        )


def sigmas(around: Around, pixel_size: float) -> tuple[float, float]:
    """Standard deviations of a Gaussian prior, radian and angstrom; 0 of a flat one."""
    if not around.is_gaussian:
        return 0.0, 0.0
    degrees, pixels = around.within_degrees / SIGMAS, around.within_pixels / SIGMAS
    return math.radians(degrees), pixels * pixel_size


def _log_prior_of_places(known: Rows, around: Around, templates: TemplateStack) -> FloatArray:
    """Logarithm of a Gaussian prior at its middle, over a flat one, both of sum 1 over all of the
    search: (image,). The search is as it lies at the recorded rotation."""
    search = templates.displacements
    _, sigma = sigmas(around, templates.grid.pixel_size_angstrom)
    gamma = angles_of_rotation(known["rotation"])[2]
    middle = np.einsum("mij,mj->im", turns(gamma), known["place"])
    farthest, log_prior = np.abs(search.table()).max(axis=1), np.zeros(len(known))
    area = float(len(search))
    for x, end, step in zip(middle, farthest, search.steps, strict=True):
        if step:
            inside = ndtr((end + step / 2 - x) / sigma) - ndtr((-end - step / 2 - x) / sigma)
            log_prior -= np.log(np.sqrt(2 * np.pi) * sigma * inside)
            area *= step
    of_images: FloatArray = log_prior + np.log(area)
    return of_images


def with_least_trace(
    views: FloatArray,
    known: Rows,
    checked: object = None,
    *,
    nodes: Nodes,
    around: Around,
    weights: FloatArray,
) -> Rows:
    """The same with the trace that rotations within an angle have; less where the nearest pose of
    the search is farther, so that it is among them; and with the logarithm of the prior, weights
    being those of views. `checked` is what has to be done before."""
    known, slope = known.copy(), slope_of_trace(around)
    step = 2 * np.pi / len(nodes.angles)
    within = 1 + 2 * np.cos(np.radians(around.within_degrees))
    for first in range(0, len(known), IMAGES_AT_ONCE):
        part = slice(first, first + IMAGES_AT_ONCE)
        nearest = np.full(len(known[part]), -1.0)
        log_sum = np.full(len(known[part]), -np.inf)
        for mate in nodes.mates:
            a, b, along = trace_terms(mate @ known["rotation"][part], views)
            best = np.arctan2(b, a)
            off = best - np.round(best / step) * step
            of_mate = (along + np.hypot(a, b) * np.cos(off)).max(axis=1)
            nearest = np.maximum(nearest, of_mate)
            if around.is_gaussian:
                terms = a, b, along
                of_mate = _log_sum_of_rotations(terms, slope, nodes.angles, weights)
                log_sum = np.logaddexp(log_sum, of_mate)
        known["least_trace"][part] = np.minimum(within, nearest) - ROUNDED
        if around.is_gaussian:
            known["log_prior"][part] -= log_sum
    return known


def slope_of_trace(around: Around) -> float:
    """How the logarithm of a Gaussian prior of rotations falls with the trace of that from the
    recorded pose: (trace - 3) / (2 sigma^2) = (cos(angle) - 1) / sigma^2; 0 where it is flat."""
    radian, _ = sigmas(around, 1)
    return 1 / (2 * radian**2) if radian else 0.0


def _log_sum_of_rotations(
    terms: tuple[FloatArray, FloatArray, FloatArray],
    slope: float,
    angles: FloatArray,
    weights: FloatArray,
) -> FloatArray:
    """Logarithm of exp((trace - 3) slope), summed over all views by their weights, the mean over
    rotations: (image,)."""
    a, b, along = terms
    top = slope * (along + np.hypot(a, b) - 3)
    best = top.max(axis=1)
    image, view = np.nonzero(top > best[:, None] - NEGLIGIBLE)
    waves, sums = np.stack([np.cos(angles), np.sin(angles)]), np.zeros(len(a))
    for pairs in np.array_split(np.arange(len(image)), -(-len(image) // PAIRS_AT_ONCE)):
        m, v = image[pairs], view[pairs]
        turned = np.stack([a[m, v], b[m, v]], axis=1) @ waves
        of_pairs = np.exp(slope * (turned + along[m, v, None] - 3) - best[m, None]).mean(axis=1)
        np.add.at(sums, m, of_pairs * weights[v] / weights.sum())
    logarithm: FloatArray = best + np.log(sums)
    return logarithm


def check_poses(
    found: Rows, known: Rows, views: FloatArray, *, nodes: Nodes, source: str | None
) -> NDArray[np.bool_]:
    """Refuse recorded poses that are not those that are found among all: (1,)."""
    degrees = degrees_between(found, known, views, nodes)
    limit = max(LARGEST_MEDIAN, 2 * nodes.degrees_between_views)
    median = float(np.median(degrees))
    if median > limit:
        raise InputError(
            f"recorded poses are {median:.3g} degrees off those found by comparing "
            f"{len(degrees)} images with all poses, in the median; {limit:.3g} are allowed",
            source=source,
            remedy="They may be of another map: one in another frame or of the other hand; of "
            "other particles; or of a symmetric structure or images too noisy to tell, where "
            "Around(..., check=False) leaves this out.",
        )
    return np.ones(1, np.bool_)


def degrees_between(found: Rows, known: Rows, views: FloatArray, nodes: Nodes) -> FloatArray:
    """Angle of the rotation from the recorded pose of each image, or one that looks the same, to
    the one that is found."""
    there = views[found["template"]] @ viewing_rotation(0, 0, nodes.angles[found["rotation"]])
    traces = [((mate @ known["rotation"]) * there).sum(axis=(1, 2)) for mate in nodes.mates]
    cosine = (np.max(traces, axis=0) - 1) / 2
    degrees: FloatArray = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return degrees


def say_edges(views: FloatArray, poses: Rows, known: Rows, *, nodes: Nodes, around: Around) -> Rows:
    """The same poses; images are counted whose best pose lies at the end of what was looked at,
    in a message if there are any."""
    at_end = np.zeros(len(poses), np.bool_)
    if nodes.degrees_between_views <= around.within_degrees < 180:
        degrees = degrees_between(poses, known, views, nodes)
        at_end = degrees + nodes.degrees_between_views / 2 > around.within_degrees
    if around.within_pixels > 0:
        gamma = nodes.angles[poses["rotation"]]
        expected = np.einsum("mij,mj->im", turns(gamma), known["place"])
        off = np.abs(nodes.displacements[:, poses["displacement"]] - expected)
        end = around.within_pixels * nodes.pixel_size - np.array(nodes.steps)[:, None] / 2
        searched = np.array(nodes.steps)[:, None] > 0
        at_end |= ((off > end) & searched).any(axis=0) & ~known["covers"]
    if at_end.any():
        logger.warning(
            "%d of %d images: the best pose lies at the end of what was looked at, within %g "
            "degrees and %g pixels of the recorded pose; look farther around it",
            int(at_end.sum()),
            len(poses),
            around.within_degrees,
            around.within_pixels,
        )
    return poses


def trace_terms(
    rotations: FloatArray, views: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """a, b, c of the trace a cos(gamma) + b sin(gamma) + c of the rotation from each pose to a view
    turned by gamma, (pose, view)."""
    r = [rotations[:, :, k] for k in range(3)]
    v = [views[:, :, k].T for k in range(3)]
    return r[0] @ v[0] + r[1] @ v[1], r[0] @ v[1] - r[1] @ v[0], r[2] @ v[2]


def file_of(images: ImageStack) -> str | None:
    return next(iter(images.source.paths), None)
