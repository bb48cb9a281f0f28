"""Particles that resemble the images of a run: of its structures, with its optics, noise and
poses, and as strong a signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.conventions import STANDARD
from cryolike_dask.errors import InputError
from cryolike_dask.geometry.optics import OPTICS
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.likelihoods.graph import image_rows, whitening_of
from cryolike_dask.likelihoods.image_formation import contrast_at_points, displacement_phases
from cryolike_dask.likelihoods.search.coarser import spacing_of_views
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.particles.transform import fourier_to_pixels
from cryolike_dask.simulation.noise import draw_field
from cryolike_dask.stacks import ImageStack, TemplateStack

FloatArray = NDArray[np.float64]
Integers = NDArray[np.int64]
ComplexArray = NDArray[np.complex128]

FINER = 2
"""Angles of a ring for each one of the grid, on which the signal is made: what the contrast
transfer spreads beyond the box does not come back into it."""
AT_ONCE = 16
"""Particles whose signal is made together."""


@dataclass(frozen=True, eq=False)
class Originals:
    """The images of a run that particles are to resemble, one for each.

    Attributes
    ----------
    optics : structured array, `OPTICS`, (image,)
        In the frame in which x is the column.
    groups : str array, (image, 2), or None
        As those of an `ImageStack`.
    factors, envelopes : (image, shell) float64
        What makes their noise white, and the envelope of their contrast transfer.
    n_free, share : (image,) float64
        Degrees of freedom of the noise, and the part of the box that it fills.
    correlation : (image,) float64
        With their best projections.
    """

    optics: NDArray[np.void]
    groups: NDArray[np.str_] | None
    factors: FloatArray
    envelopes: FloatArray
    n_free: FloatArray
    share: FloatArray
    correlation: FloatArray

    def take(self, chosen: Integers) -> Originals:
        """Some of them."""
        return Originals(
            **{k: None if v is None else v[chosen] for k, v in vars(self).items()}  # type: ignore[arg-type]
        )


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is drawn of each particle.

    Attributes
    ----------
    number : (particle,) int
        By which its noise is drawn.
    which : (particle,) int
        Position of its structure.
    view : (particle,) int
        The view of the search that is nearest.
    azimuth, polar, gamma : (particle,) float64, radian
        Direction in which it is seen, and in-plane rotation.
    x_angstrom, y_angstrom : (particle,) float64
        Displacement before it is turned.
    """

    number: Integers
    which: Integers
    view: Integers
    azimuth: FloatArray
    polar: FloatArray
    gamma: FloatArray
    x_angstrom: FloatArray
    y_angstrom: FloatArray

    def __len__(self) -> int:
        return len(self.which)

    def take(self, chosen: Integers) -> Drawn:
        """Some of them."""
        return Drawn(**{name: values[chosen] for name, values in vars(self).items()})

    @property
    def views(self) -> ViewingAngles:
        """The directions; weights are of no meaning."""
        return ViewingAngles(self.azimuth, self.polar, np.ones(len(self)))


def find_originals(
    summary: xr.Dataset, rows: Integers, stacks: Sequence[ImageStack], settings: Settings
) -> Originals:
    """Find images of a summary of results in the stacks that these came from.

    Raises
    ------
    InputError
        If one is not there.
    """
    keys = _key(summary[labels.STACK].values[rows], summary[labels.IMAGE_IN_STACK].values[rows])
    parts, found = [], np.zeros(len(rows), bool)
    order = [np.empty(0, np.int64)]
    for stack in stacks:
        there, position = np.unique(_key(stack.stack, stack.image_in_stack), return_index=True)
        at = np.minimum(np.searchsorted(there, keys), len(there) - 1)
        here = np.flatnonzero((there[at] == keys) & ~found)
        if len(here):
            found[here] = True
            order.append(here)
            parts.append(_of_stack(stack[position[at[here]]], settings))
    if not found.all():
        row = rows[~found][0]
        where = f"image {summary[labels.IMAGE_IN_STACK].values[row]} of stack "
        where += f"{summary[labels.STACK].values[row]}"
        raise InputError(f"{where} is not among the particles", remedy="Give those of the run.")
    back = np.argsort(np.concatenate(order))
    joined = {
        name: None
        if any(getattr(part, name) is None for part in parts)
        else np.concatenate([getattr(part, name) for part in parts])
        for name in vars(parts[0])
    }
    joined["correlation"] = np.empty(len(rows))
    originals = Originals(**joined).take(back)  # type: ignore[arg-type]
    return replace(originals, correlation=summary[labels.CROSS_CORRELATION].values[rows])


def _key(stack: Integers, image: Integers) -> Integers:
    key: Integers = np.asarray(stack, np.int64) * 2**32 + image
    return key


def _of_stack(stack: ImageStack, settings: Settings) -> Originals:
    group, whitening = whitening_of(stack, settings)
    noise = settings.noise
    filled = None if noise is None else replace(noise, share=np.ones(len(noise)))
    _, full = whitening_of(stack, replace(settings, noise=filled, degrees_of_freedom=None))
    rows, optics = image_rows(stack, settings.rules), np.empty(len(stack), OPTICS)
    for name in OPTICS.names or ():
        optics[name] = rows[name]
    share = whitening.n_degrees_of_freedom / full.n_degrees_of_freedom
    return Originals(
        optics=optics,
        groups=stack.groups,
        factors=whitening.factors[group],
        envelopes=whitening.envelopes[group],
        n_free=whitening.n_degrees_of_freedom[group],
        share=np.minimum(share[group], 1.0),
        correlation=np.empty(len(stack)),
    )


def draw_like(
    n_structures: int, templates: TemplateStack, n: int, rng: np.random.Generator
) -> Drawn:
    """Draw particles by the prior of a search: structures alike; a view by its weight, and a
    displacement, each anywhere in the cell about it; any rotation."""
    viewing, displacements = templates.viewing, templates.displacements
    view = rng.choice(len(viewing), size=n, p=viewing.weight / viewing.weight.sum())
    frames = viewing.rotations()[view]
    # a cap about the view, of the area of its cell
    polar = spacing_of_views(viewing) / np.sqrt(np.pi) * np.sqrt(rng.uniform(0, 1, n))
    angle = rng.uniform(0, 2 * np.pi, n)
    beside = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)])
    direction = np.einsum("nij,jn->ni", frames, beside)
    tried = rng.integers(len(displacements), size=n)
    x, y = (
        axis[tried] + step * rng.uniform(-0.5, 0.5, n)
        for axis, step in zip(displacements.table(), displacements.steps, strict=True)
    )
    return Drawn(
        number=np.arange(n),
        which=rng.integers(n_structures, size=n),
        view=view,
        azimuth=np.arctan2(direction[:, 1], direction[:, 0]),
        polar=np.arccos(np.clip(direction[:, 2], -1, 1)),
        gamma=rng.uniform(0, 2 * np.pi, n),
        x_angstrom=x,
        y_angstrom=y,
    )


def make_particles(
    series: ComplexArray,
    drawn: Drawn,
    originals: Originals,
    strength: FloatArray,
    grid: PolarGrid,
    seed: int,
) -> NDArray[np.float32]:
    """Make the pixels of particles.

    Parameters
    ----------
    series : complex128, (particle, shell, mode)
        The slice of each in its direction, as `slices` gives it.
    drawn : Drawn
    originals : Originals
    strength : (particle,) float64
        Power of the signal over that of the noise, both whitened, inside the band.
    grid : PolarGrid
    seed : int
        With the number of a particle it gives its noise.

    Returns
    -------
    float32, (particle, row, column)
    """
    n = grid.n_pixels
    pixels = np.empty((len(drawn), n, n), np.float32)
    inside = _by_radius(n)
    for start in range(0, len(drawn), AT_ONCE):
        part = np.arange(start, min(start + AT_ONCE, len(drawn)))
        some, like = drawn.take(part), originals.take(part)
        pixels[part] = _signal(series[part], some, like, strength[part], grid)
        for i, number in enumerate(some.number, start):
            known = originals.factors[i] > 0
            variance = np.zeros(grid.n_shells)
            variance[known] = originals.factors[i, known] ** -2
            rng = np.random.default_rng((seed, 2, int(number)))
            pixels[i] += draw_field(grid.spatial_frequencies, variance, grid, rng)
            pixels[i] *= inside < originals.share[i] * n**2
    return pixels


def _signal(
    series: ComplexArray,
    drawn: Drawn,
    originals: Originals,
    strength: FloatArray,
    grid: PolarGrid,
) -> FloatArray:
    """Particles without noise, whose white noise would have a variance of 1."""
    fine = replace(grid, n_inplanes=FINER * grid.n_inplanes)
    modes = np.fft.fftfreq(grid.n_inplanes, 1 / grid.n_inplanes).astype(np.int64)
    padded = np.zeros((*series.shape[:2], fine.n_inplanes), np.complex128)
    turns = np.exp(1j * modes * drawn.gamma[:, None])
    padded[:, :, modes] = series * turns[:, None, :]
    signal = np.fft.ifft(padded, axis=-1) * fine.n_inplanes
    c, s = np.cos(drawn.gamma), np.sin(drawn.gamma)
    x, y = drawn.x_angstrom, drawn.y_angstrom
    half_box = grid.box_size_angstrom / 2
    shifts = zip((c * x + s * y) / half_box, (c * y - s * x) / half_box, strict=True)
    moved = np.stack([displacement_phases(dx, dy, *fine.points()) for dx, dy in shifts])
    contrast = contrast_at_points(
        originals.optics, fine.spatial_frequencies[:, None], fine.angles, STANDARD
    )
    known = originals.factors > 0
    signal = signal * moved * contrast * (originals.envelopes * known)[:, :, None]
    power = fine.integrate(np.abs(signal * originals.factors[:, :, None]) ** 2)
    # white noise of variance 1 has the power (4 pi)^2 at each point of the transform
    noise = (4 * np.pi) ** 2 * (fine.weights * known).sum(axis=1) * fine.n_inplanes
    scale = np.sqrt(strength * originals.share * noise / power)
    pixels: FloatArray = fourier_to_pixels(signal * scale[:, None, None], fine)
    return pixels


def _by_radius(n: int) -> Integers:
    """Rank of each pixel by its distance from the middle, (row, column)."""
    at = np.arange(n) - n // 2
    distance = np.hypot(at, at[:, None]).ravel()
    rank = np.empty(n * n, np.int64)
    rank[np.argsort(distance, kind="stable")] = np.arange(n * n)
    return rank.reshape(n, n)
