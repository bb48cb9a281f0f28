"""Assignments of images that results leave with: a structure, the pose there, and the
likelihoods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.coordinates import of_images, without_decoys
from cryolike_dask.analysis.decoys.of_results import Q_VALUE
from cryolike_dask.analysis.export.relion_poses import RelionPoses, relion_poses
from cryolike_dask.analysis.export.selection import Selection, q_values_of
from cryolike_dask.analysis.summaries import (
    BEST_STRUCTURE,
    COMPARABLE,
    MARGIN,
    NOT_RESULTS,
    PROBABILITY,
    first_names,
    summarise_results,
)
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError, listed
from cryolike_dask.labels import TemplateSource

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LIKELIHOODS = (
    labels.CROSS_CORRELATION,
    labels.LOG_LIKELIHOOD_INTEGRATED,
    labels.LOG_LIKELIHOOD_OPTIMAL,
)
OF_POSTERIOR = labels.BEST_POSE_PROBABILITY, labels.N_SIGNIFICANT_POSES
POSE = (
    labels.OPTIMAL_AZIMUTH,
    labels.OPTIMAL_POLAR,
    labels.OPTIMAL_INPLANE_ROTATION,
    labels.OPTIMAL_DISPLACEMENT_X,
    labels.OPTIMAL_DISPLACEMENT_Y,
)


@dataclass(frozen=True, eq=False)
class Assignment:
    """A structure and a pose for each image.

    Attributes
    ----------
    structures : tuple of str
        All of the results.
    number : (image,) int64
        Which of them, from 0; -1 for images without a result.
    poses : RelionPoses
        (image,)
    likelihoods : dict of str to (image,) float64
        The variables `LIKELIHOODS`, and that of refined poses if there are any.
    certainty : dict of str to (image,) float64
        Probability and margin of the best structure (`summarise_results`), unless there is one
        structure only; the q-value, where there are decoys; the p-value of residuals that were
        fitted.
    posterior : dict of str to (image,) array
        The variables `OF_POSTERIOR`, as far as the results have them.
    missing : (image,) str
        Why an image that has no structure has none.
    """

    structures: tuple[str, ...]
    number: IntArray
    poses: RelionPoses
    likelihoods: dict[str, FloatArray]
    certainty: dict[str, FloatArray]
    posterior: dict[str, NDArray[Any]]
    missing: NDArray[np.object_]

    def names(self, rows: IntArray) -> NDArray[np.str_]:
        """Names of the structures of some images."""
        return np.array(self.structures)[self.number[rows]]


def assign(
    results: xr.Dataset,
    structure: str | None,
    template_source: TemplateSource | None,
    selection: Selection,
) -> Assignment:
    """Give each image its best structure, or the one that is named, and RELION's pose there; leave
    out images that are not selected.

    Raises
    ------
    InputError
        If results are incomplete, there is no such structure, no image has a result or is
        selected, or the axes of the templates are not known.
    """
    _check_choice(template_source)
    _refuse_incomplete(results)
    if labels.STRUCTURE not in results.dims:
        results = results.expand_dims(labels.STRUCTURE)
    q = q_values_of(results, needed=selection.max_q is not None)
    results = without_decoys(results)
    summary = summarise_results(selection.among(results, structure), structure)
    structures = tuple(str(name) for name in results[labels.STRUCTURE].values)
    position = {name: i for i, name in enumerate(structures)}
    number = np.array([position.get(name, -1) for name in summary[BEST_STRUCTURE].values], np.int64)
    no_result = "no result" if structure is None else f"no result under {structure}"
    if (number < 0).all():
        raise InputError(
            f"{no_result} of any of {len(number)} image(s)", remedy="Run the likelihood first."
        )
    comparable = summary[COMPARABLE].values
    of_best = np.where(comparable, summary[PROBABILITY].values, np.nan)
    probability = selection.probability(results, structure, of_best)
    missing = np.where(number < 0, no_result, selection.reasons(results, q, probability))
    missing = missing.astype(object)
    number[missing != ""] = -1
    if (number < 0).all():
        first = missing[missing != no_result][0]
        raise InputError(
            f"none of {len(number)} image(s) is left, such as by this: {first}",
            remedy="Ask for less.",
        )
    winners = {labels.STRUCTURE: xr.DataArray(number.clip(0), dims=labels.IMAGE)}
    winners[labels.IMAGE] = xr.DataArray(np.arange(len(number)), dims=labels.IMAGE)
    known = [name for name in (*OF_POSTERIOR, labels.REFINED_LOG_LIKELIHOOD) if name in results]
    of_winners = results[[*LIKELIHOODS, *known]].isel(winners).compute()
    of_likelihoods = [name for name in known if name not in OF_POSTERIOR]
    likelihoods = {
        name: of_winners[name].values.astype(np.float64) for name in (*LIKELIHOODS, *of_likelihoods)
    }
    compared = len(structures) > 1 and structure is None
    certainty = {PROBABILITY: probability, MARGIN: np.where(comparable, summary[MARGIN], np.nan)}
    certainty = certainty if compared else {}
    if q is not None:
        certainty[Q_VALUE] = q
    if labels.RESIDUAL_P_VALUE in results.coords:
        certainty[labels.RESIDUAL_P_VALUE] = results[labels.RESIDUAL_P_VALUE].values
    posterior = {name: of_winners[name].values for name in known}
    poses = _poses(results, summary, number, template_source)
    return Assignment(structures, number, poses, likelihoods, certainty, posterior, missing)


def with_images(results: xr.Dataset) -> xr.Dataset:
    """Results whose images are a dimension, be it of one.

    Raises
    ------
    InputError
        If these are no results.
    """
    if not isinstance(results, xr.Dataset):
        raise InputError(
            f"results are a {type(results).__name__}", remedy="Give what open_results gives."
        )
    if labels.IMAGE in results.coords and labels.IMAGE not in results.dims:
        results = results.expand_dims(labels.IMAGE)
    return results


def _check_choice(template_source: Any) -> None:
    if template_source is not None and template_source not in get_args(TemplateSource):
        raise InputError(f"template_source={template_source!r} is neither atoms nor map")


def _refuse_incomplete(results: xr.Dataset) -> None:
    missing = [name for name in (*LIKELIHOODS, *POSE) if name not in results.data_vars]
    if missing or labels.IMAGE not in results.dims:
        raise InputError(
            f"results have no {', '.join(missing) or labels.IMAGE}",
            remedy=NOT_RESULTS,
        )


def _poses(
    results: xr.Dataset, summary: xr.Dataset, number: IntArray, given: TemplateSource | None
) -> RelionPoses:
    frame = results.attrs.get("frame")
    if frame not in ("xy", "transposed"):
        raise InputError(
            f"frame={frame!r}: the axes of the images are not known",
            remedy="Open them by open_results.",
        )
    refined = all(name in summary for name in labels.REFINED_POSE)
    names = labels.REFINED_POSE if refined else POSE
    values = [summary[name].values.astype(np.float64) for name in names]
    unknown = np.flatnonzero((number >= 0) & ~np.isfinite(values).all(axis=0))
    if len(unknown):
        raise InputError(
            f"the best poses of {len(unknown)} image(s) are not known: {listed(unknown)}",
            remedy="Compute their results again; or assign optimal_azimuth and optimal_polar, the "
            "direction of each optimal_template, to the results.",
        )
    values = [np.where(number < 0, 0.0, column) for column in values]
    exchanged = _map_axes_exchanged(results, np.unique(number[number >= 0]), given)[number]
    poses = relion_poses(*values, transposed=frame == "transposed", map_axes_exchanged=exchanged)
    return RelionPoses(poses.axes, poses.origin_angstrom + _moved_already(results))


def _map_axes_exchanged(
    results: xr.Dataset, used: IntArray, given: TemplateSource | None
) -> NDArray[np.bool_]:
    """Whether the templates of each structure were made from a map by CryoLike's reading of its
    axes."""
    cryolike = _of_structures(results, labels.TEMPLATE_CONVENTIONS) != STANDARD.name
    source = _of_structures(results, labels.TEMPLATE_SOURCE)
    matters = np.zeros(len(source), np.bool_)
    matters[used] = cryolike[used]
    names = results[labels.STRUCTURE].values
    unknown = matters & (source == "unknown")
    if given is None and unknown.any():
        raise InputError(
            "poses depend on whether CryoLike's templates were made from atoms or from a map, "
            f"and of {np.count_nonzero(unknown)} structure(s) it is not known: "
            f"{first_names(names[unknown], 5)}",
            remedy='Say it: template_source="atoms" or "map" (--templates-from).',
        )
    denied = matters & (source != "unknown") & (source != given)
    if given is not None and denied.any():
        raise InputError(
            f"template_source={given!r}, but templates were made from {source[denied][0]}: "
            f"{first_names(names[denied], 5)}",
            remedy="Leave it out, or select structures that were made alike.",
        )
    exchanged: NDArray[np.bool_] = cryolike & (
        np.where(source == "unknown", str(given), source) == "map"
    )
    return exchanged


def _of_structures(results: xr.Dataset, name: str) -> NDArray[np.str_]:
    """A coordinate or an attribute, one text for each structure."""
    texts = results.coords[name].values if name in results.coords else results.attrs.get(name)
    texts = np.asarray("unknown" if texts is None else texts, np.str_)
    return np.broadcast_to(texts, results.sizes[labels.STRUCTURE])


def _moved_already(results: xr.Dataset) -> FloatArray:
    """Displacements of images before they were compared, angstrom, (image, 2): their recorded
    origins, or nothing."""
    recorded = [
        of_images(results, n, np.nan) for n in (labels.RECORDED_ORIGIN_X, labels.RECORDED_ORIGIN_Y)
    ]
    moved = of_images(results, labels.RECENTERED, False).astype(np.bool_)
    origins = np.where(moved[:, None], np.stack(recorded, axis=1).astype(np.float64), 0.0)
    lost = np.flatnonzero(~np.isfinite(origins).all(axis=1))
    if len(lost):
        raise InputError(
            f"image(s) {listed(lost)} were moved by their recorded origins, which the results do "
            "not have",
            remedy=NOT_RESULTS,
        )
    return origins
