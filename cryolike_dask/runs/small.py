"""Whether a run is so small that starting workers takes longer than the run."""

from __future__ import annotations

import math

from dask.system import CPU_COUNT

from cryolike_dask.likelihoods.cutting import Work
from cryolike_dask.runs.kinds import Kind
from cryolike_dask.runs.run import Run

SECONDS_TO_START = 8.0
"""Until workers have started and have what they need: 3 to 6 seconds to start two, and 2 to 4 more
until each has torch and the compiled loops."""
SECONDS_PER_TRIPLE, OF_GRID = 0.84e-6, (133, 256)
"""Of one thread, for an image and a template at one displacement on a grid of so many shells and
rotations; as much as both numbers on other grids."""


def takes_seconds(run: Run, kind: Kind) -> bool:
    """Whether this process alone, which uses all cores, does a run while workers would start.

    Counted, not tried, as if every pose were compared and nothing were there already; the noise of
    the images, which may have to be estimated, is left out.
    """
    return not kind.keeps_every_pose and seconds_alone(run) <= SECONDS_TO_START


def seconds_alone(run: Run) -> float:
    """About how long the comparisons of a run take in this process."""
    triples = 0.0
    for templates in run.templates.values():
        for images in run.images.values():
            work = Work(len(images), len(templates), len(templates.displacements))
            triples += work.whole
    grid = next(iter(run.templates.values())).grid
    size = math.prod(grid.shape) / math.prod(OF_GRID)
    return float(triples * SECONDS_PER_TRIPLE * size / CPU_COUNT)
