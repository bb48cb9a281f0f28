"""The part of the box that the noise of images fills, by the variance of each pixel over images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float64]

FEWEST_IMAGES, ENOUGH_FOR_PIXELS = 10, 30
"""Fewer do not tell a mask: the variance of a pixel is too uncertain; so many tell whether a pixel
is outside."""
WHOLE = 0.97
"""Larger shares are those of noise that fills the whole box."""
EMPTY_LEVEL, LEAST_EMPTY = 0.02, 0.005
"""Pixels below this part of bright ones hold no noise; there are none if these are a smaller part
of the box."""
QUIET, DIM = 0.15, 0.3
"""Corners whose variance differs from pixel to pixel by a smaller part of what chance makes of
noise, and is a smaller part of that of bright pixels, hold a constant: the offset of images that
lost their mean."""
SHARP = 0.8
"""The first ring of noise that has more than this part of the next is the whole edge of a mask."""
RISE, STEPS_ACROSS, PART_SEARCHED = 1.4, 24, 0.1
"""Softer edges end where the variance rises least over a 24th of the box, within a tenth of it from
where it rises by less than this."""
COPIED = 0.25
"""Lines of pixels differ from the next by less than this part of what those farther in differ by,
if they are copies of these in nearly all images."""
NO_MAP = "the variance of pixels over images"
GIVE_IT = "give --degrees-of-freedom"


def share_of_box(variance: NDArray[np.floating] | None, n_images: int) -> tuple[float, str]:
    """Find the part of the box that noise fills: 1, or less where a mask or a frame has taken it.

    Of noise of variance v, which is 1 where particles are, it is the mean of v: what an image holds
    of noise in all, in units of what particles have to compete with. For hard masks that is (sum
    v)^2 / (N^2 sum v^2) too, degrees of freedom over those of a full box; for soft ones it is less,
    and probabilities bear it out (benchmarks/calibration.py: a slope of 0.90 with the latter). The
    signal of particles, brighter in the middle, lowers it no more than the scatter of few images
    does.

    Parameters
    ----------
    variance : (row, column) or None
        Variance of each pixel over images, each brought to mean 0, in any unit.
    n_images : int
        Images that it is of.

    Returns
    -------
    share : float
        In (0, 1]; NaN: not known.
    reason : str
        For a reader.
    """
    if variance is None:
        return math.nan, f"not known: {NO_MAP} is not there, {GIVE_IT}"
    if n_images < FEWEST_IMAGES:
        return math.nan, f"not known: {NO_MAP} is that of {n_images} image(s) only, {GIVE_IT}"
    if not np.isfinite(variance).all() or not (variance >= 0).all() or not variance.any():
        return math.nan, f"not known: {NO_MAP} is negative, not finite or zero, {GIVE_IT}"
    noise = noise_level(variance, n_images)
    share = float(noise.mean())
    if share > WHOLE:
        return 1.0, "noise fills the whole box"
    return share, f"{_shape_of(noise)}: {share:.2f} of it is left"


def noise_level(variance: NDArray[np.floating], n_images: int) -> FloatArray:
    """Tell the variance of noise from that of the particle, and smooth it.

    Parameters
    ----------
    variance : (row, column)
    n_images : int

    Returns
    -------
    (row, column) float64
        At most 1, which it is inside a mask.

    Notes
    -----
    From the pixels without noise inwards, the edge of a mask ends where the variance stops to rise.
    What is brighter further in is a particle. Where all pixels have noise, there is no mask.
    """
    above = _above_offset(np.asarray(variance, np.float64), n_images)
    # of few images some pixels are dark by chance, though hardly most of nine
    smooth = above if n_images >= ENOUGH_FOR_PIXELS else ndimage.median_filter(above, 3)
    empty = smooth < EMPTY_LEVEL * np.quantile(above, 0.95)
    if empty.mean() < LEAST_EMPTY:
        return _without_mask(above)
    depth = np.rint(ndimage.distance_transform_edt(~empty)).astype(np.int64)
    profile = _mean_by(depth, above)[1:]  # of depth 1 first
    level, end = _end_of_edge(profile, len(above))
    profile = np.minimum(profile / level, 1)
    profile[end:] = 1
    result: FloatArray = np.concatenate([[0.0], profile])[depth]
    return result


def copied_lines(variance: NDArray[np.floating]) -> int:
    """Count the lines of pixels along the border that are copies of those next to them in nearly
    all images, as boxes cut at the rim of a micrograph may have; the most of the four sides."""
    counts = [0]
    for turns in range(4):
        lines = np.rot90(np.asarray(variance, np.float64), turns)
        levels = np.maximum(lines.mean(axis=1), np.finfo(float).tiny)
        scatter = lines.std(axis=1) / levels
        if scatter[0] < COPIED * np.median(scatter):  # the constant of a mask
            continue
        steps = np.sqrt((np.diff(lines, axis=0) ** 2).mean(axis=1)) / levels[1:]
        for n in range(1, max(1, len(lines) // 8) + 1):
            beyond = min(steps[n], np.median(steps[n : n + 3]))
            if steps[:n].max() < COPIED * beyond:
                counts.append(n)
    return max(counts)


def _end_of_edge(profile: FloatArray, n_pixels: int) -> tuple[float, int]:
    """The variance of noise inside a mask, and the index from which on all pixels have it.

    Parameters
    ----------
    profile : (depth,)
        Mean variance of the pixels 1, 2, ... pixels inside the outermost that have any.
    n_pixels : int
        Along a side of the box.
    """
    first = profile[:3]
    if len(first) < 3 or first[0] > SHARP * first[1]:
        return float(first[0]), 1
    if first[1] > SHARP * first[2]:
        return float(first[1]), 2
    step = max(2, round(n_pixels / STEPS_ACROSS))
    ahead = np.minimum(np.arange(len(profile)) + step, len(profile) - 1)
    rise = profile[ahead] / profile
    start = int(np.argmax(rise <= RISE))
    within = rise[start : start + max(2, round(PART_SEARCHED * n_pixels))]
    end = start + int(np.argmin(within))
    return float(np.median(profile[end : end + step])), end + step


def _above_offset(variance: FloatArray, n_images: int) -> FloatArray:
    """Variance above that of the constant that masked images hold in their corners."""
    size = max(3, len(variance) // 8)
    ends = np.r_[0:size, -size:0]
    corners = np.concatenate([variance[[0, -1]][:, ends], variance[:, [0, -1]][ends].T])
    level = corners.mean()
    is_noise = corners.std() >= QUIET * math.sqrt(2 / n_images) * level
    if is_noise or level > DIM * np.quantile(variance, 0.95):
        return variance
    above: FloatArray = np.maximum(variance - level, 0)
    return above if above.any() else variance


def _without_mask(variance: FloatArray) -> FloatArray:
    """Noise by its mean over rings, no higher than in the dark quarter of the box."""
    ring = np.rint(_distance(*variance.shape)).astype(np.int64)
    smooth = _mean_by(ring, variance)[ring]
    level = np.quantile(smooth, 0.25)
    result: FloatArray = np.minimum(smooth / level, 1)
    return result


def _mean_by(label: NDArray[np.int64], values: FloatArray) -> FloatArray:
    """Mean of the values of each label, 0 where there is none."""
    counts = np.bincount(label.ravel())
    means: FloatArray = np.bincount(label.ravel(), values.ravel()) / np.maximum(counts, 1)
    return means


def _distance(n_rows: int, n_columns: int) -> FloatArray:
    """Distance of each pixel from the middle of the box, pixels."""
    rows, columns = np.ogrid[:n_rows, :n_columns]
    return np.hypot(rows - (n_rows - 1) / 2, columns - (n_columns - 1) / 2)


def _shape_of(noise: FloatArray) -> str:
    """What has taken noise out of the box, in words."""
    inside = noise > 0.5
    n = len(noise)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    sides = (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    n_inside = int(inside.sum())
    if n_inside > 0.97 * sides[0] * sides[1]:
        return f"padded: noise fills {sides[1]} by {sides[0]} of {n} pixels"
    # centred on what is left, which a box may cut
    middle = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    distance = np.hypot(np.arange(n)[:, None] - middle[0], np.arange(n) - middle[1])
    radius = np.sort(distance, axis=None)[n_inside - 1]
    if np.count_nonzero((distance <= radius) != inside) < 0.1 * n_inside:
        return f"masked beyond a radius of {radius / n:.2f} of the box"
    return "masked"
