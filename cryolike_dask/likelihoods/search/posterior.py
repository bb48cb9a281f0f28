"""Posteriors over poses: a block that compares once more what holds nearly all of each image's, and
says how it is spread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.search.pieces import tiles, windows_of
from cryolike_dask.likelihoods.search.places import Flags, FloatArray, Places, Window, turns
from cryolike_dask.likelihoods.search.regions import (
    Orientations,
    count_of_fewest,
    quantile,
    separate,
    spread_evenly,
)
from cryolike_dask.likelihoods.search.windows import Wanted, compared, in_frame_of_image
from cryolike_dask.likelihoods.tiled_block import Block

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.radial_basis import RadialBasis
    from cryolike_dask.likelihoods.kernels.spread import Spread

SIGNIFICANT, REGION = 0.999, 0.95
"""Parts of a posterior: of poses that are significant, and of regions."""
LEFT_OUT = 1e-4
"""Part of a posterior in pairs of image and view that are not compared once more."""
NEGLECTED = 1e-6
"""Part of it in rotations and points that are passed over, all together."""
HIGHEST, LOWEST, BINS_PER_NAT = 12.0, -40.0, 20
"""Logarithms of posteriors that are told apart."""
N_BINS = int((HIGHEST - LOWEST) * BINS_PER_NAT)
NODES, LEAST_SPACING, PARTS = 96, 1e-6, 4
"""Along each axis of the lattice that a posterior is spread over in the plane of the image;
angstrom between them; and parts of that in the end."""


def posterior_dtype(n_top: int) -> np.dtype[Any]:
    """The record of a posterior: poses of the search that hold 99.9% of it, and their effective
    number 1 / sum p^2; entropy over views, nat; radii of 95% about the best orientation (radian)
    and about the mean displacement (angstrom), and this, under the best rotation; and the best
    poses that are far from each other, of no probability where there are fewer."""
    return np.dtype(
        [
            *((name, "f8") for name in ("n_significant", "n_effective", "entropy")),
            *((name, "f8") for name in ("orientation_radius", "displacement_radius", "x", "y")),
            ("template", "i8", (n_top,)),
            *((name, "i4", (n_top,)) for name in ("displacement", "rotation")),
            ("probability", "f8", (n_top,)),
        ]
    )


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of images when their search is done.

    Attributes
    ----------
    index : (image,) int64
        Of the image in its stack.
    poses : (image,) POSE
    log_pairs : (image, template) float64
        Log-likelihood times prior, summed over displacements and rotations.
    """

    index: NDArray[np.int64]
    poses: Rows
    log_pairs: FloatArray

    def parts(self) -> FloatArray:
        """Part of each image's posterior that each template holds."""
        logs = self.log_pairs - np.logaddexp.reduce(self.log_pairs, axis=1)[:, None]
        parts: FloatArray = np.exp(logs)
        return parts

    def take(self, index: NDArray[np.int64]) -> Evidence:
        """That of some images, by their index."""
        rows = np.searchsorted(self.index, index)
        return Evidence(index, self.poses[rows], self.log_pairs[rows])


def fewest_templates(parts: FloatArray, left_out: float = LEFT_OUT) -> Flags:
    """The fewest templates of each image that leave out no more than a part, (image, template)."""
    order = np.argsort(-parts, axis=1, kind="stable")
    before = np.take_along_axis(parts, order, axis=1).cumsum(axis=1)
    before = np.pad(before, ((0, 0), (1, 0)))[:, :-1]
    kept = np.zeros(parts.shape, np.bool_)
    np.put_along_axis(kept, order, before < 1 - left_out, axis=1)
    return kept


def entropy(parts: FloatArray) -> FloatArray:
    """Nat, (image,)."""
    logs = np.log(parts, where=parts > 0, out=np.zeros_like(parts))
    found: FloatArray = -(parts * logs).sum(axis=1)
    return found


def pose_posteriors(
    image_rows: Rows,
    poses: Rows,
    log_pairs: FloatArray,
    places: FloatArray,
    basis: RadialBasis = (),
    *,
    template_rows: Rows,
    comparison: Comparison,
    window: Window,
    orientations: Orientations,
    n_top: int,
) -> NDArray[np.void]:
    """How the posterior of each image is spread over poses: (image,), records.

    Parameters
    ----------
    image_rows, template_rows : structured arrays
    poses : (image,) POSE
        Of the search.
    log_pairs : (image, template) float64
        Log-likelihood times prior that it has found.
    places : (image, place, 2) float64
    basis : RadialBasis
        Of `comparison`.
    comparison : Comparison
        Its displacements are those of the window.
    window : Window
    orientations : Orientations
    n_top : int
        Best poses.
    """
    evidence = Evidence(image_rows["index"], poses, log_pairs)
    parts = evidence.parts()
    template_rows = template_rows.copy()
    template_rows["log_prior"] += window.log_share
    found = np.zeros(len(image_rows), posterior_dtype(n_top))
    wanted = Wanted(fewest_templates(parts), places)
    spread = partial(_spread, evidence=evidence, orientations=orientations, n_top=n_top)
    for images, _, of_them in compared(
        image_rows, template_rows, wanted, basis, comparison, window, spread
    ):
        found[images] = of_them
    found["entropy"] = entropy(parts)
    return found


def _spread(
    block: Block,
    places: Places,
    wanted: Flags,
    window: Window,
    *,
    evidence: Evidence,
    orientations: Orientations,
    n_top: int,
) -> Rows:
    """Gather the posteriors of a block's images, and sum them up."""
    import torch

    from cryolike_dask.likelihoods.kernels.spread import spread_of

    device, known = block.constants.weights.device, evidence.take(block.image_rows["index"])
    gathered = Gathered.of(block, places, window)
    log_prior = block.template_rows["log_prior"] - window.log_volume
    log_sum = np.logaddexp.reduce(known.log_pairs, axis=1)
    n_points = window.finer**2 * math.prod(block.pose_shape) * wanted.sum(axis=1)
    least = np.log(NEGLECTED / n_points)
    for rows, s, tile in tiles(block, places, wanted):
        image = places.image[rows]
        above = log_prior[s] - log_sum[image, None]
        for spread in spread_of(
            tile,
            windows_of(block, places, rows, window, s),
            torch.from_numpy(wanted[image, s]).to(device),
            torch.from_numpy(above).to(device),
            torch.from_numpy(least[image]).to(device),
        ):
            gathered.add(spread, rows, s, least)
    found = np.zeros(block.shape[0], posterior_dtype(n_top))
    kept = np.where(wanted, _of_used(known, block), 0).sum(axis=1)
    gathered.sum_up(found, known.poses, kept, orientations, n_top)
    return found


def _of_used(evidence: Evidence, block: Block) -> FloatArray:
    return evidence.parts()[:, block.template_rows["index"]]


class Gathered:
    """Posteriors of images, as they are gathered: sums over their poses."""

    def __init__(self, block: Block, places: Places, window: Window, point: float) -> None:
        import torch

        n, device = block.shape[0], block.constants.weights.device
        self.block, self.places, self.window = block, places, window
        self.squares = torch.zeros(n, dtype=torch.float64, device=device)
        self.bins = torch.zeros((2, n * N_BINS), dtype=torch.float64, device=device)
        self.lattice = torch.zeros(n * NODES**2, dtype=torch.float64, device=device)
        # turned, a window reaches as far as its corners
        half_width = np.abs(window.displacements.table()).max(axis=1) + np.array(window.step) / 2
        reach = np.hypot(*half_width)
        lowest, highest = np.full((2, n, 2), np.inf)
        np.minimum.at(lowest, places.image, places.at - reach)
        np.minimum.at(highest, places.image, -places.at - reach)
        width = (-highest - lowest).max(axis=1)
        self.spacing, self.point = np.maximum(width / (NODES - 3), LEAST_SPACING), point
        self.origin = (lowest - highest) / 2 - (NODES - 1) / 2 * self.spacing[:, None]
        self.rotations: list[NDArray[np.void]] = []

    @classmethod
    def of(cls, block: Block, places: Places, window: Window) -> Gathered:
        """None yet."""
        return cls(block, places, window, max(window.step) / window.finer)

    def add(self, spread: Spread, rows: NDArray[np.int64], s: slice, least: FloatArray) -> None:
        """Add rotations of some pairs, of these places and templates."""
        import torch

        device = self.squares.device
        at = rows[spread.row.cpu().numpy()]
        image = torch.from_numpy(self.places.image[at]).to(device)
        volume = spread.volume * math.exp(self.window.log_volume)
        density = spread.log_density.exp()
        mass = density * volume
        self.squares.index_add_(0, image, (mass * density).sum(1))
        of_rotation = np.zeros(len(at), ROTATION)
        of_rotation["place"] = at
        of_rotation["template"] = s.start + spread.template.cpu().numpy()
        for name, values in (
            ("rotation", spread.rotation),
            ("displacement", spread.displacement),
            ("correlation", spread.best),
            ("log_density", spread.log_density_of_best),
            ("mass", mass.sum(1)),
        ):
            of_rotation[name] = values.cpu().numpy()
        self.rotations.append(of_rotation)
        n, point = (
            spread.log_density >= torch.from_numpy(least).to(device)[image][:, None]
        ).nonzero(as_tuple=True)
        logs, mass, image = spread.log_density[n, point], mass[n, point], image[n]
        of_bins = ((HIGHEST - logs) * BINS_PER_NAT).long().clamp_(0, N_BINS - 1) + image * N_BINS
        self.bins[0].index_add_(0, of_bins, volume[n, point])
        self.bins[1].index_add_(0, of_bins, mass)
        self._add_to_lattice(at, spread, n, point, mass, image)

    def _add_to_lattice(
        self,
        at: NDArray[np.int64],
        spread: Spread,
        n: torch.Tensor,
        point: torch.Tensor,
        mass: torch.Tensor,
        image: torch.Tensor,
    ) -> None:
        """Share masses between the nodes around where the particle lies in its image."""
        import torch

        from cryolike_dask.likelihoods.kernels.windows import Axis

        device, grid = mass.device, self.block.comparison.grid
        x, y = (
            Axis.of(axis, self.window.finer, grid.spatial_frequencies[-1], np.inf, device).at
            for axis in (self.window.x_angstrom, self.window.y_angstrom)
        )
        turned = turns(grid.angles[spread.rotation.cpu().numpy()])
        cosine, sine = (torch.from_numpy(turned[:, i, 0]).to(device)[n] for i in (0, 1))
        dx, dy = x[point % len(x)], y[point // len(x)]
        origin = torch.from_numpy(self.places.at[at] - self.origin[self.places.image[at]])
        spacing = torch.from_numpy(self.spacing).to(device)[image]
        px, py = origin.to(device)[n].unbind(1)
        u = (px + cosine * dx + sine * dy) / spacing
        v = (py + cosine * dy - sine * dx) / spacing
        i, j = u.floor(), v.floor()
        node = image * NODES**2 + j.long() * NODES + i.long()
        right, up = mass * (u - i), v - j
        for step, part in ((0, mass - right), (1, right)):
            self.lattice.index_add_(0, node + step, part * (1 - up))
            self.lattice.index_add_(0, node + step + NODES, part * up)

    def sum_up(
        self, found: Rows, poses: Rows, kept: FloatArray, orientations: Orientations, n_top: int
    ) -> None:
        """Make numbers of sums: `kept` is the part of the posterior of each image that was
        compared, which its masses are made to add up to."""
        all_rotations = np.concatenate(self.rotations) if self.rotations else np.zeros(0, ROTATION)
        image = self.places.image[all_rotations["place"]]
        order = np.argsort(image, kind="stable")
        ends = np.searchsorted(image[order], np.arange(len(found) + 1))
        squares = self.squares.cpu().numpy()
        volume, mass = self.bins.view(2, len(found), N_BINS).cpu().numpy()
        lattice = self.lattice.view(len(found), NODES, NODES).cpu().numpy()
        for m, record in enumerate(found):
            rotations = all_rotations[order[ends[m] : ends[m + 1]]]
            total = rotations["mass"].sum()
            if not total > 0:
                record["n_significant"] = record["n_effective"] = np.nan
                continue
            scale = kept[m] / total
            record["n_effective"] = max(1.0, 1 / (squares[m] * scale**2))
            count = count_of_fewest(volume[m], mass[m] * scale, SIGNIFICANT)
            record["n_significant"] = max(1.0, np.ceil(count))
            self._displacement(
                record, m, lattice[m], float(orientations.angles[poses["rotation"][m]])
            )
            template = self.block.template_rows["index"][rotations["template"]]
            best = orientations.at(poses["template"][[m]], poses["rotation"][[m]])[0]
            counted = rotations["mass"] > NEGLECTED / len(rotations) * total
            record["orientation_radius"] = orientations.radius_about(
                best,
                template[counted],
                rotations["rotation"][counted],
                rotations["mass"][counted],
                REGION,
            )
            self._top(record, rotations, template, scale, orientations, n_top)

    def _displacement(self, record: np.void, m: int, lattice: FloatArray, gamma: float) -> None:
        along = np.arange(NODES) * self.spacing[m]
        x, y = along + self.origin[m, 0], along + self.origin[m, 1]
        total = lattice.sum()
        mean = np.array([lattice.sum(axis=0) @ x, lattice.sum(axis=1) @ y]) / total
        record["x"], record["y"] = turns(np.array([gamma]))[0] @ mean
        # a point stands for a square, which masses that are shared between nodes, and then spread
        # over the squares of these, fill in part
        width = math.sqrt(max(0.0, (self.point / self.spacing[m]) ** 2 - 3))
        wider = spread_evenly(NODES, width)
        lattice = wider @ lattice @ wider.T
        j, i = np.nonzero(lattice > NEGLECTED * lattice.max())
        part = ((np.arange(PARTS) + 0.5) / PARTS - 0.5) * self.spacing[m]
        off_x, off_y = x[i] - mean[0], y[j] - mean[1]
        distance = np.hypot(
            off_x[:, None] + np.tile(part, PARTS), off_y[:, None] + np.repeat(part, PARTS)
        )
        mass = np.repeat(lattice[j, i], PARTS**2)
        record["displacement_radius"] = quantile(distance.ravel(), mass, REGION)

    def _top(
        self,
        record: np.void,
        rotations: Rows,
        template: NDArray[np.int64],
        scale: float,
        orientations: Orientations,
        n_top: int,
    ) -> None:
        gamma = orientations.angles[rotations["rotation"]]
        delta = self.window.displacements.table()[:, rotations["displacement"]]
        places = self.places.at[rotations["place"]] + in_frame_of_image(delta, gamma).T
        chosen = separate(
            orientations,
            orientations.at(template, rotations["rotation"]),
            places,
            rotations["correlation"],
            n_top,
            max(self.window.search.steps),
        )
        for k, i in enumerate(chosen):
            record["template"][k] = template[i]
            record["rotation"][k] = rotations["rotation"][i]
            place = self.places.at[rotations["place"][i]]
            record["displacement"][k] = self.window.node(
                place, float(gamma[i]), int(rotations["displacement"][i])
            )
            record["probability"][k] = min(1.0, np.exp(rotations["log_density"][i]) * scale)


ROTATION = np.dtype(
    [
        *((name, "i8") for name in ("place", "template", "rotation", "displacement")),
        *((name, "f8") for name in ("correlation", "log_density", "mass")),
    ]
)
"""Of a rotation of an image under a template about a place: the best correlation over
displacements, where it is, the posterior there, and that of all."""
