"""Whether the answer of a report can be trusted: noise, search, edge, calibration, fit."""

from __future__ import annotations

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis.displacements_tried import displacements_tried
from cryolike_dask.analysis.findings import Finding, negative_fraction
from cryolike_dask.analysis.lights import Light, Lights
from cryolike_dask.analysis.report.about_belief import Basis, lights_of_belief
from cryolike_dask.analysis.report.about_decoys import SMALL
from cryolike_dask.analysis.search_edge import on_the_edge
from cryolike_dask.analysis.search_steps import Step

MANY_NEGATIVE = 0.5
MANY_RESIDUALS, FAR_TOO_MANY_RESIDUALS = 0.03, 0.1
"""Parts of the images whose residuals noise leaves once in a hundred times: by chance 0.01."""


def trust(summary: xr.Dataset, steps: list[Step], basis: Basis) -> dict[str, Lights]:
    """A light for each of the five things that an answer rests on, by its name.

    Parameters
    ----------
    summary : xarray.Dataset
    steps : list of Step
        As they were measured; empty if they were not.
    basis : Basis
    """
    of = lights_of_belief(summary, steps, basis)
    return {
        "Noise": Lights({name: of[name] for name in ("Noise", "Degrees of freedom")}),
        "Search": Lights({"Search": of["Search"]}),
        "Edge": Lights({"Edge": edge_light(summary)}),
        "Calibration": Lights({"Calibration": of["Calibration"]}),
        "Fit": Lights(
            {
                "Contrast": _contrast(summary),
                "Envelope": of["Envelope"],
                "Residuals": _residuals(summary),
            }
        ),
    }


def about_calibration(lights: dict[str, Lights]) -> list[Finding]:
    """A finding where particles simulated for the run say that its probabilities are wrong."""
    light = lights["Calibration"].parts["Calibration"]
    return [Finding("trust", light.text)] if light.colour == "bad" else []


def edge_light(summary: xr.Dataset) -> Light:
    """Whether particles lie as near to the middle as was searched."""
    edge = on_the_edge(summary)
    if edge is None:
        tried = displacements_tried(summary)
        if all(map(len, tried)):
            return Light("unsure", "No displacements were searched: particles have to be centred.")
        return Light("unsure", "Not known: it is not recorded which displacements were searched.")
    found = (
        f"{edge.n_on_edge:,} of {edge.n_images:,} images ({edge.fraction:.1%}) fit best at the "
        "largest displacement that was tried"
    )
    if edge.is_crowded:
        return Light("bad", f"{found}: particles may be further off centre than was searched.")
    return Light("good", f"{found}, where {edge.fraction_tried:.0%} of those tried lie.")


def _contrast(summary: xr.Dataset) -> Light:
    """Whether particles are bright where projections are."""
    correlations = summary[labels.CROSS_CORRELATION].values
    known = correlations[np.isfinite(correlations)]
    median = f"Best correlations have the median {np.median(known):.3g}" if len(known) else ""
    fraction = negative_fraction(summary)
    if fraction > MANY_NEGATIVE:
        return Light(
            "bad", f"{median}, and {fraction:.0%} are negative: the contrast may be inverted."
        )
    return Light("good", f"{median}, and {fraction:.0%} are negative.")


def _residuals(summary: xr.Dataset) -> Light:
    """Whether what the best projections leave of images is noise."""
    if labels.RESIDUAL_P_VALUE not in summary.coords:
        return Light("unsure", "Not tried whether what projections leave of images is noise.")
    p_values = summary[labels.RESIDUAL_P_VALUE].values
    n = int((p_values >= 0).sum())
    if not n:
        return Light("unsure", "No image has a residual that was looked at.")
    fraction = float((p_values < SMALL).sum()) / n
    found = (
        f"Of {n:,} images {fraction:.1%} leave what noise leaves once in {1 / SMALL:.0f} times; by "
        f"chance {SMALL:.0%} would."
    )
    if fraction > FAR_TOO_MANY_RESIDUALS:
        return Light("bad", f"{found} Noise or envelope are wrong, or images show something else.")
    return Light("unsure" if fraction > MANY_RESIDUALS else "good", found)
