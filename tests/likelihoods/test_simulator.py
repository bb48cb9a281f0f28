"""The simulator beside the benchmarks: that it knows nothing of the package, and makes what it
says."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks.independent_simulator import (
    Bump,
    Coloured,
    circular_mask,
    draw_noise,
    frequencies,
    low_pass,
    random_optics,
    random_poses,
    render,
    white,
)
from benchmarks.simulated_particles import CONDITIONS, simulate
from benchmarks.simulated_structures import protein, residues
from cryolike_dask import ImageParameters, open_particles

FOLDER = Path(benchmarks.__file__).parent
START = "independent_simulator"
ALLOWED = {"collections", "dataclasses", "gemmi", "numpy", "pathlib", "scipy", "typing"}


def imports(source: str) -> set[str]:
    """Names of all modules that a source imports, anywhere."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.add("import_module")
    return found


def wrong_imports(name: str, seen: set[str]) -> list[str]:
    """What a module of the benchmarks imports, itself or by others, that a witness must not."""
    seen.add(name)
    wrong = []
    for imported in imports((FOLDER / f"{name}.py").read_text()):
        if imported.startswith("benchmarks."):
            other = imported.removeprefix("benchmarks.")
            wrong += [] if other in seen else wrong_imports(other, seen)
        elif imported.split(".")[0] not in {*ALLOWED, "__future__"}:
            wrong.append(f"{name} imports {imported}")
    return wrong


@pytest.mark.parametrize("name", [START, "simulated_particles", "simulated_structures"])
def test_the_simulator_imports_nothing_of_the_package(name: str) -> None:
    assert wrong_imports(name, set()) == []


def test_imports_of_the_package_are_seen() -> None:
    inside = "def f():\n    from cryolike_dask.geometry import optics\n    import cryolike_dask"
    assert imports(inside) == {"cryolike_dask.geometry", "cryolike_dask"}
    assert wrong_imports("calibration", set())


def test_a_rendered_protein_is_the_sum_of_its_scattering_factors() -> None:
    rng = np.random.default_rng(3)
    n, pixel_size = 48, 1.5
    atoms = protein(20.0)
    molecule = atoms.scattering(200.0)  # next to nothing is beyond the band, and rings
    poses = random_poses(2, 4.0, rng)
    optics = random_optics(2, (0.0, 0.0), rng)
    for name in ("defocus_u_angstrom", "defocus_v_angstrom", "spherical_aberration_mm"):
        optics[name] = 0  # a contrast transfer of 1 leaves a particle inside its box
    optics["amplitude_contrast"] = 1
    found = np.fft.fft2(np.fft.ifftshift(render(molecule, poses, optics, n, pixel_size), (1, 2)))
    fx, fy = frequencies(n, pixel_size)
    centred = molecule.positions - molecule.positions.mean(axis=0)
    for image, matrix, dx, dy in zip(
        found, poses.matrices(), poses.origin_x, poses.origin_y, strict=True
    ):
        x, y, _ = matrix @ centred.T - [[dx], [dy], [0]]
        waves = np.exp(-2j * np.pi * (fx[..., None] * x + fy[..., None] * y))
        factors = (
            molecule.weights[:, None]
            * np.exp(-2 * np.pi**2 * molecule.variances[:, None] * np.ravel(fx**2 + fy**2)[:, None])
        ).sum(axis=2)
        expected = (waves * factors.T.reshape(n, n, -1)).sum(axis=2) / pixel_size**2
        inside = np.hypot(fx, fy) < 0.49 / pixel_size
        np.testing.assert_allclose(
            image[inside], expected[inside], rtol=0, atol=1e-4 * np.abs(expected).max()
        )
    assert {name[0] for name in atoms.names} == set("CNOS")


@pytest.mark.parametrize("spectrum", [white, Coloured(), Bump()], ids=["white", "coloured", "bump"])
def test_noise_has_its_spectrum_and_is_not_periodic_in_the_box(spectrum) -> None:
    n, pixel_size, n_images = 24, 3.0, 400
    noise = draw_noise(n_images, n, pixel_size, spectrum, np.random.default_rng(4))
    field = np.fft.ifft2(spectrum(np.hypot(*frequencies(2 * n, pixel_size)))).real
    # of all pairs of pixels in a row: next to each other, and at the two ends of the box
    error = field[0, 0] / np.sqrt(n_images * n)
    for distance in (0, 1, 2, n - 1):
        products = noise[:, :, : n - distance] * noise[:, :, distance:]
        assert abs(products.mean() - field[0, distance]) < 6 * error
    if spectrum is not white:
        assert field[0, 1] > 6 * error > abs(field[0, n - 1])


def test_particles_are_read_as_they_were_drawn(tmp_path: Path) -> None:
    condition = next(c for c in CONDITIONS if c.name == "micrographs")
    drawn = simulate(condition, (residues(0.0), residues(28.6)), 30, [5])
    parameters = ImageParameters(condition.n_pixels, condition.pixel_size)
    images = open_particles(drawn.write(tmp_path), parameters)
    rows = np.arange(30)
    np.testing.assert_allclose(images.source.pixels(rows), drawn.pixels, rtol=0, atol=1e-6)
    for name in ("defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_radian"):
        np.testing.assert_allclose(images.optics[name], drawn.optics[name], atol=1e-5)
    assert len(np.unique(drawn.micrograph)) > 5
    assert images.groups is not None
    assert [name for name, _ in images.groups] == [f"{i:04d}.mrc" for i in drawn.micrograph]
    assert 10 < drawn.is_first.sum() < 20


def test_masks_and_low_passes_leave_out_what_they_say() -> None:
    n, pixel_size = 32, 3.0
    noise = draw_noise(20, n, pixel_size, white, np.random.default_rng(6))
    power = (np.abs(np.fft.fft2(low_pass(noise, pixel_size, 8.0))) ** 2).mean(axis=0)
    f = np.hypot(*frequencies(n, pixel_size))
    assert power[f > 1 / 7.4].max() < 1e-20 * power.max()
    assert power[f < 1 / 8.8].min() > 0.2 * n**2
    mask = circular_mask(n, 0.35, 0.35)
    assert abs(mask.sum() - np.pi * (0.35 * n) ** 2) < 0.03 * mask.sum()
    assert mask[16, 16 + 11] == 1
    assert mask[16, 16 + 12] == 0
