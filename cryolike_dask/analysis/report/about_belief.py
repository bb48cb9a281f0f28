"""What numbers rest on: noise, degrees of freedom, envelope, search, calibration."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.calibration_light import calibration_light
from cryolike_dask.analysis.findings import (
    FEW_WITHIN,
    LOST_BETWEEN_POSES,
    n_ahead_by_less,
)
from cryolike_dask.analysis.lights import Light
from cryolike_dask.analysis.plots.noise_plots import plot_noise
from cryolike_dask.analysis.report.sections import Panel, Section, panel
from cryolike_dask.analysis.search_of_results import (
    SearchOfResults,
    inputs_to_name,
    search_of_results,
)
from cryolike_dask.analysis.search_steps import Step, searched_in_levels
from cryolike_dask.conventions import conventions_named
from cryolike_dask.errors import CryolikeError, is_or_are
from cryolike_dask.geometry.noise import OF_ENVELOPE, NoiseModel
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.search_method import Adaptive
from cryolike_dask.io.calibration import read_calibration
from cryolike_dask.io.layout import LikelihoodFiles

WELL_KNOWN = 0.1
"""Relative error of the variance of noise that is known well enough, in the median."""
MOST_REASONS = 3


@dataclass(frozen=True, eq=False)
class Basis:
    """What results rest on, as far as it is known.

    Attributes
    ----------
    told : SearchOfResults or None
    problem : str
        Why nothing is told; empty if it is.
    grid : PolarGrid or None
    """

    told: SearchOfResults | None
    problem: str
    grid: PolarGrid | None


def basis_of(summary: xr.Dataset) -> Basis:
    """Read what results rest on."""
    names = ("n_pixels", "pixel_size_angstrom", "radius_max", "n_inplanes", "dist_radii")
    try:
        grid = PolarGrid(**{name: summary.attrs[name] for name in names})
    except (KeyError, CryolikeError):
        grid = None
    try:
        return Basis(search_of_results(summary), "", grid)
    except CryolikeError as error:
        return Basis(None, str(error), grid)


def lights_of_belief(summary: xr.Dataset, steps: list[Step], basis: Basis) -> dict[str, Light]:
    """Everything that probabilities rest on, with a light for each."""
    return {
        "Noise": _noise(summary, basis),
        "Degrees of freedom": _degrees_of_freedom(summary, basis),
        "Envelope": _under_steps(_envelope(summary, basis), basis, steps),
        "Search": _search(steps, summary, basis),
        "Calibration": _calibration(summary, basis),
    }


def noise_section(basis: Basis) -> Section | None:
    """The spectrum of the noise; none where there is no model."""
    panels = tuple(_spectrum(basis))
    return Section("noise-spectrum", "The noise", panels=panels) if panels else None


def _knows_noise(summary: xr.Dataset) -> bool:
    try:
        return conventions_named(str(summary.attrs.get("conventions"))).knows_noise
    except CryolikeError:
        return False


def _model(basis: Basis) -> NoiseModel | None:
    return None if basis.told is None else basis.told.settings.noise


def _noise(summary: xr.Dataset, basis: Basis) -> Light:
    model = _model(basis)
    if not _knows_noise(summary):
        return Light(
            "bad",
            "Supposed to be white, and its level to be one of many: the conventions of this run "
            "inflate differences of log-likelihoods, and its probabilities are not to be believed.",
        )
    if basis.told is None:
        return Light("unsure", f"Not known: {basis.problem}")
    if model is None:
        return Light(
            "unsure",
            "Supposed to be white. That of micrographs is not, and then probabilities are far too "
            "sure: --noise estimate, in a new output folder, estimates it from the images.",
        )
    n, groups = int(model.n_images.sum()), len(model)
    where = "for all images" if groups == 1 else f"for {groups:,} groups of images"
    how = f"Estimated from {n:,} images, {where}" if n else f"Given, {where}"
    known = float(np.nanmedian(_inside(model, model.relative_error, basis.grid)))
    variance = _inside(model, model.variance, basis.grid)
    ratio = max(float(np.nanmax(row) / np.nanmin(row)) for row in variance)
    shape = f"; inside the band its variance differs by a factor of {_factor(ratio)}"
    error = f", and is known to {known:.1%}" if known else ""
    return Light("good" if known <= WELL_KNOWN else "unsure", f"{how}{shape}{error}.")


def _inside(
    model: NoiseModel, values: NDArray[np.float64], grid: PolarGrid | None
) -> NDArray[np.float64]:
    """Values of each group inside the band; NaN beyond it, and where the mean of the box is."""
    f = model.frequencies
    highest = f[-1] if grid is None else grid.spatial_frequencies[-1]
    lowest = 2 / (model.n_pixels * model.pixel_size_angstrom)
    limit = np.minimum(model.band_limit, highest)[:, None]
    inside: NDArray[np.float64] = np.where((f >= lowest) & (f <= limit), values, np.nan)
    return inside


def _factor(ratio: float) -> str:
    shown = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
    return f"{shown} ({10 * np.log10(ratio):.2g} dB)"


def _degrees_of_freedom(summary: xr.Dataset, basis: Basis) -> Light:
    if not _knows_noise(summary):
        return Light("bad", "Taken to be as many as pixels, which the band does not hold.")
    if basis.told is None or basis.grid is None:
        return Light("unsure", f"Not known: {basis.problem or 'the grid is not recorded'}")
    band = 4 * np.pi * basis.grid.radius_max**2
    settings = basis.told.settings
    of_band = f"of {band:,.0f} in the band"
    if settings.degrees_of_freedom is not None:
        return Light("good", f"{settings.degrees_of_freedom:,.0f} {of_band}, as given.")
    advice = (
        "Of images that are masked, low-passed or interpolated they are fewer, and probabilities "
        "too sure: tell them with --degrees-of-freedom."
    )
    model = settings.noise
    if model is None:
        return Light("unsure", f"{band:,.0f}, all in the band, are supposed. {advice}")
    free = model.degrees_of_freedom(basis.grid)
    about_box = [reason.partition(OF_ENVELOPE)[0] for reason in model.reasons]
    reasons = list(dict.fromkeys(reason for reason in about_box if reason))
    more = f" and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
    why = f" ({'; '.join(reasons[:MOST_REASONS])}{more})" if reasons else ""
    low, high = f"{free.min():,.0f}", f"{free.max():,.0f}"
    told = f"{low if low == high else f'{low} to {high}'} {of_band}{why}."
    if np.isnan(model.share).any():
        return Light("unsure", f"{told} How much of the box the noise fills is not known. {advice}")
    return Light("good", told)


def _envelope(summary: xr.Dataset, basis: Basis) -> Light:
    if not _knows_noise(summary):
        return Light("bad", "None, not even that which the metadata give.")
    if basis.told is None:
        return Light("unsure", f"Not known: {basis.problem}")
    settings, model = basis.told.settings, _model(basis)
    added = settings.b_factor + (np.zeros(1) if model is None else model.b_factor_angstrom2)
    errors = np.full(1, np.nan) if model is None else model.b_factor_error
    beyond = "added to what the metadata give"
    if np.isfinite(errors).any():
        values = [
            f"{b:.0f} ± {error:.0f}" for b, error in zip(added, errors, strict=True) if error >= 0
        ]
        distinct = list(dict.fromkeys(values))
        shown = ", ".join(distinct[:MOST_REASONS]) + (
            " ..." if len(distinct) > MOST_REASONS else ""
        )
        return Light("good", f"B-factor {shown} Å², fitted to the images, and {beyond}.")
    if added.any():
        return Light("good", f"B-factor {added.mean():.0f} Å², given, and {beyond}.")
    sought = [] if model is None else [r.partition(OF_ENVELOPE)[2] for r in model.reasons]
    if any(sought):
        return Light("unsure", f"A B-factor was sought: {next(filter(None, sought))}.")
    return Light(
        "unsure",
        "No B-factor is fitted: only the envelope that the metadata give is known. One that is "
        "missing makes probabilities too sure at high resolution: --b-factor fit, into a new "
        "folder.",
    )


def _under_steps(light: Light, basis: Basis, steps: list[Step]) -> Light:
    """The light of an envelope that was fitted: what a coarse search blurs is part of it."""
    model, worst = _model(basis), coarse(steps)
    if worst is None or model is None or not np.isfinite(model.b_factor_error).any():
        return light
    return Light(
        "unsure",
        f"{light.text} The search was too coarse in {worst.name}, and B blurs as that does: it is "
        "larger than that of the images, or was sought in vain. Search finer, in a new folder.",
    )


def coarse(steps: list[Step]) -> Step | None:
    """The worst step, if images lose too much by it."""
    worst = max(steps, key=lambda step: step.loss, default=None)
    return worst if worst is not None and worst.loss > LOST_BETWEEN_POSES else None


def _search(steps: list[Step], summary: xr.Dataset, basis: Basis) -> Light:
    method = _method(summary, basis)
    if not steps:
        text = "Steps are not measured: the inputs of the run are not at hand."
        return Light("unsure", f"{text}{method}")
    shown = ", ".join(f"{step.name} {step.shown(step.size)} apart" for step in steps)
    worst = max(steps, key=lambda step: step.loss)
    lost = f"half-way between {worst.name} images lose {worst.loss:.2g} nat"
    if coarse(steps) is not None:
        n_less, n = n_ahead_by_less(summary, worst)
        if not n:
            return Light("bad", f"Too coarse: {lost} ({shown}).{method}")
        less = f"less than what is lost on average, {worst.loss_on_average:.2g} nat"
        ahead = f"{n_less:,} of {n:,} images {is_or_are(n_less)} ahead by {less}"
        if n_less > FEW_WITHIN * n:
            return Light("bad", f"Too coarse: {lost} ({shown}), and {ahead}.{method}")
        return Light(
            "unsure",
            f"Coarse: {lost} ({shown}). Only {ahead}, so that most assignments hold; probabilities "
            f"are too large.{method}",
        )
    return Light("good", f"Fine enough: {lost} at most ({shown}).{method}")


def _method(summary: xr.Dataset, basis: Basis) -> str:
    """A sentence on how poses were searched, where that is recorded."""
    method = summary.attrs.get("search")
    if method is None:
        return ""
    if method == "exhaustive":
        return f" Every pose was compared ({method})."
    if Adaptive.named(method) is None:
        return f" Only poses around those recorded were compared ({method}).{_missed(summary)}"
    if basis.grid is not None and not searched_in_levels(summary, basis.grid):
        return " Every pose was compared, since the band is too narrow for levels (adaptive)."
    return (
        f" It was coarse to fine ({method}): what a part of the band ruled out was not compared in "
        f"more of it, and likelihoods are interpolated between displacements.{_missed(summary)}"
    )


def _missed(summary: xr.Dataset) -> str:
    """A sentence on what likelihoods lack of the poses that were not compared."""
    if labels.LOG_LIKELIHOOD_ERROR not in summary:
        return ""
    errors = summary[labels.LOG_LIKELIHOOD_ERROR].values
    errors = errors[np.isfinite(errors)]
    if not len(errors):
        return ""
    return (
        f" Log-likelihoods are estimated to lack {errors.max():.2g} nat at most, and up to "
        f"{np.percentile(errors, 95):.2g} nat in 95% of the images."
    )


def _calibration(summary: xr.Dataset, basis: Basis) -> Light:
    folder = summary.attrs.get("folder")
    if not folder:
        return Light("unsure", "Not tried: the results do not say in which folder they are.")
    options = inputs_to_name(summary).values()
    get = " ".join(["cryolike-dask calibrate", shlex.quote(str(folder)), *options])
    try:
        calibration = read_calibration(LikelihoodFiles(None, None, folder).calibration)
    except CryolikeError as error:
        return Light("unsure", str(error))
    if summary.sizes[labels.STRUCTURE] < 2:
        return Light("unsure", "Not tried: under one structure no image is assigned.")
    if basis.told is not None and basis.told.settings.around is not None:
        return Light("unsure", "Not tried: particles that are simulated have no recorded poses.")
    if calibration is None:
        return Light("unsure", f"Not tried yet: {get}")
    if basis.told is None or calibration.results != basis.told.checksum:
        return Light("unsure", f"Tried on results of other settings. Try it again: {get}")
    return calibration_light(calibration)


def _spectrum(basis: Basis) -> list[Panel]:
    model = _model(basis)
    if model is None:
        return []
    intervals = ", with 95% intervals" if model.relative_error.any() else ""
    return [
        panel(
            "noise",
            partial(plot_noise, model),
            f"Variance of the noise over spatial frequency, of {len(model)} group(s) of images.",
            f"The spectrum of the noise that images are whitened by{intervals}. Its level is each "
            "image's own.",
        )
    ]
