"""Draw the README's picture from what the demo left: `python docs/picture.py cryolike-dask-demo
docs/picture.png`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import xarray as xr

import cryolike_dask as cld
from cryolike_dask import labels
from cryolike_dask.analysis.matching import Matches, match
from cryolike_dask.analysis.plots.drawing import (
    COLOURS,
    edges_of,
    finish_histogram,
    new_figure,
    stacked_bars,
)
from cryolike_dask.analysis.plots.stack_plots import save_figure
from cryolike_dask.analysis.summaries import summary_of
from cryolike_dask.io.parameters import read_parameters
from cryolike_dask.particles.transform import fourier_to_pixels

NAMES = ("open", "closed")


def draw(demo: Path, path: Path) -> None:
    """Two particles beside their best projections, and the log-likelihood ratios of all."""
    results = cld.open_results(demo / "likelihood")
    figure = new_figure(9.0, 3.7)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    left.suptitle("particles, and what each of them shows", fontsize="medium")
    panels = left.subplots(2, 2)
    for row, name in zip(panels, NAMES, strict=True):
        found, one = match_of(results, demo, name)
        for axes, values in zip(row, (found.particles, found.projections), strict=True):
            axes.imshow(fourier_to_pixels(values, found.grid)[0], cmap="gray", origin="lower")
            axes.set(xticks=[], yticks=[])
        azimuth, polar = (
            np.degrees(float(one[angle]))
            for angle in (labels.OPTIMAL_AZIMUTH, labels.OPTIMAL_POLAR)
        )
        row[1].set_xlabel(
            f"{name}, seen from {azimuth:.0f}°, {polar:.0f}°", color=COLOURS[NAMES.index(name)]
        )
    draw_ratios(results, right.add_subplot())
    save_figure(figure, path)


def match_of(results: xr.Dataset, demo: Path, name: str) -> tuple[Matches, xr.Dataset]:
    """The particle that says most clearly that it shows a structure, and its projection."""
    other = next(n for n in NAMES if n != name)
    ratio = cld.log_likelihood_ratio(results, reference=other).sel(structure=name).values
    one = summary_of(results, None).isel(image=[int(ratio.argmax())])
    files = cld.configure_likelihood_files(
        demo / "templates", demo / "particles", demo / "likelihood"
    )
    parameters = read_parameters(demo / "templates/parameters.npz")
    stack = cld.open_images(files, parameters, i_stack=int(one[labels.STACK].item()))
    number = results.structure.values.tolist().index(name)
    return match(one, stack, cld.open_templates(files, parameters, number)), one.isel(image=0)


def draw_ratios(results: xr.Dataset, axes) -> None:
    """How much more likely each particle is open than closed, by what it truly is."""
    ratio = cld.log_likelihood_ratio(results, reference="closed").sel(structure="open").compute()
    truth = results.true_structure.values
    parts = [ratio.values[truth == name] for name in NAMES]
    stacked_bars(axes, parts, edges_of(ratio.values), [f"truly {name}" for name in NAMES])
    axes.axvline(0, color="black", linewidth=1)
    finish_histogram(
        axes, ratio.values, "log-likelihood ratio, open over closed (nat)", legend=True
    )
    right = float(np.mean((ratio.values > 0) == (truth == "open")))
    axes.set_title(
        f"{right:.0%} of {len(truth)} noisy particles are assigned rightly", fontsize="medium"
    )


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:3]))
