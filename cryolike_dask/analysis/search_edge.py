"""Images whose best displacement sits on the edge of the search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis.displacements_tried import displacements_tried

MANY_ON_THE_EDGE = 0.05
"""A larger fraction of winners on the edge of the search is worth a warning."""
SHARE_OF_THE_EDGE = 0.75
"""A displacement on the edge is nearest to half as many true ones as its neighbour, where these
end at the edge."""
NEAR_EDGE_ANGSTROM = 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Edge:
    """Images counted whose best displacement sits on the edge of the search.

    Attributes
    ----------
    n_images : int
        Images with results.
    n_on_edge : int
        Those at the largest displacement tried along x or y.
    limit_x, limit_y : float
        That displacement, angstrom; 0 for an axis that was not searched.
    fraction_tried : float
        Share of the displacements tried that are on the edge.
    per_edge, per_neighbour : float
        Images for each displacement on the edge, and for each next to it.
    """

    n_images: int
    n_on_edge: int
    limit_x: float
    limit_y: float
    fraction_tried: float
    per_edge: float
    per_neighbour: float

    @property
    def is_crowded(self) -> bool:
        """Whether many images are on the edge, and more than if particles were spread to the
        edge and no further."""
        return (
            self.fraction > MANY_ON_THE_EDGE
            and self.per_edge > SHARE_OF_THE_EDGE * self.per_neighbour
        )

    @property
    def fraction(self) -> float:
        """Share of the images that are on the edge."""
        return self.n_on_edge / self.n_images if self.n_images else 0.0


def on_the_edge(summary: xr.Dataset) -> Edge | None:
    """Count winners on the edge of the search; None where no displacements are known or tried."""
    tried = displacements_tried(summary)
    if not all(len(values) for values in tried):
        return None
    limits = [float(np.abs(values).max()) for values in tried]
    if not any(limits):
        return None
    best = [
        summary[name].values
        for name in (labels.OPTIMAL_DISPLACEMENT_X, labels.OPTIMAL_DISPLACEMENT_Y)
    ]
    known = np.isfinite(best[0])
    best = [values[known] for values in best]
    outer = [limit or np.inf for limit in limits]  # an axis that was not searched has no edge
    inner = [_next_inside(values, limit) for values, limit in zip(tried, outer, strict=True)]
    n_on_edge, n_outside = (int(_beyond(best, at).sum()) for at in (outer, inner))
    n_edge, n_outer = (int(_beyond(tried, at).sum()) for at in (outer, inner))
    return Edge(
        n_images=int(known.sum()),
        n_on_edge=n_on_edge,
        limit_x=limits[0],
        limit_y=limits[1],
        fraction_tried=n_edge / len(tried[0]),
        per_edge=n_on_edge / n_edge,
        per_neighbour=max(n_outside - n_on_edge, 0) / max(n_outer - n_edge, 1),
    )


def _next_inside(tried: Floats, limit: float) -> float:
    """The largest displacement along an axis that is not on the edge."""
    inside = np.abs(tried)[np.abs(tried) < limit - NEAR_EDGE_ANGSTROM]
    return float(inside.max()) if len(inside) and np.isfinite(limit) else limit


def _beyond(displacements: list[Floats], limits: list[float]) -> NDArray[np.bool_]:
    """Whether displacements are as far out as a limit, along x or along y."""
    near = [
        np.abs(values) >= limit - NEAR_EDGE_ANGSTROM
        for values, limit in zip(displacements, limits, strict=True)
    ]
    return np.asarray(near[0] | near[1])
