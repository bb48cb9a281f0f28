"""The section of the report on groups of images: half-sets, optics groups, micrographs, defocus."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.coordinates import without_decoys
from cryolike_dask.analysis.findings import Finding
from cryolike_dask.analysis.group_shares import (
    ODD_P,
    Grouped,
    grouped_shares,
    groups_of_images,
    relative_likelihoods,
)
from cryolike_dask.analysis.image_names import Called
from cryolike_dask.analysis.plots.group_plots import plot_groups
from cryolike_dask.analysis.populations.cost import MOST_CELLS
from cryolike_dask.analysis.report.sections import Panel, Section, Table, panel

KEY, TITLE = "groups", "Half-sets, optics groups, micrographs and defocus"
MOST_STRUCTURES = 4
"""Structures of a table, those of the largest shares."""


def groups_section(
    results: xr.Dataset, summary: xr.Dataset, found: xr.Dataset | None, images: Called
) -> tuple[Section | None, list[Finding]]:
    """Shares in each group of images, and those that differ by more than chance; none where shares
    or groups are not known."""
    if found is None or not summaries.are_compared(summary):
        return None, []
    names = [str(name) for name in found[labels.STRUCTURE].values]
    groups = groups_of_images(summary, images.defocus_angstrom)
    if not groups or len(names) * summary.sizes[labels.IMAGE] > MOST_CELLS:
        return None, []
    its = without_decoys(results).sel({labels.STRUCTURE: names})
    relative = relative_likelihoods(its)
    share = found[labels.POPULATION].values
    each = [grouped_shares(kind, of, relative, share) for kind, of in groups.items()]
    each = [grouped for grouped in each if grouped.n_groups > 1]
    if not each:
        return None, []
    order = np.argsort(-share, kind="stable")[:MOST_STRUCTURES]
    odd = [(grouped.kind, name) for grouped in each for name in grouped.odd]
    text = (
        "Shares of largest likelihood of the images of each group alone, with intervals of 95%. "
        f"p: how often chance alone makes a group differ as much, below {ODD_P:g} it is marked "
        "odd; the number of groups is counted in.",
        _in_words(odd),
    )
    findings = [Finding(KEY, _in_words(odd))] if odd else []
    tables = tuple(_table(grouped, names, order) for grouped in each)
    panels = tuple(_figure(grouped, names, order) for grouped in each)
    return Section(KEY, TITLE, text, tables=tables, panels=panels), findings


def _in_words(odd: list[tuple[str, str]]) -> str:
    if not odd:
        return "No group differs from the others by more than chance."
    shown = ", ".join(f"{kind} {name}" for kind, name in odd[:5])
    more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
    return f"Shares differ by more than chance in {shown}{more}."


def _table(grouped: Grouped, names: list[str], order: np.ndarray) -> Table:
    title = f"By {grouped.kind}"
    if len(grouped.names) < grouped.n_groups:
        title += f": the {len(grouped.names)} of {grouped.n_groups:,} that differ most"
    rows = []
    for g, name in enumerate(grouped.names):
        p = grouped.p_value[g]
        said = "too few" if np.isnan(p) else f"{p:.2g}{' odd' if p < ODD_P else ''}"
        shares = [
            f"{grouped.share[g, j]:.0%} ({grouped.interval[g, j, 0]:.0%} to "
            f"{grouped.interval[g, j, 1]:.0%})"
            for j in order
        ]
        rows.append((str(name), f"{grouped.n_images[g]:,}", *shares, said))
    columns = (grouped.kind, "images", *(names[j] for j in order), "p")
    return Table(title, columns, tuple(rows))


def _figure(grouped: Grouped, names: list[str], order: np.ndarray) -> Panel:
    kind = grouped.kind.replace(" ", "-")
    return panel(
        f"by-{kind}",
        partial(plot_groups, grouped, names, order),
        f"Shares of structures in each {grouped.kind}, with their intervals.",
        f"Shares by {grouped.kind}, with intervals of 95%; dashed, those of all that are shown.",
    )
