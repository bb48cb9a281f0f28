"""A sentence that says what was found, and one that says how far that can be relied on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.calibration_light import SURE
from cryolike_dask.analysis.findings import Finding
from cryolike_dask.analysis.lights import Lights
from cryolike_dask.analysis.report.about_populations import HowMuch, n_undecided
from cryolike_dask.errors import is_or_are, joined_by_and
from cryolike_dask.version import __version__

MOST_NAMED = 4
"""Structures of a sentence, those of the largest shares."""


def sentence(
    summary: xr.Dataset,
    found: HowMuch,
    lights: Mapping[str, Lights],
    about_groups: Sequence[Finding] = (),
) -> str:
    """What to write to a colleague: shares with intervals, what is undecided, which groups of
    images differ, and what is not to be relied on."""
    n_done = int((summary[summaries.BEST_STRUCTURE] != summaries.NO_STRUCTURE).sum())
    names = [str(name) for name in summary[labels.STRUCTURE].values]
    of_them = "them" if len(names) > 1 else "it"
    parts = [*_shares(found.found, summary), *_none(found.found, of_them)]
    if summaries.are_compared(summary):
        n, n_images = n_undecided(summary)
        parts.append(f"{n:,} of {n_images:,} are undecided (none above {SURE:.0%})")
    if not parts:
        parts = ["how much there is of it is not known" if len(names) < 2 else "no share is known"]
    found_said = f"Of {n_done:,} particles compared with {_listed(names)}, {'; '.join(parts)}"
    reliance = _reliance(
        lights, None if _has_none(found.found) else f"how many show {_other(names)}"
    )
    differing = "".join(f"{_first_clause(finding.text)}. " for finding in about_groups)
    return f"{found_said} (cryolike_dask {__version__}). {differing}{reliance}"


def _first_clause(text: str) -> str:
    """Up to its first colon or full stop."""
    return re.split(r"[:.](?: |$)", text)[0]


def _other(names: list[str]) -> str:
    return "none of them" if len(names) > 1 else "something else"


def _has_none(found: xr.Dataset | None) -> bool:
    return found is not None and labels.POPULATION_OF_NONE in found


def _shares(found: xr.Dataset | None, summary: xr.Dataset) -> list[str]:
    if found is None or not summaries.are_compared(summary):
        return []
    share = found[labels.POPULATION].values
    order = np.argsort(-share, kind="stable")
    low, high = found[labels.POPULATION_INTERVAL].values.T
    names = [str(name) for name in found[labels.STRUCTURE].values]
    said = [
        f"{share[i]:.0%} show {names[i]} ({what}{low[i]:.0%} to {high[i]:.0%})"
        for i, what in zip(order[:MOST_NAMED], ("95% interval ", *[""] * MOST_NAMED), strict=False)
    ]
    rest = order[MOST_NAMED:]
    if len(rest):
        said.append(f"{share[rest].sum():.0%} show {len(rest)} others")
    of_these = "of those that show one of them " if _has_none(found) else ""
    return [of_these + joined_by_and(said)]


def _none(found: xr.Dataset | None, of_these: str) -> list[str]:
    if found is None or not _has_none(found):
        return []
    share = float(found[labels.POPULATION_OF_NONE])
    low, high = found[labels.POPULATION_OF_NONE_INTERVAL].values
    return [f"{share:.0%} ({low:.0%} to {high:.0%}) show none of {of_these}"]


def _reliance(lights: Mapping[str, Lights], untested: str | None) -> str:
    """What is wrong, and what is not known, in a sentence."""
    wrong, unsure = (
        [name.lower() for name, light in lights.items() if light.colour == colour]
        for colour in ("bad", "unsure")
    )
    unsure += [] if untested is None else [untested]
    said = (
        [f"not to be relied on, since {joined_by_and(wrong)} {is_or_are(len(wrong))} wrong"]
        if wrong
        else []
    )
    if unsure:
        said.append(f"not yet known: {joined_by_and(unsure)}")
    text = "; ".join(said) or "noise, search, edge, calibration and fit are as they should be"
    return f"{text[0].upper()}{text[1:]}."


def _listed(names: list[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{len(names)} structures"
    return joined_by_and(names)
