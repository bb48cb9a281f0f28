"""The report of a run: one page for a browser, that needs nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import findings, summaries
from cryolike_dask.analysis.block_times import Blocks, read_blocks
from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.analysis.decoys.of_results import competition_if_any
from cryolike_dask.analysis.findings import Finding
from cryolike_dask.analysis.plots.particle_plots import extreme_rows
from cryolike_dask.analysis.report import (
    about_belief,
    about_decoys,
    about_populations,
    about_poses,
    about_run,
    about_structures,
)
from cryolike_dask.analysis.report.about_poses import Inputs
from cryolike_dask.analysis.report.sections import Section
from cryolike_dask.analysis.search_steps import Step, search_steps
from cryolike_dask.analysis.summaries import summarise_results
from cryolike_dask.compute.progress import counted
from cryolike_dask.errors import CryolikeError, InputError, InputFileError, OutputError, number
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.export_names import REPORT
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.outputs import HTML, own_output
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.trajectories.trajectory import Trajectory

PAGE = Path(__file__).with_suffix(".html")
"""The page without its content."""
OURS = b'<meta name="generator" content="cryolike_dask report">'
START_BYTES = 512
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
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write what results say as one page for a browser: figures, warnings, what was run.

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
        If there are no results, or an argument cannot be used.
    OutputError
        If there is another file, or the page cannot be written.
    """
    n = number("n_examples", n_examples, whole=True, at_least=0)
    if n > MOST_EXAMPLES:
        raise InputError(
            f"n_examples={n} do not fit side by side", remedy=f"Take at most {MOST_EXAMPLES}."
        )
    opened = results if isinstance(results, xr.Dataset) else open_results(results)
    page = _place(opened, path)
    _refuse_others(page, overwrite)
    summary = summarise_results(opened)
    if (summary[summaries.BEST_STRUCTURE] == summaries.NO_STRUCTURE).all():
        raise InputError("no image has a result", remedy="Run the likelihood first.")
    inputs = Inputs(templates, particles, parameters)
    table, blocks = _blocks(opened)
    competition = competition_if_any(opened)
    parts: list[Callable[[], Any]] = [
        partial(_steps, summary, inputs),
        partial(about_populations.populations_section, opened, summary, competition),
        partial(about_run.run_section, summary, blocks),
        partial(about_structures.structures_section, opened, summary),
        partial(about_decoys.none_section, opened, competition),
        partial(about_structures.truth_section, summary),
        partial(about_poses.correlation_section, summary),
        partial(about_poses.poses_section, summary),
        partial(about_poses.displacements_section, summary),
        partial(about_poses.examples_section, summary, n, inputs) if n else lambda: None,
        partial(about_run.time_section, table, blocks),
    ]
    steps, (shares, about_shares), *first_sections, examples, times = [
        make() for make in counted(parts, "parts of the report", shown=progress)
    ]
    belief = about_belief.belief_section(summary, steps)
    sections = [shares, belief, *first_sections, about_poses.steps_section(steps), examples, times]
    warnings = [
        *findings.warnings_about(summary),
        *about_shares,
        *about_belief.about_belief(belief),
        *findings.about_steps(steps),
    ]
    text = _page(summary, [section for section in sections if section is not None], warnings)
    with replacing(page) as file:
        file.write(text.encode("utf-8", "replace"))
    for warning in warnings:
        logger.warning("%s", warning.text)
    return page


def _place(results: xr.Dataset, path: str | Path | None) -> Path:
    if path is not None:
        return Path(path)
    folder = results.attrs.get("folder")
    if not folder:
        raise InputError(
            "the results do not say in which folder they are", remedy="Give the path of the report."
        )
    return Path(folder) / REPORT


def _refuse_others(page: Path, overwrite: bool) -> None:
    """Refuse to replace what is no report, and what is no page at all even if it is asked for."""
    own_output(page, HTML)
    if page.exists() and not overwrite:
        with open(page, "rb") as file:
            head = file.read(START_BYTES)
        if head and OURS not in head:
            raise OutputError(
                "is there already, and is no report",
                source=page,
                remedy="Give another path, or pass overwrite=True (--overwrite).",
            )


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


def _page(summary: xr.Dataset, sections: list[Section], warnings: list[Finding]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PAGE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    n_done = int((summary[summaries.BEST_STRUCTURE] != summaries.NO_STRUCTURE).sum())
    n_structures = summary.sizes[labels.STRUCTURE]
    name = "/".join(Path(str(summary.attrs.get("folder", ""))).parts[-2:])
    now = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    text: str = environment.get_template(PAGE.name).render(
        title=f"Report on {name}" if name else "Report on likelihoods",
        subtitle=f"{n_done:,} images compared with {n_structures:,} "
        f"structure{'s' if n_structures > 1 else ''}",
        warnings=warnings,
        sections=sections,
        footer=f"Written by cryolike_dask {version('cryolike_dask')} on {now}.",
    )
    return text
