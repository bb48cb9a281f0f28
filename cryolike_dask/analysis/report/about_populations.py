"""How much of each structure there is: what the answer of a report is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.calibration_light import SURE
from cryolike_dask.analysis.coordinates import without_decoys
from cryolike_dask.analysis.decoys.of_results import Q_VALUE
from cryolike_dask.analysis.findings import Finding
from cryolike_dask.analysis.plots.population_plots import plot_populations
from cryolike_dask.analysis.populations.cost import MOST_CELLS
from cryolike_dask.analysis.populations.estimate import about_micrographs, populations
from cryolike_dask.analysis.populations.written import written_populations
from cryolike_dask.analysis.report.sections import Panel, Section, panel

MOST_ROWS = 10
"""Structures of the table, those of the largest shares; the figure has more."""
MOST_READ = 10 * MOST_CELLS
"""Likelihoods from which shares are estimated for a report: some seconds without draws."""
LONGEST_PRIOR = 60
"""Characters of a prior; that of many structures goes on."""
KEY = "populations"
NONE_NAME = "none of these (junk), by decoys"


@dataclass(frozen=True, eq=False)
class HowMuch:
    """How much of each structure there is, as far as it is known.

    Attributes
    ----------
    section : Section
    found : xarray.Dataset or None
        As `populations` gives it.
    findings : list of Finding
        What to be wary of.
    """

    section: Section
    found: xr.Dataset | None = None
    findings: tuple[Finding, ...] = ()


def how_much(results: xr.Dataset, summary: xr.Dataset, competition: xr.Dataset | None) -> HowMuch:
    """Shares of structures with their intervals, and what to be wary of; of one structure how many
    images show it, where decoys tell that."""
    is_told = competition is not None and bool(competition[Q_VALUE].notnull().any())
    is_shared = summaries.are_compared(summary)
    title = "How much of each structure" if is_shared else "How many images show the structure"
    if not is_shared and not is_told:
        text = (
            "There is one structure, and there are no decoys: how many images show it is not known."
            if summary.sizes[labels.STRUCTURE] < 2
            else "No image has results under all structures yet."
        )
        return HowMuch(Section(KEY, title, (text,)))
    done = np.flatnonzero(summary[summaries.N_RESULTS].values > 0)
    n_read = results.sizes[labels.STRUCTURE] if is_told else len(done)
    found = written_populations(results) if is_shared else None
    before = "They are those in the folder populations, beside the results"
    if found is None:
        if n_read * summary.sizes[labels.IMAGE] > MOST_READ:
            text = "There are too many likelihoods for a report: cryolike-dask populations says it."
            return HowMuch(Section(KEY, title, (text,)))
        # where images are compared with all of them, decoys tell how many show none
        shown = results if is_told else without_decoys(results).isel({labels.STRUCTURE: done})
        found = populations(shown, n_bootstrap=0)
        before = "cryolike-dask populations takes other priors, and keeps them"
    if not is_shared:
        text = "What decoys tell, with an interval of 95%; all other images show the structure."
        return HowMuch(Section(KEY, title, (text,), _none_of_these(found)), found)
    warning = about_micrographs(found)
    n = f"{found.attrs['n_images']:,}"
    whose = (
        f"those of {n} images that show one of these structures"
        if labels.POPULATION_OF_NONE in found
        else f"{n} images, each of which is taken to show one of these structures"
    )
    text = (
        f"Shares of {whose}, with intervals of 95%. They are shares of the particles that were "
        f"given, not of the sample, and as good as what is said below of trust. {_prior(found)}. "
        f"{before}."
    )
    rows = (*_rows(found), *_undecided(summary), *_none_of_these(found))
    section = Section(KEY, title, (text, *_about_groups(found)), rows, panels=(_figure(found),))
    return HowMuch(section, found, (Finding(KEY, warning),) if warning else ())


def n_undecided(summary: xr.Dataset) -> tuple[int, int]:
    """Images of which no structure has a probability that is sure, and all that were compared."""
    chosen = summary[summaries.COMPARABLE].values
    probability = summary[summaries.PROBABILITY].values[chosen]
    return int((probability <= SURE).sum()), len(probability)


def _undecided(summary: xr.Dataset) -> tuple[tuple[str, str], ...]:
    n, n_images = n_undecided(summary)
    said = f"{n:,} of {n_images:,} images: no structure has a probability above {SURE:.0%}"
    return (("undecided", said),)


def _prior(found: xr.Dataset) -> str:
    """What is held beforehand, in words."""
    prior = str(found.attrs["prior"])
    if found.attrs["method"] != "posterior mean":
        return "No prior is used, they are the shares of largest likelihood"
    if prior == "Dirichlet(1)":
        return "Beforehand all shares are held to be equally likely"
    short = prior if len(prior) <= LONGEST_PRIOR else f"{prior[:LONGEST_PRIOR]}...)"
    return f"Their prior is {short}"


def _rows(found: xr.Dataset) -> tuple[tuple[str, str], ...]:
    share = found[labels.POPULATION].values
    order = np.argsort(-share, kind="stable")
    low, high = found[labels.POPULATION_INTERVAL].values.T
    names = found[labels.STRUCTURE].values
    rows = [
        (str(names[i]), f"{share[i]:.1%} ({low[i]:.1%} to {high[i]:.1%})")
        for i in order[:MOST_ROWS]
    ]
    if len(order) > MOST_ROWS:
        rest = order[MOST_ROWS:]
        rows.append((f"{len(rest)} others", f"{share[rest].sum():.1%} together"))
    return tuple(rows)


def _none_of_these(found: xr.Dataset) -> tuple[tuple[str, str], ...]:
    """How many of all images show none of the structures, where decoys tell it."""
    if labels.POPULATION_OF_NONE not in found:
        return ((NONE_NAME, "not known: no decoys were compared"),)
    share, n = float(found[labels.POPULATION_OF_NONE]), found.attrs["n_images"]
    low, high = found[labels.POPULATION_OF_NONE_INTERVAL].values
    said = f"{n * share:,.0f} of {n:,} images: {share:.1%} ({low:.1%} to {high:.1%})"
    return ((NONE_NAME, said),)


def _about_groups(found: xr.Dataset) -> list[str]:
    """What is not to be told apart, in words."""
    group = found[labels.GROUP].values
    names = [str(name) for name in found[labels.STRUCTURE].values]
    sizes = np.bincount(group)
    lines = []
    for number in np.flatnonzero(sizes > 1)[:MOST_ROWS]:
        its = np.flatnonzero(group == number)
        share = found[labels.GROUP_POPULATION].values[its[0]]
        sd = found[labels.GROUP_POPULATION_SD].values[its[0]]
        lines.append(
            f"The images cannot tell {summaries.first_names([names[i] for i in its], 4)} apart: "
            f"together they have {share:.1%}, with a standard deviation of {sd:.1%}."
        )
    return lines


def _figure(found: xr.Dataset) -> Panel:
    share = found[labels.POPULATION]
    most = str(share[labels.STRUCTURE].values[share.values.argmax()])
    caption = "Shares with intervals of 95%."
    if np.bincount(found[labels.GROUP].values).max() > 1:
        caption += " Grey dots: not told from others; orange: what these have together."
    if labels.POPULATION_OF_NONE in found:
        caption += " Square: the part of all images that shows none."
    return panel(
        KEY,
        partial(plot_populations, found),
        f"Shares of the structures with their intervals; the largest, {float(share.max()):.1%}, is "
        f"that of {most}.",
        caption,
    )
