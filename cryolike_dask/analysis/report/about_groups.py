"""The section of the report on groups of images: half-sets, optics groups, micrographs, defocus."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.coordinates import without_decoys
from cryolike_dask.analysis.decoys.of_results import DECOY_MARGIN
from cryolike_dask.analysis.findings import Finding
from cryolike_dask.analysis.group_shares import (
    ODD_P,
    Fit,
    Grouped,
    grouped_shares,
    groups_of_images,
    relative_likelihoods,
)
from cryolike_dask.analysis.image_names import Called
from cryolike_dask.analysis.plots.group_plots import plot_groups
from cryolike_dask.analysis.populations.cost import MOST_CELLS
from cryolike_dask.analysis.report.groups_in_words import (
    about_fit,
    about_shares,
    p_in_words,
    title_of,
)
from cryolike_dask.analysis.report.sections import Panel, Section, Table, panel

KEY = "groups"
MOST_STRUCTURES = 4
"""Structures of a table, those of the largest shares."""
WARNED = "These differ by more than chance: see the warning."
ALIKE_BY_CHANCE = "half-set"
"""Groups that were drawn at random: their fit should be alike, too."""


def groups_section(
    results: xr.Dataset,
    summary: xr.Dataset,
    found: xr.Dataset | None,
    images: Called,
    competition: xr.Dataset | None,
) -> tuple[Section | None, list[Finding]]:
    """What each group of images shows, and how well it fits; and those that differ by more than
    chance. None where shares or groups are not known."""
    if found is None or not summaries.are_compared(summary):
        return None, []
    names = [str(name) for name in found[labels.STRUCTURE].values]
    groups = groups_of_images(summary, images.defocus_angstrom)
    if not groups or len(names) * summary.sizes[labels.IMAGE] > MOST_CELLS:
        return None, []
    its = without_decoys(results).sel({labels.STRUCTURE: names})
    relative = relative_likelihoods(its)
    share = found[labels.POPULATION].values
    fit = _fit(summary, competition)
    each = [grouped_shares(kind, of, relative, share, fit) for kind, of in groups.items()]
    each = [grouped for grouped in each if grouped.n_groups > 1]
    if not each:
        return None, []
    order = np.argsort(-share, kind="stable")[:MOST_STRUCTURES]
    said = [f"{about_shares(one)} {about_fit(one)}" for one in each]
    odd = [_is_odd(one) for one in each]
    none = "; none: the share that shows none of the structures, by decoys"
    text = (
        "Shares of largest likelihood in each group alone, with intervals of 95%. Then how well "
        "its images fit, whatever they show: medians of the correlation of the best pose, and of "
        "the lead, the log-likelihood of the best structure over the second"
        f"{none if _knows_none(each) else ''}. p: how often chance alone makes a group of the kind "
        f"differ as much; below {ODD_P:g} it is not chance. For fit, images of one structure are "
        "compared with each other. Fit may differ with defocus, ice and dose; shares should not.",
    )
    findings = [Finding(KEY, text) for text, is_odd in zip(said, odd, strict=True) if is_odd]
    tables = tuple(
        replace(_table(grouped, names, order), before=WARNED if is_odd else text)
        for grouped, text, is_odd in zip(each, said, odd, strict=True)
    )
    panels = tuple(_figure(grouped, names, order) for grouped in each)
    title = title_of([grouped.kind for grouped in each])
    return Section(KEY, title, text, tables=tables, panels=panels), findings


def _fit(summary: xr.Dataset, competition: xr.Dataset | None) -> Fit:
    correlation = summary[labels.CROSS_CORRELATION].values.astype(np.float64)
    lead = summary[summaries.MARGIN].values
    if competition is None:
        return Fit(correlation, lead)
    margin = competition[DECOY_MARGIN].values
    lost = np.where(np.isfinite(margin), margin <= 0, np.nan)
    ratio = competition.attrs["n_structures"] / competition.attrs["n_decoys"]
    return Fit(correlation, lead, lost, 1 + ratio)


def _is_odd(grouped: Grouped) -> bool:
    """Whether it is worth a warning."""
    return bool(len(grouped.odd)) or (grouped.kind == ALIKE_BY_CHANCE and bool(len(grouped.worse)))


def _knows_none(each: list[Grouped]) -> bool:
    return any(bool(np.isfinite(grouped.none).any()) for grouped in each)


def _table(grouped: Grouped, names: list[str], order: np.ndarray) -> Table:
    title = f"By {grouped.kind}"
    if len(grouped.names) < grouped.n_groups:
        title += f": the {len(grouped.names)} of {grouped.n_groups:,} that differ most"
    has_none = _knows_none([grouped])
    rows = []
    for g, name in enumerate(grouped.names):
        shares = [
            f"{grouped.share[g, j]:.0%} ({grouped.interval[g, j, 0]:.0%} to "
            f"{grouped.interval[g, j, 1]:.0%})"
            for j in order
        ]
        fit = [f"{grouped.correlation[g]:.3f}", f"{grouped.lead[g]:.1f}"]
        fit += [f"{grouped.none[g]:.0%}"] if has_none else []
        row = (
            str(name),
            f"{grouped.n_images[g]:,}",
            *shares,
            _marked(grouped, g),
            *(value.replace("nan%", "").replace("nan", "") for value in fit),
            _fit_marked(grouped, g),
        )
        rows.append(row)
    none = ("none",) if has_none else ()
    columns = (
        *(grouped.kind, "images", *(names[j] for j in order), "p of shares"),
        *("correlation", "lead (nat)", *none, "p of fit"),
    )
    return Table(title, columns, tuple(rows))


def _marked(grouped: Grouped, g: int) -> str:
    """The p-value of its shares: of two groups neither is the odd one."""
    said = p_in_words(float(grouped.p_value[g]), grouped.least_p)
    return f"{said} odd" if g in grouped.odd and grouped.n_groups > 2 else said


def _fit_marked(grouped: Grouped, g: int) -> str:
    said = p_in_words(float(grouped.p_of_fit[g]))
    return f"{said} worse" if g in grouped.worse else said


def _figure(grouped: Grouped, names: list[str], order: np.ndarray) -> Panel:
    kind = grouped.kind.replace(" ", "-")
    return panel(
        f"by-{kind}",
        partial(plot_groups, grouped, names, order),
        f"Shares of structures in each {grouped.kind}, with their intervals.",
        f"Shares by {grouped.kind}, with intervals of 95%; dashed, those of all that are shown.",
    )
