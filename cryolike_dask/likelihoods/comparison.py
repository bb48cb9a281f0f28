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

IMAGE_ROW = np.dtype([("index", "i8"), ("group", "i4"), *OPTICS.descr])
TEMPLATE_ROW = np.dtype([("index", "i8"), ("log_prior", "f8")])
Rows = NDArray[np.void]


@dataclass(frozen=True, eq=False)
class Whitening:
    """What makes the noise of each group of images white, and what else is known of groups.

    Attributes
    ----------
    factors : (group, shell) float64
        1 / sigma; 0 on shells that hold no noise, and count for nothing.
    envelopes : (group, shell) float64
        exp(-B f^2 / 4), of the contrast transfer.
    n_degrees_of_freedom : (group,) float64
    """

    factors: NDArray[np.float64]
    envelopes: NDArray[np.float64]
    n_degrees_of_freedom: NDArray[np.float64]

    @property
    def of_templates(self) -> NDArray[np.float64]:
        """Factor of each shell of templates, in whose metric they are compressed: the geometric
        mean of those of the groups, (shell,)."""
        known = self.factors > 0
        logs = np.log(self.factors, where=known, out=np.zeros_like(self.factors))
        mean: NDArray[np.float64] = np.exp(logs.sum(axis=0) / np.maximum(known.sum(axis=0), 1))
        return np.where(known.any(axis=0), mean, 0.0)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that a task needs to know, small enough to travel with it.

    Attributes
    ----------
    images, templates : ArraySource
    grid : PolarGrid
    displacements : DisplacementGrid
    conventions : Conventions
    whitening : Whitening
        Rows of images say of which of its groups they are.
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
    level : int
        Of a search in levels.
    share : float
        Part of the work of all levels together.
    """

    images: ArraySource
    templates: ArraySource
    grid: PolarGrid
    displacements: DisplacementGrid
    conventions: Conventions
    whitening: Whitening
    precision: str
    device: str
    name: str = ""
    tolerance: float = 0.0
    n_images_per_tile: int | None = None
    n_templates_per_tile: int | None = None
    discover_tiles: bool = False
    level: int = 0
    share: float = 1.0
