"""The page of a comparison of two runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.compare.compare import ANGLE, CHANGED, COMPARED, RATIO, compare_runs
from cryolike_dask.analysis.image_names import IMAGE_NAME
from cryolike_dask.analysis.plots.comparison_plots import (
    plot_changes,
    plot_ratios,
    second_structure,
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
from cryolike_dask.analysis.report.sections import Section, Table, panel
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


def sentence_of(comparison: xr.Dataset) -> str:
    """What to write to a colleague."""
    attrs = comparison.attrs
    one, two = comparison["run"].values
    return (
        f"Of {counted(attrs['n_images'], 'particle')} that {one} and {two} have in common, "
        f"{attrs['agreement']:.1%} have the same best structure in both; "
        f"{attrs['n_changed']:,} have another, of which both runs were sure (above 95%) of "
        f"{attrs['n_changed_sure']:,}."
    )


def _content(comparison: xr.Dataset) -> Content:
    structures = comparison.sizes[labels.STRUCTURE]
    sections = [_changes(comparison), _settings(comparison)]
    if structures > 1:
        sections.insert(0, _ratios(comparison))
    one, two = comparison["run"].values
    return Content(
        title=f"{one} and {two}",
        subtitle=f"Two runs compared, {counted(structures, 'structure')} in common",
        answer=Section("agreement", "How far they agree", rows=_rows(comparison)),
        sentence=sentence_of(comparison),
        sections=tuple(sections),
        particles=_particles(comparison),
        table=_table(comparison),
    )


def _rows(comparison: xr.Dataset) -> tuple[tuple[str, str], ...]:
    attrs, n = comparison.attrs, comparison.attrs["n_images"]
    rows = [
        ("images compared", f"{n:,}, matched by {attrs['matched_by']}"),
        ("the same best structure", f"{n - attrs['n_changed']:,} ({attrs['agreement']:.1%})"),
        ("another", f"{attrs['n_changed']:,}, sure in both: {attrs['n_changed_sure']:,}"),
        (
            "in one run alone",
            f"{attrs['n_only_first']:,} of the first, {attrs['n_only_second']:,} of the second",
        ),
    ]
    if ANGLE in comparison:
        angle = comparison[ANGLE].values
        known = angle[np.isfinite(angle)]
        if len(known):
            rows.append(
                (
                    "between best directions",
                    f"{np.median(known):.3g}° in the median, of those alike",
                )
            )
    return tuple(rows)


def _ratios(comparison: xr.Dataset) -> Section:
    structure, reference = second_structure(comparison), comparison.attrs["reference"]
    ratio = comparison[RATIO].sel({labels.STRUCTURE: structure}).values
    first, second = ratio[:, comparison[COMPARED].values]
    text = ["On the dashed line both runs say the same."]
    if first.std() > 0 and second.std() > 0:
        r, factor = np.corrcoef(first, second)[0, 1], second.std() / first.std()
        text.append(
            f"Their correlation is {r:.3f}; those of the second run spread {factor:.2g} times as "
            "far. Where they spread further at the same order, the second run is more sure."
        )
    figure = panel(
        "ratios",
        partial(plot_ratios, comparison),
        f"Log-likelihood ratios of {structure} over {reference} of each image in both runs.",
        "Ratios of each image in both runs.",
    )
    return Section("ratios", "Log-likelihood ratios", tuple(text), panels=(figure,))


def _changes(comparison: xr.Dataset) -> Section:
    figure = panel(
        "changes",
        partial(plot_changes, comparison),
        "Table of the best structures in the first against those in the second run.",
        "Images by their best structure in the first and in the second run.",
    )
    return Section("changes", "Assignments", panels=(figure,))


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


def _settings(comparison: xr.Dataset) -> Section:
    title = "What differs in settings"
    names, values = comparison["setting"].values, comparison["setting_value"].values
    if not len(names):
        return Section("settings", title, ("Nothing that records or the run.yaml say.",))
    rows = tuple((str(name), str(a), str(b)) for name, a, b in zip(names, *values, strict=True))
    columns = ("setting", *(str(name) for name in comparison["run"].values))
    return Section("settings", title, tables=(Table("Settings that differ", columns, rows),))
