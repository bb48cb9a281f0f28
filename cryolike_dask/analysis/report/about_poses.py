"""Sections of the report on poses: how well images fit, seen from where, and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.calibration import knows_truth
from cryolike_dask.analysis.findings import LOST_BETWEEN_POSES
from cryolike_dask.analysis.matching import match, open_matching
from cryolike_dask.analysis.plots import pose_plots
from cryolike_dask.analysis.plots.particle_plots import draw_matches, extreme_rows
from cryolike_dask.analysis.pose_errors import (
    direction_errors_degree,
    symmetry_of,
    why_no_pose_errors,
)
from cryolike_dask.analysis.report.sections import Panel, Section, panel
from cryolike_dask.analysis.search_edge import on_the_edge
from cryolike_dask.analysis.search_steps import Step
from cryolike_dask.errors import CryolikeError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.symmetry import NO_SYMMETRY
from cryolike_dask.stacks import ImageStack, TemplateStack
from cryolike_dask.structures.trajectories.trajectory import Trajectory

DIFFERENT_CORRELATION = 0.01
"""An example whose correlation, computed again, differs by more is not what the results came
from."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Templates, particles and parameters of a run, as `write_report` is given them.

    Attributes
    ----------
    templates, particles : path, Trajectory, stack, several stacks, or None
    parameters : path, ImageParameters, or None
    """

    templates: str | Path | Trajectory | TemplateStack | Sequence[TemplateStack] | None
    particles: str | Path | ImageStack | Sequence[ImageStack] | None
    parameters: str | Path | ImageParameters | None

    def open(
        self, summary: xr.Dataset, rows: NDArray[np.int64]
    ) -> tuple[list[ImageStack], list[TemplateStack]]:
        """Open what some images of a summary need."""
        return open_matching(summary, rows, self.templates, self.particles, self.parameters)


def correlation_section(summary: xr.Dataset) -> Section:
    """Correlations of the images with their best projections."""
    values = summary[labels.CROSS_CORRELATION].values
    values = values[np.isfinite(values)]
    text = (
        "The correlation of an image with its best projection, filtered by the contrast "
        "transfer: 1 for a perfect image, low for noise alone. Noise sets the level; compare "
        "images of one data set with each other.",
    )
    histogram = panel(
        "correlation-histogram",
        partial(pose_plots.plot_cross_correlation, summary),
        f"Histogram of the correlation of {len(values)} images with their best projections; "
        f"median {np.median(values):.3g}.",
        "A second hump at low values often holds images without a particle.",
    )
    return Section("correlation", "How well images fit", text, panels=(histogram,))


def poses_section(summary: xr.Dataset) -> Section:
    """Directions and rotations under the best structures, and how far they are from recorded
    ones."""
    text = [
        "The pose of each image under its best structure. Particles that lie in the ice in all "
        "orientations spread evenly over the sphere and over all rotations; a few crowded "
        "directions mean that some views are preferred."
    ]
    panels = []
    if labels.OPTIMAL_AZIMUTH in summary and bool(
        np.isfinite(summary[labels.OPTIMAL_AZIMUTH].values).any()
    ):
        panels.append(
            panel(
                "directions",
                partial(pose_plots.plot_viewing_directions, summary),
                "Map of the sphere of viewing directions; a dot where images are best seen from, "
                "coloured by how many.",
                f"Viewing directions{_with_all_alike(summary)}. The map keeps areas true "
                "(Mollweide's projection).",
            )
        )
    else:
        text.append(
            "The viewing directions of the templates are not known, so that they cannot be shown."
        )
    panels.append(
        panel(
            "rotations",
            partial(pose_plots.plot_inplane_rotations, summary),
            "Histogram of the best in-plane rotations, from 0 to 360 degrees.",
            "In-plane rotations. On the dashed line none is preferred.",
        )
    )
    reason = why_no_pose_errors(summary)
    if reason is None:
        errors_panel, sentence = _direction_errors(summary)
        panels.append(errors_panel)
        text.append(sentence)
    else:
        text.append(f"Directions are not held against recorded ones: {reason}.")
    return Section("poses", "Viewing directions and rotations", tuple(text), panels=tuple(panels))


def _direction_errors(summary: xr.Dataset) -> tuple[Panel, str]:
    errors = direction_errors_degree(summary)
    median = f"{np.nanmedian(errors):.3g} degrees"
    kind = "true" if knows_truth(summary) else "recorded"
    text = f"Half of the images are seen from within {median} of the {kind} direction."
    if kind == "recorded":
        text += (
            " This means something only if recorded poses and structures share one frame of "
            "coordinates."
        )
    histogram = panel(
        "direction-errors",
        partial(pose_plots.plot_direction_errors, summary),
        f"Histogram of the angle between the best and the {kind} viewing directions; median "
        f"{median}.",
        f"Angle to the {kind} viewing direction{_of_all_alike(summary)}. Angles near 180° are "
        "views from the opposite side, whose projections are mirror images and look alike at low "
        "resolution.",
    )
    return histogram, text


def _with_all_alike(summary: xr.Dataset) -> str:
    symmetry = symmetry_of(summary)
    return "" if symmetry == NO_SYMMETRY else f", each with those that look the same ({symmetry})"


def _of_all_alike(summary: xr.Dataset) -> str:
    symmetry = symmetry_of(summary)
    return "" if symmetry == NO_SYMMETRY else f", or the nearest that looks the same ({symmetry})"


def displacements_section(summary: xr.Dataset) -> Section:
    """Displacements under the best structures."""
    edge = on_the_edge(summary)
    text = ["By how much the projection is moved, before it is turned, to meet the particle."]
    if edge is not None and not edge.is_crowded:
        text.append(
            f"{edge.n_on_edge:,} of {edge.n_images:,} images ({edge.fraction:.1%}) fit best on "
            "the edge."
        )
    elif edge is None:
        text.append("No displacements were searched, or it is not known which.")
    displacement_map = panel(
        "displacement-map",
        partial(pose_plots.plot_displacements, summary),
        "Map of the best displacements along x and y, coloured by how many images have them.",
        "Grey dots are displacements that were tried. A crowd at the edge means that the search "
        "was too narrow.",
    )
    return Section("displacements", "Displacements", tuple(text), panels=(displacement_map,))


def steps_section(steps: list[Step]) -> Section | None:
    """Steps of the search, and what is lost between them."""
    if not steps:
        return None
    text = (
        "Where the true pose of a particle lies between those that were tried, its "
        "log-likelihood comes out too low. Here is by how much half-way between two poses, in "
        f"the median over some images: above {LOST_BETWEEN_POSES:g} nat search finer; below 1 "
        "nat a coarser search does.",
    )
    rows = tuple(
        (step.name.capitalize(), f"{step.shown(step.size)} apart: up to {step.loss:.2g} nat lower")
        for step in steps
    )
    return Section("steps", "How fine the search was", text, rows)


def examples_section(summary: xr.Dataset, n: int, inputs: Inputs) -> Section:
    """The best and the worst fitting particles, beside their projections."""
    panels, text = [], []
    best, worst = extreme_rows(summary, n)
    for key, extreme, rows in (("best", "largest", best), ("worst", "smallest", worst)):
        if not len(rows):
            continue
        chosen = summary.isel({labels.IMAGE: rows})
        try:
            matches = match(chosen, *inputs.open(summary, rows))
        except (CryolikeError, OSError) as error:
            text.append(f"Particles cannot be shown: {error}")
            break
        difference = np.abs(matches.correlation - chosen[labels.CROSS_CORRELATION].values)
        if (difference > DIFFERENT_CORRELATION).any():
            text.append(
                "Some of these pairs do not correlate as the results say: the particles, the "
                "templates or how they are read have changed since the run."
            )
        panels.append(
            panel(
                key,
                partial(draw_matches, chosen, matches),
                f"{len(rows)} particles of the {extreme} correlations above their matching "
                "projections.",
                f"The {key} fitting particles. Below each the same, smoothed, and its projection "
                "in the best pose, filtered by the contrast transfer of the image.",
            )
        )
    title = "Particles beside their projections"
    return Section("examples", title, tuple(dict.fromkeys(text)), panels=tuple(panels))
