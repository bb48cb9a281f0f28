"""Log-likelihoods of images of Gaussian atoms at poses that are known, and integrated over poses
near these, from their definitions. Nothing of the package is used here.

Noise is white. Where its level is known, the log-likelihood is -R / (2 level^2), R being what is
left of the image when the structure is taken out, with the scale and the offset that fit best.
Where it is not, and d values of a part of the band are compared, it is -d / 2 log R.

Integrals over poses are Laplace's: the best pose is sought by Gauss-Newton steps from the true
one, over three small rotations (and two displacements), and the curvature there says how much of
all poses lies about it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks.independent_simulator import FloatArray, Molecule, StarPoses, project

MOST_STEPS, SMALLEST_GAIN = 60, 1e-6
"""Steps, and nat of one of them at which they end."""
LARGEST_STEP = 0.1
"""Radian, and angstrom."""
DIFFERENCE = 1e-4
"""Of poses, by which the curvature is found from gradients."""
NEGLIGIBLE = 1e-6
"""Part of its transform at 0 below which that of an atom is left out."""


@dataclass(frozen=True, eq=False)
class Band:
    """Fourier pixels of images up to a frequency, one of each pair of conjugates, without that of
    0.

    Attributes
    ----------
    n_pixels : int
    pixel_size, limit, spread : float
        Angstrom; 1/angstrom; standard deviation of atoms, angstrom.
    """

    n_pixels: int
    pixel_size: float
    limit: float
    spread: float
    place: tuple[NDArray[np.int64], NDArray[np.int64]] = field(init=False)
    f: FloatArray = field(init=False)
    envelope: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        along = np.fft.fftfreq(self.n_pixels, self.pixel_size)
        fx, fy = np.meshgrid(along, along)
        inside = (np.hypot(fx, fy) <= self.limit) & ((fy > 0) | ((fy == 0) & (fx > 0)))
        rows, columns = np.nonzero(inside)
        f = np.stack([fx[inside], fy[inside]], axis=1)
        envelope = np.exp(-2 * np.pi**2 * self.spread**2 * (f**2).sum(axis=1))
        for name, value in {"place": (rows, columns), "f": f, "envelope": envelope}.items():
            object.__setattr__(self, name, value)

    @property
    def degrees_of_freedom(self) -> int:
        """Values that are compared, but for the scale."""
        return 2 * len(self.f) - 1

    def transform(self, image: FloatArray) -> NDArray[np.complex128]:
        """Of an image, about its middle pixel, (frequency,)."""
        middle = self.n_pixels // 2 * self.pixel_size
        values: NDArray[np.complex128] = np.fft.fft2(image)[self.place]
        return values * np.exp(2j * np.pi * middle * self.f.sum(axis=1))


def of_known_noise(
    image: FloatArray, level: float, molecules: list[Molecule], pose: StarPoses, pixel_size: float
) -> FloatArray:
    """Log-likelihoods over all pixels in one pose, (structure,)."""
    x = image - image.mean()
    found = np.empty(len(molecules))
    for j, molecule in enumerate(molecules):
        t = project(molecule, pose, len(image), pixel_size)[0]
        t -= t.mean()
        residual = (x**2).sum() - (x * t).sum() ** 2 / (t**2).sum()
        found[j] = -residual / (2 * level**2)
    return found


@dataclass(frozen=True, eq=False)
class Fit:
    """An image beside a structure, in poses that are a small rotation (of the structure, after the
    true one) and a displacement away from the true one.

    Attributes
    ----------
    seen : (frequency, 2)
        Frequencies at which atoms are seen; with `envelope`, the transform of an atom there.
    x : (2 frequency,)
        Image there, real and imaginary parts.
    power : float
        Of the image in the whole band.
    centred : (atom, 3)
        Turned by the true pose.
    origin : (2,)
        True displacement, angstrom.
    """

    seen: FloatArray
    envelope: FloatArray
    x: FloatArray
    power: float
    degrees_of_freedom: int
    centred: FloatArray
    origin: FloatArray

    @classmethod
    def of(cls, image: FloatArray, band: Band, positions: FloatArray, pose: StarPoses) -> Fit:
        """One image and one structure."""
        values, seen = band.transform(image), band.envelope > NEGLIGIBLE
        x = np.concatenate([values[seen].real, values[seen].imag])
        centred = (positions - positions.mean(axis=0)) @ pose.matrices()[0].T
        origin = np.array([-pose.origin_x[0], -pose.origin_y[0]])
        power, d = float((abs(values) ** 2).sum()), band.degrees_of_freedom
        return cls(band.f[seen], band.envelope[seen], x, power, d, centred, origin)

    def residual(self, pose: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """What is left of the image's power; half its gradient, (5,), and half of its curvature
        but for second derivatives of the structure, (5, 5)."""
        turned = self.centred @ Rotation.from_rotvec(pose[:3]).as_matrix().T
        at = turned[:, :2] + self.origin + pose[3:]
        waves = self.envelope[:, None] * np.exp(-2j * np.pi * self.seen @ at.T)
        by_x, by_y = (waves * (-2j * np.pi * f)[:, None] for f in self.seen.T)
        x, y, z = turned.T
        # turning about the axes of the image, after `pose`: du = w x u
        slopes = [-by_y @ z, by_x @ z, by_y @ x - by_x @ y, by_x.sum(axis=1), by_y.sum(axis=1)]
        t = _parts(waves.sum(axis=1))
        j = np.stack([_parts(slope) for slope in slopes], axis=1)
        norm = t @ t
        scale = (self.x @ t) / norm
        j = scale * (j - np.outer(t, t @ j) / norm)
        left = self.x - scale * t
        return self.power - scale**2 * norm, -(j.T @ left), j.T @ j

    def at_the_true_pose(self) -> float:
        """Log-likelihood there."""
        return -self.degrees_of_freedom / 2 * float(np.log(self.residual(np.zeros(5))[0]))

    def integrated(self, displaced: bool) -> float:
        """Log-likelihood, integrated over rotations about the best one near the true one, and over
        displacements if it may be displaced."""
        pose, damping, n = np.zeros(5), 1e-3, 5 if displaced else 3
        half = self.degrees_of_freedom / 2
        power, gradient, curvature = self.residual(pose)
        for _ in range(MOST_STEPS):
            damped = curvature[:n, :n] + damping * np.diag(np.diag(curvature)[:n])
            step = np.zeros(5)
            step[:n] = -np.linalg.solve(damped, gradient[:n])
            step *= min(1.0, LARGEST_STEP / abs(step).max())
            new = _composed(pose, step)
            tried = self.residual(new)
            gain = half * np.log(power / tried[0])
            if gain > 0:
                pose, damping = new, damping / 5
                power, gradient, curvature = tried
            else:
                damping *= 10
            if abs(gain) < SMALLEST_GAIN:
                break
        hessian = np.empty((5, 5))
        for k, unit in enumerate(np.eye(5) * DIFFERENCE):
            up, down = (self.residual(_composed(pose, sign * unit)) for sign in (1, -1))
            hessian[k] = (up[1] / up[0] - down[1] / down[0]) * half / DIFFERENCE
        values = np.linalg.eigvalsh((hessian + hessian.T)[:n, :n] / 2)
        volume = np.log(2 * np.pi / np.maximum(values, 1e-3)).sum() / 2
        return -half * float(np.log(power)) + float(volume)


def _composed(pose: FloatArray, step: FloatArray) -> FloatArray:
    """A pose, turned further."""
    turned = Rotation.from_rotvec(step[:3]) * Rotation.from_rotvec(pose[:3])
    return np.concatenate([turned.as_rotvec(), pose[3:] + step[3:]])


def _parts(values: NDArray[np.complex128]) -> FloatArray:
    """Real and imaginary parts: sums of products are halves of those over all frequencies."""
    return np.concatenate([values.real, values.imag])
