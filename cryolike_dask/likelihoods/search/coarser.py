"""The same images and templates in a part of their band: fewer shells, rotations, displacements and
views, a fifth power of the band in all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import KDTree

from cryolike_dask.compute.gpu import sent
from cryolike_dask.geometry.displacements import DisplacementGrid
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.symmetry import PointGroup, point_group
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.identity import InputDescription
from cryolike_dask.io.sources import ArraySource, OnDevice, evenly_spread, on_device
from cryolike_dask.stacks import ImageStack, TemplateStack

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]

FEWEST_SHELLS, FEWEST_ROTATIONS = 8, 16


def coarser_grid(grid: PolarGrid, part: float) -> PolarGrid:
    """The polar grid of a part of the band, as densely sampled."""
    n_inplanes = max(FEWEST_ROTATIONS, 2 * math.ceil(part * grid.n_inplanes / 2))
    radius_max = max(part * grid.radius_max, (FEWEST_SHELLS - 1) * grid.dist_radii)
    return replace(
        grid,
        radius_max=min(radius_max, grid.radius_max),
        n_inplanes=min(n_inplanes, grid.n_inplanes),
    )


@dataclass(frozen=True, eq=False)
class Coarser:
    """The rows of a source on the grid of a part of their band.

    Attributes
    ----------
    source : ArraySource
    fine, grid : PolarGrid
        Of the source, and of these rows.
    """

    source: ArraySource
    fine: PolarGrid
    grid: PolarGrid

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, shell, angle)."""
        return (self.source.shape[0], *self.grid.shape)

    @property
    def dtype(self) -> str:
        """Type of the source."""
        return self.source.dtype

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of the source."""
        return self.source.paths

    @cached_property
    def _radial(self) -> FloatArray:
        """Interpolation between the nodes of both grids, (coarse shell, fine shell)."""
        return between_nodes(self.fine.radii, self.grid.radii)

    def take(self, rows: Rows) -> NDArray[Any]:
        """Read rows, and interpolate them: along rings by their Fourier series, between rings by
        the polynomial through all of them."""
        values = self.source.take(rows)
        n, few = self.fine.n_inplanes, self.grid.n_inplanes
        series = np.fft.fft(values, axis=-1)
        kept = np.concatenate([series[..., : few // 2], series[..., n - few // 2 :]], axis=-1)
        kept[..., few // 2] = 0  # its counterpart is not there, without which no image is real
        series = self._radial.astype(values.real.dtype) @ kept
        result: NDArray[Any] = (np.fft.ifft(series, axis=-1) * (few / n)).astype(values.dtype)
        return result

    def take_on(self, rows: Rows, device: torch.device) -> OnDevice | None:
        """The same of rows that the source makes on a device."""
        import torch

        made = on_device(self.source, rows, device)
        if made is None:
            return None
        values = torch.cat([made.half_rings, made.half_rings.conj()], -1)
        n, few = self.fine.n_inplanes, self.grid.n_inplanes
        series = torch.fft.fft(values)
        kept = torch.cat([series[..., : few // 2], series[..., n - few // 2 :]], -1)
        kept[..., few // 2] = 0
        series = sent(self._radial, device).to(kept.dtype) @ kept
        return OnDevice(torch.fft.ifft(series)[..., : few // 2] * (few / n), None)

    @property
    def knows_rings(self) -> bool:
        """Never."""
        return False

    def rings(self, rows: Rows) -> None:
        """Not known: what is left out of the power of rings is small beside what a part of the band
        leaves out of the likelihood."""
        return None

    def locate(self, row: int) -> tuple[str, int]:
        """The file of a row, and its position there."""
        return self.source.locate(row)

    def describe(self, rows: Rows) -> list[InputDescription]:
        """Describe the rows of the source."""
        return self.source.describe(rows)

    def subset(self, rows: Rows) -> ArraySource:
        """These rows."""
        return replace(self, source=self.source.subset(rows))


def between_nodes(nodes: FloatArray, at: FloatArray) -> FloatArray:
    """Barycentric interpolation by the polynomial through nodes that crowd at their ends, as those
    of Gauss do: (point, node)."""
    scaled = nodes * (4 / (nodes[-1] - nodes[0]))  # so that products neither vanish nor overflow
    apart = scaled[:, None] - scaled
    np.fill_diagonal(apart, 1)
    logs = -np.log(np.abs(apart)).sum(axis=1)
    weights = np.exp(logs - logs.max()) * np.sign(apart).prod(axis=1)
    distance = at[:, None] - nodes
    on_node = np.abs(distance) < 1e-12 * nodes[-1]
    terms = weights / np.where(on_node, 1, distance)
    result: FloatArray = terms / terms.sum(axis=1, keepdims=True)
    hit = on_node.any(axis=1)
    result[hit] = on_node[hit]
    return result


def coarser_images(images: ImageStack, grid: PolarGrid) -> ImageStack:
    """Images in a part of their band."""
    if grid == images.grid:
        return images
    return replace(images, source=Coarser(images.source, images.grid, grid), grid=grid)


def coarser_templates(
    templates: TemplateStack, grid: PolarGrid, rows: Rows, displacements: DisplacementGrid
) -> TemplateStack:
    """Some templates in a part of their band, with other displacements."""
    if grid == templates.grid:
        source = templates.source.subset(rows)
    else:
        source = Coarser(templates.source, templates.grid, grid).subset(rows)
    return replace(
        templates,
        source=source,
        grid=grid,
        viewing=templates.viewing.take(rows),
        displacements=displacements,
        chunks=None,
    )


def cosines_of_views(viewing: ViewingAngles, rows: Rows, others: Rows) -> FloatArray:
    """Cosines of the angles between views, (row, other), of symmetric structures to the nearest of
    those that look alike."""
    directions = viewing.rotations()[:, :, 2]
    return _cosines(point_group(viewing.symmetry), directions[rows], directions[others])


def _cosines(group: PointGroup, directions: FloatArray, others: FloatArray) -> FloatArray:
    turned = group.images(directions)
    cosines: FloatArray = np.max([turned[:, i] @ others.T for i in range(turned.shape[1])], axis=0)
    return cosines


def neighbours(viewing: ViewingAngles, rows: Rows, others: Rows, angle: float) -> csr_array:
    """Which views lie within an angle (radian) of others, of symmetric structures also of those
    that look alike: sparse bool (row, other)."""
    directions = viewing.rotations()[:, :, 2]
    tree = KDTree(directions[others])
    turned = point_group(viewing.symmetry).images(directions[rows])
    chord = 2 * math.sin(angle / 2) + 1e-6  # a view is near itself
    near = csr_array((len(rows), len(others)), dtype=np.bool_)
    for i in range(turned.shape[1]):
        found = tree.query_ball_point(turned[:, i], chord, return_sorted=True)
        ends = np.cumsum([0, *(len(one) for one in found)])
        columns = np.concatenate([*found, []]).astype(np.int64)
        near += csr_array((np.ones(len(columns), np.bool_), columns, ends), near.shape)
    return near


def spread_views(viewing: ViewingAngles, spacing: float) -> Rows:
    """Views no two of which are nearer than a spacing (radian), and within it of every other:
    each is kept unless one before it is near."""
    kept: list[int] = []
    directions, group = viewing.rotations()[:, :, 2], point_group(viewing.symmetry)
    least = math.cos(spacing)
    free = np.ones(len(viewing), np.bool_)
    for i in range(len(viewing)):
        if free[i]:
            kept.append(i)
            free &= _cosines(group, directions[[i]], directions)[0] < least
    return np.array(kept, np.int64)


def spacing_of_views(viewing: ViewingAngles, most: int = 256) -> float:
    """Angle from a view to the next one, radian, in the median; 0 of a single view."""
    if len(viewing) < 2:
        return 0.0
    chosen = evenly_spread(len(viewing), most)
    cosines = cosines_of_views(viewing, chosen, np.arange(len(viewing)))
    cosines[np.arange(len(chosen)), chosen] = -1
    return float(np.median(np.arccos(np.clip(cosines.max(axis=1), -1, 1))))
