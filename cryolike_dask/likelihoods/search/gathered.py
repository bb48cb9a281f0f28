"""Posteriors of images over poses as they are gathered: sums, and what is made of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.gpu import sent
from cryolike_dask.likelihoods.comparison import Rows
from cryolike_dask.likelihoods.search.between import (
    NEAR,
    Nodes,
    interpolated,
    tell_between,
)
from cryolike_dask.likelihoods.search.pieces import axes_of
from cryolike_dask.likelihoods.search.places import FloatArray, Places, Window, turns
from cryolike_dask.likelihoods.search.regions import (
    Orientations,
    count_of_fewest,
    quantile,
    separate,
    spread_evenly,
)
from cryolike_dask.likelihoods.search.windows import gain_over_noise, in_frame_of_image
from cryolike_dask.likelihoods.tiled_block import Block

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.spread import Spread

SIGNIFICANT, REGION = 0.999, 0.95
"""Parts of a posterior: of poses that are significant, and of regions."""
NEGLECTED = 1e-6
"""Part of it in rotations and points that are passed over, all together."""
HIGHEST, LOWEST, BINS_PER_NAT = 12.0, -40.0, 20
"""Logarithms of posteriors that are told apart."""
N_BINS = int((HIGHEST - LOWEST) * BINS_PER_NAT)
NODES, LEAST_SPACING, PARTS = 96, 1e-6, 4
"""Along each axis of the lattice that a posterior is spread over in the plane of the image;
angstrom between them; and parts of that in the end."""

ROTATION = np.dtype(
    [
        *((name, "i8") for name in ("place", "template", "rotation", "displacement")),
        *((name, "f8") for name in ("correlation", "log_density", "mass", "log_mass")),
    ]
)
"""Of a rotation of an image under a template about a place: the best correlation over
displacements, where it is, the posterior there, and that of all and its logarithm."""


class Gathered:
    """Posteriors of images, as they are gathered: sums over their poses."""

    def __init__(self, block: Block, places: Places, window: Window) -> None:
        import torch

        n, device = block.shape[0], block.constants.weights.device
        self.block, self.places, self.window = block, places, window
        highest_frequency = float(block.comparison.grid.spatial_frequencies[-1])
        self.points = [axis.at[-1] for axis in axes_of(window, highest_frequency, device)]
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
        self.spacing = np.maximum(width / (NODES - 3), LEAST_SPACING)
        self.point = max(window.step) / window.finer
        self.origin = (lowest - highest) / 2 - (NODES - 1) / 2 * self.spacing[:, None]
        self.log_prior = np.zeros(block.template_rows["index"].max() + 1)
        self.log_prior[block.template_rows["index"]] = block.template_rows["log_prior"]
        self.rotations: list[NDArray[np.void]] = []

    def add(self, spread: Spread, rows: NDArray[np.int64], s: slice, least: FloatArray) -> None:
        """Add rotations of some pairs, of these places and templates."""
        import torch

        device = self.squares.device
        at = rows[spread.row.cpu().numpy()]
        image = sent(self.places.image[at], device)
        volume = spread.volume * math.exp(self.window.log_volume)
        # of rotations that are far below the best no more is left than a logarithm
        log_mass = torch.logsumexp(spread.log_density + volume.log(), 1)
        density = spread.log_density.exp()
        mass = density * volume
        add_at(self.squares, image, (mass * density).sum(1))
        of_rotation = np.zeros(len(at), ROTATION)
        of_rotation["place"] = at
        of_rotation["template"] = s.start + spread.template.cpu().numpy()
        for name, values in (
            ("rotation", spread.rotation),
            ("displacement", spread.displacement),
            ("correlation", spread.best),
            ("log_density", spread.log_density_of_best),
            ("mass", mass.sum(1)),
            ("log_mass", log_mass),
        ):
            of_rotation[name] = values.cpu().numpy()
        self.rotations.append(of_rotation)
        n, point = (spread.log_density >= sent(least, device)[image][:, None]).nonzero(
            as_tuple=True
        )
        logs, mass, image = spread.log_density[n, point], mass[n, point], image[n]
        of_bins = ((HIGHEST - logs) * BINS_PER_NAT).long().clamp_(0, N_BINS - 1) + image * N_BINS
        add_at(self.bins[0], of_bins, volume[n, point])
        add_at(self.bins[1], of_bins, mass)
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

        device, grid = mass.device, self.block.comparison.grid
        x, y = self.points
        turned = turns(grid.angles[spread.rotation.cpu().numpy()])
        cosine, sine = (sent(turned[:, i, 0], device)[n] for i in (0, 1))
        dx, dy = x[point % len(x)], y[point // len(x)]
        origin = torch.from_numpy(self.places.at[at] - self.origin[self.places.image[at]])
        spacing = sent(self.spacing, device)[image]
        px, py = origin.to(device)[n].unbind(1)
        u = (px + cosine * dx + sine * dy) / spacing
        v = (py + cosine * dy - sine * dx) / spacing
        i, j = u.floor(), v.floor()
        node = image * NODES**2 + j.long() * NODES + i.long()
        right, up = mass * (u - i), v - j
        for step, part in ((0, mass - right), (1, right)):
            add_at(self.lattice, node + step, part * (1 - up))
            add_at(self.lattice, node + step + NODES, part * up)

    def sum_up(
        self,
        found: Rows,
        poses: Rows,
        kept: FloatArray,
        orientations: Orientations,
        nodes: Nodes,
    ) -> None:
        """Make numbers of sums: `kept` is the part of the posterior of each image that was
        compared, which its masses are made to add up to; `nodes` are known however low they are."""
        self.gain = gain_over_noise(
            poses["cross_correlation"][:, None], self.block.image_rows, self.block.comparison
        )[:, 0]
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
            # infinite where interpolation is higher than what was found at displacements alone
            if not (0 < total < np.inf and lattice[m].any()):
                self._alone(record, poses[m], orientations)
                continue
            scale = kept[m] / total
            record["n_effective"] = max(1.0, 1 / (squares[m] * scale * scale))
            count = count_of_fewest(volume[m], mass[m] * scale, SIGNIFICANT)
            record["n_significant"] = max(1.0, np.ceil(count))
            self._displacement(
                record, m, lattice[m], float(orientations.angles[poses["rotation"][m]])
            )
            template = self.block.template_rows["index"][rotations["template"]]
            best = orientations.at(poses["template"][[m]], poses["rotation"][[m]])[0]
            angles, parts = self._angles(m, rotations, template, best, orientations, nodes)
            record["orientation_radius"] = quantile(angles, parts, REGION)
            told = rotations["log_mass"] >= math.log(NEGLECTED / len(rotations))
            self._top(record, rotations[told], template[told], scale, orientations)

    def _angles(
        self,
        m: int,
        rotations: Rows,
        template: NDArray[np.int64],
        best: FloatArray,
        orientations: Orientations,
        nodes: Nodes,
    ) -> tuple[FloatArray, FloatArray]:
        """Angles from the best orientation to all, and how much of the posterior is there."""
        n, total = len(orientations.angles), rotations["mass"].sum()
        of = nodes.hold(m, template, rotations["rotation"], n)
        of &= np.isfinite(rotations["log_mass"])
        pose, which = np.unique(template[of] * n + rotations["rotation"][of], return_inverse=True)
        is_told = tell_between(len(pose), orientations.spacing)
        counts = rotations["mass"] > NEGLECTED / len(rotations) * total
        view, rotation = template[counts], rotations["rotation"][counts]
        mass = rotations["mass"][counts] / total
        apart = np.arccos(orientations.cosines(best, orientations.at(view, rotation)))
        beyond = (apart > NEAR * orientations.spacing) | (not is_told)
        angles, parts = orientations.spread_about(
            best, view[beyond], rotation[beyond], mass[beyond]
        )
        if not is_told:
            return angles, parts
        logs = np.full(len(pose), -np.inf)  # of all places
        np.logaddexp.at(logs, which, rotations["log_mass"][of])
        logs -= self.log_prior[pose // n]
        vectors = orientations.vectors(best, pose // n, pose % n)
        near, of_near = interpolated(vectors, logs, self.gain[m], orientations.spacing)
        return np.append(angles, near), np.append(parts, of_near * mass[~beyond].sum())

    def _alone(self, record: np.void, pose: np.void, orientations: Orientations) -> None:
        """The best pose holds everything: of so clear an image, which was compared directly, no
        other comes near it."""
        search, one = self.window.search, np.array([0])
        view, rotation = pose["template"] + one, pose["rotation"] + one
        record["n_significant"] = record["n_effective"] = record["probability"][0] = 1
        for name in ("template", "displacement", "rotation"):
            record[name][0] = pose[name]
        record["x"], record["y"] = search.table()[:, pose["displacement"]]
        part = ((np.arange(NODES) + 0.5) / NODES - 0.5)[:, None] * search.steps
        distance = np.hypot(part[:, 0], part[:, 1][:, None]).ravel()
        record["displacement_radius"] = quantile(distance, np.ones(NODES**2), REGION)
        record["orientation_radius"] = orientations.radius_about(
            orientations.at(view, rotation)[0], view, rotation, np.ones(1), REGION
        )

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
    ) -> None:
        gamma = orientations.angles[rotations["rotation"]]
        delta = self.window.displacements.table()[:, rotations["displacement"]]
        places = self.places.at[rotations["place"]] + in_frame_of_image(delta, gamma).T
        chosen = separate(
            orientations,
            orientations.at(template, rotations["rotation"]),
            places,
            rotations["correlation"],
            len(record["template"]),
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


def add_at(sums: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> None:
    """Add values to the sums of their indices, in the same order in every run."""
    if sums.is_cpu:
        sums.index_add_(0, index, values)
    else:  # on a GPU this one sorts, where the other adds as threads come
        sums.index_put_((index,), values, accumulate=True)
