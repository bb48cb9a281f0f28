"""Images and templates that are made on the device of a task: whole comparisons on a pretended GPU,
against those on a CPU."""

from __future__ import annotations

from dataclasses import replace

import mrcfile
import numpy as np
import pytest

from benchmarks.pretended_gpu import GPU, pretended_gpu
from cryolike_dask import (
    ImageParameters,
    configure_displacement,
    open_particles,
    open_structure,
)
from cryolike_dask.errors import ZeroPowerError
from cryolike_dask.io.sources import InMemory, on_device
from cryolike_dask.io.star import write_star
from cryolike_dask.likelihoods.search.coarser import Coarser, coarser_grid
from cryolike_dask.particles.transform import fourier_to_pixels
from cryolike_dask.structures.atoms import Atoms
from cryolike_dask.structures.sources import StructureInMemory
from cryolike_dask.structures.volumes import Volume
from tests.conftest import Builder
from tests.likelihoods.test_pretended_gpu import fields_of, searched
from tests.likelihoods.test_pretended_gpu import without_triton as without_triton
from tests.real_space import two_lobes


@pytest.fixture
def build():
    """Always the same inputs: of others two poses might be as good to rounding."""
    return Builder(np.random.default_rng(3))


@pytest.fixture
def lazy(build, tmp_path):
    """Particles in files, and templates of atoms, neither of them made yet."""
    atoms = Atoms(two_lobes(8)[::2], np.full(24, 62.0), np.full(24, 3.0))
    parameters = ImageParameters(16, 4.0, n_inplanes=32, viewing_distance=0.8, precision="double")
    templates = open_structure(atoms, parameters)
    chosen = build.rng.integers(len(templates.viewing), size=5)
    pixels = fourier_to_pixels(templates.source.take(chosen), parameters.grid)
    pixels += pixels.std() * build.rng.standard_normal(pixels.shape)
    with mrcfile.new(tmp_path / "images.mrcs") as mrc:
        mrc.set_data(pixels.astype(np.float32))
    names = np.array([f"{i + 1}@images.mrcs" for i in range(5)])
    numbers = {"Voltage": 300, "SphericalAberration": 2.7, "AmplitudeContrast": 0.1}
    numbers |= {"DefocusU": 9e3, "DefocusV": 8e3, "DefocusAngle": 20, "PixelSize": 4}
    columns = {f"rln{name}": np.full(5, float(value)) for name, value in numbers.items()}
    origins = {f"rlnOrigin{x}Angst": build.rng.uniform(-3, 3, 5) for x in "XY"}
    star = tmp_path / "particles.star"
    write_star(star, {"": {"rlnImageName": names, **columns, **origins}})

    def opened(precision, **options):
        of_run = replace(parameters, precision=precision)
        structure = open_structure(atoms, of_run, conventions="standard")
        return open_particles(star, of_run, **options), configure_displacement(1, 3, 3)(structure)

    return opened


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("options", [{}, {"recenter": True}])
def test_images_and_templates_that_are_made_on_the_device(lazy, options, precision):
    images, templates = lazy(precision, **options)
    with pretended_gpu() as gpu:
        found = searched(images, templates, precision)("cuda")
    assert any("structures/on_device" in line for line in gpu.launches)
    assert any("particles/on_device" in line for line in gpu.launches)
    expected = fields_of(searched(images, templates, precision)("cpu"))
    for name, values in fields_of(found).items():
        # single precision: of images by the non-uniform FFT, whose points are rounded
        within = {"single": {"rtol": 0, "atol": 2e-3 if "likelihood" in name else 2e-6}}
        within["double"] = {"rtol": 0, "atol": 1e-8 if "likelihood" in name else 1e-11}
        if name == "correlation_error_bound":  # on GPUs also of what split operands round
            within["single"]["atol"] = 1e-4
        np.testing.assert_allclose(values, expected[name], **within[precision], err_msg=name)


def test_images_and_templates_are_made_while_the_program_goes_on(lazy):
    """What all of them share is sent when it is made: not again for the images that are compared
    next."""
    images, templates = lazy("single")
    lines = ("fourier/", "structures/", "particles/", "io/", "likelihoods/reading")
    for _ in range(2):
        with pretended_gpu() as gpu:
            searched(images, templates)("cuda")
        waits = [line for line in gpu.waits if line.startswith(lines)]
        assert not waits
        sent = [line for line in gpu.sent if line.startswith(lines)]
    assert not sent


def test_templates_without_power_are_refused_by_name(lazy):
    images, templates = lazy("single")
    structure = StructureInMemory(Volume(np.zeros((8, 8, 8)), (4.0, 4.0, 4.0)))
    empty = replace(templates, source=replace(templates.source, structure=structure))
    with pretended_gpu(), pytest.raises(ZeroPowerError, match=r"in memory: template\(s\) 0, 1, 2"):
        searched(images, empty)("cuda")
    with pretended_gpu(), pytest.raises(ZeroPowerError, match="no power"):
        searched(images, empty, tolerance=0)("cuda")


def test_a_part_of_the_band_of_what_is_made_on_the_device(lazy, build):
    images, templates = lazy("double")
    grid, rows = coarser_grid(images.grid, 0.5), build.rng.permutation(5)[:3]
    for source in (images.source, templates.source):
        coarse = Coarser(source, images.grid, grid)
        with pretended_gpu():
            found = on_device(coarse, rows, GPU).half_rings.cpu().numpy()
        expected = coarse.take(rows)[..., : grid.n_inplanes // 2]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
        assert on_device(Coarser(InMemory(source.take(rows)), images.grid, grid), rows, GPU) is None
