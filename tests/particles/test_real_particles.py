"""Seven real images, described by a STAR file and by a `.cs` file: both say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cryolike_dask import (
    ImageParameters,
    configure_displacement,
    configure_likelihood_files,
    convert_particles,
    estimate_noise,
    make_templates,
    open_images,
    open_particles,
    plot_noise,
    run_likelihood_optimal_pose,
)
from cryolike_dask.conventions import STANDARD
from cryolike_dask.geometry.leak import leaked
from cryolike_dask.geometry.optics import OPTICS, electron_wavelength_angstrom
from cryolike_dask.likelihoods.kernels import contrast_transfer
from cryolike_dask.likelihoods.signal import power_of_rings
from cryolike_dask.particles.noise import LOWEST_SHELL, degrees_of_freedom_of_shells
from tests.real_density import leucines, write_pdb
from tests.real_space import relion_ctf, two_lobes

REAL = Path(__file__).parents[2] / ".." / "shared" / "real" / "empiar10076"
N, SIZE = 320, 1.31
PARAMETERS = ImageParameters(40, SIZE * N / 40, viewing_distance=0.8, atom_shape="gaussian")


@pytest.fixture(scope="module")
def particles():
    """The two descriptions of the set, and how each is opened bright on dark."""
    if not REAL.is_dir():
        pytest.skip(f"the real particles are not at {REAL}")
    return {
        "star": (REAL.resolve() / "empiar_10076_7.star", {"invert_contrast": True}),
        "cs": (REAL.resolve() / "empiar_10076_7.cs", {}),
    }


@pytest.fixture(scope="module")
def opened(particles):
    return {
        kind: open_particles(path, PARAMETERS, **options)
        for kind, (path, options) in particles.items()
    }


def test_images_are_the_same(opened):
    rows = np.arange(7)
    star, cs = (opened[kind].source.take(rows) for kind in ("star", "cs"))
    np.testing.assert_array_equal(star, cs)


def test_contrast_transfer_is_the_same(opened):
    grid = ImageParameters(N // 2, 2 * SIZE).grid
    fx, fy = (2 * k / grid.box_size_angstrom for k in grid.points())
    star, cs = (contrast(opened[kind].optics, grid) for kind in ("star", "cs"))
    # The .cs file holds float32. Measured up to 5.2 angstrom: 8.2e-7, and 1.7e-8 from the witness.
    np.testing.assert_allclose(star, cs, rtol=0, atol=3e-6)
    for kind, values in (("star", star), ("cs", cs)):
        witness = np.stack([relion_ctf(record, fx, fy) for record in opened[kind].optics])
        np.testing.assert_allclose(values, witness, rtol=0, atol=6e-8)


def contrast(optics, grid):
    return contrast_transfer(
        {name: torch.from_numpy(optics[name].copy()) for name in OPTICS.names},
        torch.from_numpy(electron_wavelength_angstrom(optics["voltage_kilovolt"])),
        torch.from_numpy(grid.spatial_frequencies),
        torch.from_numpy(grid.angles),
        signed_astigmatism=True,
        envelope=True,
    ).numpy()


def test_they_go_through_the_likelihood(particles, tmp_path):
    """A structure of no relation to them: results are finite, and the same from both
    descriptions."""
    structure = write_pdb(tmp_path / "lobes.pdb", leucines(4 * two_lobes(40)))
    make_templates(structure, PARAMETERS, tmp_path / "templates", progress=False)
    results = []
    for kind, (path, options) in particles.items():
        convert_particles(path, PARAMETERS, tmp_path / kind, progress=False, **options)
        files = configure_likelihood_files(
            tmp_path / "templates", tmp_path / kind, tmp_path / f"out_{kind}"
        )
        assert len(open_images(files, PARAMETERS)) == 7
        search = configure_displacement(4.0, 5, 5)
        results.append(
            run_likelihood_optimal_pose(
                files, PARAMETERS, search, progress=False, noise="white"
            ).compute()
        )
    for name, values in results[0].data_vars.items():
        assert np.isfinite(values).all(), name
    assert (results[0].cross_correlation > 0).all()
    # measured: equal, since the contrast transfers differ by 3e-8
    np.testing.assert_allclose(
        results[1].cross_correlation, results[0].cross_correlation, rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(results[1].optimal_template, results[0].optimal_template)


def unevenness(power, grid, error):
    """Root mean square, over shells, of how far mean power is from level, in its errors."""
    told = grid.radii >= LOWEST_SHELL
    levels = np.average(power[:, told], axis=1, weights=grid.weights[told])
    mean = (power / levels[:, None]).mean(axis=0)
    return float(np.sqrt(((mean - 1)[told] ** 2 / error[told] ** 2).mean()))


@pytest.mark.parametrize("n_pixels", [64, 100])
def test_their_whitened_power_is_flat(particles, n_pixels):
    """Within its error: what seven images leave to chance, and what the estimate says of itself.
    Signal is left in the noise, and Thon rings with it."""
    path, options = particles["star"]
    parameters = ImageParameters(n_pixels, SIZE * N / n_pixels)
    images, grid = open_particles(path, parameters, **options), parameters.grid
    model = estimate_noise(images)
    power, _ = power_of_rings(images, STANDARD)
    by_chance = np.sqrt(2 / (7 * degrees_of_freedom_of_shells(grid)))
    error = np.hypot(by_chance, model.relative_error[0])
    expected = leaked(model.variance, model.frequencies, model.band_limit, grid)
    whitened, as_it_is = (unevenness(p, grid, error) for p in (power / expected, power))
    print(f"{n_pixels} pixels: uneven by {whitened:.2f} errors, without whitening {as_it_is:.2f}")
    assert whitened < 1.3
    assert as_it_is > 3
    (axes, *_) = plot_noise(model).axes
    frequencies, drawn = axes.lines[0].get_data()
    assert len(frequencies) == grid.n_shells
    np.testing.assert_allclose(
        drawn[1:] / drawn[-1], (model.variance[0] / model.variance[0, -1])[1:]
    )
