"""What one does with results, as methods of the Dataset itself: `results.cryolike`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from cryolike_dask import labels

if TYPE_CHECKING:
    from cryolike_dask.analysis.export.files import Export
    from cryolike_dask.analysis.populations.priors import OfEach


@xr.register_dataset_accessor("cryolike")  # type: ignore[no-untyped-call]
class Results:
    """Methods of results that `open_results` gives, and of selections and copies of them.

    Each is the function of `cryolike_dask` that it names, with these results.
    """

    def __init__(self, results: xr.Dataset) -> None:
        self._results = results

    def ratio(
        self, reference: str, variable: str = labels.LOG_LIKELIHOOD_INTEGRATED
    ) -> xr.DataArray:
        """Log-likelihoods less those of one structure: `log_likelihood_ratio`."""
        from cryolike_dask.analysis.matrix import log_likelihood_ratio

        return log_likelihood_ratio(self._results, reference, variable)

    def probability(
        self, shares: OfEach | None = None, *, populations: xr.Dataset | None = None
    ) -> xr.DataArray:
        """Probability of each structure for each image: `structure_probability`."""
        from cryolike_dask.analysis.matrix import structure_probability

        return structure_probability(self._results, shares, populations=populations)

    def degrees(self) -> xr.Dataset:
        """The same results with angles in degrees, which their `units` say; nothing is computed."""
        results = self._results
        angles = {
            name: _in_degrees(variable)
            for name, variable in results.variables.items()
            if variable.attrs.get("units") == "radian"
        }
        coordinates = {name: angles.pop(name) for name in list(angles) if name in results.coords}
        return results.assign(angles).assign_coords(coordinates)

    def populations(self, **options: Any) -> xr.Dataset:
        """Shares of structures among the images: `populations`, whose options these are."""
        from cryolike_dask.analysis.populations.estimate import populations

        return populations(self._results, **options)

    def to_star(self, path: str | Path, **options: Any) -> Export:
        """Write the STAR file of the particles with what was found: `export_star`, whose options
        these are."""
        from cryolike_dask.analysis.export.star_export import export_star

        return export_star(self._results, path, **options)


def _in_degrees(angle: xr.Variable) -> xr.Variable:
    degrees = angle.copy(data=np.degrees(angle.data))
    degrees.attrs["units"] = "degree"
    return degrees
