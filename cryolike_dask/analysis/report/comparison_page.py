"""The page of a comparison of two runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.compare.compare import ANGLE, CHANGED, compare_runs
from cryolike_dask.analysis.image_names import IMAGE_NAME
from cryolike_dask.analysis.report.about_comparison import (
    agreement_rows,
    comparison_sections,
    sentence_of,
)
from cryolike_dask.analysis.report.page import Content, page_of, refuse_others
from cryolike_dask.analysis.report.particle_table import (
    KEY,
    MOST_ROWS,
    as_json,
    numbers_column,
    text_column,
    words_column,
)
from cryolike_dask.analysis.report.sections import Section
from cryolike_dask.errors import InputError, counted
from cryolike_dask.io.atomic import replacing
from cryolike_dask.io.export_names import COMPARISON


def write_comparison(
    run1: str | Path | xr.Dataset,
    run2: str | Path | xr.Dataset,
    path: str | Path | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write how two runs agree as one page for a browser.

    Parameters
    ----------
    run1, run2 : path or xarray.Dataset
        As `compare_runs` takes them.
    path : path, optional
        Where the page goes; default: `comparison.html` in the output folder of the second run.
    overwrite : bool
        Replace a file that is not such a page. A page is always replaced.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError, InputFileError
        As of `compare_runs`.
    OutputError
        If there is another file, or the page cannot be written.
    """
    if path is None:
        if isinstance(run2, xr.Dataset) and not run2.attrs.get("folder"):
            raise InputError("the results do not say in which folder they are", remedy="Give path.")
        folder = run2.attrs["folder"] if isinstance(run2, xr.Dataset) else run2
        path = Path(folder) / COMPARISON
    return write_page(compare_runs(run1, run2), path, overwrite=overwrite)


def write_page(comparison: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the page of a comparison that was made."""
    page = Path(path)
    refuse_others(page, overwrite)
    with replacing(page) as file:
        file.write(page_of(_content(comparison)).encode("utf-8", "replace"))
    return page


def _content(comparison: xr.Dataset) -> Content:
    structures = comparison.sizes[labels.STRUCTURE]
    one, two = comparison["run"].values
    return Content(
        title=f"{one} and {two}",
        subtitle=f"Two runs compared, {counted(structures, 'structure')} in common",
        answer=Section("agreement", "How far they agree", rows=agreement_rows(comparison)),
        sentence=sentence_of(comparison),
        sections=comparison_sections(comparison),
        particles=_particles(comparison),
        table=_table(comparison),
    )


def _particles(comparison: xr.Dataset) -> Section:
    text = ["Those whose best structure changed come first."]
    if comparison.sizes[labels.IMAGE] > MOST_ROWS:
        text.append(
            f"These are {MOST_ROWS:,} of {comparison.sizes[labels.IMAGE]:,}; compare_runs gives "
            "all."
        )
    return Section(KEY, "Particles", tuple(text))


def _table(comparison: xr.Dataset) -> str:
    changed = comparison[CHANGED].values
    probability = comparison[summaries.PROBABILITY].values
    # changed first, of these those that both runs were most sure of
    order = np.lexsort((-np.nan_to_num(probability).min(axis=0), ~changed))[:MOST_ROWS]
    best = comparison[summaries.BEST_STRUCTURE].values[:, order]
    correlation = comparison[labels.CROSS_CORRELATION].values[:, order]
    names = [str(name) for name in comparison["run"].values]
    columns = [
        text_column("particle", comparison[IMAGE_NAME].values[order]),
        words_column("changed", np.where(changed[order], "yes", "no")),
        words_column(f"structure in {names[0]}", best[0]),
        words_column(f"structure in {names[1]}", best[1], "structure"),
        *numbers_column(f"probability in {names[0]}", probability[0, order], 4),
        *numbers_column(f"probability in {names[1]}", probability[1, order], 4),
        *numbers_column(f"correlation in {names[0]}", correlation[0], 4),
        *numbers_column(f"correlation in {names[1]}", correlation[1], 4),
    ]
    if ANGLE in comparison:
        columns += numbers_column("between directions (°)", comparison[ANGLE].values[order], 3)
    return as_json(columns)
