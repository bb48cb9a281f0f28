"""One sentence that says what was found, and how far that can be relied on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.calibration_light import SURE
from cryolike_dask.analysis.lights import Lights
from cryolike_dask.analysis.report.about_populations import HowMuch, n_undecided
from cryolike_dask.version import __version__

MOST_NAMED = 4
"""Structures of a sentence, those of the largest shares."""


def sentence(summary: xr.Dataset, found: HowMuch, lights: Mapping[str, Lights]) -> str:
    """What to write to a colleague: shares with intervals, what is undecided, and what is not to be
    relied on."""
    n_done = int((summary[summaries.BEST_STRUCTURE] != summaries.NO_STRUCTURE).sum())
    names = [str(name) for name in summary[labels.STRUCTURE].values]
    parts = [*_shares(found.found, summary)]
    if summaries.are_compared(summary):
        n, n_images = n_undecided(summary)
        parts.append(f"for {n:,} of {n_images:,} no structure is more than {SURE:.0%} probable")
    parts += _none(found.found, "them" if len(names) > 1 else "it")
    if not parts:
        parts = ["how much there is of it is not known" if len(names) < 2 else "no share is known"]
    compared = (
        f"Of {n_done:,} particles compared with {_listed(names)} by cryolike_dask {__version__}, "
    )
    return f"{compared}{'; '.join(parts)} ({_reliance(lights)})."


def _shares(found: xr.Dataset | None, summary: xr.Dataset) -> list[str]:
    if found is None or not summaries.are_compared(summary):
        return []
    share = found[labels.POPULATION].values
    order = np.argsort(-share, kind="stable")
    low, high = found[labels.POPULATION_INTERVAL].values.T
    names = [str(name) for name in found[labels.STRUCTURE].values]
    said = [
        f"{share[i]:.0%} (95% interval {low[i]:.0%} to {high[i]:.0%}) show {names[i]}"
        for i in order[:MOST_NAMED]
    ]
    rest = order[MOST_NAMED:]
    if len(rest):
        said.append(f"{share[rest].sum():.0%} {len(rest)} others")
    of_these = "of those that show one of them " if labels.POPULATION_OF_NONE in found else ""
    both = " and " if len(said) == 2 else ", "
    return [of_these + both.join(said)]


def _none(found: xr.Dataset | None, of_these: str) -> list[str]:
    if found is None or labels.POPULATION_OF_NONE not in found:
        return [f"how many show none of {of_these} was not tested"]
    share = float(found[labels.POPULATION_OF_NONE])
    low, high = found[labels.POPULATION_OF_NONE_INTERVAL].values
    return [f"{share:.0%} ({low:.0%} to {high:.0%}) show none of {of_these}"]


def _reliance(lights: Mapping[str, Lights]) -> str:
    """What is wrong, and what is not known."""
    wrong, unsure = (
        [name.lower() for name, light in lights.items() if light.colour == colour]
        for colour in ("bad", "unsure")
    )
    is_are = "are" if len(wrong) > 1 else "is"
    said = [f"not to be relied on: {_joined(wrong)} {is_are} wrong"] if wrong else []
    if unsure:
        said.append(f"not known to be right: {_joined(unsure)}")
    return "; ".join(said) or "noise, search, edge, calibration and fit are as they should be"


def _listed(names: list[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{len(names)} structures"
    return _joined(names)


def _joined(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
