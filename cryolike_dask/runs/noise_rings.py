"""The power of rings of all images that noise is estimated from, read once, and their groups."""

from __future__ import annotations

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from cryolike_dask.compute.progress import progress_bar
from cryolike_dask.compute.stream import computed, task
from cryolike_dask.conventions import STANDARD
from cryolike_dask.geometry.noise import ALL_IMAGES, OPTICS_GROUP
from cryolike_dask.likelihoods.signal import power_of_rings
from cryolike_dask.particles.noise import RingPower
from cryolike_dask.stacks import ImageStack

FEWEST_OF_GROUP = 30
"""Images of a group that has a spectrum of its own."""
MOST_OF_GROUP = 10_000
"""Images, evenly spread over those of a group, that its spectrum is fitted to: of so many it is
known to a part in a thousand or two."""
ROWS_OF_TASK = 512
TASKS_AT_ONCE = 32

Rows = NDArray[np.int64]


def looked_at_all(
    stacks: list[ImageStack], client: Client | None, *, progress: bool = False
) -> RingPower:
    """Power of rings of all images, in single precision, which is a kilobyte for each: they are
    read once, a part of a stack for each task."""
    parts = [
        stack[start : start + ROWS_OF_TASK]
        for stack in stacks
        for start in range(0, len(stack), ROWS_OF_TASK)
    ]
    shape = sum(map(len, parts)), stacks[0].grid.n_shells
    power, contrast = np.empty(shape, np.float32), np.empty(shape, np.float32)
    end = 0
    with progress_bar(shape[0], "images read for the noise", shown=progress) as show:
        for first in range(0, len(parts), TASKS_AT_ONCE):
            some = parts[first : first + TASKS_AT_ONCE]
            tasks = [task("noise-rings", power_of_rings, part, STANDARD) for part in some]
            for of_power, of_contrast in computed(tasks, client):
                begin, end = end, end + len(of_power)
                power[begin:end], contrast[begin:end] = of_power, of_contrast
            show(end)
    return RingPower(power, contrast)


def optics_groups(names: NDArray[np.str_]) -> list[tuple[str, Rows]]:
    """All images; and each optics group with images enough, unless it is all of them."""
    found = [(ALL_IMAGES, np.arange(len(names)))]
    for name in np.unique(names[:, 1]).tolist():
        rows = np.flatnonzero(names[:, 1] == name)
        if name and FEWEST_OF_GROUP <= len(rows) < len(names):
            found.append((OPTICS_GROUP + name, rows))
    return found
