"""Stored results as lazy arrays, (structure, image)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.io.layout import POSE_FILES, LikelihoodFiles
from cryolike_dask.io.tensors import load_vector
from cryolike_dask.runs.origins import Entries

VALUES_PER_CHUNK = 2**16
"""Files of several structures are read by one task: Dask takes as long for a task as it takes to
read a file."""
LOOKED_UP = {labels.OPTIMAL_AZIMUTH: 0, labels.OPTIMAL_POLAR: 1}
"""Rows of the views of a structure."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StoredResults:
    """Results that are there, and the reading of their files; tasks carry it.

    Attributes
    ----------
    files : LikelihoodFiles
    structures, stacks : sequence of int
        Their numbers.
    sizes : tuple of int
        Images of each stack.
    present : dict of variable name to bool array, (structure, stack)
    views : sequence of array, (2, template), or None
        Azimuth and polar angle of each structure's viewing directions.
    dtype : str
        Type of real values.
    """

    files: LikelihoodFiles
    structures: Sequence[int]
    stacks: Sequence[int]
    sizes: tuple[int, ...]
    present: dict[str, NDArray[np.bool_]]
    views: Sequence[Floats | None]
    dtype: str

    @property
    def n_missing(self) -> int:
        """Number of stacks, counted under each structure, that have no result yet."""
        return int((~self.present[labels.CROSS_CORRELATION]).sum())

    @property
    def structures_at_once(self) -> int:
        """Number of structures that one task reads."""
        return max(1, VALUES_PER_CHUNK // max(self.sizes))

    def arrays(self) -> dict[str, da.Array]:
        """All variables, lazily."""
        arrays = {variable: self._lazy(variable) for variable in self.present}
        for variable, row in LOOKED_UP.items():
            # from the same array, so that its files are read once for all three
            arrays[variable] = da.map_blocks(
                _angles,
                arrays[labels.OPTIMAL_TEMPLATE],
                stored=self,
                row=row,
                dtype="float64",
                meta=np.empty((0, 0)),
            )
        return arrays

    def read(self, variable: str, i: int, k: int) -> NDArray[Any]:
        """One variable of one stack under one structure; positions, not numbers."""
        if not self.present[variable][i, k]:
            return np.full(self.sizes[k], -1 if variable in labels.INTEGERS else np.nan)
        folder = POSE_FILES[variable]
        path = self.files.output(self.structures[i], variable, folder, self.stacks[k])
        return load_vector(path, self.sizes[k])

    def look_up(self, i: int, templates: NDArray[np.int64], row: int) -> Floats:
        """A row of the views of a structure, for the best templates of some of its images."""
        views = self.views[i]
        if views is None or templates.min() < 0 or templates.max() >= views.shape[1]:
            return np.full(len(templates), np.nan)
        angles: Floats = views[row][templates]
        return angles

    def _lazy(self, variable: str) -> da.Array:
        n, step = len(self.structures), self.structures_at_once
        dtype = "int64" if variable in labels.INTEGERS else self.dtype
        return da.map_blocks(
            _block,
            chunks=(tuple(min(step, n - start) for start in range(0, n, step)), self.sizes),
            dtype=dtype,
            meta=np.empty((0, 0), dtype),
            # files may be others when the same folder is opened again
            name=f"read-{variable}-{uuid4().hex}",
            stored=self,
            variable=variable,
            real=dtype,
        )


def views_of(descriptions: Sequence[Entries]) -> list[Floats | None]:
    """Azimuth and polar angle of each structure's viewing directions, where they are known.

    Structures that are seen from the same directions share them.
    """
    shared: dict[bytes, Floats] = {}
    views: list[Floats | None] = []
    for description in descriptions:
        azimuth, polar = description.get("azimuth"), description.get("polar")
        if azimuth is None or polar is None:
            views.append(None)
            continue
        directions = np.stack([azimuth, polar])
        views.append(shared.setdefault(directions.tobytes(), directions))
    return views


def _block(
    stored: StoredResults, variable: str, real: str, block_id: tuple[int, int]
) -> NDArray[Any]:
    """One variable of some structures and one stack."""
    start, k = block_id[0] * stored.structures_at_once, block_id[1]
    rows = range(start, min(start + stored.structures_at_once, len(stored.structures)))
    return np.stack([stored.read(variable, i, k) for i in rows]).astype(real, copy=False)


def _angles(
    templates: NDArray[np.int64], stored: StoredResults, row: int, block_id: tuple[int, int]
) -> Floats:
    """The direction of the best templates of a block."""
    start = block_id[0] * stored.structures_at_once
    return np.stack(
        [stored.look_up(start + i, of_structure, row) for i, of_structure in enumerate(templates)]
    )
