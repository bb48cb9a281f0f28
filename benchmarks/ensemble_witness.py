"""Log-likelihoods of images of Gaussian atoms at poses that are known, and integrated over poses
near these, from their definitions. Nothing of the package is used here.

White noise of a level that is not known, and a scale and an offset of each image that are not known
either: of d values of the band, of which R is left when what the structure explains is taken out,
the log-likelihood is -(d - 1) / 2 log R (the scale takes one).

Integrals over poses are Laplace's: the best pose is sought by Gauss-Newton steps from the true one,
over three small rotations and two displacements, and the curvature there says how much of all poses
lies about it, in rad^3 angstrom^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.independent_simulator import FloatArray

MOST_STEPS, SMALLEST_GAIN = 50, 1e-7
LARGEST_STEP = 0.2
"""Radian, and angstrom."""
DIFFERENCE = 1e-4
"""Of poses, by which the curvature is found."""
NEGLIGIBLE = 1e-5
"""Part of its transform at 0 below which that of an atom is left out."""


@dataclass(frozen=True, eq=False)
class Band:
    """The frequencies that are compared: half of them, the others being conjugates.

    Attributes
    ----------
    f : (frequency, 2)
        1/angstrom, x and y, of those at which atoms can be seen.
    envelope : (frequency,)
        Transform of an atom.
    degrees_of_freedom : int
        Values of the whole band.
    n_pixels : int
    pixel_size : float
    limit : float
        1/angstrom.
    """

    f: FloatArray
    envelope: FloatArray
    degrees_of_freedom: int
    n_pixels: int
    pixel_size: float
    limit: float

    @classmethod
    def of(cls, n_pixels: int, pixel_size: float, part: float, spread: float) -> Band:
        """A part of that of some pixels, for atoms of a standard deviation."""
        limit = part / (2 * pixel_size)
        fx, fy = _half_plane(n_pixels, pixel_size, limit)
        envelope = np.exp(-2 * np.pi**2 * spread**2 * (fx**2 + fy**2))
        seen = envelope > NEGLIGIBLE
        f = np.stack([fx[seen], fy[seen]], axis=1)
        return cls(f, envelope[seen], 2 * len(fx), n_pixels, pixel_size, limit)

    def images(self, pixels: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Transforms of images, real and imaginary parts, (image, 2 frequency), and the power of
        each in the whole band, (image,)."""
        n = self.n_pixels
        fx, fy = _half_plane(n, self.pixel_size, self.limit)
        axis = (np.arange(n) - n // 2) * self.pixel_size
        wave = [np.exp(-2j * np.pi * np.outer(f, axis)) for f in np.unique(np.abs(fx))[None]][0]
        del wave
        columns, rows = (np.rint(f * n * self.pixel_size).astype(int) for f in (fx, fy))
        phase = np.exp(2j * np.pi * (columns + rows) * (n // 2) / n)
        seen = np.exp(0 * fx) > 0
        seen[:] = False
        of_seen = {(round(a * n * self.pixel_size), round(b * n * self.pixel_size)) for a, b in self.f}
        seen[:] = [(c, r) in of_seen for c, r in zip(columns, rows, strict=True)]
        found, power = np.empty((len(pixels), 2 * len(self.f))), np.empty(len(pixels))
        for i, image in enumerate(pixels):
            values = np.fft.fft2(image)[rows, columns] * phase
            power[i] = (abs(values) ** 2).sum()
            found[i] = np.concatenate([values[seen].real, values[seen].imag])
        return found, power
