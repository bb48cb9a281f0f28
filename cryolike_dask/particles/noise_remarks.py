"""What is worth knowing of the noise of images, before anything is computed with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.noise import OF_ENVELOPE, NoiseModel
from cryolike_dask.geometry.polar_grid import PolarGrid

FloatArray = NDArray[np.float64]

FEW_IMAGES = 50
"""Spectra from fewer are uncertain enough to say so."""
UNEVEN, STANDARD_ERRORS = 0.1, 4.0
"""Departures of whitened power from its mean that are larger, and more than chance explains, are
worth a remark."""
N_PARTS = 8
"""Of the band, whose power is compared with the mean."""
NAMED = 3
TAKEN_AS_WHITE = "taken as white in the whole box"
"""Begins the reason of a group whose noise cannot be told from its signal."""


@dataclass(frozen=True, eq=False)
class WhitenedPower:
    """Power of images after whitening, without what structures explain of it where that is known.

    Attributes
    ----------
    power : (group, shell) float64
        Mean over the images of a group.
    error : (group, shell) float64
        Its standard error.
    """

    power: FloatArray
    error: FloatArray


def remarks_on_noise(
    model: NoiseModel,
    grid: PolarGrid,
    whitened: WhitenedPower | None = None,
    n_copied_lines: int = 0,
) -> tuple[str, ...]:
    """Tell in what images are not what white noise in a full box would be, or not what the model
    supposes, and what to do; a sentence each.

    Parameters
    ----------
    model : NoiseModel
    grid : PolarGrid
        Of the images.
    whitened : WhitenedPower, optional
        Its groups are those of the model.
    n_copied_lines : int
        Lines along the border that are copies, as `copied_lines` counts them.
    """
    found: dict[str, list[str]] = {}
    for i, group in enumerate(model.groups):
        sentences = [_on_share(model, i), _on_band(model, i), _on_number(model, i)]
        if whitened is not None:
            sentences.append(_on_evenness(model, i, grid, whitened))
        for sentence in filter(None, sentences):
            found.setdefault(sentence, []).append(group)
    remarks = [f"Noise of {_listed(groups)} {sentence}" for sentence, groups in found.items()]
    if n_copied_lines:
        remarks.append(
            f"{n_copied_lines} line(s) of pixels along the border are copies of those next to them "
            "in nearly all images, and no noise of their own; extract particles again that lie "
            "inside their micrographs, or give --degrees-of-freedom."
        )
    return tuple(remarks)


def _on_share(model: NoiseModel, i: int) -> str:
    share, reason = float(model.share[i]), model.reasons[i].partition(OF_ENVELOPE)[0]
    if reason.startswith(TAKEN_AS_WHITE):
        return (
            f"is {reason}, from which it cannot be told; do not believe how sure probabilities "
            "are, or give --noise a file if its spectrum is known."
        )
    if math.isnan(share):
        return (
            f"is taken to fill the whole box ({reason}); if images are masked, probabilities will "
            "be too sure."
        )
    if share == 1:
        return ""
    return (
        f"fills {share:.2f} of the box only ({reason}), and has so many degrees of freedom fewer; "
        "use images without a mask where there are some, or give --degrees-of-freedom if this is "
        "wrong."
    )


def _on_band(model: NoiseModel, i: int) -> str:
    limit = float(model.band_limit[i])
    if not math.isfinite(limit):
        return ""
    reason = model.reasons[i].partition(OF_ENVELOPE)[0]
    return (
        f"ends at {1 / limit:.1f} angstrom ({reason}), and nothing beyond is compared; "
        "use images without a low-pass where there are some, or give another --noise if this is "
        "wrong."
    )


def _on_number(model: NoiseModel, i: int) -> str:
    n = int(model.n_images[i])
    if not 0 < n < FEW_IMAGES:
        return ""
    return (
        f"is estimated from {n} image(s) only, and known to "
        f"{np.median(model.relative_error[i]):.0%} at best; estimate it from "
        "more, or give --noise a file made with these."
    )


def _on_evenness(model: NoiseModel, i: int, grid: PolarGrid, whitened: WhitenedPower) -> str:
    """Power of parts of the band against the mean. Shells below one cycle per half box, which hold
    what is left of the offset, are left out."""
    shells = grid.spatial_frequencies
    used = np.flatnonzero((grid.radii >= 1) & (shells <= model.band_limit[i]))
    used = used[whitened.error[i, used] > 0]
    if len(used) < N_PARTS:
        return ""
    power, error = whitened.power[i, used], whitened.error[i, used]
    mean = np.average(power, weights=grid.radii[used])  # as there are points
    worst, at = 0.0, 0.0
    for part in np.array_split(np.arange(len(used)), N_PARTS):
        off = float(power[part].mean() / mean - 1)
        # a shell and the next, half a cycle of the box apart, are not independent
        chance = float(np.sqrt((error[part] ** 2).mean() / max(1, len(part) / 2)) / mean)
        if abs(off) > max(UNEVEN, STANDARD_ERRORS * chance, abs(worst)):
            worst, at = off, float(shells[used[part]].mean())
    if not worst:
        return ""
    return (
        f"is not as the model supposes: after whitening, power at {1 / at:.1f} angstrom is "
        f"{1 + worst:.2f} of the mean; estimate it from these images (--noise estimate)."
    )


def _listed(groups: list[str]) -> str:
    more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return ", ".join(groups[:NAMED]) + more
