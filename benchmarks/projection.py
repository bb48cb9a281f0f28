"""How fast are templates projected, and particles transformed, where they are compared, and how
exact is it?

`host` is the non-uniform FFT of one thread, as lazy stacks are made on a CPU. `device` is torch: a
structure is transformed once ("making", and the memory that is kept), and its slices are
interpolated; particles are transformed many at a time, and interpolated at the same points. Errors
are largest differences from a non-uniform FFT in double precision, relative to the largest value.

Beside it what a view moves and computes on the device, counted: of each point the values under its
window are gathered, written and read again, with their places and weights. "H100 at best" is the
time that a bandwidth of 3.35 TB/s and 67 Tflop/s leave for the slower of the two: an estimate,
which no GPU has confirmed.

    python -m benchmarks.projection [--device cpu] [--pixels 132] [--views 16] [--images 64]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from benchmarks.contenders import seconds
from cryolike_dask import Atoms, Volume
from cryolike_dask.conventions import STANDARD
from cryolike_dask.geometry.polar_grid import PolarGrid
from cryolike_dask.geometry.viewing_angles import viewing_rotation
from cryolike_dask.particles.on_device import Transform
from cryolike_dask.particles.transform import stack_and_rings
from cryolike_dask.structures.on_device import Central, central
from cryolike_dask.structures.projection import EPS, project_half_rings

BANDWIDTH, FLOPS = 3.35e12, 67e12
"""Of an H100 in single precision, by its data sheet."""
PIXEL_SIZE = 1.5

Made = TypeVar("Made")


@dataclass(frozen=True)
class Row:
    """What was measured of one kind of input.

    Attributes
    ----------
    name : str
    making_seconds, megabytes : float
        Before the first view; 0 of images.
    host_ms, device_ms : float
        Of one view or image.
    host_error, device_error : float
    """

    name: str
    making_seconds: float
    megabytes: float
    host_ms: float
    device_ms: float
    host_error: float
    device_error: float

    def __str__(self) -> str:
        return (
            f"{self.name:<28}{self.making_seconds:>9.2f} s{self.megabytes:>7.0f} MB"
            f"{self.host_ms:>9.2f} ms{self.device_ms:>9.2f} ms"
            f"{self.host_error:>9.1e}{self.device_error:>9.1e}"
        )


def counted(transform: Central) -> tuple[float, float]:
    """Bytes and flops of one view."""
    w, item = transform.gridded.window.width, transform.gridded.values.element_size()
    points, of_plane = transform.kx.numel(), w**2
    gathered = 3 * of_plane * 2 * w * item
    places = 2 * of_plane * (8 + item)
    windows = 3 * w * (6 * 8 + item)
    flops = 2 * of_plane * 2 * w + 4 * w + of_plane + 3 * w * 80
    return float(points * (gathered + places + windows)), float(points * flops)


def structures(
    n_pixels: int, n_atoms: tuple[int, int], rng: np.random.Generator
) -> dict[str, Atoms | Volume]:
    """A map of noise under an envelope; residues, and atoms that scatter, so many."""
    axis = np.arange(n_pixels) - n_pixels // 2
    square = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    envelope = np.exp(-square / (2 * (n_pixels / 8) ** 2))
    values = (envelope * (1 + rng.standard_normal(envelope.shape))).astype(np.float32)
    spread = PIXEL_SIZE * n_pixels / 8
    residues, atoms = (np.clip(rng.standard_normal((n, 3)), -2, 2) * spread for n in n_atoms)
    radii = rng.uniform(2, 3.5, 11)[rng.integers(11, size=len(residues))]
    electrons = np.full(len(residues), 60.0)
    elements, b_factors = rng.choice([6, 7, 8, 16], len(atoms)), rng.uniform(20, 100, len(atoms))
    return {
        "map": Volume(values, (PIXEL_SIZE,) * 3),
        f"{n_atoms[0]} residues": Atoms(residues, electrons, radii, "hard-sphere"),
        f"{n_atoms[1]} atoms that scatter": Atoms.scattering(atoms, elements, b_factors),
    }


def of_structure(
    name: str, structure: Atoms | Volume, grid: PolarGrid, device: torch.device, n_views: int
) -> tuple[Row, Central]:
    """Project along random directions."""
    rotations = viewing_rotation(*np.random.default_rng(1).uniform(0, 6, (3, n_views)))
    project = partial(project_half_rings, structure, grid, rotations, STANDARD)
    exact = project(1e-13)
    made: list[Central] = []
    making = seconds(
        lambda: made.append(central(structure, grid, STANDARD, "single", device)), device.type
    )
    found, device_ms = timed(lambda: made[0].half_rings(rotations), device.type, n_views)
    host, host_ms = timed(lambda: project(EPS["single"]), "cpu", n_views)
    megabytes = made[0].gridded.n_bytes / 1e6
    errors = worst(host, exact), worst(found.cpu().numpy(), exact)
    return Row(name, making, megabytes, host_ms, device_ms, *errors), made[0]


def of_images(grid: PolarGrid, device: torch.device, n_images: int) -> Row:
    """Transform images of noise, with the sums over their rings."""
    images = np.random.default_rng(2).standard_normal((n_images, grid.n_pixels, grid.n_pixels))
    transform = Transform.of(grid, "single", device, resolves_corners=True)
    exact = stack_and_rings(images, grid, "double")[0]
    (found, _), device_ms = timed(
        lambda: transform.stack_and_rings(images, None, None), device.type, n_images
    )
    (host, _), host_ms = timed(lambda: stack_and_rings(images, grid), "cpu", n_images)
    half = grid.n_inplanes // 2
    error = worst(found.cpu().numpy(), exact[..., :half])
    megabytes = transform.points.weights.numel() * (8 + 4) / 1e6
    return Row("particles", 0.0, megabytes, host_ms, device_ms, worst(host, exact), error)


def timed(make: Callable[[], Made], device: str, n: int) -> tuple[Made, float]:
    """What is made, and milliseconds for each of n: the faster of two."""
    made: list[Made] = []
    fastest = min(seconds(lambda: made.append(make()), device) for _ in range(2))
    return made[-1], fastest * 1e3 / n


def worst(found: np.ndarray, exact: np.ndarray) -> float:
    """Largest difference, of the largest value."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def run(
    n_pixels: int,
    device: torch.device,
    n_views: int,
    n_images: int,
    n_atoms: tuple[int, int] = (3000, 24000),
) -> list[Row]:
    """Measure all kinds and print their table."""
    torch.set_num_threads(1)
    grid = PolarGrid(n_pixels, PIXEL_SIZE, n_pixels / 4, 2 * (n_pixels - n_pixels % 2))
    print(f"{n_pixels} px, {grid.n_shells} shells, {grid.n_inplanes} angles; {device.type}")
    print(f"{'':<28}{'making':>11}{'kept':>10}{'host':>12}{'device':>12}{'errors':>18}")
    rows = []
    for name, structure in structures(n_pixels, n_atoms, np.random.default_rng(0)).items():
        row, transform = of_structure(name, structure, grid, device, n_views)
        rows.append(row)
        print(row)
    rows.append(of_images(grid, device, n_images))
    print(rows[-1])
    n_bytes, flops = counted(transform)
    least = max(n_bytes / BANDWIDTH, flops / FLOPS) * 1e3
    print(
        f"a view moves {n_bytes / 1e6:.0f} MB and takes {flops / 1e6:.0f} Mflop; "
        f"H100 at best (estimate): {least:.3f} ms"
    )
    return rows


def main() -> None:
    """Run it on the device that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--pixels", type=int, default=132)
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--images", type=int, default=64)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    with torch.inference_mode():
        run(arguments.pixels, device, arguments.views, arguments.images)


if __name__ == "__main__":
    main()
