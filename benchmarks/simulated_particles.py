"""Particles of two similar structures under one condition, drawn and written as a user has them: a
STAR file and image stacks. Nothing of the package is used here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.independent_simulator import (
    Bump,
    Coloured,
    FloatArray,
    Molecule,
    Spectrum,
    StarPoses,
    circular_mask,
    draw_noise,
    low_pass,
    matched_power,
    random_optics,
    random_poses,
    render,
    white,
)

MOST_PER_FILE = 500
WHITE = (white,)
MICROGRAPHS = tuple(
    Coloured(length, part) for length in (8.0, 14.0, 20.0, 28.0) for part in (0.0, 0.25, 0.5)
)


@dataclass(frozen=True)
class Condition:
    """What images are like.

    Attributes
    ----------
    name : str
    n_pixels : int
    pixel_size : float
        Angstrom.
    spectra : tuple of functions
        Of the noise, one for each micrograph.
    mask : (float, float) or None
        Where a circular mask begins and ends to fall, parts of the box's side.
    low_pass : float or None
        Angstrom.
    b_factor : float
        Angstrom^2, in the images and not in their metadata.
    atoms : bool
        Proteins of all atoms, and not residues.
    matched : float
        Mean over particles of their power over that of the noise, summed over the box; of white
        noise, a signal-to-noise ratio of pixels times their number.
    finer : float
        How many times as finely as others to be searched: the stronger a signal, the more is lost
        between poses.
    largest_displacement : float
        Angstrom, along x and y.
    defocus : (float, float)
        Angstrom.
    opening : float
        Degrees by which the second lobe of the second structure is turned, where residues are
        simulated.
    """

    name: str
    n_pixels: int = 32
    pixel_size: float = 3.0
    spectra: tuple[Spectrum, ...] = WHITE
    mask: tuple[float, float] | None = None
    low_pass: float | None = None
    b_factor: float = 0.0
    atoms: bool = False
    matched: float = 180.0
    finer: float = 1.0
    largest_displacement: float = 3.75
    defocus: tuple[float, float] = (5000.0, 10000.0)
    opening: float = 75.0

    @property
    def is_plain(self) -> bool:
        """White noise in the whole box and band, and nothing that metadata do not know."""
        others = (self.mask, self.low_pass, self.b_factor or None, self.atoms or None)
        return self.spectra == WHITE and not any(others)


ATOMS = Condition(
    "atoms",
    n_pixels=40,
    pixel_size=2.0,
    atoms=True,
    matched=80.0,
    largest_displacement=2.5,
    defocus=(4000.0, 8000.0),
)
CONDITIONS = (
    Condition("white"),
    Condition("coloured", spectra=(Coloured(),)),
    Condition("mild", spectra=(Coloured(white_part=0.5),)),
    Condition("bump", spectra=(Bump(),)),
    Condition("micrographs", spectra=MICROGRAPHS),
    Condition("mask 0.45", mask=(0.45, 0.45)),
    Condition("mask 0.35", mask=(0.35, 0.35)),
    Condition("soft mask", mask=(0.32, 0.42)),
    Condition("low-pass", low_pass=8.0),
    replace(ATOMS, name="envelope", b_factor=100.0),
    ATOMS,
    Condition("weak", matched=0.05 * 32**2),
    Condition("strong", matched=0.35 * 32**2, opening=45.0, finer=1.6),
)


@dataclass(frozen=True, eq=False)
class Particles:
    """Images and how they were made.

    Attributes
    ----------
    pixels : float32, (image, row, column)
    is_first : bool, (image,)
        Whether an image shows the first structure.
    poses : StarPoses
    optics : (image,)
        As the metadata say: without the envelope.
    micrograph : int, (image,)
    """

    condition: Condition
    pixels: NDArray[np.float32]
    is_first: NDArray[np.bool_]
    poses: StarPoses
    optics: Any = field(repr=False)
    micrograph: NDArray[np.int64]

    def write(self, folder: Path) -> Path:
        """Write image stacks and a STAR file of RELION 3.1; returns the latter."""
        folder.mkdir(parents=True, exist_ok=True)
        names = []
        for k, start in enumerate(range(0, len(self.pixels), MOST_PER_FILE)):
            part = self.pixels[start : start + MOST_PER_FILE]
            write_mrcs(folder / f"{k}.mrcs", part, self.condition.pixel_size)
            names += [f"{i + 1:06d}@{k}.mrcs" for i in range(len(part))]
        path = folder / "particles.star"
        path.write_text(_star(self, names))
        return path


def simulate(
    condition: Condition, structures: tuple[Molecule, Molecule], n_images: int, seed: list[int]
) -> Particles:
    """Draw particles, each of either structure with the same probability."""
    rng = np.random.default_rng(seed)
    n, pixel_size = condition.n_pixels, condition.pixel_size
    poses = random_poses(n_images, condition.largest_displacement, rng)
    optics = random_optics(n_images, condition.defocus, rng)
    enveloped = optics.copy()
    enveloped["b_factor_angstrom2"] = condition.b_factor
    is_first = rng.random(n_images) < 0.5
    pixels = np.empty((n_images, n, n))
    for molecule, chosen in zip(structures, (is_first, ~is_first), strict=True):
        pixels[chosen] = render(molecule, poses[chosen], enveloped[chosen], n, pixel_size)
    micrograph = np.sort(rng.integers(0, len(condition.spectra), n_images))
    # one level for all images of a micrograph: scaled to each particle it would tell which
    # structure and pose it is
    levels = [
        np.sqrt(matched_power(pixels, pixel_size, spectrum) / condition.matched)
        for spectrum in condition.spectra
    ]
    for number, (spectrum, level) in enumerate(zip(condition.spectra, levels, strict=True)):
        of = np.flatnonzero(micrograph == number)
        pixels[of] += level * draw_noise(len(of), n, pixel_size, spectrum, rng)
    if condition.low_pass is not None:
        pixels = low_pass(pixels, pixel_size, condition.low_pass)
    if condition.mask is not None:
        pixels *= circular_mask(n, *condition.mask)
    return Particles(condition, pixels.astype(np.float32), is_first, poses, optics, micrograph)


def variance_map(condition: Condition) -> FloatArray:
    """Variance of the noise over the box, 1 in the middle, (row, column)."""
    n = condition.n_pixels
    return np.ones((n, n)) if condition.mask is None else circular_mask(n, *condition.mask) ** 2


def write_mrcs(path: Path, pixels: NDArray[np.float32], pixel_size: float) -> None:
    """Write a stack of images in the MRC format of 2014, mode 2."""
    count, rows, columns = pixels.shape
    header = bytearray(1024)
    words = np.frombuffer(header, "<i4")
    sizes = np.frombuffer(header, "<f4")
    words[:4] = columns, rows, count, 2
    words[7:10] = columns, rows, count
    sizes[10:13] = columns * pixel_size, rows * pixel_size, count * pixel_size
    sizes[13:16] = 90
    words[16:19] = 1, 2, 3
    sizes[19:22] = pixels.min(), pixels.max(), pixels.mean()
    words[27] = 20140
    header[208:216] = b"MAP DD\0\0"
    sizes[54] = pixels.std()
    path.write_bytes(bytes(header) + np.ascontiguousarray(pixels, "<f4").tobytes())


def _star(particles: Particles, names: list[str]) -> str:
    """The text of a STAR file: one optics group, and a row for each image."""
    condition, optics, poses = particles.condition, particles.optics, particles.poses
    microscope = {
        "OpticsGroupName": "opticsGroup1",
        "OpticsGroup": 1,
        "Voltage": optics["voltage_kilovolt"][0],
        "SphericalAberration": optics["spherical_aberration_mm"][0],
        "AmplitudeContrast": optics["amplitude_contrast"][0],
        "ImagePixelSize": condition.pixel_size,
        "ImageSize": condition.n_pixels,
        "ImageDimensionality": 2,
    }
    columns = {
        "ImageName": names,
        "MicrographName": [f"{i:04d}.mrc" for i in particles.micrograph],
        "DefocusU": optics["defocus_u_angstrom"],
        "DefocusV": optics["defocus_v_angstrom"],
        "DefocusAngle": np.degrees(optics["defocus_angle_radian"]),
        "OpticsGroup": np.ones(len(names), int),
        "AngleRot": poses.rot,
        "AngleTilt": poses.tilt,
        "AnglePsi": poses.psi,
        "OriginXAngst": poses.origin_x,
        "OriginYAngst": poses.origin_y,
    }
    return "\n".join(
        [
            *_table("optics", list(microscope), [list(microscope.values())]),
            *_table("particles", list(columns), list(zip(*columns.values(), strict=True))),
            "",
        ]
    )


def _table(name: str, labels: list[str], rows: list[Any]) -> list[str]:
    heads = [f"_rln{label} #{i + 1}" for i, label in enumerate(labels)]
    lines = [" ".join(f"{v:.6f}" if isinstance(v, float) else str(v) for v in row) for row in rows]
    return [f"\ndata_{name}\n", "loop_", *heads, *lines]
