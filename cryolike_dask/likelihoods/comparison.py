"""The instructions of a task: the images and templates to compare, and every setting of the
comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.conventions import Conventions
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.optics import OPTICS
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.io.sources import ArraySource

IMAGE_ROW = np.dtype([("index", "i8"), *OPTICS.descr])
TEMPLATE_ROW = np.dtype([("index", "i8"), ("log_prior", "f8")])
Rows = NDArray[np.void]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that a task needs to know, small enough to travel with it.

    Attributes
    ----------
    images, templates : ArraySource
    grid : PolarGrid
    displacements : DisplacementGrid
    conventions : Conventions
    precision : "single" | "double"
    device : "auto" | "cpu" | "cuda"
        Resolved inside the task: "auto" is the GPU of the process that runs it, if there is one.
    tolerance : float
        Part of a displaced template's norm that compression may leave out, root mean square; 0: no
        compression.
    name : str
        Name of the comparison in logs and tables: structure and image stack.
    n_images_per_tile, n_templates_per_tile : int or None
    discover_tiles : bool
        Choose tiles by the device and its free memory instead.
    """

    images: ArraySource
    templates: ArraySource
    grid: PolarGrid
    displacements: DisplacementGrid
    conventions: Conventions
    precision: str
    device: str
    name: str = ""
    tolerance: float = 0.0
    n_images_per_tile: int | None = None
    n_templates_per_tile: int | None = None
    discover_tiles: bool = False
