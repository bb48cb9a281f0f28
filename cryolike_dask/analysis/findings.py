"""Findings in a summary of results that a user should be wary of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.calibration import calibration, is_among_the_compared
from cryolike_dask.analysis.search_edge import on_the_edge
from cryolike_dask.analysis.search_steps import Step
from cryolike_dask.errors import is_or_are

MISCALIBRATED, STANDARD_ERRORS = 0.03, 4.0
"""Probability and frequency that differ by more, and by more than chance explains, are worth a
warning."""
LOST_BETWEEN_POSES = 5.0
"""Nat: more is worth a warning. With 3, 14 and 31 nat, 92%, 89% and 78% of the demo's particles
are assigned rightly, where probabilities say 95%, 94% and 93% (benchmarks/steps.py)."""
AIMED_AT = LOST_BETWEEN_POSES / 2
"""Nat that a finer search should lose: a B-factor that is fitted again blurs less then, and images
lose more (9.2 nat at 1.9 angstrom where 22 at 4 angstrom had let expect 5)."""
FEW_WITHIN = 0.05
"""Part of the images that may be ahead by less than the search loses on average, where that is not
wrong, but unsure."""


@dataclass(frozen=True)
class Finding:
    """Something to be wary of, and the section of the report that it belongs in."""

    section: str
    text: str


def warnings_about(summary: xr.Dataset) -> list[Finding]:
    """Findings in the results themselves, most important first."""
    return [
        *_about_what_is_missing(summary),
        *_about_contrast(summary),
        *_about_the_edge(summary),
        *_about_calibration(summary),
    ]


def about_steps(summary: xr.Dataset, steps: list[Step]) -> list[Finding]:
    """Findings about steps of the search half-way between which too much is lost."""
    return [
        Finding(
            "steps",
            f"The search is coarse for these images: half-way between {step.name}, "
            f"{step.shown(step.size)} apart, log-likelihoods are up to {step.loss:.2g} nat "
            f"lower, under one structure more than under another. {_suffering(summary, step)}, "
            f"and probabilities are too large. Try {_finer(step)}.",
        )
        for step in steps
        if step.loss > LOST_BETWEEN_POSES
    ]


def n_ahead_by_less(summary: xr.Dataset, step: Step) -> tuple[int, int]:
    """Images whose best structure is ahead by less than is lost on average, of so many that were
    compared under several; of one structure none."""
    margin = summary[summaries.MARGIN].values
    margin = margin[np.isfinite(margin)]
    return int((margin < step.loss_on_average).sum()), len(margin)


def _suffering(summary: xr.Dataset, step: Step) -> str:
    n_less, n = n_ahead_by_less(summary, step)
    if not n:
        return "Assignments suffer"
    return f"{n_less:,} of {n:,} images {is_or_are(n_less)} ahead by less than the average of this"


def _finer(step: Step) -> str:
    """What to try, in words that keys of a run.yaml share."""
    if step.name == "views":
        return f"views {step.size_of_loss(AIMED_AT) / step.size:.2g} times as far apart, or nearer"
    return f"steps of {step.shown(step.size_of_loss(AIMED_AT))} or less"


def _about_what_is_missing(summary: xr.Dataset) -> list[Finding]:
    n_images, n_structures = summary.sizes[labels.IMAGE], summary.sizes[labels.STRUCTURE]
    n_without = int((summary[summaries.BEST_STRUCTURE] == summaries.NO_STRUCTURE).sum())
    empty = summary[labels.STRUCTURE].values[summary[summaries.N_RESULTS].values == 0]
    n_apart = n_images - n_without - int(summary[summaries.COMPARABLE].sum())
    sentences = []
    if n_without:
        sentences.append(f"{n_without} of {n_images} images have no result yet.")
    if len(empty) and len(empty) < n_structures:
        names = ", ".join(map(str, empty[:3])) + (" and others" if len(empty) > 3 else "")
        sentences.append(f"{len(empty)} of {n_structures} structures have no result yet ({names}).")
    if n_apart:
        sentences.append(
            f"{n_apart} images have results under some structures only, and are left out where "
            "these compete."
        )
    if not sentences:
        return []
    remedy = (
        "What follows is about the rest. The same run goes on (in Python with skip_exist=True)."
    )
    return [Finding("run", " ".join(["The results are partial.", *sentences, remedy]))]


def _about_contrast(summary: xr.Dataset) -> list[Finding]:
    fraction = negative_fraction(summary)
    if fraction <= 0.5:
        return []
    text = (
        f"{fraction:.0%} of the best correlations are negative. Is the contrast inverted? If "
        "particles are dark on light, convert them again with --invert-contrast."
    )
    return [Finding("correlation", text)]


def _about_the_edge(summary: xr.Dataset) -> list[Finding]:
    edge = on_the_edge(summary)
    if edge is None or not edge.is_crowded:
        return []
    axes = zip("xy", (edge.limit_x, edge.limit_y), strict=True)
    limits = " and ".join(f"{limit:.3g} Å in {axis}" for axis, limit in axes if limit)
    text = (
        f"{edge.n_on_edge} of {edge.n_images} images ({edge.fraction:.0%}) fit best on the edge "
        f"of the search ({limits}; {edge.fraction_tried:.0%} of the displacements tried lie "
        "there). These particles may be further off centre than was searched: search wider, "
        "max_displacement_pixels (--max-displacement-pixels), or centre them as they are read, "
        "recenter=True (--recenter)."
    )
    return [Finding("displacements", text)]


def _about_calibration(summary: xr.Dataset) -> list[Finding]:
    if not is_among_the_compared(summary) or not summaries.are_compared(summary):
        return []
    assigned = calibration(summary)
    if (
        abs(assigned.surprise) < STANDARD_ERRORS
        or abs(assigned.expected - assigned.found) < MISCALIBRATED
    ):
        return []
    how = "too large" if assigned.surprise > 0 else "too small"
    text = (
        f"Probabilities are {how}: {assigned.expected:.1%} of the assignments should be right, "
        f"{assigned.found:.1%} are."
    )
    if assigned.surprise > 0:
        text += " A search that is too coarse, in views or displacements, makes them so."
    return [Finding("calibration", text)]


def negative_fraction(summary: xr.Dataset) -> float:
    """Fraction of images whose best correlation is negative; 0 without images."""
    correlation = summary[labels.CROSS_CORRELATION].values
    known = np.isfinite(correlation)
    return float((correlation[known] < 0).mean()) if known.any() else 0.0
