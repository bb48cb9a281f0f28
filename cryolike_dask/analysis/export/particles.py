"""Particles that are exported: their structures and poses, and the rows that describe them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask.analysis.export.assignment import Assignment, assign, with_images
from cryolike_dask.analysis.export.metadata_rows import Described, Rows, metadata_files, rows_of
from cryolike_dask.analysis.export.selection import Selection
from cryolike_dask.labels import TemplateSource
from cryolike_dask.particles.opening import PathOrPaths

IntArray = NDArray[np.int64]
Table = TypeVar("Table")


@dataclass(frozen=True, eq=False)
class ExportedParticles:
    """Images of results, what each is assigned to, and its row of the metadata files."""

    results: xr.Dataset
    assignment: Assignment
    rows: Rows

    @property
    def images(self) -> IntArray:
        """Positions of the images that have a structure: those that are written."""
        return np.flatnonzero(self.assignment.number >= 0)

    @property
    def metadata(self) -> list[Path]:
        """The metadata files, which no export replaces."""
        return [file.path for file in self.rows.files]

    def left_out(self) -> list[str]:
        """Every row that is not written, with the reason."""
        return self.rows.left_out(self.images, self.assignment.missing)


def exported_particles(
    results: xr.Dataset,
    structure: str | None,
    template_source: TemplateSource | None,
    metadata: PathOrPaths | None,
    selection: Selection,
    suffix: str,
    read: Callable[[Path], Table],
    described: Callable[[Path, Table], Described],
) -> tuple[ExportedParticles, list[Table]]:
    """Assign the images, and read the metadata files whose rows they are.

    Parameters
    ----------
    results, structure, template_source, metadata
        As for `export_star`.
    selection : Selection
    suffix : ".star" | ".cs"
        The end of the names of the metadata files.
    read : callable
        Reads one of them.
    described : callable
        Says which image each of its rows names.
    """
    results = with_images(results)
    assignment = assign(results, structure, template_source, selection)
    paths = metadata_files(results, metadata, suffix)
    tables = [read(path) for path in paths]
    files = [described(path, table) for path, table in zip(paths, tables, strict=True)]
    rows = rows_of(results, files, given=metadata is not None)
    return ExportedParticles(results, assignment, rows), tables
