"""Particle sets into image stacks: every image is the right one, a run can be gone on with, and
what is refused."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import gemmi
import mrcfile
import numpy as np
import pytest
import torch

from cryolike_dask.errors import (
    GridMismatchError,
    InputError,
    InputFileError,
    NotFiniteError,
    OutputError,
    ZeroPowerError,
)
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.mrc import MrcStack
from cryolike_dask.io.results import open_optimal_pose
from cryolike_dask.io.star import write_star
from cryolike_dask.likelihoods.interface import compute_optimal_pose
from cryolike_dask.particles import converting
from cryolike_dask.particles import images as particle_images
from cryolike_dask.particles.converting import convert_particles
from cryolike_dask.particles.images import ParticleImages, Preparation
from cryolike_dask.particles.opening import open_particles
from cryolike_dask.particles.table import ParticleTable
from cryolike_dask.particles.transform import normalised_stack, scaled, stack_and_rings
from cryolike_dask.run_likelihood import run_likelihood_optimal_pose
from cryolike_dask.stacks import ImageStack, open_images
from cryolike_dask.structures.making import make_templates
from cryolike_dask.structures.opening import open_structures

N = 12
PARAMETERS = ImageParameters(N, 1.5, n_inplanes=20, viewing_distance=2.5)
SEARCH = DisplacementSearch(1.5, 3, 2)


def picture(k: int, n: int = N) -> np.ndarray:
    """A blob whose place and width tell which image it is; integers, so that every type of file
    holds it."""
    y, x = np.mgrid[:n, :n] / n
    where = 0.35 + 0.3 * np.array([k % 5 / 4, k // 5 % 5 / 4])
    blob = np.exp(-((x - where[0]) ** 2 + (y - where[1]) ** 2) / (0.02 + 0.001 * k))
    return np.round(100 * blob).astype(np.float32)


def pictures(ks: Any, n: int = N) -> np.ndarray:
    return np.stack([picture(k, n) for k in ks])


def on_grid(images: np.ndarray, precision: str = "single") -> np.ndarray:
    """What a stack holds of images."""
    return stack_and_rings(images, PARAMETERS.grid, precision)[0]


def write_mrcs(path: Path, images: np.ndarray, pixel: float = 1.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore")  # of values that are not finite
        file.set_data(images)
        file.set_image_stack()
        file.voxel_size = pixel
    return path


def describe(
    path: Path, names: list[str], pixel: float | None = 1.5, box: int | None = N, **columns: Any
) -> Path:
    """Write a STAR file of RELION 3.1; image k has the defocus 10000 + 10 k angstrom."""
    n = len(names)
    optics = {
        "rlnOpticsGroup": [1],
        "rlnVoltage": [300.0],
        "rlnSphericalAberration": [2.7],
        "rlnAmplitudeContrast": [0.1],
    }
    optics |= {} if pixel is None else {"rlnImagePixelSize": [pixel]}
    optics |= {} if box is None else {"rlnImageSize": [box]}
    defocus = 10000.0 + 10 * np.arange(n)
    particles = {
        "rlnImageName": names,
        "rlnOpticsGroup": [1] * n,
        "rlnDefocusU": defocus,
        "rlnDefocusV": defocus - 500,
        "rlnDefocusAngle": [30.0] * n,
        "rlnPhaseShift": [0.0] * n,
        "rlnCtfBfactor": [0.0] * n,
        "rlnCtfScalefactor": [1.0] * n,
        **columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = {"optics": optics, "particles": particles}
    write_star(
        path,
        {t: {name: np.asarray(v) for name, v in columns.items()} for t, columns in tables.items()},
    )
    return path


@dataclass
class Project:
    """A project folder with a particle set of 10 images in two files, out of order."""

    folder: Path

    @property
    def star(self) -> Path:
        return self.folder / "run" / "particles.star"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    order = (3, 0, 7, 8, 1, 2, 9, 4, 6, 5)

    def write(self, **options: Any) -> Path:
        """Image k is picture k: 0 to 5 in `a.mrcs`, 6 to 9 in `b.mrcs`."""
        write_mrcs(self.folder / "stacks" / "a.mrcs", pictures(range(6)))
        write_mrcs(self.folder / "stacks" / "b.mrcs", pictures(range(6, 10)))
        names = [
            f"{k + 1:06d}@stacks/a.mrcs" if k < 6 else f"{k - 5:06d}@stacks/b.mrcs"
            for k in self.order
        ]
        return describe(self.star, names, **options)

    def convert(
        self,
        metadata: Any = None,
        params: Any = PARAMETERS,
        output: Path | None = None,
        **options: Any,
    ):
        """Convert, four images per stack."""
        given = {"batch_size": 4, "progress": False, **options}
        return convert_particles(metadata or self.star, params, output or self.output, **given)

    def pixels(self, output: Path | None = None) -> np.ndarray:
        files = sorted(((output or self.output) / "phys").glob("*.pt"))
        return np.concatenate([load(path) for path in files])

    def fourier(self, output: Path | None = None) -> np.ndarray:
        files = sorted(((output or self.output) / "fft").glob("*.pt"))
        return np.concatenate([load(path) for path in files])

    def tree(self) -> list[str]:
        """All that is written, but for the claim of the folder."""
        names = {str(p.relative_to(self.output)) for p in self.output.rglob("*") if p.is_file()}
        assert ".claim-image-stacks.json" in names
        return sorted(names - {".claim-image-stacks.json"})

    def times(self) -> dict[str, int]:
        return {
            str(p.relative_to(self.output)): p.stat().st_mtime_ns
            for p in self.output.rglob("*")
            if p.is_file()
        }


def load(path: Path) -> np.ndarray:
    return torch.load(path, weights_only=True).numpy()


def entries(path: Path) -> dict[str, np.ndarray]:
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive}


@pytest.fixture
def project(tmp_path):
    """A good project in a folder with an awkward name."""
    project = Project(tmp_path / "my project ä #1")
    project.write()
    return project


# --- every image is the right one ---


def test_images_are_restacked_in_the_order_of_the_metadata(project):
    files = project.convert()
    assert files == [
        project.output / "fft" / f"particles_fourier_stack_{k:06d}.pt" for k in range(3)
    ]
    assert project.tree() == [
        *[f"done/stack_{k:06d}.json" for k in range(3)],
        *[f"fft/particles_fourier_stack_{k:06d}.{s}" for k in range(3) for s in ("npz", "pt")],
        *[f"phys/particles_phys_stack_{k:06d}.pt" for k in range(3)],
    ]
    assert [load(f).shape for f in files] == [(n, *PARAMETERS.grid.shape) for n in (4, 4, 2)]
    expected = pictures(project.order)
    np.testing.assert_array_equal(project.pixels(), scaled(expected).astype(np.float32))
    np.testing.assert_allclose(project.fourier(), on_grid(expected), atol=1e-6)
    opened = open_images(LikelihoodFiles(None, project.output, project.output), PARAMETERS)
    assert opened.chunks == (4, 4, 2)
    assert opened.frame == "xy"
    np.testing.assert_allclose(opened.optics["defocus_u_angstrom"], 10000 + 10 * np.arange(10))


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1000])
def test_batches_change_nothing_but_the_files(project, batch_size):
    files = project.convert(batch_size=batch_size)
    assert len(files) == -(-10 // batch_size)
    np.testing.assert_array_equal(
        project.pixels(), scaled(pictures(project.order)).astype(np.float32)
    )


def test_images_are_read_few_at_a_time(project, monkeypatch):
    project.convert(output=project.folder / "whole", batch_size=10)
    monkeypatch.setattr(particle_images, "AT_ONCE", 3)
    monkeypatch.setattr("cryolike_dask.particles.converting.AT_ONCE", 3)
    project.convert(batch_size=10)
    np.testing.assert_array_equal(project.pixels(), project.pixels(project.folder / "whole"))
    np.testing.assert_allclose(
        project.fourier(), project.fourier(project.folder / "whole"), atol=1e-6
    )


def test_what_is_recorded_of_every_image(project):
    n = 10
    recorded = {
        "rlnAngleRot": np.linspace(-170, 170, n),
        "rlnAngleTilt": np.linspace(0, 180, n),
        "rlnAnglePsi": np.linspace(-90, 90, n),
        "rlnOriginXAngst": np.linspace(-1, 1, n),
        "rlnOriginYAngst": np.linspace(2, 0, n),
        "rlnRandomSubset": np.arange(n) % 2 + 1,
        "rlnMicrographName": [f"mic/{k}.mrc" for k in range(n)],
    }
    project.write(**recorded)
    files = project.convert()
    ours = [entries(f) for f in files]
    assert {str(e["frame"]) for e in ours} == {"xy"}
    assert [int(e["n_images"]) for e in ours] == [4, 4, 2]
    joined = {
        key: np.concatenate([e[key] for e in ours])
        for key in ours[0]
        if np.ndim(ours[0][key]) and key != "x"
    }
    folder = project.folder / "stacks"
    assert joined["files"].tolist() == [
        str(folder / ("a.mrcs" if k < 6 else "b.mrcs")) for k in project.order
    ]
    assert joined["idxs"].tolist() == [k if k < 6 else k - 6 for k in project.order]
    assert joined["metadataRow"].tolist() == list(range(n))
    assert set(joined["metadataFile"].tolist()) == {str(project.star)}
    names = {"angleRotation": "rlnAngleRot", "angleTilt": "rlnAngleTilt", "anglePsi": "rlnAnglePsi"}
    for key, label in names.items():
        np.testing.assert_allclose(joined[key], np.radians(recorded[label]), atol=1e-12)
    np.testing.assert_allclose(joined["originX"], recorded["rlnOriginXAngst"], atol=1e-12)
    np.testing.assert_allclose(joined["originY"], recorded["rlnOriginYAngst"], atol=1e-12)
    assert joined["randomSubset"].tolist() == recorded["rlnRandomSubset"].tolist()
    assert joined["micrograph"].tolist() == recorded["rlnMicrographName"]
    assert joined["opticsGroup"].tolist() == [1] * n
    np.testing.assert_allclose(joined["defocusU"], 10000 + 10 * np.arange(n))
    np.testing.assert_allclose(joined["defocusAngle"], np.radians(30))


def test_what_is_not_recorded_is_none(project):
    from cryolike_dask.io.archives import read_archive
    from cryolike_dask.io.stacks import STACK_OPTIONAL

    (file, *_) = project.convert()
    read = read_archive(file.with_suffix(".npz"), optional=STACK_OPTIONAL)
    for key in (
        "angleRotation",
        "angleTilt",
        "anglePsi",
        "originX",
        "originY",
        "randomSubset",
        "micrograph",
    ):
        assert read[key] is None


def test_one_image_of_a_file_of_many_and_one_image_twice(project):
    describe(project.star, ["4@stacks/a.mrcs", "1@stacks/b.mrcs", "4@stacks/a.mrcs"])
    project.convert()
    np.testing.assert_array_equal(project.pixels(), scaled(pictures([3, 6, 3])).astype(np.float32))


def test_a_single_particle(project):
    describe(project.star, ["5@stacks/a.mrcs"])
    assert len(project.convert()) == 1
    np.testing.assert_array_equal(project.pixels(), scaled(pictures([4])).astype(np.float32))


def test_an_image_file_of_one_image_alone(project):
    with mrcfile.new(project.folder / "stacks" / "one.mrc") as file:
        file.set_data(picture(2))
    describe(project.star, ["stacks/one.mrc", "1@stacks/one.mrc"])
    project.convert()
    np.testing.assert_array_equal(project.pixels(), scaled(pictures([2, 2])).astype(np.float32))


@pytest.mark.parametrize("dtype", ["int16", "float16", "int8", "uint16"])
def test_types_of_image_files(project, dtype):
    project.convert(output=project.folder / "expected")
    for name, ks in (("a", range(6)), ("b", range(6, 10))):
        write_mrcs(project.folder / "stacks" / f"{name}.mrcs", pictures(ks).astype(dtype))
    project.convert()
    np.testing.assert_array_equal(project.pixels(), project.pixels(project.folder / "expected"))
    np.testing.assert_array_equal(project.fourier(), project.fourier(project.folder / "expected"))


@pytest.mark.parametrize(
    ("precision", "dtype"), [("double", "complex128"), ("default", "complex64")]
)
def test_precision(project, precision, dtype):
    project.convert(params=replace(PARAMETERS, precision=precision))
    assert project.fourier().dtype == dtype
    assert project.pixels().dtype == np.float32
    expected = on_grid(pictures(project.order), "double")
    np.testing.assert_allclose(
        project.fourier(), expected, atol=1e-12 if precision == "double" else 1e-5
    )


def test_several_metadata_files_one_after_the_other(project):
    other = describe(project.folder / "two.star", ["2@stacks/b.mrcs", "1@stacks/a.mrcs"])
    files = project.convert([other, project.star], batch_size=5)
    np.testing.assert_array_equal(
        project.pixels(), scaled(pictures([7, 0, *project.order])).astype(np.float32)
    )
    joined = np.concatenate([entries(f)["metadataFile"] for f in files])
    assert [Path(p).name for p in joined.tolist()] == ["two.star"] * 2 + ["particles.star"] * 10
    assert np.concatenate([entries(f)["metadataRow"] for f in files]).tolist() == [0, 1, *range(10)]


def test_metadata_with_their_own_images(project):
    star = describe(project.folder / "rows.star", [f"{k + 1}@nowhere.mrcs" for k in range(6)])
    project.convert(star, images=project.folder / "stacks" / "a.mrcs")
    np.testing.assert_array_equal(project.pixels(), scaled(pictures(range(6))).astype(np.float32))
    with pytest.raises(
        InputFileError,
        match=r"row 4 \(from 0\) is image 5 of nowhere\.mrcs, but .*b\.mrcs.* holds 4; 2 of 6",
    ):
        project.convert(
            star, output=project.folder / "no", images=project.folder / "stacks" / "b.mrcs"
        )
    with pytest.raises(InputError, match=r"1 metadata file\(s\), but 2 image file\(s\)"):
        project.convert(
            star, output=project.folder / "no", images=[project.folder / "stacks" / "a.mrcs"] * 2
        )


def test_the_project_folder_can_be_given(project, tmp_path):
    star = describe(tmp_path / "elsewhere" / "x.star", ["1@stacks/a.mrcs"])
    with pytest.raises(
        InputFileError, match=r"1 missing input file\(s\):\n.*stacks/a\.mrcs\n.*--folder"
    ):
        project.convert(star)
    project.convert(star, folder=project.folder)
    np.testing.assert_array_equal(project.pixels(), scaled(pictures([0])).astype(np.float32))


def test_relative_paths_and_another_working_directory(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    stack = open_particles("run/particles.star", PARAMETERS)
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(stack.source.pixels(np.arange(10)), pictures(project.order))


def test_the_first_stacks_only_and_the_rest_later(project):
    assert len(project.convert(n_stacks_max=2)) == 2
    assert len(project.tree()) == 8
    before = project.times()
    assert len(project.convert(skip_exist=True)) == 3
    assert {name: t for name, t in project.times().items() if name in before} == before
    assert len(project.convert(n_stacks_max=1, skip_exist=True)) == 1
    assert len(project.convert(n_stacks_max=99, skip_exist=True)) == 3
    np.testing.assert_array_equal(
        project.pixels(), scaled(pictures(project.order)).astype(np.float32)
    )


def test_without_pixels(project):
    project.convert(write_pixels=False)
    assert not (project.output / "phys").exists()
    assert len(project.tree()) == 9


def test_pixels_of_replaced_stacks_do_not_stay(project):
    project.convert()
    project.convert(write_pixels=False, overwrite=True)
    assert not list((project.output / "phys").iterdir())


def test_cryolike_stacks_are_transposed(project):
    files = project.convert(conventions="cryolike")
    assert "frame" not in entries(files[0])
    expected = normalised_stack(pictures(project.order).swapaxes(1, 2), PARAMETERS.grid)
    np.testing.assert_allclose(project.fourier(), expected, atol=1e-6)
    assert (
        open_images(LikelihoodFiles(None, project.output, project.output), PARAMETERS).frame
        == "transposed"
    )


# --- what is done to the pixels ---


def test_inverted_contrast(project):
    project.convert(output=project.folder / "upright")
    project.convert(invert_contrast=True)
    np.testing.assert_array_equal(project.pixels(), -project.pixels(project.folder / "upright"))


def test_inverted_contrast_is_noticed(project, caplog):
    for name, ks in (("a", range(6)), ("b", range(6, 10))):
        dark = -pictures(ks)
        write_mrcs(project.folder / "stacks" / f"{name}.mrcs", dark)
    with caplog.at_level(logging.WARNING, "cryolike_dask"):
        project.convert()
        project.convert(output=project.folder / "right", invert_contrast=True)
    (warning,) = [m for m in caplog.messages if "darker in the middle" in m]
    assert "100% of 10 particles" in warning
    assert "invert_contrast=True (--invert-contrast)" in warning


def test_background(project):
    plain = open_particles(project.star, PARAMETERS)
    stack = open_particles(project.star, PARAMETERS, background_radius_pixels=5)
    y, x = np.mgrid[:N, :N] - N // 2
    pixels = stack.source.pixels(np.arange(10))
    outside = pixels[:, np.hypot(x, y) > 5].astype(np.float64)
    np.testing.assert_allclose(outside.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(outside.std(1), 1, atol=1e-6)
    rows = np.arange(10)
    # one scale per image
    np.testing.assert_allclose(stack.source.take(rows), plain.source.take(rows), atol=1e-6)


@pytest.mark.parametrize(
    ("radius", "complaint"),
    [
        (0, "background_radius_pixels=0 is not positive"),
        (-1.0, "background_radius_pixels=-1.0 is not positive"),
        (np.nan, "background_radius_pixels=nan is not positive"),
        ("5", "background_radius_pixels='5' is not a number"),
        (40, "background_radius_pixels=40 leaves no background in 12 pixels"),
    ],
)
def test_backgrounds_that_cannot_be(project, radius, complaint):
    with pytest.raises(InputError, match=complaint):
        project.convert(background_radius_pixels=radius)
    assert project.output.exists() is False


@pytest.mark.parametrize(
    ("option", "plain"),
    [
        ({"background_radius_pixels": np.int64(4)}, {"background_radius_pixels": 4.0}),
        ({"background_radius_pixels": np.float32(4)}, {"background_radius_pixels": 4}),
        ({"invert_contrast": np.bool_(True)}, {"invert_contrast": True}),
    ],
)
def test_options_of_numpy_are_recorded_as_plain_ones(project, option, plain):
    project.convert(**option)
    before = project.times()
    project.convert(**plain, skip_exist=True)
    assert project.times() == before


def test_recentring_moves_by_the_origin(project, rng):
    # of mean 0, and nothing at the rim, where it would be cut off
    centred = np.zeros((6, N, N), np.float32)
    centred[:, 4:8, 4:8] = rng.standard_normal((6, 4, 4))
    centred[:, 4:8, 4:8] -= centred[:, 4:8, 4:8].mean(axis=(1, 2), keepdims=True)
    shifted = np.roll(centred, (1, -2), axis=(1, 2))
    write_mrcs(project.folder / "stacks" / "a.mrcs", shifted)
    names = [f"{k + 1}@stacks/a.mrcs" for k in range(6)]
    describe(project.star, names, rlnOriginXAngst=[2 * 1.5] * 6, rlnOriginYAngst=[-1.5] * 6)
    project.convert(recenter=True)
    first, *_ = [entries(f) for f in sorted((project.output / "fft").glob("*.pt"))]
    assert bool(first["recentered"])
    np.testing.assert_allclose(project.fourier(), on_grid(centred), atol=2e-6)


def test_recentring_without_origins_is_refused(project):
    with pytest.raises(InputError, match=r"recenter=True, but the metadata have no origins"):
        project.convert(recenter=True)


def test_origins_beyond_a_search_are_told(project, caplog):
    project.write(rlnOriginXAngst=[0.0] * 9 + [500.0], rlnOriginYAngst=[0.0] * 10)
    with caplog.at_level(logging.WARNING, "cryolike_dask"):
        project.convert()
    assert (
        "10.0% of the particles are recorded more than 8 pixels (12 angstrom) off the middle"
        in caplog.text
    )


@pytest.mark.parametrize("method", ["fourier", "mean", "max"])
def test_fewer_pixels(project, method):
    names = [f"{k + 1}@big.mrcs" for k in range(4)]
    write_mrcs(project.folder / "big.mrcs", pictures(range(4), 24), 0.75)
    star = describe(project.folder / "big.star", names, pixel=0.75, box=24)
    project.convert(star, downsample=method)
    pixels = project.pixels()
    assert pixels.shape == (4, 12, 12)
    blocks = pictures(range(4), 24).reshape(4, 12, 2, 12, 2)
    expected = {"mean": blocks.mean((2, 4)), "max": blocks.max((2, 4))}
    if method in expected:
        np.testing.assert_array_equal(pixels, scaled(expected[method]).astype(np.float32))
    else:
        full, _ = stack_and_rings(
            pictures(range(4), 24), replace(PARAMETERS.grid, n_pixels=24, pixel_size_angstrom=0.75)
        )
        correlation = PARAMETERS.grid.integrate((project.fourier() * full.conj()).real)
        assert correlation.min() > 0.99


@pytest.mark.parametrize(
    ("n", "options", "complaint"),
    [
        (
            10,
            {},
            r"images of 10 pixels cannot be brought to 12. Make parameters with n_pixels=10 "
            r"\(--n-pixels\), or fewer",
        ),
        (
            18,
            {"downsample": "mean"},
            r'blocks for 12 of 18 pixels are not whole. Use downsample="fourier"',
        ),
        (18, {"downsample": "max"}, r"blocks for 12 of 18 pixels are not whole"),
        (24, {"downsample": "median"}, r"downsample='median' is not known. Use fourier, mean, max"),
    ],
)
def test_numbers_of_pixels_that_cannot_be(project, n, options, complaint):
    write_mrcs(project.folder / "other.mrcs", pictures(range(2), n), 18 / n)
    star = describe(
        project.folder / "other.star", ["1@other.mrcs", "2@other.mrcs"], pixel=18 / n, box=n
    )
    with pytest.raises(InputError, match=complaint):
        project.convert(star, **options)
    assert not project.output.exists()


# --- sizes that contradict each other ---


def test_pixels_of_another_size_are_refused_with_both_numbers(project):
    project.write(pixel=1.3)
    complaint = (
        r"particles\.star: 10 image\(s\) \(optics group 1\) of 12 pixels of 1\.3 angstrom, but the "
        r"parameters describe "
        r"a box of 12 pixels of 1\.5\. Make parameters for this box: `cryolike-dask parameters "
        r"--n-pixels 12 "
    )
    with pytest.raises(GridMismatchError, match=complaint):
        project.convert()
    assert not project.output.exists()


def test_a_box_that_the_metadata_contradict(project):
    project.write(box=14)
    with pytest.raises(
        GridMismatchError, match=r"particles\.star: says 14 pixels, but .*a\.mrcs has 12"
    ):
        project.convert()


def test_headers_are_believed_where_metadata_say_nothing(project):
    project.write(pixel=None)
    project.convert()
    for name in "ab":
        path = project.folder / "stacks" / f"{name}.mrcs"
        with mrcfile.open(path) as file:
            images = file.data.copy()
        write_mrcs(path, images, 1.3)
    with pytest.raises(GridMismatchError, match=r"a?b?\.mrcs: 10 image.* 1\.3 angstrom, .* 1\.5"):
        project.convert(output=project.folder / "no")
    with pytest.raises(GridMismatchError, match=r"1\.4 angstrom, but .* 1\.5"):
        project.convert(output=project.folder / "no", pixel_size_angstrom=1.4)
    project.convert(output=project.folder / "given", pixel_size_angstrom=1.5)


@pytest.mark.parametrize(("header", "said"), [(1.0, True), (0.0, False), (300.0, True)])
def test_a_wrong_header_is_told_once_where_metadata_know(project, caplog, header, said):
    for name, ks in (("a", range(6)), ("b", range(6, 10))):
        write_mrcs(project.folder / "stacks" / f"{name}.mrcs", pictures(ks), header)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        project.convert()
    lines = [m for m in caplog.messages if "its header says" in m]
    assert len(lines) == said
    if said:
        assert (
            f"says {header:.4g} angstrom per pixel; the metadata's size is taken (10 image(s) of "
            f"this kind)" in lines[0]
        )
    np.testing.assert_array_equal(
        project.pixels(), scaled(pictures(project.order)).astype(np.float32)
    )


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (1.4, r"particles\.star: pixels of 1\.5 angstrom, but pixel_size_angstrom=1\.4"),
        (0.0, "pixel_size_angstrom=0.0 is not positive"),
        (-1.5, "pixel_size_angstrom=-1.5 is not positive"),
        (np.inf, "pixel_size_angstrom=inf is not a finite number"),
    ],
)
def test_a_pixel_size_given_that_cannot_be(project, given, complaint):
    with pytest.raises(InputError, match=complaint):
        project.convert(pixel_size_angstrom=given)
    project.convert(pixel_size_angstrom=1.5)


def test_images_of_different_sizes(project):
    write_mrcs(project.folder / "stacks" / "b.mrcs", pictures(range(4), 16))
    project.write(box=None)
    write_mrcs(project.folder / "stacks" / "b.mrcs", pictures(range(4), 16))
    with pytest.raises(
        GridMismatchError,
        match=r"images of different sizes: 12 x 12 in .*a\.mrcs; 16 x 16 in .*b\.mrcs",
    ):
        project.convert()


def test_images_that_are_not_square(project):
    write_mrcs(project.folder / "flat.mrcs", pictures(range(2))[:, :10])
    star = describe(project.folder / "flat.star", ["1@flat.mrcs"], box=None)
    with pytest.raises(
        GridMismatchError, match=r"flat\.mrcs: images of 10 x 12 pixels are not square"
    ):
        project.convert(star)


def test_an_index_beyond_the_file(project):
    describe(project.star, ["1@stacks/a.mrcs", "7@stacks/a.mrcs"])
    complaint = (
        r"particles\.star: row 1 \(from 0\) is image 7 of .*a\.mrcs, which holds 6. The "
        r"two do not belong together"
    )
    with pytest.raises(InputFileError, match=complaint):
        project.convert()


# --- images that cannot be used ---


@pytest.mark.parametrize(
    ("value", "error", "what"),
    [
        (np.nan, NotFiniteError, "has NaN or infinite pixels"),
        (np.inf, NotFiniteError, "has NaN or infinite pixels"),
    ],
)
def test_a_bad_pixel_is_named_by_file_and_number(project, value, error, what):
    images = pictures(range(6))
    images[4, 3, 2] = value
    write_mrcs(project.folder / "stacks" / "a.mrcs", images)
    with pytest.raises(
        error, match=rf"a\.mrcs: image 5 {what} \(1 such image\(s\) among .*\). Take it out"
    ):
        project.convert()
    assert not project.output.exists()


def test_a_constant_image_is_named_by_file_and_number(project):
    images = pictures(range(6, 10))
    images[2] = 7
    write_mrcs(project.folder / "stacks" / "b.mrcs", images)
    with pytest.raises(ZeroPowerError, match=r"b\.mrcs: image 3 is constant \(1 such image"):
        project.convert()
    assert not project.output.exists()


def test_a_bad_image_that_is_met_late_leaves_complete_stacks_and_can_be_gone_on(
    project, monkeypatch
):
    monkeypatch.setattr("cryolike_dask.particles.opening.N_LOOKED_AT", 1)
    images = pictures(range(6))
    images[5] = np.nan  # the last row
    write_mrcs(project.folder / "stacks" / "a.mrcs", images)
    with pytest.raises(NotFiniteError, match=r"a\.mrcs: image 6 has NaN"):
        project.convert()
    assert [name for name in project.tree() if "000002" in name or ".part" in name] == []
    assert len(project.tree()) == 8
    write_mrcs(project.folder / "stacks" / "a.mrcs", pictures(range(6)))
    assert len(project.convert(skip_exist=True)) == 3
    np.testing.assert_array_equal(
        project.pixels(), scaled(pictures(project.order)).astype(np.float32)
    )


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_pixels_of_any_scale(project, scale):
    images = pictures(range(6)) * np.float32(scale)
    write_mrcs(project.folder / "stacks" / "a.mrcs", images)
    describe(project.star, [f"{k + 1}@stacks/a.mrcs" for k in range(6)])
    project.convert(background_radius_pixels=5)
    assert np.isfinite(project.fourier()).all()
    np.testing.assert_allclose(
        PARAMETERS.grid.integrate(np.abs(project.fourier()) ** 2), 1, rtol=1e-5
    )


@pytest.mark.parametrize("truncated", [True, False])
def test_an_image_file_that_goes_between_opening_and_running(project, truncated):
    stack = open_particles(project.star, PARAMETERS, batch_size=4)
    path = project.folder / "stacks" / "b.mrcs"
    if truncated:
        os.truncate(path, path.stat().st_size - 100)
    else:
        path.unlink()
    complaint = r"b\.mrcs: " + (
        "has changed since it was opened. Open it again" if truncated else "cannot be read: No"
    )
    with pytest.raises(InputFileError, match=complaint):
        stack.data.compute(scheduler="sync")
    assert stack[[0, 1]].data.compute(scheduler="sync").shape[0] == 2  # both are in a.mrcs


def test_a_truncated_image_file(project):
    path = project.folder / "stacks" / "b.mrcs"
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(InputFileError, match=r"b\.mrcs: is cut short"):
        project.convert()
    assert not project.output.exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 0}, "batch_size=0 is not a positive number"),
        ({"batch_size": -4}, "batch_size=-4 is not"),
        ({"batch_size": 2.5}, "batch_size=2.5 is not"),
        ({"batch_size": True}, "batch_size=True is not"),
        ({"n_stacks_max": 0}, "n_stacks_max=0 is not a positive number"),
        ({"conventions": "mine"}, "conventions='mine'"),
        ({"metadata": []}, r"metadata=\[\] is not a path"),
        ({"metadata": 3}, "metadata=3 is not a path"),
        ({"metadata": "nowhere.star"}, "nowhere.star"),
        ({"params": "nowhere.npz"}, "nowhere.npz: there is no such file"),
        ({"client": "tcp://x"}, "client='tcp://x' is not a Client"),
    ],
)
def test_options_that_cannot_be(project, options, complaint):
    with pytest.raises(InputError, match=complaint):
        convert_particles(
            options.pop("metadata", project.star),
            options.pop("params", PARAMETERS),
            project.output,
            **options,
        )
    assert not project.output.exists()


# --- going on, and folders that hold something ---


def test_skip_exist_leaves_alone_what_is_complete(project, caplog):
    project.convert()
    before = project.times()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        assert len(project.convert(skip_exist=True)) == 3
    assert project.times() == before
    assert "is converted" not in caplog.text


def stack_file(project: Project, k: int, suffix: str = "pt") -> Path:
    return project.output / "fft" / f"particles_fourier_stack_{k:06d}.{suffix}"


REASONS = {
    "a changed STAR file": (
        lambda p: os.utime(p.star, (1, 1)),
        {},
        "the inputs of the results are others",
        3,
    ),
    "a changed image file": (
        lambda p: os.utime(p.folder / "stacks" / "b.mrcs", (1, 1)),
        {},
        "the inputs of the results are others",
        3,
    ),
    "another treatment": (
        lambda p: None,
        {"invert_contrast": True},
        "the inputs of the results are others",
        3,
    ),
    "other conventions for one": (
        lambda p: edit_record(p, 1, "settings", {}),
        {},
        "the settings of the results are others",
        1,
    ),
    "damaged images": (
        lambda p: stack_file(p, 1).write_bytes(stack_file(p, 1).read_bytes()[:-8] + bytes(8)),
        {},
        "particles_fourier_stack_000001.pt is not the file that the record describes",
        1,
    ),
    "truncated pixels": (
        lambda p: os.truncate(p.output / "phys" / "particles_phys_stack_000001.pt", 50),
        {},
        "particles_phys_stack_000001.pt is not the file that the record describes",
        1,
    ),
    "no images": (
        lambda p: stack_file(p, 1).unlink(),
        {},
        "particles_fourier_stack_000001.pt is missing",
        1,
    ),
    "no metadata": (lambda p: stack_file(p, 1, "npz").unlink(), {}, "000001.npz is missing", 1),
    "no record": (
        lambda p: (p.output / "done" / "stack_000001.json").unlink(),
        {},
        "there is no readable completion record stack_000001.json",
        1,
    ),
    "a damaged record": (
        lambda p: (p.output / "done" / "stack_000001.json").write_text("{"),
        {},
        "there is no readable completion record stack_000001.json",
        1,
    ),
}


def edit_record(project: Project, k: int, key: str, value: object) -> None:
    path = project.output / "done" / f"stack_{k:06d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


@pytest.mark.parametrize("name", REASONS)
def test_skip_exist_converts_again_what_is_not_what_it_should_be(project, caplog, name):
    change, options, reason, n = REASONS[name]
    project.convert()
    before = project.times()
    change(project)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        project.convert(skip_exist=True, **options)
    said = [m for m in caplog.messages if "is converted" in m]
    assert len(said) == n
    assert all(reason in line for line in said)
    if n == 1:
        after = project.times()
        assert {k: v for k, v in after.items() if "000001" not in k} == {
            k: v for k, v in before.items() if "000001" not in k
        }
    project.convert(output=project.folder / "fresh", **options)
    np.testing.assert_array_equal(project.fourier(), project.fourier(project.folder / "fresh"))
    caplog.clear()
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        project.convert(skip_exist=True, **options)
    assert "is converted" not in caplog.text


def test_stacks_of_the_same_particles_and_settings_are_replaced_and_it_is_said(project, caplog):
    project.convert()
    before = {name: time for name, time in project.times().items() if not name.startswith(".")}
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        project.convert()
    assert "what is there is replaced; skip_exist=True keeps what is complete" in caplog.text
    after = project.times()
    assert all(after[name] != time for name, time in before.items())
    np.testing.assert_array_equal(
        project.pixels(), scaled(pictures(project.order)).astype(np.float32)
    )


def test_a_part_of_the_stacks_is_replaced_only_if_the_others_are_of_the_same_settings(project):
    project.convert()
    project.convert(n_stacks_max=1)
    before = project.times()
    with pytest.raises(
        OutputError, match=r"out: holds image stacks of other particles or settings already \(3,"
    ):
        project.convert(n_stacks_max=1, invert_contrast=True)
    assert project.times() == before


@pytest.mark.parametrize("skip_exist", [False, True])
def test_stacks_of_another_program_are_not_replaced(project, skip_exist):
    """Stacks without a record, such as CryoLike's."""
    project.convert()
    for path in (project.output / "done").iterdir():
        path.unlink()
    (project.output / "done").rmdir()
    for k in range(3):
        path = stack_file(project, k)
        there = entries(path)
        del there["metadataFile"]
        np.savez(path.with_suffix(".npz"), **there)
    before = project.times()
    with pytest.raises(
        OutputError, match=r"out: holds image stacks of other particles or settings already \(3,"
    ):
        project.convert(skip_exist=skip_exist)
    assert project.times() == before


def test_stacks_of_other_metadata_are_not_replaced(project):
    project.convert()
    before = project.times()
    other = describe(
        project.folder / "other.star", [f"{k + 1}@stacks/a.mrcs" for k in (0, 1, 2, 3, 4) * 2]
    )
    with pytest.raises(
        OutputError, match=r"out: holds image stacks of other particles or settings already \(3,"
    ):
        project.convert(other, skip_exist=True)
    assert project.times() == before


def test_a_first_stack_without_a_record_can_be_gone_on_with(project):
    project.convert()
    for path in [*(project.output / "done").iterdir(), *project.output.rglob("*_00000[12].*")]:
        path.unlink(missing_ok=True)
    assert len(project.convert(skip_exist=True)) == 3
    np.testing.assert_array_equal(
        project.pixels(), scaled(pictures(project.order)).astype(np.float32)
    )


@pytest.mark.parametrize("change", [{"n_inplanes": 22}, {"radius_max": 2.0}])
def test_stacks_on_another_grid_are_not_replaced(project, change):
    project.convert()
    before = project.times()
    with pytest.raises(
        OutputError, match="holds image stacks of other particles or settings already"
    ):
        project.convert(params=replace(PARAMETERS, **change), skip_exist=True)
    assert project.times() == before


def test_fewer_stacks_than_there_are_refused_and_removed_by_overwrite(project):
    project.convert(batch_size=2)
    assert len(list((project.output / "fft").glob("*.pt"))) == 5
    with pytest.raises(
        OutputError,
        match=r"holds image stacks of other particles or settings already \(5, the last is number "
        r"4\)",
    ):
        project.convert(batch_size=4, skip_exist=True)
    project.convert(batch_size=4, overwrite=True)
    for pattern in ("fft/*.pt", "fft/*.npz", "phys/*.pt", "done/*.json"):
        assert len(list(project.output.glob(pattern))) == 3
    opened = open_images(LikelihoodFiles(None, project.output, project.output), PARAMETERS)
    assert opened.chunks == (4, 4, 2)
    np.testing.assert_array_equal(
        project.pixels(), scaled(pictures(project.order)).astype(np.float32)
    )


def test_output_that_is_a_file(project):
    project.output.write_text("notes")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"out: is not a folder"):
            project.convert(overwrite=overwrite)
    assert project.output.read_text() == "notes"


def test_output_beside_the_input(project):
    before = {p: p.read_bytes() for p in project.folder.rglob("*") if p.is_file()}
    project.convert(output=project.folder)
    assert {p: p.read_bytes() for p in before} == before


# --- stopped, and on a cluster ---


def test_stopped_half_way_and_gone_on(project, monkeypatch, caplog):
    """Between the files of stack 1 and its record, as a kill might."""
    write = converting.write_record

    def stopping(job, details):
        if job.about["i_stack"] == 1:
            raise RuntimeError("stopped")
        write(job, details)

    with monkeypatch.context() as patch:
        patch.setattr(converting, "write_record", stopping)
        with pytest.raises(RuntimeError, match="stopped"):
            project.convert()
    before = {name: t for name, t in project.times().items() if "000000" in name}
    assert len(before) == 4
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        project.convert(skip_exist=True)
    said = [m.split(" is converted: ") for m in caplog.messages if "is converted" in m]
    assert said == [
        ["particles-stack_000001", "there is no readable completion record stack_000001.json"]
    ]
    assert {name: t for name, t in project.times().items() if "000000" in name} == before
    np.testing.assert_array_equal(
        project.pixels(), scaled(pictures(project.order)).astype(np.float32)
    )


def test_a_cluster_converts_alike(project, cluster):
    project.convert(output=project.folder / "here", batch_size=3)
    project.convert(batch_size=3, client=cluster)
    for path in sorted((project.folder / "here").rglob("*.pt")):
        there = project.output / path.relative_to(project.folder / "here")
        np.testing.assert_array_equal(load(there), load(path))
    assert project.convert(batch_size=3, client=cluster, skip_exist=True)


# --- lazily ---


def test_rows_of_a_lazy_set(project):
    stack = open_particles(project.star, PARAMETERS, batch_size=4)
    assert isinstance(stack, ImageStack)
    assert stack.chunks == (4, 4, 2)
    assert stack.stack.tolist() == [0] * 4 + [1] * 4 + [2] * 2
    assert stack.image_in_stack.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    whole = stack.source.take(np.arange(10))
    np.testing.assert_allclose(whole, on_grid(pictures(project.order)), atol=1e-6)
    rows = np.array([8, 2, 2, 0])
    np.testing.assert_allclose(stack.source.take(rows), whole[rows], atol=1e-6)
    some = stack[rows]
    np.testing.assert_allclose(some.source.take(np.arange(4)), whole[rows], atol=1e-6)
    assert some.stack.tolist() == [2, 0, 0, 0]
    assert some.optics["defocus_u_angstrom"].tolist() == (10000 + 10.0 * rows).tolist()
    assert some.source.locate(0) == (str(project.folder / "stacks" / "b.mrcs"), 0)
    assert stack[:3].source.table.image_files == tuple(
        str(project.folder / "stacks" / f"{n}.mrcs") for n in "ab"
    )
    assert len(stack[:2].source.files) == 1
    np.testing.assert_allclose(stack.chunk(3).data.compute(scheduler="sync"), whole, atol=1e-6)


def test_one_chunk_of_a_huge_set_travels_light():
    n_files, n_per_file = 5000, 100
    n = n_files * n_per_file
    names = [
        f"/data/session/Extract/job042/micrographs/{k:06d}_very_long_name_fractions.mrcs"
        for k in range(n_files)
    ]
    files = tuple(MrcStack(name, (n_per_file, N, N), "<f4", 1024, 1.5, 1, 1) for name in names)
    optics = optics_table(
        n,
        defocus_u_angstrom=np.arange(n, dtype=float),
        defocus_v_angstrom=1.0,
        defocus_angle_radian=0.0,
        voltage_kilovolt=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
    )
    number = np.repeat(np.arange(n_files), n_per_file)
    table = ParticleTable(
        optics=optics,
        image_files=tuple(names),
        file_number=number,
        image_index=np.tile(np.arange(n_per_file), n_files),
        sign=np.ones(n),
        metadata_files=("/data/session/particles.star",),
        metadata_number=np.zeros(n, np.int64),
        metadata_row=np.arange(n),
        micrograph=np.char.add("micrographs/", number.astype(str)),
    )
    source = ParticleImages(table, files, PARAMETERS.grid, Preparation(), "single")
    stack = ImageStack(
        source, PARAMETERS.grid, optics, "xy", np.arange(n) // 1000, np.arange(n) % 1000, (n,)
    )
    chunk = stack[200_000:201_000]
    assert len(chunk.source.files) == 10
    assert chunk.source.locate(0) == (files[2000].path, 0)
    assert len(cloudpickle.dumps(chunk.source)) < 400 * 1000  # 400 bytes per image


def write_pdb(path: Path, places: np.ndarray) -> Path:
    structure, model, chain = gemmi.Structure(), gemmi.Model(1), gemmi.Chain("A")
    for i, place in enumerate(places.tolist(), start=1):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "LEU", gemmi.SeqId(i, " ")
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*place)
        residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    structure.write_pdb(str(path))
    return path


@pytest.fixture
def structures(project, rng):
    """Two structures in the project."""
    return [
        write_pdb(project.folder / f"{name}.pdb", rng.uniform(-4, 4, (9, 3)).round(2))
        for name in "xy"
    ]


def run(files, **options):
    given = {"progress": False, **options}
    return run_likelihood_optimal_pose(files, PARAMETERS, SEARCH, **given, noise="white")


def test_lazy_inputs_give_what_files_give(project, structures):
    make_templates(structures, PARAMETERS, project.folder / "templates", progress=False)
    project.convert(batch_size=6)
    in_files = LikelihoodFiles(
        project.folder / "templates", project.output, project.folder / "r1", i_template="all"
    )
    expected = run(in_files).load()
    images = open_particles(project.star, PARAMETERS, batch_size=6)
    templates = open_structures(structures, PARAMETERS)
    computed = compute_optimal_pose(images, SEARCH(templates[0])).compute(scheduler="sync")
    lazily = LikelihoodFiles(None, None, project.folder / "r2", i_template="all")
    written = run(lazily, images=images, templates=templates).load()
    assert dict(written.sizes) == {"structure": 2, "image": 10}
    assert written.structure.values.tolist() == ["x", "y"]
    assert written["stack"].values.tolist() == [0] * 6 + [1] * 4
    for name in expected:
        np.testing.assert_allclose(
            written[name], expected[name], rtol=1e-4, atol=1e-4, err_msg=name
        )
        np.testing.assert_allclose(
            computed[name], expected[name][0], rtol=1e-4, atol=1e-4, err_msg=name
        )
    trees = [
        sorted(
            str(p.relative_to(project.folder / r))
            for p in (project.folder / r).rglob("*")
            if p.is_file()
        )
        for r in ("r1", "r2")
    ]
    assert trees[0] == trees[1]
    assert len(trees[0]) == 4 + 2 + 2 * (1 + 2 * 9)
    again = open_optimal_pose(lazily).load()
    assert again.identical(written) or again.equals(written)


def test_a_lazy_run_can_be_gone_on_with(project, structures, caplog):
    files = LikelihoodFiles(None, None, project.folder / "r")

    def poses(**options):
        images = open_particles(project.star, PARAMETERS, batch_size=6)
        templates = open_structures(structures, PARAMETERS)
        caplog.clear()
        with caplog.at_level(logging.INFO, "cryolike_dask"):
            results = run(files, images=images, templates=templates, **options).load()
        return results, [m for m in caplog.messages if "is computed" in m]

    first, _ = poses()
    before = {p: p.stat().st_mtime_ns for p in (project.folder / "r").rglob("*.pt")}
    second, said = poses(skip_exist=True)
    assert said == []
    assert second.equals(first)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    project.write(rlnDefocusAngle=[77.0] * 10)
    third, said = poses(skip_exist=True)
    assert len(said) == 2
    assert all("the inputs of the results are others" in line for line in said)
    assert np.abs(third.cross_correlation - first.cross_correlation).max() > 0
    write_pdb(structures[0], np.eye(3))
    fourth, said = poses(skip_exist=True)
    assert len(said) == 2
    assert np.abs(fourth.cross_correlation - third.cross_correlation).max() > 1e-3
    with pytest.raises(OutputError, match=r"holds results of another"):
        run_likelihood_optimal_pose(
            files,
            PARAMETERS,
            DisplacementSearch(1.5, 5, 5),
            images=open_particles(project.star, PARAMETERS),
            templates=open_structures(structures, PARAMETERS),
            skip_exist=True,
            progress=False,
            noise="white",
        )


def test_rows_between_the_first_and_the_last_count(project, structures):
    images = open_particles(project.star, PARAMETERS)
    templates = open_structures(structures[0], PARAMETERS)
    files = LikelihoodFiles(None, None, project.folder / "r")
    run(files, images=images[[0, 1, 3]], templates=templates).load()
    results = run(files, images=images[[0, 2, 3]], templates=templates, skip_exist=True).load()
    fresh = LikelihoodFiles(None, None, project.folder / "fresh")
    expected = run(fresh, images=images[[0, 2, 3]], templates=templates).load()
    np.testing.assert_allclose(results.cross_correlation, expected.cross_correlation, atol=1e-6)


def test_results_returned_are_those_of_the_run(project, structures):
    images = open_particles(project.star, PARAMETERS, batch_size=4)
    templates = open_structures(structures, PARAMETERS)
    files = LikelihoodFiles(None, None, project.folder / "r", i_template="all")
    assert dict(run(files, images=images, templates=templates).sizes) == {
        "structure": 2,
        "image": 10,
    }
    part = {"i_template": [0], "n_stacks": 1}
    assert dict(run(files, images=images, templates=templates, **part).sizes) == {
        "structure": 1,
        "image": 4,
    }


def test_a_file_that_is_gone_before_a_run_is_named(project, structures):
    images = open_particles(project.star, PARAMETERS)
    templates = open_structures(structures[0], PARAMETERS)
    (project.folder / "stacks" / "a.mrcs").unlink()
    with pytest.raises(InputFileError, match=r"a\.mrcs"):
        run(LikelihoodFiles(None, None, project.folder / "r"), images=images, templates=templates)


def test_a_folder_and_a_stack_are_one_too_many(project, structures):
    images = open_particles(project.star, PARAMETERS)
    templates = open_structures(structures, PARAMETERS)
    output = project.folder / "r"
    with pytest.raises(
        InputError, match=r"images are given, and folder_particles=.*out too. Configure .*=None"
    ):
        run(LikelihoodFiles(None, project.output, output), images=images, templates=templates)
    with pytest.raises(
        InputError, match=r"templates are given, and folder_templates=.*t too. Configure .*=None"
    ):
        run(LikelihoodFiles(project.folder / "t", None, output), images=images, templates=templates)
    with pytest.raises(InputError, match=r"folder_particles is None|folder_templates is None"):
        run(LikelihoodFiles(None, None, output), templates=templates)
    with pytest.raises(InputError, match=r"folder_templates is None"):
        run(LikelihoodFiles(None, None, output), images=images)
    with pytest.raises(InputError, match=r"images are a list. Give an ImageStack: open_particles"):
        run(LikelihoodFiles(None, None, output), images=[images], templates=templates)
    with pytest.raises(InputError, match=r"templates are not TemplateStacks"):
        run(LikelihoodFiles(None, None, output), images=images, templates=[images])
    assert not output.exists()


def test_stacks_and_structures_are_chosen(project, structures):
    images = open_particles(project.star, PARAMETERS, batch_size=4)
    templates = open_structures(structures, PARAMETERS)
    output = project.folder / "r"
    poses = run(
        LikelihoodFiles(None, None, output),
        n_stacks=2,
        i_template=1,
        images=images,
        templates=templates,
    )
    assert dict(poses.sizes) == {"image": 8}
    assert poses.structure == "y"
    assert sorted(p.name for p in output.iterdir()) == [
        *(".claim-results.json", "blocks.csv", "displacements_set.pt", "images", "run.log"),
        "template1",
    ]
    assert sorted(p.name for p in (output / "template1" / "done").iterdir()) == [
        "stack_000000.json",
        "stack_000001.json",
    ]
    for options, complaint in (
        ({"n_stacks": 4}, r"n_stacks=4, but the images have 3 chunk\(s\)"),
        ({"n_stacks": 0}, "n_stacks=0 is not a positive number"),
        ({"i_template": 2}, r"i_template=2 is not in the 2 structure\(s\) given. Give 0 to 1"),
        ({"i_template": -1}, r"i_template=-1 is not in the 2 structure"),
        ({"i_template": [0, 0]}, r"i_template=\[0, 0\] names a structure twice"),
    ):
        with pytest.raises(InputError, match=complaint):
            run(LikelihoodFiles(None, None, output), images=images, templates=templates, **options)


def test_one_image_and_one_structure(project, structures):
    images = open_particles(describe(project.folder / "one.star", ["3@stacks/a.mrcs"]), PARAMETERS)
    templates = open_structures(structures[0], PARAMETERS)
    poses = run(
        LikelihoodFiles(None, None, project.folder / "r"), images=images, templates=templates
    ).load()
    assert dict(poses.sizes) == {"image": 1}
    assert np.isfinite(poses.log_likelihood_integrated).all()


def test_errors_of_lazy_images_name_the_file(project, structures, cluster):
    images = open_particles(project.star, PARAMETERS, batch_size=4)
    templates = open_structures(structures, PARAMETERS)
    path = project.folder / "stacks" / "a.mrcs"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InputFileError, match=re.escape("a.mrcs: has changed since it was opened")):
        run(
            LikelihoodFiles(None, None, project.folder / "r"),
            images=images,
            templates=templates,
            client=cluster,
        )
    assert list((project.folder / "r").glob("template*/done/*.json")) == []
