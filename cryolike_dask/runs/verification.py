"""Whether results are what their records say, and what their inputs give: files checked, a
sample computed again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.compute.device import real_dtype
from cryolike_dask.compute.progress import counted
from cryolike_dask.conventions import conventions_named
from cryolike_dask.errors import InputError, OutputError, number
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.claims import differences
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.io.layout import (
    FULL_CORRELATION_FILES,
    PARAMETERS,
    LikelihoodFiles,
    holds_image_stacks,
    holds_templates,
)
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.likelihoods.graph import Pair, image_rows, resolved_tolerance
from cryolike_dask.likelihoods.interface import (
    compute_cross_correlation_complete,
    compute_optimal_pose,
)
from cryolike_dask.likelihoods.poses import no_poses
from cryolike_dask.likelihoods.setup import degrees_of_freedom, log_likelihood_at
from cryolike_dask.particles.opening import open_particles
from cryolike_dask.runs.integrity import NEAR_ANGSTROM, Report, Result, intact_results, read_search
from cryolike_dask.runs.origins import check_descriptions
from cryolike_dask.runs.run import Run, open_run
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.opening import open_structures

POSE = "pose"
LIKELIHOODS = (labels.LOG_LIKELIHOOD_INTEGRATED, labels.LOG_LIKELIHOOD_OPTIMAL)
QUANTITIES = (labels.CROSS_CORRELATION, POSE, *LIKELIHOODS)

ROUNDING = 16
"""Rounding of correlations and of the power of images, in units of the precision."""
NEAR_RADIAN = 1e-4
UNNAMED = "settings of the reading"
PLACE = ["template", "displacement", "rotation"]

logger = logging.getLogger("cryolike_dask")

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Verification:
    """What was found.

    Attributes
    ----------
    findings : tuple of str
        What is wrong: the file, what is wrong with it, what to do.
    notes : tuple of str
        What was not checked, what is not there, what lies about.
    n_files : int
        Files of those results all of whose files are as recorded.
    sample : xarray.Dataset
        difference and tolerance, dims (sample, quantity), NaN where a kind of result has no such
        quantity; coordinates kind, structure (its number), stack, image_in_stack. The difference of
        a pose is how much less than the best it correlates.
    """

    findings: tuple[str, ...]
    notes: tuple[str, ...]
    n_files: int
    sample: xr.Dataset

    @property
    def ok(self) -> bool:
        """Nothing is wrong with what was checked."""
        return not self.findings


def verify_likelihood(
    folder_output: str | Path,
    params_input: str | Path | ImageParameters | None = None,
    *,
    templates: str | Path | TemplateStack | Sequence[TemplateStack] | None = None,
    images: str | Path | ImageStack | None = None,
    n_samples: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> Verification:
    """Check results against their completion records, and compute a random sample of them again.

    Every file of every record must be there, be a plain tensor of the recorded shape, and have the
    recorded checksum. The sample is computed in this process in double precision, on the CPU,
    without compression, from the original inputs, which must still be those that the records
    describe. Records name inputs but no folders: without `templates` and `images` only files are
    checked.

    Parameters
    ----------
    folder_output : path
    params_input : path or ImageParameters, optional
        Default: `parameters.npz` in the folder of templates.
    templates : path, TemplateStack or several, optional
        The folder that holds `template_file_list.npy`, or structures, as the run was given them.
    images : path or ImageStack, optional
        The folder that holds `fft`, or particles, as the run was given them.
    n_samples : int
        How many images to compute again, each under one structure; 0: none.
    seed : int
        Same seed, same sample.
    progress : bool
        Show a bar on a terminal or in a notebook, elsewhere a line of the log now and then.

    Returns
    -------
    Verification

    Raises
    ------
    InputError, InputFileError
        If an argument cannot be used, or there is no such output folder. What is wrong with
        results, and inputs that are missing or have changed, are findings.

    Notes
    -----
    Where u is the rounding of the results' precision (1.2e-7 or 2.2e-16), a correlation may differ
    by

        d = correlation_error_bound + 16 u + 2 pi K (2 s / L) u / 2:

    compression; rounding; and what the largest displacement s is rounded by in
    `displacements_set.pt` (K the band limit, L the box), in single precision. A pose that
    correlates up to 2 d less than the best is a tie. With n degrees of freedom and r the best
    correlation, a log-likelihood may differ by

        u |log-likelihood| + n/2 (16 u + 2 r e / (1 - (r + e)^2)):

    storage; the rounding of the image's power, which counts n/2 times; and correlations that are
    off by e: by d if it is integrated; by d without the first term at the best pose, which is not
    compressed, and is compared at the pose that is written. Measured: correlations differ by up to
    4 u, log-likelihoods by a tenth of what is allowed.
    """
    n = number("n_samples", n_samples, whole=True, at_least=0)
    rng = np.random.default_rng(number("seed", seed, whole=True, at_least=0))
    files, report = LikelihoodFiles(None, None, Path(folder_output)), Report()
    results = intact_results(
        files, report, partial(counted, title="results checked", shown=progress)
    )
    check_descriptions(files, results, report)
    parts: list[xr.Dataset] = []
    if n and (templates is None or images is None):
        report.notes.append(
            "no result was computed again, for it is not known where the inputs are. Give "
            "templates and images "
            "(--templates, --particles, and --parameters) as the run was given them."
        )
        n = 0
    parameters = _parameters(params_input, templates) if n else None
    with report.listing():
        search = read_search(files, results[0]) if results else None
        if parameters is not None and search is not None:
            drawn = draw(results, n, rng)
            run = _open(
                files, read_parameters(parameters), templates, images, search, [r for r, _ in drawn]
            )
            logger.info(
                "computing %d results again in double precision",
                sum(len(rows) for _, rows in drawn),
            )
            for result, rows in counted(drawn, "results computed again", shown=progress):
                with report.listing():
                    parts.append(_compared(result, rows, run))
                    report.findings += _differences(parts[-1], result)
    sample = xr.concat(parts, "sample") if parts else _no_sample()
    return Verification(
        tuple(report.findings), tuple(report.notes), sum(len(r.outputs) for r in results), sample
    )


def _parameters(
    given: str | Path | ImageParameters | None, templates: Any
) -> str | Path | ImageParameters:
    if given is not None:
        return given
    if not isinstance(templates, (str, Path)) or not holds_templates(Path(templates)):
        raise InputError(
            "the parameters are not known",
            remedy="Beside structures, give parameters.npz (--parameters).",
        )
    return Path(templates) / PARAMETERS


def draw(
    results: Sequence[Result], n: int, rng: np.random.Generator
) -> list[tuple[Result, NDArray[np.int64]]]:
    """Draw images of results without replacement; each result once, with the rows drawn of it."""
    sizes = np.array([len(result) for result in results])
    ends = sizes.cumsum()
    drawn = np.sort(rng.choice(ends[-1], min(n, int(ends[-1])), replace=False))
    which = np.searchsorted(ends, drawn, side="right")
    return [(results[i], drawn[which == i] - (ends[i] - sizes[i])) for i in np.unique(which)]


def _open(
    files: LikelihoodFiles,
    parameters: ImageParameters,
    templates: Any,
    images: Any,
    search: DisplacementGrid,
    results: Sequence[Result],
) -> Run:
    """Open what these results came from, as the run did."""
    record = results[0].record
    settings, conventions = (
        record["settings"],
        conventions_named(record["settings"].get("conventions")).name,
    )
    if isinstance(templates, (str, Path)) and holds_templates(Path(templates)):
        files, templates = replace(files, folder_templates=Path(templates)), None
    elif isinstance(templates, (str, Path)):
        templates = open_structures(templates, parameters, conventions=conventions)
    if isinstance(images, (str, Path)) and holds_image_stacks(Path(images)):
        files, images = replace(files, folder_particles=Path(images)), None
    elif isinstance(images, (str, Path)):
        images = open_particles(images, parameters, conventions=conventions)
    run = open_run(
        files,
        parameters,
        lambda stack: replace(stack, displacements=search),
        i_template=sorted({result.i_template for result in results}),
        n_stacks=max(result.i_stack for result in results) + 1,
        conventions=conventions,
        device="cpu",
        precision=record["precision"],
        tolerance=settings.get("tolerance"),
        given_images=images,
        given_templates=templates,
    )
    if other := differences(settings["parameters"], run.settings["parameters"]):
        raise InputError(f"the parameters are not those of the results: {other}")
    return run


def _compared(result: Result, rows: NDArray[np.int64], run: Run) -> xr.Dataset:
    """Compute some images of a result again, and give differences and tolerances."""
    _refuse_changed(
        result, [*run.inputs["templates"][result.i_template], *run.inputs["images"][result.i_stack]]
    )
    images, templates = run.images[result.i_stack][rows], run.templates[result.i_template]
    compare = _compare_poses if result.kind == "optimal_pose" else _compare_correlations
    difference, tolerance = compare(result, rows, images, templates)
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


def _no_sample() -> xr.Dataset:
    empty = (("sample", "quantity"), np.empty((0, len(QUANTITIES))))
    return xr.Dataset(
        {"difference": empty, "tolerance": empty}, coords={"quantity": list(QUANTITIES)}
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


def _compare_poses(
    result: Result, rows: NDArray[np.int64], images: ImageStack, templates: TemplateStack
) -> tuple[Floats, Floats]:
    """Differences and tolerances of best poses: (image, quantity)."""
    written = {name: file.take(rows).astype(np.float64) for name, file in result.outputs.items()}
    exact = _exactly(compute_optimal_pose, result, images, templates).compute(
        scheduler="synchronous"
    )
    best, rounding = exact[labels.CROSS_CORRELATION].values, _rounding(result, templates)
    allowed = rounding + _bound(result, images, templates)
    at_pose, likelihood_at_pose = _at_written_poses(result, images, templates, written, exact)
    again = dict(
        zip(
            QUANTITIES,
            (best, at_pose, exact[LIKELIHOODS[0]].values, likelihood_at_pose),
            strict=True,
        )
    )
    differences = {name: np.abs(written[name] - again[name]) for name in QUANTITIES if name != POSE}
    differences[POSE] = best - at_pose
    tolerances = {labels.CROSS_CORRELATION: allowed, POSE: 2 * allowed}
    for name, off in zip(LIKELIHOODS, (allowed, np.full(len(rows), rounding)), strict=True):
        tolerances[name] = _allowed_in_likelihood(result, templates, again[name], best, off)
    return np.stack([differences[q] for q in QUANTITIES], 1), np.stack(
        [tolerances[q] for q in QUANTITIES], 1
    )


def _compare_correlations(
    result: Result, rows: NDArray[np.int64], images: ImageStack, templates: TemplateStack
) -> tuple[Floats, Floats]:
    """Differences and tolerances of full correlations, the largest of all poses: (image,
    quantity)."""
    (variable,) = FULL_CORRELATION_FILES
    difference, tolerance = np.full((2, len(rows), len(QUANTITIES)), np.nan)
    tolerance[:, 0] = _rounding(result, templates) + _bound(result, images, templates)
    for m in range(len(rows)):
        exact = _exactly(
            compute_cross_correlation_complete, result, images[[m]], templates
        ).cross_correlation.data
        written = da.from_array(result.outputs[variable].take(rows[m : m + 1]), chunks=exact.chunks)
        difference[m, 0] = abs(written - exact).max().compute(scheduler="synchronous")
    return difference, tolerance


def _exactly(
    compute: Any, result: Result, images: ImageStack, templates: TemplateStack
) -> xr.Dataset:
    conventions = result.record["settings"]["conventions"]
    found: xr.Dataset = compute(
        images, templates, conventions=conventions, device="cpu", precision="double", tolerance=0
    )
    return found


def _at_written_poses(
    result: Result,
    images: ImageStack,
    templates: TemplateStack,
    written: dict[str, Any],
    exact: xr.Dataset,
) -> tuple[Floats, Floats]:
    """Correlation and log-likelihood of images at the poses that are written; NaN where that is
    none of the search."""
    correlation, log_likelihood = np.full((2, len(images)), np.nan)
    (poses, known), (best, _) = (
        _indices(written, templates),
        _indices({name: exact[name] for name in written}, templates),
    )
    conventions = result.record["settings"]["conventions"]
    comparison = Pair(images, templates, conventions, "cpu", "double", False, 0).comparison
    rows = image_rows(images, comparison.conventions)
    if known.any():
        log_likelihood[known] = log_likelihood_at(rows[known], poses[known], comparison)
    same = known & (poses[PLACE] == best[PLACE])
    correlation[same] = exact[labels.CROSS_CORRELATION].values[same]
    for m in np.flatnonzero(known & ~same).tolist():
        one = _of_pose(templates, poses[m : m + 1])
        every = _exactly(
            compute_cross_correlation_complete, result, images[[m]], one
        ).cross_correlation.data
        correlation[m] = every[0, 0, 0, poses["rotation"][m]].compute(scheduler="synchronous")
    return correlation, log_likelihood


def _indices(
    found: dict[str, Any], templates: TemplateStack
) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """Poses in angstrom and radian as indices, and which of them are of the search at all."""
    names = (
        labels.OPTIMAL_DISPLACEMENT_X,
        labels.OPTIMAL_DISPLACEMENT_Y,
        labels.OPTIMAL_INPLANE_ROTATION,
    )
    x, y, rotation = (np.asarray(found[name])[:, None] for name in names)
    distance = np.hypot(
        *(table - at for table, at in zip(templates.displacements.table(), (x, y), strict=True))
    )
    turn, poses = np.abs(templates.grid.angles - rotation), no_poses((len(x),))
    poses["template"], poses["displacement"] = (
        np.asarray(found[labels.OPTIMAL_TEMPLATE]),
        distance.argmin(1),
    )
    poses["rotation"] = turn.argmin(1)
    near = (distance.min(1) < NEAR_ANGSTROM) & (turn.min(1) < NEAR_RADIAN)
    return poses, near & (poses["template"] >= 0) & (poses["template"] < len(templates))


def _of_pose(templates: TemplateStack, pose: NDArray[np.void]) -> TemplateStack:
    """The template of a pose alone, at its displacement."""
    s, d, viewing = pose["template"], pose["displacement"], templates.viewing
    return replace(
        templates,
        source=templates.source.subset(s),
        viewing=ViewingAngles(viewing.azimuth[s], viewing.polar[s], viewing.weight[s]),
        displacements=DisplacementGrid(*templates.displacements.table()[:, d]),
        chunks=None,
    )


def _rounding(result: Result, templates: TemplateStack) -> float:
    """What a correlation may differ by for rounding, that of the displacements in their file
    included."""
    precision, grid = result.record["precision"], templates.grid
    u = float(np.finfo(real_dtype(precision)).eps)
    farthest = (
        float(np.hypot(*templates.displacements.table()).max()) if precision == "single" else 0.0
    )
    return (
        ROUNDING * u + 2 * np.pi * grid.radius_max * 2 * farthest / grid.box_size_angstrom * u / 2
    )


def _bound(result: Result, images: ImageStack, templates: TemplateStack) -> Floats:
    """What a correlation of each image may differ by for compression, computed: no written one
    is believed."""
    settings, precision = result.record["settings"], result.record["precision"]
    tolerance = resolved_tolerance(settings.get("tolerance"), precision)
    if not tolerance:
        return np.zeros(len(images))
    poses = compute_optimal_pose(
        images,
        templates,
        conventions=settings["conventions"],
        device="cpu",
        precision=precision,
        tolerance=tolerance,
    )
    bound = poses[labels.CORRELATION_ERROR_BOUND]
    return np.asarray(bound.data.compute(scheduler="synchronous"), np.float64)


def _allowed_in_likelihood(
    result: Result,
    templates: TemplateStack,
    log_likelihood: Floats,
    correlation: Floats,
    allowed: Floats,
) -> Floats:
    """What a log-likelihood may differ by where correlations may differ by `allowed`."""
    u = np.finfo(real_dtype(result.record["precision"])).eps
    n = degrees_of_freedom(
        templates.grid, conventions_named(result.record["settings"]["conventions"])
    )
    left = np.maximum(1 - (np.abs(correlation) + allowed) ** 2, u)
    tolerance: Floats = u * np.abs(log_likelihood) + n / 2 * (
        ROUNDING * u + 2 * np.abs(correlation) * allowed / left
    )
    return tolerance


def _differences(part: xr.Dataset, result: Result) -> list[str]:
    """What differs by more than it may."""
    found = []
    wrong = part.tolerance.notnull() & ~(part.difference <= part.tolerance)
    for m, q in np.argwhere(wrong.values):
        difference, tolerance = part.difference.values[m, q], part.tolerance.values[m, q]
        name = QUANTITIES[q]
        how = (
            "correlates less than the best by"
            if name == POSE
            else "differs from the same in double precision by"
        )
        row = int(part[labels.IMAGE_IN_STACK][m])
        what = f"{name} of image {row} {how} {difference:.3g}; {tolerance:.3g} is allowed"
        remedy = f"Check the inputs; remove {result.path.name} and run again with skip_exist=True."
        source = result.outputs.get(name, next(iter(result.outputs.values()))).path
        found.append(str(OutputError(what, source=source, remedy=remedy)))
    return found
