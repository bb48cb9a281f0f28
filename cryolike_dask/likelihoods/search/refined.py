"""Best poses refined between those of a search: by steps of Gauss and Newton, in the plane of the
image, and out of it where the structure is known (numpy and torch)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.compute.device import resolve_device
from cryolike_dask.compute.gpu import sent
from cryolike_dask.geometry.viewing_angles import angles_of_rotation, viewing_rotation
from cryolike_dask.likelihoods.comparison import Comparison, Rows
from cryolike_dask.likelihoods.reading import taken, tensor_on, whitened
from cryolike_dask.likelihoods.search.places import FloatArray, turns
from cryolike_dask.likelihoods.setup import constants_of_half_rings

if TYPE_CHECKING:
    import torch

    from cryolike_dask.likelihoods.kernels.direct import BlockConstants, WhitenedImages

REFINED_POSE = np.dtype(
    [
        ("azimuth", "f8"),
        ("polar", "f8"),
        ("gamma", "f8"),
        ("x", "f8"),
        ("y", "f8"),
        ("log_likelihood", "f8"),
    ]
)
"""Radian, angstrom, nat."""

IMAGES_AT_ONCE = 32
MOST_STEPS = 6
SHORTENED = 4
"""Times that a step which leads to a worse pose is halved."""
GAINED = 1e-3
"""Nat: steps that gain less end."""
TURNED = 1e-4
"""Radian, by which a projection is turned to see how it changes."""


@runtime_checkable
class CanTurn(Protocol):
    """Templates of a structure that is known: it can be projected along any direction."""

    def at_rotations(self, rotations: FloatArray) -> NDArray[np.complex128]:
        """Projections on half rings, (rotation, shell, W/2), each of power 1; the columns of
        rotations are the axes of the image in the coordinates of the structure."""


@dataclass(frozen=True, eq=False)
class Reach:
    """How far a single step of a refinement goes at most.

    Attributes
    ----------
    radian, angstrom : float
    """

    radian: float
    angstrom: float


@dataclass(frozen=True, eq=False)
class _Poses:
    """Poses of images between those of a search.

    Attributes
    ----------
    template : (image,) int64
        Whose view it is, where views are those of templates.
    rotations : (image, 3, 3) float64
    places : (image, 2) float64
        Where particles lie in their images, angstrom.
    """

    template: NDArray[np.int64]
    rotations: FloatArray
    places: FloatArray

    def moved(self, steps: FloatArray) -> _Poses:
        """By rotations about the axes of the image, radian, and along them, angstrom, (image,
        5)."""
        from scipy.spatial.transform import Rotation

        turned = self.rotations @ Rotation.from_rotvec(steps[:, :3]).as_matrix()
        return replace(self, rotations=turned, places=self.places + steps[:, 3:])

    def take(self, rows: NDArray[np.int64]) -> _Poses:
        """Some of them."""
        return _Poses(self.template[rows], self.rotations[rows], self.places[rows])

    def with_some(self, rows: NDArray[np.int64], others: _Poses) -> _Poses:
        """The same, but for some."""
        changed = _Poses(self.template.copy(), self.rotations.copy(), self.places.copy())
        for mine, of_others in zip(vars(changed).values(), vars(others).values(), strict=True):
            mine[rows] = of_others
        return changed

    def where(self, flags: NDArray[np.bool_], others: _Poses) -> _Poses:
        """The same, others where flags say so."""
        return _Poses(
            np.where(flags, others.template, self.template),
            np.where(flags[:, None, None], others.rotations, self.rotations),
            np.where(flags[:, None], others.places, self.places),
        )


def refined_poses(
    views: FloatArray,
    image_rows: Rows,
    poses: Rows,
    known: Rows,
    *,
    comparison: Comparison,
    reach: Reach,
) -> Rows:
    """Refine the best poses of images, and the recorded ones where these are better: (image,),
    REFINED_POSE.

    Parameters
    ----------
    views : (view, 3, 3) float64
        Rz(azimuth) Ry(polar) of all templates.
    image_rows : structured array
    poses : (image,) POSE
    known : (image,) KNOWN
    comparison : Comparison
    reach : Reach
    """
    refined = np.empty(len(image_rows), REFINED_POSE)
    for start in range(0, len(image_rows), IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        images = _Images.of(image_rows[part], views, comparison)
        starts = _starts(poses[part], views, comparison)
        best, likelihood = starts, images.log_likelihood(starts)
        recorded = replace(starts, places=known["place"][part].copy())  # not strided
        if images.turns_views:
            recorded = replace(recorded, rotations=known["rotation"][part].copy())
        best, likelihood = images.better(best, likelihood, recorded)
        best, likelihood = images.climb(best, likelihood, reach)
        refined[part] = _records(best, likelihood)
    return refined


@dataclass(frozen=True, eq=False)
class _Images:
    """Some images, and their templates at any pose.

    Attributes
    ----------
    images : WhitenedImages
        Half rings, float64.
    constants : BlockConstants
        Of half rings.
    comparison : Comparison
    views : (view, 3, 3) float64
    """

    images: WhitenedImages
    constants: BlockConstants
    comparison: Comparison
    views: FloatArray

    @classmethod
    def of(cls, rows: Rows, views: FloatArray, comparison: Comparison) -> _Images:
        """Read them."""
        from cryolike_dask.likelihoods.kernels.compressed import half

        device = resolve_device(comparison.device)
        exact = replace(comparison, precision="double")
        constants = constants_of_half_rings(exact, device)
        values, rings = taken(rows["index"], comparison.images, "double", device)
        images = whitened(half(values), rings, rows, exact, constants)
        return cls(images, constants, comparison, views)

    def take(self, rows: NDArray[np.int64]) -> _Images:
        """Some of them."""

        images, at = self.images, sent(rows, self.constants.mask.device)
        names = ("values", "contrast", "whitening", "power", "mask")
        taken = {name: getattr(images, name)[at] for name in names}
        return replace(self, images=replace(images, noise=images.noise.at(at), **taken))

    @property
    def turns_views(self) -> bool:
        """Whether views are refined."""
        return isinstance(self.comparison.templates, CanTurn)

    def log_likelihood(self, poses: _Poses) -> FloatArray:
        """At poses, (image,)."""
        from cryolike_dask.likelihoods.kernels.direct import at_given_poses

        moved = self._at(poses) * self._phases(poses)
        values: FloatArray = at_given_poses(self.images, moved, self.constants).cpu().numpy()
        return values

    def better(
        self, poses: _Poses, likelihood: FloatArray, others: _Poses
    ) -> tuple[_Poses, FloatArray]:
        """The better of two poses of each image, and its log-likelihood."""
        of_others = self.log_likelihood(others)
        is_better = of_others > likelihood
        return poses.where(is_better, others), np.maximum(likelihood, of_others)

    def climb(
        self, poses: _Poses, likelihood: FloatArray, reach: Reach
    ) -> tuple[_Poses, FloatArray]:
        """Go up from poses, never down."""
        goes_on = np.arange(len(likelihood))
        for _ in range(MOST_STEPS):
            some, start = self.take(goes_on), poses.take(goes_on)
            before = likelihood[goes_on]
            of_some = some._climb_once(start, before, reach)
            poses, likelihood = poses.with_some(goes_on, of_some[0]), likelihood.copy()
            likelihood[goes_on] = of_some[1]
            goes_on = goes_on[of_some[1] - before >= GAINED]
            if not len(goes_on):
                break
        return poses, likelihood

    def _climb_once(
        self, start: _Poses, before: FloatArray, reach: Reach
    ) -> tuple[_Poses, FloatArray]:
        """Take one step, shorter where it leads down."""
        step = self._step(start)
        angle = np.linalg.norm(step[:, :3], axis=1) / reach.radian
        along = np.abs(step[:, 3:]).max(axis=1) / reach.angstrom
        step = step / np.maximum(1, np.maximum(angle, along))[:, None]
        poses, likelihood = start, before
        for k in range(SHORTENED):
            worse = np.flatnonzero(likelihood <= before)
            if not len(worse):
                break
            some, shorter = self.take(worse), start.take(worse).moved(step[worse] * 0.5**k)
            better, of_better = some.better(start.take(worse), before[worse], shorter)
            poses, likelihood = poses.with_some(worse, better), likelihood.copy()
            likelihood[worse] = of_better
        return poses, likelihood

    def _step(self, poses: _Poses) -> FloatArray:
        """The step to where the square error would be least if templates changed as they begin to,
        (image, 5)."""
        import torch

        images, constants = self.images, self.constants
        phases = self._phases(poses)
        still = self._at(poses)
        kx, ky = (k.to(still.dtype) for k in self._frequencies)
        filtered = images.contrast * phases
        columns = [still * filtered, (images.whitening[..., None] * constants.mask)]
        columns += [change * filtered for change in self._turning(poses, still)]
        columns += [-1j * k * still * filtered for k in (kx, ky)]
        design = torch.stack([column.expand_as(still) for column in columns], 1).flatten(2)
        weights = constants.weights.flatten()
        normal = ((design.conj() * weights) @ design.transpose(1, 2)).real
        right = ((design.conj() * weights) @ images.values.flatten(1)[..., None]).real
        scale = torch.diagonal(normal, dim1=1, dim2=2).clamp(min=1e-300).sqrt()
        normal = normal / (scale[:, :, None] * scale[:, None])
        normal += 1e-9 * torch.eye(normal.shape[1], dtype=normal.dtype, device=normal.device)
        fit = (torch.linalg.solve(normal, right / scale[..., None])[..., 0] / scale).cpu().numpy()
        steps = np.zeros((len(fit), 5))
        first = 0 if self.turns_views else 2
        # a scale that is not positive fits no particle: no step leads anywhere
        ahead = fit[:, :1] > 0
        steps[:, first:] = np.where(ahead, fit[:, 2:] / np.where(ahead, fit[:, :1], 1), 0)
        return steps

    def _turning(self, poses: _Poses, still: torch.Tensor) -> list[torch.Tensor]:
        """How templates change as they turn about the axes of the image; per radian."""
        import torch

        if not self.turns_views:
            return [self._at_templates(poses, 1)]
        n = len(poses.template)
        steps = np.repeat(np.eye(5)[:3] * TURNED, n, axis=0)
        every = _Poses(*(np.concatenate([v] * 3) for v in vars(poses).values())).moved(steps)
        return [(turned - still) / TURNED for turned in torch.split(self._at(every), n)]

    def _at(self, poses: _Poses) -> torch.Tensor:
        """Templates turned, about the middle, half rings."""
        source = self.comparison.templates
        if not isinstance(source, CanTurn):
            return self._at_templates(poses)
        values = source.at_rotations(poses.rotations)
        return tensor_on(values, "double", self.constants.mask.device)

    def _at_templates(self, poses: _Poses, derivative: int = 0) -> torch.Tensor:
        """Those of the templates that there are, turned in the plane by any angle: rings are
        trigonometric polynomials. Or how they change."""
        import torch

        device = self.constants.mask.device
        values, _ = taken(poses.template, self.comparison.templates, "double", device)
        turned = self.views[poses.template].transpose(0, 2, 1) @ poses.rotations
        gamma = sent(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]), values.device)
        n = values.shape[-1]
        q = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=values.device)
        factors = torch.exp(1j * q * gamma[:, None]) * (1j * q) ** derivative
        factors[:, n // 2] = torch.cos(n / 2 * gamma) if derivative == 0 else 0
        rings: torch.Tensor = torch.fft.ifft(torch.fft.fft(values) * factors[:, None])
        return rings[..., : n // 2]

    @property
    def _frequencies(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Phase by which a displacement of an angstrom along x and y turns a point of half
        rings."""

        grid, device = self.comparison.grid, self.constants.mask.device
        half = grid.n_inplanes // 2
        scale = 4 * np.pi / grid.box_size_angstrom
        kx, ky = (sent(scale * k[:, :half], device) for k in grid.points())
        return kx, ky

    def _phases(self, poses: _Poses) -> torch.Tensor:
        import torch

        kx, ky = self._frequencies
        x, y = (sent(v, kx.device)[:, None, None] for v in poses.places.T)
        factors: torch.Tensor = torch.exp(-1j * (kx * x + ky * y))
        return factors


def _starts(poses: Rows, views: FloatArray, comparison: Comparison) -> _Poses:
    """The poses of a search, whose templates are displaced before they are turned by -gamma."""
    gamma = comparison.grid.angles[poses["rotation"]]
    displaced = comparison.displacements.table()[:, poses["displacement"]]
    return _Poses(
        poses["template"],
        views[poses["template"]] @ viewing_rotation(0, 0, gamma),
        np.einsum("mij,jm->mi", turns(-gamma), displaced),
    )


def _records(poses: _Poses, likelihood: FloatArray) -> Rows:
    refined = np.empty(len(likelihood), REFINED_POSE)
    azimuth, polar, gamma = angles_of_rotation(poses.rotations)
    refined["azimuth"], refined["polar"], refined["gamma"] = azimuth, polar, gamma
    moved = np.einsum("mij,mj->im", turns(gamma), poses.places)
    refined["x"], refined["y"] = moved
    refined["log_likelihood"] = likelihood
    return refined
