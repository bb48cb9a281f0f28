"""A sample of results computed again, and by how much they may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.compute.device import real_dtype
from cryolike_dask.errors import OutputError
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.search_method import search_done
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.io.layout import FULL_CORRELATION_FILES
from cryolike_dask.io.records import search_method
from cryolike_dask.likelihoods import interface
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, whitening_of
from cryolike_dask.likelihoods.poses import no_poses
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.likelihoods.setup import log_likelihood_at
from cryolike_dask.runs.integrity import NEAR_ANGSTROM, Result
from cryolike_dask.runs.kinds import kind_named
from cryolike_dask.runs.run import Run
from cryolike_dask.stacks import ImageStack, TemplateStack

POSE = "pose"
LIKELIHOODS = (labels.LOG_LIKELIHOOD_INTEGRATED, labels.LOG_LIKELIHOOD_OPTIMAL)
QUANTITIES = (labels.CROSS_CORRELATION, POSE, *LIKELIHOODS, *labels.OF_SEARCH)

ROUNDING = 16
"""Rounding of correlations and of the power of images, in units of the precision."""
NEAR_RADIAN = 1e-4
PART_OF_SEARCH, LEAST_MISSED = 0.25, 0.01
"""Part by which what a search says of itself may differ, and nat: a view or a window that is just
worth comparing on one device is just not on another."""
UNNAMED = "settings of the reading"
PLACE = ["template", "displacement", "rotation"]

HOW_IT_DIFFERS = {
    POSE: "correlates less than the best by",
    **dict.fromkeys(labels.OF_SEARCH, "differs from that of the same search by"),
}

Floats = NDArray[np.float64]


def compare_again(result: Result, rows: NDArray[np.int64], run: Run) -> xr.Dataset:
    """Compute some images of a result again, and give differences and tolerances.

    Raises
    ------
    OutputError
        If the inputs are not those of the record any more.
    """
    _refuse_changed(result, run.inputs.of(result.i_template, result.i_stack))
    images, templates = run.images[result.i_stack][rows], run.templates[result.i_template]
    # those of each result: template files, and kinds of results, may differ
    settings = replace(
        run.settings,
        precision=result.record["precision"],
        search=search_done(search_method(result.record["settings"])),
    ).unrefined
    again = Recomputation(result, rows, images, templates, settings)
    keeps_every_pose = kind_named(result.kind).keeps_every_pose
    difference, tolerance = again.of_correlations() if keeps_every_pose else again.of_poses()
    dims = ("sample", "quantity")
    return xr.Dataset(
        {"difference": (dims, difference), "tolerance": (dims, tolerance)},
        coords={
            "quantity": list(QUANTITIES),
            "kind": ("sample", [result.kind] * len(rows)),
            labels.STRUCTURE: ("sample", [result.i_template] * len(rows)),
            labels.STACK: ("sample", [result.i_stack] * len(rows)),
            labels.IMAGE_IN_STACK: ("sample", rows),
        },
    )


def no_sample() -> xr.Dataset:
    """The differences and tolerances of no images."""
    empty = (("sample", "quantity"), np.empty((0, len(QUANTITIES))))
    return xr.Dataset(
        {"difference": empty, "tolerance": empty}, coords={"quantity": list(QUANTITIES)}
    )


def beyond_tolerance(part: xr.Dataset, result: Result) -> list[str]:
    """Say what differs by more than it may."""
    findings = []
    wrong = part.tolerance.notnull() & ~(part.difference <= part.tolerance)
    for m, q in np.argwhere(wrong.values):
        difference, tolerance = part.difference.values[m, q], part.tolerance.values[m, q]
        name = QUANTITIES[q]
        how = HOW_IT_DIFFERS.get(name, "differs from the same in double precision by")
        row = int(part[labels.IMAGE_IN_STACK][m])
        what = f"{name} of image {row} {how} {difference:.3g}; {tolerance:.3g} is allowed"
        remedy = f"Check the inputs; remove {result.path.name} and run again with skip_exist=True."
        source = result.outputs.get(name, next(iter(result.outputs.values()))).path
        findings.append(str(OutputError(what, source=source, remedy=remedy)))
    return findings


@dataclass(frozen=True)
class Recomputation:
    """Rows of a result with the images and templates that it came from, computed on the CPU."""

    result: Result
    rows: NDArray[np.int64]
    images: ImageStack
    templates: TemplateStack
    settings: Settings

    @property
    def exact_settings(self) -> Settings:
        """The settings of the result in double precision, without compression."""
        return replace(self.settings, device="cpu", precision="double", tolerance=0)

    @property
    def unit(self) -> float:
        """The rounding of the result's precision."""
        return float(np.finfo(real_dtype(self.result.record["precision"])).eps)

    def of_poses(self) -> tuple[Floats, Floats]:
        """Differences and tolerances of best poses: (image, quantity)."""
        graph = ComparisonGraph(self.images, self.templates, self.exact_settings)
        exact = interface.optimal_poses(graph).compute(scheduler="synchronous")
        written = {
            name: file.take(self.rows).astype(np.float64)
            for name, file in self.result.outputs.items()
            if name in exact
        }
        best, rounding = exact[labels.CROSS_CORRELATION].values, self._rounding()
        allowed = rounding + self._compression_bound()
        of_search = [name for name in labels.OF_SEARCH if name in written]
        # in the precision of the result: it decides which views are just worth comparing
        found = self._found_again if of_search else exact
        at_pose, likelihood_at_pose = self._at_written_poses(written, exact)
        again = {
            labels.CROSS_CORRELATION: best,
            LIKELIHOODS[0]: exact[LIKELIHOODS[0]].values,
            LIKELIHOODS[1]: likelihood_at_pose,
            **{name: found[name].values.astype(np.float64) for name in of_search},
        }
        differences = {name: np.abs(written[name] - values) for name, values in again.items()}
        differences[POSE] = best - at_pose
        tolerances = {labels.CROSS_CORRELATION: allowed, POSE: 2 * allowed}
        # the best pose alone is not compressed, and is compared at the pose that is written
        off = {LIKELIHOODS[0]: allowed, LIKELIHOODS[1]: np.full(len(self.rows), rounding)}
        for name, correlation_off in off.items():
            tolerances[name] = self._allowed_in_likelihood(again[name], best, correlation_off)
        for name in of_search:
            least = LEAST_MISSED if name == labels.LOG_LIKELIHOOD_ERROR else 0
            tolerances[name] = PART_OF_SEARCH * np.maximum(again[name], written[name]) + least
        unknown = np.full(len(self.rows), np.nan)
        return (
            np.stack([differences.get(name, unknown) for name in QUANTITIES], 1),
            np.stack([tolerances.get(name, unknown) for name in QUANTITIES], 1),
        )

    def of_correlations(self) -> tuple[Floats, Floats]:
        """Differences and tolerances of full correlations, the largest of all poses: (image,
        quantity)."""
        (variable,) = FULL_CORRELATION_FILES
        difference, tolerance = np.full((2, len(self.rows), len(QUANTITIES)), np.nan)
        tolerance[:, 0] = self._rounding() + self._compression_bound()
        for m in range(len(self.rows)):
            exact = self._all_correlations(m, self.templates)
            values = self.result.outputs[variable].take(self.rows[m : m + 1])
            written = da.from_array(values, chunks=exact.chunks)
            difference[m, 0] = abs(written - exact).max().compute(scheduler="synchronous")
        return difference, tolerance

    def _all_correlations(self, m: int, templates: TemplateStack) -> da.Array:
        """Correlations of one image at every pose, lazily."""
        graph = ComparisonGraph(self.images[[m]], templates, self.exact_settings, by_batch=True)
        return interface.all_correlations(graph)[labels.CROSS_CORRELATION].data

    def _at_written_poses(
        self, written: dict[str, Floats], exact: xr.Dataset
    ) -> tuple[Floats, Floats]:
        """Correlation and log-likelihood of images at the poses that are written; NaN where that is
        none of the search."""
        correlation, log_likelihood = np.full((2, len(self.images)), np.nan)
        poses, known = _indices(written, self.templates)
        best, _ = _indices({name: exact[name] for name in written}, self.templates)
        graph = ComparisonGraph(self.images, self.templates, self.exact_settings)
        comparison = graph.comparison
        rows = image_rows(self.images, comparison.conventions, graph.group_of_image)
        if known.any():
            log_likelihood[known] = log_likelihood_at(rows[known], poses[known], comparison)
        same = known & (poses[PLACE] == best[PLACE])
        correlation[same] = exact[labels.CROSS_CORRELATION].values[same]
        for m in np.flatnonzero(known & ~same).tolist():
            every = self._all_correlations(m, _at_pose(self.templates, poses[m : m + 1]))
            at_pose = every[0, 0, 0, poses["rotation"][m]]
            correlation[m] = at_pose.compute(scheduler="synchronous")
        return correlation, log_likelihood

    def _rounding(self) -> float:
        """The rounding of a correlation, that of the displacements in their file included."""
        table, grid = self.templates.displacements.table(), self.templates.grid
        is_single = self.result.record["precision"] == "single"
        farthest = float(np.hypot(*table).max()) if is_single else 0.0
        cycles = grid.radius_max * 2 * farthest / grid.box_size_angstrom
        return ROUNDING * self.unit + 2 * np.pi * cycles * self.unit / 2

    def _compression_bound(self) -> Floats:
        """The bound on what compression changes of each image, computed: no written one is
        believed."""
        if not self.settings.tolerance_in(self.result.record["precision"]):
            return np.zeros(len(self.images))
        return self._found_again[labels.CORRELATION_ERROR_BOUND].values.astype(np.float64)

    @cached_property
    def _found_again(self) -> xr.Dataset:
        """What the same settings find."""
        graph = ComparisonGraph(self.images, self.templates, self.settings)
        names = [labels.CORRELATION_ERROR_BOUND]
        names += [] if self.settings.search == "exhaustive" else labels.OF_SEARCH
        return interface.optimal_poses(graph)[names].compute(scheduler="synchronous")

    def _allowed_in_likelihood(
        self, log_likelihood: Floats, correlation: Floats, allowed: Floats
    ) -> Floats:
        """The tolerance of a log-likelihood where correlations may differ by `allowed`."""
        groups, whitening = whitening_of(self.images, self.settings)
        n, u = whitening.n_degrees_of_freedom[groups], self.unit
        left = np.maximum(1 - (np.abs(correlation) + allowed) ** 2, u)
        in_correlation = ROUNDING * u + 2 * np.abs(correlation) * allowed / left
        tolerance: Floats = u * np.abs(log_likelihood) + n / 2 * in_correlation
        return tolerance


def _indices(
    poses_by_name: Mapping[str, Any], templates: TemplateStack
) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """Poses in angstrom and radian as indices, and which of them are of the search at all."""
    names = (
        labels.OPTIMAL_DISPLACEMENT_X,
        labels.OPTIMAL_DISPLACEMENT_Y,
        labels.OPTIMAL_INPLANE_ROTATION,
    )
    x, y, rotation = (np.asarray(poses_by_name[name])[:, None] for name in names)
    distance = np.hypot(
        *(table - at for table, at in zip(templates.displacements.table(), (x, y), strict=True))
    )
    turn, poses = np.abs(templates.grid.angles - rotation), no_poses((len(x),))
    poses["template"], poses["displacement"] = (
        np.asarray(poses_by_name[labels.OPTIMAL_TEMPLATE]),
        distance.argmin(1),
    )
    poses["rotation"] = turn.argmin(1)
    near = (distance.min(1) < NEAR_ANGSTROM) & (turn.min(1) < NEAR_RADIAN)
    return poses, near & (poses["template"] >= 0) & (poses["template"] < len(templates))


def _at_pose(templates: TemplateStack, pose: NDArray[np.void]) -> TemplateStack:
    """The template of a pose alone, at its displacement."""
    s, d, viewing = pose["template"], pose["displacement"], templates.viewing
    return replace(
        templates,
        source=templates.source.subset(s),
        viewing=ViewingAngles(viewing.azimuth[s], viewing.polar[s], viewing.weight[s]),
        displacements=DisplacementGrid(*templates.displacements.table()[:, d]),
        chunks=None,
    )


def _refuse_changed(result: Result, given: Sequence[InputDescription]) -> None:
    """Refuse inputs that are not those of the record."""
    recorded = result.record["inputs"]
    remedy = "Give the inputs of the run, or run again with skip_exist=True."
    names, names_given = (
        [str(entry.get("name", UNNAMED)) for entry in entries] for entries in (recorded, given)
    )
    if names != names_given:
        what = (
            f"says that the results came from {', '.join(names)}, but {', '.join(names_given)} "
            f"are given"
        )
        raise OutputError(what, source=result.path, remedy=remedy)
    for name, then, now in zip(names, recorded, given, strict=True):
        changed = [
            f"{key} {value} then, {now.get(key)} now"
            for key, value in then.items()
            if now.get(key) != value
        ]
        if changed:
            what = f"has changed since results were computed from it ({'; '.join(changed)})"
            raise OutputError(what, source=name, remedy=remedy)
