"""The sections of the report: what was run, which structure, how well, in which poses, examples,
time."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import findings, summaries
from cryolike_dask.analysis.findings import Blocks
from cryolike_dask.analysis.matching import match, open_matching
from cryolike_dask.analysis.plots import pose_plots, structure_plots
from cryolike_dask.analysis.plots.drawing import duration
from cryolike_dask.analysis.plots.particle_plots import draw_matches, extreme_rows
from cryolike_dask.analysis.search_steps import Step
from cryolike_dask.conventions import CRYOLIKE, STANDARD
from cryolike_dask.errors import CryolikeError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH, SHOWN_PER_INCH = 160, 88
"""Of figures as they are stored, and as a page shows them."""
SURE = 0.95
MOST_NAMES = 5
DIFFERENT_CORRELATION = 0.01
"""An example whose correlation, computed again, differs by more is not what the results came
from."""


@dataclass(frozen=True)
class Panel:
    """A figure of the page."""

    key: str
    png: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page: text, then a table, then figures."""

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    panels: tuple[Panel, ...] = ()


def panel(key: str, figure: Figure, alt: str, caption: str) -> Panel:
    """Put a figure on the page."""
    stored = BytesIO()
    figure.savefig(stored, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    width, height = (round(inches * SHOWN_PER_INCH) for inches in figure.get_size_inches())
    return Panel(key, b64encode(stored.getvalue()).decode(), width, height, alt, caption)


def run_section(summary: xr.Dataset, blocks: Blocks | None) -> Section:
    """What was run."""
    attrs = summary.attrs
    names = [str(name) for name in summary[labels.STRUCTURE].values]
    n_done = int((summary[summaries.BEST_STRUCTURE] != summaries.NO_STRUCTURE).sum())
    stacks = len(np.unique(summary[labels.STACK])) if labels.STACK in summary.coords else 0
    rows = [
        ("Results", str(attrs.get("folder", ""))),
        (
            "Images",
            f"{summary.sizes[labels.IMAGE]:,} in {stacks:,} stack(s), {n_done:,} with results",
        ),
        ("Structures", f"{len(names):,}: {_some(names)}"),
        ("Templates", _and(attrs.get("folder_templates"), _made_from(attrs))),
        ("Image stacks", str(attrs.get("folder_particles", ""))),
        ("Metadata", _some(_distinct(summary, labels.METADATA_FILE))),
        ("Box", _box(attrs)),
        ("Search", _search(attrs)),
        ("Conventions", str(attrs.get("conventions", ""))),
        ("Precision", str(attrs.get("precision", ""))),
        ("Version of the run", str(attrs.get("version", ""))),
        ("Device", _and(attrs.get("device"), _devices(blocks))),
        (
            "Blocks finished",
            f"{blocks.first} to {blocks.last} (UTC)" if blocks is not None and len(blocks) else "",
        ),
    ]
    return Section(
        "run", "What was run", rows=tuple((name, value) for name, value in rows if value)
    )


def _some(names: Iterable[str], most: int = MOST_NAMES) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (
        f" and {len(listed) - most:,} more" if len(listed) > most else ""
    )


def _and(value: Any, more: str) -> str:
    return " ".join(part for part in (str(value or ""), f"({more})" if more else "") if part)


def _made_from(attrs: dict[str, Any]) -> str:
    source, conventions = attrs.get("template_source"), attrs.get("template_conventions")
    said = [
        f"made from {'a map' if source == 'map' else source}" if source in ("atoms", "map") else ""
    ]
    said.append(
        f"{conventions} conventions" if conventions in (STANDARD.name, CRYOLIKE.name) else ""
    )
    return ", ".join(part for part in said if part)


def _distinct(summary: xr.Dataset, name: str) -> list[str]:
    if name not in summary.coords:
        return []
    return [str(value) for value in dict.fromkeys(summary[name].values.tolist()) if value]


def _box(attrs: dict[str, Any]) -> str:
    n, size, limit = (attrs.get(name) for name in ("n_pixels", "pixel_size_angstrom", "radius_max"))
    if not n or not size:
        return ""
    finest = f", detail down to {n * size / (2 * limit):.3g} Å" if limit else ""
    return f"{n} pixels of {size:.4g} Å: {n * size:.4g} Å{finest}"


def _search(attrs: dict[str, Any]) -> str:
    x, y = (np.asarray(attrs.get(f"displacements_{axis}_angstrom", ())) for axis in "xy")
    n = attrs.get("n_inplanes")
    said = []
    if len(x):
        said.append(
            f"{len(x):,} displacements, up to {np.abs(x).max():.4g} Å along x and "
            f"{np.abs(y).max():.4g} Å along y"
        )
    if n:
        said.append(f"{n} in-plane rotations, {360 / n:.3g}° apart")
    return "; ".join(said)


def _devices(blocks: Blocks | None) -> str:
    used = [] if blocks is None else sorted(set(blocks.device.tolist()))
    return f"used: {_some(used)}" if used else ""


def structures_section(results: xr.Dataset, summary: xr.Dataset) -> Section:
    """Which structure fits each image."""
    title, names = (
        "Which structure each image shows",
        [str(name) for name in summary[labels.STRUCTURE].values],
    )
    if len(names) < 2:
        return Section(
            "structures", title, ("There is one structure, and so nothing to compare it with.",)
        )
    if not findings.are_compared(summary):
        return Section("structures", title, ("No image has results under all structures yet.",))
    probability = summary[summaries.PROBABILITY].values[summary[summaries.COMPARABLE].values]
    n_sure = int((probability > SURE).sum())
    text = [
        "An image is assigned to the structure under which it is most likely, all poses taken "
        "together. The difference "
        "of two log-likelihoods says how much more likely: 2.3 nat are a factor of 10, 4.6 nat one "
        "of 100. "
        "Probabilities hold all structures to be equally likely beforehand, and one of them to be "
        "right.",
        f"{n_sure:,} of {len(probability):,} images are assigned with a probability above "
        f"{SURE:.0%}.",
    ]
    if summary.attrs.get("conventions") == CRYOLIKE.name:
        text.append(
            "The run used CryoLike's conventions, which inflate differences of log-likelihoods."
        )
    shown = _ratio(results, *names) if len(names) == 2 else _assignment(summary, names)
    return Section("structures", title, tuple(text), panels=(shown,))


def _ratio(results: xr.Dataset, reference: str, structure: str) -> Panel:
    return panel(
        "ratio",
        structure_plots.plot_log_likelihood_ratio(results, structure, reference),
        f"Histogram of the log-likelihood ratio of {structure} over {reference}.",
        f"Right of 0 images are more likely to show {structure}, left of 0 {reference}. Near 0 "
        f"they do not tell.",
    )


def _assignment(summary: xr.Dataset, names: list[str]) -> Panel:
    counts = summary[summaries.N_ASSIGNED].values
    most = int(counts.argmax())
    return panel(
        "assignment",
        structure_plots.plot_assignment(summary),
        f"Bars: images that fit each structure best; most, {counts[most]} of {counts.sum()}, fit "
        f"{names[most]}. "
        "Beside them the mean log-likelihoods of the structures, ranked.",
        "Images by the structure that fits best, and the mean log-likelihood of each structure "
        "less that of the first. "
        "The first fits best on average, though single images may prefer another.",
    )


def truth_section(summary: xr.Dataset) -> Section | None:
    """Whether assignments and probabilities are right, where that is known."""
    if not findings.knows_truth(summary) or not findings.are_compared(summary):
        return None
    found = findings.calibration(summary)
    n, n_right = int(found.n_images.sum()), int(found.n_right.sum())
    text = (
        "These particles were simulated, and it is recorded which structure each one shows. "
        f"{n_right:,} of {n:,} ({found.found:.1%}) are assigned to it; by their probabilities "
        f"{found.expected:.1%} "
        "should be. Where probabilities are calibrated, of the images assigned with 80% four in "
        "five are right.",
    )
    few = f" Of the structures only the {findings.MOST_CONFUSED - 1} of most images are named."
    panels = (
        panel(
            "confusion",
            structure_plots.plot_confusion(summary),
            f"Table of true against assigned structures; {n_right} of {n} images are assigned "
            f"rightly.",
            "Images by true and by assigned structure; right where both are the same."
            + (few if summary.sizes[labels.STRUCTURE] > findings.MOST_CONFUSED else ""),
        ),
        panel(
            "reliability",
            structure_plots.plot_calibration(summary),
            "How often the best structure is right over its probability, and how many images have "
            "such a probability.",
            "On the dashed line probabilities are calibrated; below it they are too large. Bars "
            "are 95% intervals.",
        ),
    )
    return Section("calibration", "Against the truth", text, panels=panels)


def correlation_section(summary: xr.Dataset) -> Section:
    """How well the images fit."""
    values = summary[labels.CROSS_CORRELATION].values
    values = values[np.isfinite(values)]
    text = (
        "The correlation of an image with its best projection, filtered by the contrast transfer: "
        "1 for a perfect "
        "image, low for noise alone. Noise sets the level; compare images of one data set with "
        "each other.",
    )
    shown = panel(
        "correlation-histogram",
        pose_plots.plot_cross_correlation(summary),
        f"Histogram of the correlation of {len(values)} images with their best projections; "
        f"median {np.median(values):.3g}.",
        "A second hump at low values often holds images without a particle.",
    )
    return Section("correlation", "How well images fit", text, panels=(shown,))


def poses_section(summary: xr.Dataset) -> Section:
    """Directions and rotations of the winners, and how far they are from recorded ones."""
    text = [
        "The pose of each image under its best structure. Particles that lie in the ice in all "
        "orientations spread "
        "evenly over the sphere and over all rotations; a few crowded directions mean that some "
        "views are preferred."
    ]
    panels = []
    if labels.OPTIMAL_AZIMUTH in summary and bool(
        np.isfinite(summary[labels.OPTIMAL_AZIMUTH].values).any()
    ):
        panels.append(
            panel(
                "directions",
                pose_plots.plot_viewing_directions(summary),
                "Map of the sphere of viewing directions; a dot where images are best seen from, "
                "coloured by how many.",
                "Viewing directions. The map keeps areas true (Mollweide's projection).",
            )
        )
    else:
        text.append(
            "The viewing directions of the templates are not known, so that they cannot be shown."
        )
    panels.append(
        panel(
            "rotations",
            pose_plots.plot_inplane_rotations(summary),
            "Histogram of the best in-plane rotations, from 0 to 360 degrees.",
            "In-plane rotations. On the dashed line none is preferred.",
        )
    )
    reason = findings.why_no_pose_errors(summary)
    if reason is None:
        shown, said = _direction_errors(summary)
        panels.append(shown)
        text.append(said)
    else:
        text.append(f"Directions are not held against recorded ones: {reason}.")
    return Section("poses", "Viewing directions and rotations", tuple(text), panels=tuple(panels))


def _direction_errors(summary: xr.Dataset) -> tuple[Panel, str]:
    errors = findings.direction_errors_degree(summary)
    median = f"{np.nanmedian(errors):.3g} degrees"
    kind = "true" if findings.knows_truth(summary) else "recorded"
    text = f"Half of the images are seen from within {median} of the {kind} direction."
    if kind == "recorded":
        text += (
            " This means something only if recorded poses and structures share one frame of "
            "coordinates."
        )
    shown = panel(
        "direction-errors",
        pose_plots.plot_direction_errors(summary),
        f"Histogram of the angle between the best and the {kind} viewing directions; median "
        f"{median}.",
        f"Angle to the {kind} viewing direction. Angles near 180° are views from the opposite "
        f"side, whose projections "
        "are mirror images and look alike at low resolution.",
    )
    return shown, text


def displacements_section(summary: xr.Dataset) -> Section:
    """Displacements of the winners."""
    edge = findings.on_the_edge(summary)
    text = ["By how much the projection is moved, before it is turned, to meet the particle."]
    if edge is not None and not edge.is_crowded:
        text.append(
            f"{edge.n_on_edge:,} of {edge.n_images:,} images ({edge.fraction:.1%}) fit best on the "
            f"edge."
        )
    elif edge is None:
        text.append("No displacements were searched, or it is not known which.")
    shown = panel(
        "displacement-map",
        pose_plots.plot_displacements(summary),
        "Map of the best displacements along x and y, coloured by how many images have them.",
        "Grey dots are displacements that were tried. A crowd at the edge means that the search "
        "was too narrow.",
    )
    return Section("displacements", "Displacements", tuple(text), panels=(shown,))


def steps_section(steps: list[Step]) -> Section | None:
    """How fine the search was for these images."""
    if not steps:
        return None
    text = (
        "Where the true pose of a particle lies between those that were tried, its log-likelihood "
        "comes out too low. "
        "Here is by how much half-way between two poses, in the median over some images: above "
        f"{findings.LOST_BETWEEN_POSES:g} nat search finer; below 1 nat a coarser search does.",
    )
    rows = tuple(
        (step.name.capitalize(), f"{step.shown(step.size)} apart: up to {step.loss:.2g} nat lower")
        for step in steps
    )
    return Section("steps", "How fine the search was", text, rows)


def examples_section(summary: xr.Dataset, n: int, inputs: dict[str, Any]) -> Section:
    """The best and the worst fitting particles, beside their projections."""
    title, panels, text = "Particles beside their projections", [], []
    best, worst = extreme_rows(summary, n)
    for key, rows, what in (("best", best, "best"), ("worst", worst, "worst")):
        if not len(rows):
            continue
        chosen = summary.isel({labels.IMAGE: rows})
        try:
            found = match(chosen, *open_matching(summary, rows, **inputs))
        except (CryolikeError, OSError) as error:
            text.append(f"Particles cannot be shown: {error}")
            break
        if (
            np.abs(found.correlation - chosen[labels.CROSS_CORRELATION].values)
            > DIFFERENT_CORRELATION
        ).any():
            text.append(
                "Some of these pairs do not correlate as the results say: the particles, the "
                "templates or how they are "
                "read have changed since the run."
            )
        panels.append(
            panel(
                key,
                draw_matches(chosen, found),
                f"{len(rows)} particles of the {'largest' if key == 'best' else 'smallest'} "
                f"correlations above their "
                "matching projections.",
                f"The {what} fitting particles. Below each the same, smoothed, and its projection "
                f"in the best pose, "
                "filtered by the contrast transfer of the image.",
            )
        )
    return Section("examples", title, tuple(dict.fromkeys(text)), panels=tuple(panels))


def time_section(path: Path | None, blocks: Blocks | None) -> Section | None:
    """How long it took."""
    if path is None or blocks is None or not len(blocks):
        return None
    text = [
        f"{len(blocks):,} blocks took {duration(float(blocks.seconds.sum()))} in all (median "
        f"{np.median(blocks.seconds):.3g} s). The blocks of all runs into this folder are counted; "
        f"several workers "
        "compute at the same time.",
    ]
    if blocks.n_unreadable:
        text.append(f"{blocks.n_unreadable} rows of {path.name} cannot be read, and are left out.")
    shown = panel(
        "block-times",
        pose_plots.plot_block_times(path),
        f"Histogram of the seconds of {len(blocks)} blocks, by device.",
        "Seconds per block, by device. The first block of a worker takes longer.",
    )
    return Section("time", "Time", tuple(text), panels=(shown,))
