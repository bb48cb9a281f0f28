"""Shares of structures from the results of a folder, written beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from cryolike_dask.analysis.dataset import open_results
from cryolike_dask.analysis.populations.estimate import populations
from cryolike_dask.analysis.populations.written import write_populations
from cryolike_dask.io.counts import read_counts
from cryolike_dask.io.export_names import POPULATIONS_SCRATCH


def estimate_and_write(
    results: Path, folder_output: Path, counts: Path | None, **options: Any
) -> tuple[xr.Dataset, list[Path]]:
    """Estimate shares from a folder of results, and write them; options are those of
    `populations`, and counts a text file of them."""
    found = populations(
        open_results(results),
        counts=None if counts is None else read_counts(counts),
        scratch=folder_output / POPULATIONS_SCRATCH,
        **options,
    )
    return found, write_populations(found, folder_output)
