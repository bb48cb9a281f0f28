"""The report of a run: one page for a browser, that needs nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import findings, summaries
from cryolike_dask.analysis.block_times import Blocks, read_blocks
from cryolike_dask.analysis.compare.compare import compare_runs
from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.analysis.decoys.of_results import Q_VALUE, competition_if_any
from cryolike_dask.analysis.image_names import IMAGE_NAME, Called, called
from cryolike_dask.analysis.plots.particle_plots import extreme_rows
from cryolike_dask.analysis.report import (
    about_decoys,
    about_populations,
    about_poses,
    about_run,
    about_structures,
)
from cryolike_dask.analysis.report.about_belief import basis_of, noise_section
from cryolike_dask.analysis.report.about_comparison import comparison_section
from cryolike_dask.analysis.report.about_groups import groups_section
from cryolike_dask.analysis.report.about_poses import Inputs
from cryolike_dask.analysis.report.next_steps import next_steps
from cryolike_dask.analysis.report.page import Content, page_of, refuse_others
from cryolike_dask.analysis.report.particle_table import particles_section, table_as_json
from cryolike_dask.analysis.report.sentence import sentence
from cryolike_dask.analysis.report.svg import write_figure
from cryolike_dask.analysis.report.trust import about_calibration, trust
from cryolike_dask.analysis.run_file import run_file
from cryolike_dask.analysis.search_steps import Step, search_steps
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.compute.progress import counted
from cryolike_dask.errors import (
    CryolikeError,
    InputError,
    InputFileError,
    number,
)
from cryolike_dask.errors import counted as counted_words
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.atomic import replacing, writing
from cryolike_dask.io.export_names import REPORT
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.trajectories.trajectory import Trajectory

MOST_EXAMPLES = 12
N_MEASURED = 12
"""Images on which the steps of the search are measured."""

logger = logging.getLogger("cryolike_dask")


def write_report(
    results: str | Path | xr.Dataset,
    path: str | Path | None = None,
    *,
    templates: str | Path | Trajectory | TemplateStack | Sequence[TemplateStack] | None = None,
    particles: str | Path | ImageStack | Sequence[ImageStack] | None = None,
    parameters: str | Path | ImageParameters | None = None,
    n_examples: int = 4,
    compare_with: str | Path | xr.Dataset | None = None,
    figures: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write what results say as one page for a browser: the answer, whether it can be believed,
    what to do next, then figures, particles, what was run.

    The page holds its figures, and asks nothing of the network. Warnings are logged too.

    Parameters
    ----------
    results : path or xarray.Dataset
        The output folder of a run, finished or not, or what `open_results` gives.
    path : path, optional
        Where the page goes; default: `report.html` in the output folder.
    templates, particles : path, Trajectory, stack or several stacks, optional
        As they were given to the run, to show particles beside their projections; default: the
        folders that the results name. If they cannot be read, the page says so.
    parameters : path or ImageParameters, optional
        Default: `parameters.npz` in the folder of templates.
    n_examples : int
        How many of the best, and of the worst, fitting particles to show; 0: none.
    compare_with : path or xarray.Dataset, optional
        An earlier run of the same particles, or some of them: a section says how they agree, as
        `compare_runs` does.
    figures : path, optional
        A folder that gets each figure as SVG, PDF and PNG; files of their names are replaced.
    overwrite : bool
        Replace a file that is not such a page. A page is always replaced.
    progress : bool
        Show a bar on a terminal or in a notebook, elsewhere a line of the log now and then.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError, InputFileError
        If there are no results, or an argument cannot be used; of `compare_with` as of
        `compare_runs`.
    OutputError
        If there is another file, or the page or the folder of figures cannot be written.
    """
    n = number("n_examples", n_examples, whole=True, at_least=0)
    if n > MOST_EXAMPLES:
        raise InputError(
            f"n_examples={n} do not fit side by side", remedy=f"Take at most {MOST_EXAMPLES}."
        )
    opened = results if isinstance(results, xr.Dataset) else open_results(results)
    page = _place(opened, path)
    refuse_others(page, overwrite)
    if figures is not None:
        _make_folder(Path(figures))
    summary = summarise_results(opened)
    if (summary[summaries.BEST_STRUCTURE] == summaries.NO_STRUCTURE).all():
        raise InputError("no image has a result", remedy="Run the likelihood first.")
    comparison = None if compare_with is None else compare_runs(compare_with, opened)
    content = _content(opened, summary, Inputs(templates, particles, parameters), n, progress)
    if comparison is not None:
        content = replace(content, last=(comparison_section(comparison), *content.last))
    with replacing(page) as file:
        file.write(page_of(content).encode("utf-8", "replace"))
    if figures is not None:
        for drawn in content.panels:
            write_figure(drawn.figure, Path(figures), drawn.key)
    for warning in content.warnings:
        logger.warning("%s", warning.text)
    return page


def _make_folder(folder: Path) -> None:
    """Make a folder for figures before anything is drawn."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _content(
    opened: xr.Dataset, summary: xr.Dataset, inputs: Inputs, n_examples: int, progress: bool
) -> Content:
    """Everything that the page says, part by part."""
    table, blocks = _blocks(opened)
    competition = competition_if_any(opened)
    images = called(summary)
    known = _with_names(summary, images, competition)
    described = run_file(opened)
    parts: list[Callable[[], Any]] = [
        partial(_steps, summary, inputs),
        partial(about_populations.how_much, opened, summary, competition),
        partial(about_structures.structures_section, opened, summary),
        partial(about_decoys.none_section, opened, competition),
        partial(about_structures.truth_section, summary),
        partial(about_poses.correlation_section, summary),
        partial(about_poses.poses_section, summary),
        partial(about_poses.displacements_section, summary),
        partial(about_poses.examples_section, known, n_examples, inputs)
        if n_examples
        else lambda: None,
        partial(about_run.time_section, table, blocks),
        partial(table_as_json, known, images),
        partial(about_run.run_section, summary, blocks, described),
    ]
    steps, shares, *sections, times, particles, run = [
        make() for make in counted(parts, "parts of the report", shown=progress)
    ]
    groups, about_groups_found = groups_section(opened, summary, shares.found, images, competition)
    basis = basis_of(summary)
    lights = trust(summary, steps, basis)
    warnings = [
        *findings.warnings_about(summary),
        *shares.findings,
        *about_groups_found,
        *about_calibration(lights),
        *findings.about_steps(summary, steps),
    ]
    todo = next_steps(summary, steps, lights, described, has_decoys=competition is not None)
    *first, examples = sections
    figures = [*first, noise_section(basis), about_poses.steps_section(steps), examples]
    return Content(
        title=_title(opened, "Report"),
        subtitle=_compared(summary),
        answer=shares.section,
        sentence=sentence(summary, shares, lights, about_groups_found),
        lights=lights,
        warnings=tuple(warnings),
        next_steps=tuple(todo),
        groups=groups,
        sections=tuple(section for section in figures if section is not None),
        particles=particles_section(summary),
        table=particles,
        last=tuple(section for section in (times, run) if section is not None),
    )


def _with_names(summary: xr.Dataset, images: Called, competition: xr.Dataset | None) -> xr.Dataset:
    """The summary with names of images, and what decoys say of each."""
    named = summary.assign_coords({IMAGE_NAME: (labels.IMAGE, images.name)})
    if competition is None:
        return named
    return named.assign({Q_VALUE: (labels.IMAGE, competition[Q_VALUE].values)})


def _compared(summary: xr.Dataset) -> str:
    n_done = int((summary[summaries.BEST_STRUCTURE] != summaries.NO_STRUCTURE).sum())
    n = summary.sizes[labels.STRUCTURE]
    return f"{n_done:,} images compared with {counted_words(n, 'structure')}"


def _title(results: xr.Dataset, what: str) -> str:
    name = "/".join(Path(str(results.attrs.get("folder", ""))).parts[-2:])
    return f"{what} on {name}" if name else f"{what} on likelihoods"


def _place(results: xr.Dataset, path: str | Path | None) -> Path:
    if path is not None:
        return Path(path)
    folder = results.attrs.get("folder")
    if not folder:
        raise InputError(
            "the results do not say in which folder they are", remedy="Give the path of the report."
        )
    return Path(folder) / REPORT


def _blocks(results: xr.Dataset) -> tuple[Path | None, Blocks | None]:
    """The table of blocks, where there is one that can be read."""
    folder = results.attrs.get("folder")
    path = LikelihoodFiles(None, None, Path(folder)).block_table if folder else None
    if path is None or not path.is_file():
        return None, None
    try:
        return path, read_blocks(path)
    except InputFileError as error:
        logger.warning("%s", error)
        return None, None


def _steps(summary: xr.Dataset, inputs: Inputs) -> list[Step]:
    """Steps of the search, for images from the best to the worst fitting one; none if inputs are
    not there."""
    best, _ = extreme_rows(summary, summary.sizes[labels.IMAGE])
    rows = best[evenly_spread(len(best), N_MEASURED)]
    try:
        return search_steps(summary.isel({labels.IMAGE: rows}), *inputs.open(summary, rows))
    except (CryolikeError, OSError):  # the section of examples says why
        return []
