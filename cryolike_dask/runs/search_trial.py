"""An adaptive search of a few images of a run, tried where it will run: how much of everything each
image is compared with, and how long they take, from which follows about how long all take."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.device import torch_threads
from cryolike_dask.io.sources import evenly_spread
from cryolike_dask.likelihoods.graph import ComparisonGraph
from cryolike_dask.likelihoods.search.adaptive import is_worth_levels, wanted_in_whole_band
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.runs.joining import joined
from cryolike_dask.runs.kinds import OPTIMAL_POSE, Kind
from cryolike_dask.runs.run import Run
from cryolike_dask.stacks import ImageStack, TemplateStack

MOST_TRIED, FEWEST_TRIED = 32, 4
ENOUGH_SECONDS = 16
"""No more images are tried than take so long; all turns of a trial take a minute, about."""
AGAIN = 4
"""The same images so many times over want no other templates: what they take beyond the first time
is theirs."""
LEAST_OF_WHOLE = 0.25
"""Of what templates take, the least part that is for the whole band, whatever short times tell."""
ERRORS = 2
"""Standard errors of a mean of few images that its range reaches."""


@dataclass(frozen=True, eq=False)
class SearchTrial:
    """The findings about some images under one structure.

    Attributes
    ----------
    basis_seconds : float
        To make what is kept of templates for all images; in a process that is new, to begin, too.
    seconds_once : float
        To prepare templates in parts of the band.
    seconds_per_template : float
        To prepare one in all of it.
    seconds_per_image : float
    wanted : (image, template) bool
        Which of them are compared in the whole band.
    parts_compared : (image,) float64
        With how many poses each is compared there, as a part of all poses of the search.
    """

    basis_seconds: float
    seconds_once: float
    seconds_per_template: float
    seconds_per_image: float
    wanted: NDArray[np.bool_]
    parts_compared: NDArray[np.float64]

    @property
    def n_images(self) -> int:
        """Images that were tried."""
        return len(self.parts_compared)

    @property
    def n_templates(self) -> int:
        """Templates of the structure."""
        return int(self.wanted.shape[1])

    @property
    def doubt(self) -> float:
        """How far the mean of all images may be from that of these, a part of it."""
        if self.n_images < 2:
            return 1.0
        parts = self.parts_compared
        error = parts.std(ddof=1) / math.sqrt(len(parts)) / parts.mean()
        return float(min(1.0, ERRORS * error))

    def seconds_of(self, n_images: int, n_templates: int) -> tuple[float, float, float]:
        """How long so many images under as many templates take: at least, about, at most.

        More images than were tried want as many templates at least, and more at most.
        """
        most_wanted = templates_wanted(self.wanted, n_images)
        least_wanted = min(most_wanted, templates_wanted(self.wanted, self.n_images))
        images, size = n_images * self.seconds_per_image, n_templates / self.n_templates

        def seconds(part: float, n_wanted: float) -> float:
            of_templates = self.seconds_once + n_wanted * self.seconds_per_template
            return (part * images + of_templates) * size

        return (
            seconds(1 - self.doubt, least_wanted),
            seconds(1, (least_wanted + most_wanted) / 2),
            seconds(1 + self.doubt, most_wanted),
        )


def templates_wanted(wanted: NDArray[np.bool_], n_images: int) -> float:
    """How many templates at least one of so many images wants.

    Of fewer images as of a part of those that were tried, (image, template); of more at most, as
    if each of them wanted each of the other templates as likely as can be where none of those tried
    wants it.
    """
    n, n_templates = wanted.shape
    of_template = wanted.sum(axis=0)
    if n_images >= n:
        n_known = int((of_template > 0).sum())
        part = 1 - (n / (n + 1)) ** (n_images - n)
        return float(n_known + (n_templates - n_known) * part)
    none = np.ones(n_templates)  # probability that no image of such a part wants it
    for i in range(n_images):
        none *= np.maximum(n - of_template - i, 0) / (n - i)
    return float((1 - none).sum())


def worth_a_trial(run: Run, kind: Kind) -> bool:
    """Whether a run leaves out poses by what images tell."""
    grid = next(iter(run.templates.values())).grid
    return not kind.keeps_every_pose and run.settings.adaptive is not None and is_worth_levels(grid)


def some_images(run: Run) -> ImageStack:
    """Images that are evenly spread over the stacks of a run, as one stack."""
    sizes = [len(stack) for stack in run.images.values()]
    ends = np.cumsum(sizes)
    chosen = evenly_spread(int(ends[-1]), MOST_TRIED)
    of_stack = np.searchsorted(ends, chosen, side="right")
    stacks = list(run.images.values())
    parts = [stacks[k][chosen[of_stack == k] - (ends[k] - sizes[k])] for k in np.unique(of_stack)]
    return replace(joined(parts), n_per_batch=stacks[0].n_per_batch)


def try_search(
    images: ImageStack,
    templates: TemplateStack,
    settings: Settings,
    *,
    discover_tiles: bool,
    n_threads: int | None,
) -> SearchTrial:
    """Search as many of some images as take long enough, in this process, with so many threads of
    torch; None: as many as it has."""

    def graph_of(rows: NDArray[np.int64]) -> ComparisonGraph:
        return OPTIMAL_POSE.graph(images[rows], templates, settings, discover_tiles)

    def search(rows: NDArray[np.int64]) -> tuple[float, NDArray[np.int64]]:
        started = time.perf_counter()
        lazily = OPTIMAL_POSE.compute(graph_of(rows))
        found = lazily.compute(scheduler="synchronous")
        return time.perf_counter() - started, found.n_poses_compared.values

    with torch_threads(n_threads):
        rows = evenly_spread(len(images), FEWEST_TRIED)
        first, _ = search(rows)
        seconds, n_poses = search(rows)
        turns = [(len(rows), seconds)]
        while len(rows) < len(images) and (longer := int(ENOUGH_SECONDS / seconds)) > 1:
            rows = evenly_spread(len(images), longer * len(rows))
            seconds, n_poses = search(rows)
            turns.append((len(rows), seconds))
        more, _ = search(np.tile(rows, AGAIN))
        each = min(max(0.0, more - seconds) / (AGAIN - 1), seconds) / len(rows)
        wanted = wanted_in_whole_band(graph_of(rows))
    once, per_template = _apart([(n, s - n * each) for n, s in turns], wanted)
    n_all = len(templates) * len(templates.displacements) * templates.grid.n_inplanes
    basis_seconds = max(0.0, first - turns[0][1])
    return SearchTrial(basis_seconds, once, per_template, each, wanted, n_poses / n_all)


def _apart(of_templates: list[tuple[int, float]], wanted: NDArray[np.bool_]) -> tuple[float, float]:
    """Tell apart what templates take once, in parts of the band, and each that is wanted in all of
    it, by what fewer and more images have taken; all of it is for the latter, if there is one
    number of images alone."""
    (few, least), (n, most) = of_templates[0], of_templates[-1]
    n_wanted = templates_wanted(wanted, n)
    whole = max(0.0, most) / n_wanted
    each, more = whole, n_wanted - templates_wanted(wanted, few)
    if more > 0:
        each = min(max((most - least) / more, LEAST_OF_WHOLE * whole), whole)
    return max(0.0, most) - each * n_wanted, each


def mean_trial(trials: Sequence[SearchTrial]) -> SearchTrial:
    """What several workers that tried the same at a time have found, in the mean of their times;
    the rest is that of the most images."""
    most = max(trials, key=lambda trial: trial.n_images)
    return replace(
        most,
        basis_seconds=fmean(trial.basis_seconds for trial in trials),
        seconds_once=fmean(trial.seconds_once for trial in trials),
        seconds_per_template=fmean(trial.seconds_per_template for trial in trials),
        seconds_per_image=fmean(trial.seconds_per_image for trial in trials),
    )
