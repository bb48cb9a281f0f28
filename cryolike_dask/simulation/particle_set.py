"""Simulated particles: their structures, poses and optics, drawn or given, and the STAR tables
that record them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.simulation.rendering import Poses


@dataclass(frozen=True, eq=False)
class Particles:
    """Structures (positions in a list), poses and optics of particles."""

    which: NDArray[np.int64]
    poses: Poses
    optics: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.which)

    def take(self, rows: NDArray[np.int64]) -> Particles:
        """The particles of some rows."""
        return Particles(self.which[rows], self.poses.take(rows), self.optics[rows])


def draw_poses(n: int, max_displacement_angstrom: float, rng: np.random.Generator) -> Poses:
    """Draw poses uniformly: over directions, in-plane rotations, and a square of displacements."""
    limit = max_displacement_angstrom
    return Poses(
        azimuth=rng.uniform(0, 2 * np.pi, n),
        polar=np.arccos(rng.uniform(-1, 1, n)),
        gamma=rng.uniform(0, 2 * np.pi, n),
        displacement_x_angstrom=rng.uniform(-limit, limit, n),
        displacement_y_angstrom=rng.uniform(-limit, limit, n),
    )


def draw_optics(n: int, rng: np.random.Generator) -> NDArray[np.void]:
    """Draw the optics of a 300 kV microscope: defocus 0.8 to 1.8 micrometre with up to 0.05 of
    astigmatism."""
    mean, difference = rng.uniform(8000, 18000, n), rng.uniform(-500, 500, n)
    return optics_table(
        n,
        defocus_u_angstrom=mean + difference / 2,
        defocus_v_angstrom=mean - difference / 2,
        defocus_angle_radian=rng.uniform(-np.pi / 2, np.pi / 2, n),
        voltage_kilovolt=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )


def star_tables(
    particles: Particles, names: Sequence[str], parameters: ImageParameters
) -> dict[str, dict[str, NDArray[Any]]]:
    """Tables `optics` and `particles` of a RELION 3.1 STAR file."""
    optics, poses = particles.optics, particles.poses
    columns = ["voltage_kilovolt", "spherical_aberration_mm", "amplitude_contrast"]
    groups, group = np.unique(optics[columns], return_inverse=True)
    x, y = poses.shifts_angstrom()
    degrees = {
        name: np.degrees(values) for name, values in vars(poses).items() if "angstrom" not in name
    }
    return {
        "optics": {
            "rlnOpticsGroup": np.arange(len(groups)) + 1,
            "rlnOpticsGroupName": np.array([f"opticsGroup{i + 1}" for i in range(len(groups))]),
            "rlnVoltage": groups["voltage_kilovolt"],
            "rlnSphericalAberration": groups["spherical_aberration_mm"],
            "rlnAmplitudeContrast": groups["amplitude_contrast"],
            "rlnImagePixelSize": np.full(len(groups), parameters.pixel_size_angstrom),
            "rlnImageSize": np.full(len(groups), parameters.n_pixels),
            "rlnImageDimensionality": np.full(len(groups), 2),
        },
        "particles": {
            "rlnImageName": np.array(names),
            "rlnOpticsGroup": group.ravel() + 1,
            "rlnDefocusU": optics["defocus_u_angstrom"],
            "rlnDefocusV": optics["defocus_v_angstrom"],
            "rlnDefocusAngle": np.degrees(optics["defocus_angle_radian"]),
            "rlnPhaseShift": np.degrees(optics["phase_shift_radian"]),
            "rlnCtfBfactor": optics["b_factor_angstrom2"],
            "rlnCtfScalefactor": optics["scale"],
            "rlnAngleRot": degrees["azimuth"],
            "rlnAngleTilt": degrees["polar"],
            "rlnAnglePsi": degrees["gamma"],
            "rlnOriginXAngst": -x,
            "rlnOriginYAngst": -y,
            "rlnClassNumber": particles.which + 1,
            "rlnRandomSubset": np.arange(len(names)) % 2 + 1,
        },
    }
