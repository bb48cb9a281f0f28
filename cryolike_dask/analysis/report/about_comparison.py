"""What two runs that are held against each other say: in a section of the report, and on a page of
their own."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis.calibration_light import SURE
from cryolike_dask.analysis.compare.compare import ANGLE, COMPARED, RATIO
from cryolike_dask.analysis.plots.comparison_plots import (
    plot_changes,
    plot_ratios,
    second_structure,
)
from cryolike_dask.analysis.report.sections import Section, Table, panel
from cryolike_dask.errors import counted

MOST_ROWS = 30
"""Structures of a table, those of most images."""


def sentence_of(comparison: xr.Dataset) -> str:
    """What to write to a colleague."""
    attrs = comparison.attrs
    one, two = comparison["run"].values
    return (
        f"Of {counted(attrs['n_images'], 'particle')} that {one} and {two} have in common, "
        f"{attrs['agreement']:.1%} have the same best structure in both; "
        f"{attrs['n_changed']:,} have another, of which both runs were sure (above {SURE:.0%}) of "
        f"{attrs['n_changed_sure']:,}."
    )


def comparison_section(comparison: xr.Dataset) -> Section:
    """How a run, the second one, agrees with an earlier one: all in one section."""
    sections = comparison_sections(comparison)
    other = str(comparison["run"].values[0])
    return Section(
        "comparison",
        f"Beside {other}",
        (sentence_of(comparison), *(text for section in sections for text in section.paragraphs)),
        rows=agreement_rows(comparison),
        tables=tuple(table for section in sections for table in section.tables),
        panels=tuple(panel for section in sections for panel in section.panels),
    )


def comparison_sections(comparison: xr.Dataset) -> tuple[Section, ...]:
    """Ratios, where there are several structures, assignments and settings."""
    ratios = [_ratios(comparison)] if comparison.sizes[labels.STRUCTURE] > 1 else []
    return (*ratios, _changes(comparison), _settings(comparison))


def agreement_rows(comparison: xr.Dataset) -> tuple[tuple[str, str], ...]:
    """What is counted, with what it is called."""
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
        "ratios-of-runs",
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
    return Section(
        "changes", "Assignments", tables=(_images_of_each(comparison),), panels=(figure,)
    )


def _images_of_each(comparison: xr.Dataset) -> Table:
    """How many images each structure has in both runs, the largest of the second run first."""
    counts = comparison["n_images_both"].values
    n, both = counts.sum(), (counts.sum(axis=1), counts.sum(axis=0))
    names = [str(name) for name in comparison[labels.STRUCTURE].values]
    rows = [
        (names[i], *(f"{of[i]:,} ({of[i] / n:.1%})" for of in both))
        for i in np.argsort(-both[1], kind="stable")[:MOST_ROWS]
    ]
    columns = ("structure", *(str(name) for name in comparison["run"].values))
    return Table("Images that each structure fits best", columns, tuple(rows))


def _settings(comparison: xr.Dataset) -> Section:
    title = "What differs in settings"
    names, values = comparison["setting"].values, comparison["setting_value"].values
    if not len(names):
        return Section(
            "settings", title, ("In settings nothing differs that records or the run.yaml say.",)
        )
    rows = tuple((str(name), str(a), str(b)) for name, a, b in zip(names, *values, strict=True))
    columns = ("setting", *(str(name) for name in comparison["run"].values))
    return Section("settings", title, tables=(Table("Settings that differ", columns, rows),))
