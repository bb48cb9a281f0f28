"""Where the noise of low-passed or interpolated images ends, by its power."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.leak import leak_of_box
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.particles.noise import LOWEST_SHELL

FloatArray = NDArray[np.float64]

NO_NOISE = 1e-4
"""Of the median power inside the band: with less there is no noise."""
LEAKED, BEYOND = 3.0, 2.0
"""Beyond the end of the band and this many cycles per box, power is no more than this times what
the edges of the box leak there; those of a hard mask of 0.35 of the box leak up to 1.9 times as
much."""
FALL, FALL_WITHIN = 0.15, 0.06
"""Where a band ends, power falls to this part of itself, from so many cycles before to so many
after, or this part of the frequencies if that is more; where a steep spectrum sinks below what
leaks, it does not."""
SHORTEST_BAND, FEWEST_SHELLS = 0.15, 3
"""Part of the frequencies below which a high power is that of uneven ice, and no band; shells
inside a band and beyond it, at least."""
MOST_SHELLS = 96
"""For which leaks are computed."""
WHOLE_BAND = "noise reaches the whole band"


def band_limit_of(
    frequencies: FloatArray, power: FloatArray, grid: PolarGrid | None = None
) -> tuple[float, str]:
    """Find where the noise of images ends: below 1e-4 of its median power, and no more beyond.

    Parameters
    ----------
    frequencies : (frequency,) float64
        1/angstrom, ascending.
    power : (frequency,) float64
        Mean power of images or of their noise, not smoothed.
    grid : PolarGrid, optional
        The images are of it, and the power that of their transforms between the frequencies that
        are whole in the box: the edges of the box leak up to 0.03 of the power inside a band there,
        which is not noise of its own. None: nothing leaks, as in discrete Fourier transforms of
        pixels.

    Returns
    -------
    limit : float
        1/angstrom; infinite where noise reaches the whole band.
    reason : str
        For a reader.

    """
    shells = np.asarray(frequencies, np.float64)
    values = np.asarray(power, np.float64)
    highest = float(shells[-1])
    if grid is not None:
        highest = max(highest, 2 * grid.radius_max / grid.box_size_angstrom)
    chosen = evenly_spread(len(shells), MOST_SHELLS)
    ends, leaks, margin = _candidates(shells, values, chosen, grid)
    for i, end in enumerate(ends):
        beyond = chosen[shells[chosen] > end + margin]
        inside = values[shells <= end]
        enough = min(len(inside), len(beyond)) >= FEWEST_SHELLS
        if not enough or end < SHORTEST_BAND * highest:
            continue
        leaked = leaks[np.searchsorted(chosen, beyond), i]
        if (values[beyond] <= np.maximum(NO_NOISE * np.median(inside), LEAKED * leaked)).all():
            limit = _edge(shells, values, float(end), margin)
            around = max(margin, FALL_WITHIN * highest)
            before, after = np.interp([limit - around, limit + around], shells, values)
            if margin and after > FALL * before:
                continue
            return limit, (
                f"low-passed at {1 / limit:.1f} angstrom: {(limit / highest) ** 2:.2f} of the band "
                "is left"
            )
    return math.inf, WHOLE_BAND


def _candidates(
    shells: FloatArray, power: FloatArray, chosen: NDArray[np.int64], grid: PolarGrid | None
) -> tuple[FloatArray, FloatArray, float]:
    """Ends that a band may have, 1/angstrom; what bands that end there leak to the chosen shells,
    (shell, end); and how far beyond an end nothing else is seen."""
    if grid is None:
        return shells, np.zeros((len(chosen), len(shells))), 0.0
    box = grid.box_size_angstrom
    cycles = shells[chosen] * box
    ends = np.arange(math.floor(cycles[-1]) + 1) / box
    kernel = leak_of_box(cycles, grid.n_pixels)[:, : len(ends)]
    leaks = np.cumsum(kernel * np.interp(ends, shells, power), axis=1)
    seen = shells[shells * box / 2 >= LOWEST_SHELL]
    estimated = np.searchsorted(seen, ends, side="right") >= FEWEST_SHELLS
    return ends[estimated], leaks[:, estimated], BEYOND / box


def _edge(shells: FloatArray, power: FloatArray, end: float, margin: float) -> float:
    """The frequency at which the power falls to half of that inside, if it does so near the end, or
    else that at which it has fallen."""
    if not margin:
        last = int(np.searchsorted(shells, end, side="right")) - 1
        return float(shells[last : last + 2].mean())
    inside = (shells > end - 4 * margin) & (shells <= end - margin / 2) & (power > 0)
    near = np.flatnonzero((shells > end - margin) & (shells <= end + 2 * margin))
    if inside.sum() < FEWEST_SHELLS:
        return end
    # a straight line through the logarithms, which a steep spectrum follows
    line = np.polyfit(shells[inside] - end, np.log(power[inside]), 1)
    part = power[near] / np.exp(np.polyval(line, shells[near] - end))
    for i in range(1, len(near)):
        if part[i - 1] > 0.5 >= part[i]:
            return float(np.interp(0.5, part[[i, i - 1]], shells[near[[i, i - 1]]]))
    return end
