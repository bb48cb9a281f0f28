"""Sections of the report on structures: which one each image shows, and whether that is true."""

from __future__ import annotations

from functools import partial

import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.calibration import MOST_CONFUSED, calibration, is_among_the_compared
from cryolike_dask.analysis.calibration_light import SURE
from cryolike_dask.analysis.plots import structure_plots
from cryolike_dask.analysis.report.sections import Panel, Section, panel
from cryolike_dask.conventions import CRYOLIKE


def structures_section(results: xr.Dataset, summary: xr.Dataset) -> Section:
    """Structures held against each other: which fits each image."""
    title = "Which structure each image shows"
    names = [str(name) for name in summary[labels.STRUCTURE].values]
    if len(names) < 2:
        return Section(
            "structures", title, ("There is one structure, and so nothing to compare it with.",)
        )
    if not summaries.are_compared(summary):
        return Section("structures", title, ("No image has results under all structures yet.",))
    probability = summary[summaries.PROBABILITY].values[summary[summaries.COMPARABLE].values]
    n_sure = int((probability > SURE).sum())
    text = [
        "An image is assigned to the structure under which it is most likely, all poses taken "
        "together. The difference of two log-likelihoods says how much more likely: 2.3 nat are "
        "a factor of 10, 4.6 nat one of 100. Probabilities hold all structures to be equally "
        "likely beforehand, and one of them to be right.",
        f"{n_sure:,} of {len(probability):,} images are assigned with a probability above "
        f"{SURE:.0%}.",
    ]
    if summary.attrs.get("conventions") == CRYOLIKE.name:
        text.append(
            "The run used CryoLike's conventions, which inflate differences of log-likelihoods."
        )
    comparison = _ratio(results, *names) if len(names) == 2 else _assignment(summary, names)
    return Section("structures", title, tuple(text), panels=(comparison,))


def _ratio(results: xr.Dataset, reference: str, structure: str) -> Panel:
    return panel(
        "ratio",
        partial(structure_plots.plot_log_likelihood_ratio, results, structure, reference),
        f"Histogram of the log-likelihood ratio of {structure} over {reference}.",
        f"Right of 0 images are more likely to show {structure}, left of 0 {reference}. Near 0 "
        "they do not tell.",
    )


def _assignment(summary: xr.Dataset, names: list[str]) -> Panel:
    counts = summary[summaries.N_ASSIGNED].values
    most = int(counts.argmax())
    is_ranked = len(names) >= structure_plots.LEAST_RANKED
    ranked = (
        ", and the mean log-likelihood of each structure less that of the first. The first fits "
        "best on average, though single images may prefer another."
    )
    return panel(
        "assignment",
        partial(structure_plots.plot_assignment, summary),
        f"Bars: images that fit each structure best; most, {counts[most]} of {counts.sum()}, fit "
        f"{names[most]}."
        + (" Beside them the mean log-likelihoods of the structures, ranked." if is_ranked else ""),
        f"Images by the structure that fits best{ranked if is_ranked else '.'}",
    )


def truth_section(summary: xr.Dataset) -> Section | None:
    """Assignments and probabilities against the truth, where that is known, and was compared."""
    if not is_among_the_compared(summary) or not summaries.are_compared(summary):
        return None
    assigned = calibration(summary)
    n, n_right = int(assigned.n_images.sum()), int(assigned.n_right.sum())
    text = (
        "These particles were simulated, and it is recorded which structure each one shows. "
        f"{n_right:,} of {n:,} ({assigned.found:.1%}) are assigned to it; by their probabilities "
        f"{assigned.expected:.1%} should be. Where probabilities are calibrated, of the images "
        "assigned with 80% four in five are right.",
    )
    few = f" Of the structures only the {MOST_CONFUSED - 1} of most images are named."
    panels = (
        panel(
            "confusion",
            partial(structure_plots.plot_confusion, summary),
            f"Table of true against assigned structures; {n_right} of {n} images are assigned "
            "rightly.",
            "Images by true and by assigned structure; right where both are the same."
            + (few if summary.sizes[labels.STRUCTURE] > MOST_CONFUSED else ""),
        ),
        panel(
            "reliability",
            partial(structure_plots.plot_calibration, summary),
            "How often the best structure is right over its probability, and how many images "
            "have such a probability.",
            "On the dashed line probabilities are calibrated; below it they are too large. Bars "
            "are 95% intervals.",
        ),
    )
    return Section("calibration", "Against the truth", text, panels=panels)
