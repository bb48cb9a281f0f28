"""What a map is: how large its voxels are, whether it fits the box, and what speaks against it."""

from __future__ import annotations

import logging
import os
import re
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryolike_dask.errors import CannotFitError, InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.mrc import open_mrc_map
from cryolike_dask.structures import maps
from cryolike_dask.structures.opening import open_structure, open_structures
from cryolike_dask.structures.volumes import Volume, reach_angstrom

PARAMETERS = ImageParameters(12, 3.0, viewing_distance=2.5)


def ball(n: int, radius: float, noise: float = 0.0, level: float = 0.0, rng=None) -> np.ndarray:
    """A Gaussian ball, radius in voxels, about voxel n // 2."""
    z, y, x = np.mgrid[:n, :n, :n] - n // 2
    values = np.exp(-(x**2 + y**2 + z**2) / radius**2) + level
    return (values if rng is None else values + noise * rng.standard_normal(values.shape)).astype(
        np.float32
    )


def write(path: Path, values: np.ndarray, voxel: float) -> Path:
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore")
        file.set_data(values)
        file.voxel_size = voxel
    return path


@pytest.fixture
def said(caplog):
    """What is said of one structure: the warnings, and all."""

    def opened(given, parameters=PARAMETERS, **options):
        caplog.clear()
        with caplog.at_level(logging.INFO, "cryolike_dask"):
            stack = open_structure(given, parameters, **options)
        warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        return stack, warned, caplog.text

    return opened


@pytest.mark.parametrize(
    ("n", "voxel", "pixel", "doubt"),
    [
        (
            12,
            1.0,
            3.0,
            "many programs write 1 without knowing it; if .* pixels, 3 angstrom, the structure is "
            "3 times too small",
        ),
        (24, 1.0, 3.0, "many programs write 1"),
        (12, 1.0, 0.5, "the structure is 2 times too large"),
        (12, 1.0, 1.0, None),
        (36, 1.0, 3.0, None),
        (12, 3.0, 3.0, None),
        (
            12,
            1.4,
            3.0,
            "its box of 16.8 angstrom is much smaller than that of the images, 36; if 1.4 angstrom",
        ),
        (8, 3.0, 3.0, None),
    ],
)
def test_a_voxel_size_that_cannot_be_believed_is_told(tmp_path, said, n, voxel, pixel, doubt):
    path = write(tmp_path / "m.mrc", ball(n, 2), voxel)
    parameters = ImageParameters(12, pixel, viewing_distance=2.5)
    stack, warned, _ = said(path, parameters)
    # nothing is put in its place
    assert stack.source.structure.voxel_size_angstrom == pytest.approx((voxel,) * 3)
    if doubt is None:
        assert warned == []
    else:
        warning = warned[0]
        assert re.search(doubt, warning)
        assert "voxel_size_angstrom (--voxel-size-angstrom) says the true one" in warning
    _, warned, _ = said(path, parameters, voxel_size_angstrom=pixel)
    assert not any(
        "1 angstrom in its header" in warning or "much smaller" in warning for warning in warned
    )


@pytest.mark.parametrize("cell", [(36, 36, 360), (36, 40, 36), (36, 36, 37)])
def test_voxels_whose_sides_differ_are_told(tmp_path, said, cell):
    path = write(tmp_path / "m.mrc", ball(12, 2), 3.0)
    content = bytearray(path.read_bytes())
    content[40:52] = np.array(cell, "<f4").tobytes()
    path.write_bytes(content)
    _, warned, _ = said(path)
    differ = [w for w in warned if "angstrom by its header, which is rarely meant" in w]
    assert len(differ) == (max(cell) > 37)


def test_the_voxel_size_given_is_that_of_the_header(tmp_path, said, rng):
    values = ball(12, 3, 0.1, rng=rng)
    right = write(tmp_path / "right.mrc", values, 2.5)
    rows = np.arange(6)
    expected = open_structure(right, PARAMETERS).source.take(rows)
    np.save(tmp_path / "m.npy", values)
    torch.save(torch.from_numpy(values), tmp_path / "m.pt")
    for given in (
        write(tmp_path / "one.mrc", values, 1.0),
        tmp_path / "m.npy",
        tmp_path / "m.pt",
        values,
    ):
        stack, _, text = said(given, voxel_size_angstrom=2.5)
        np.testing.assert_array_equal(stack.source.take(rows), expected)
        assert "12 x 12 x 12 voxels of 2.5 angstrom (as you say), a box of 30 angstrom" in text
    stack, _, _ = said(write(tmp_path / "none.mrc", ball(8, 2), 0.0), voxel_size_angstrom=2.5)
    assert stack.source.structure.voxel_size_angstrom == (2.5, 2.5, 2.5)


@pytest.mark.parametrize(
    ("voxel", "fault"),
    [
        (0, "not positive"),
        (-1.0, "not positive"),
        (float("nan"), "not positive"),
        ("2", "not a number"),
    ],
)
def test_voxel_sizes_that_cannot_be(tmp_path, voxel, fault):
    with pytest.raises(InputError, match=rf"voxel_size_angstrom=.* is {fault}"):
        open_structure(
            write(tmp_path / "m.mrc", ball(12, 2), 1.0), PARAMETERS, voxel_size_angstrom=voxel
        )


def test_cryolike_ignores_voxel_sizes(tmp_path, said):
    path = write(tmp_path / "m.mrc", ball(12, 2), 1.0)
    _, warned, text = said(path, conventions="cryolike")
    assert warned == []
    assert "m: 12 x 12 x 12 voxels, which fill the box of the images" in text
    assert said(write(tmp_path / "n.mrc", ball(10, 2), 0.0), conventions="cryolike")[1] == []
    with pytest.raises(
        InputError,
        match=r"voxel_size_angstrom=2.0, but conventions='cryolike' let maps fill the box",
    ):
        open_structure(path, PARAMETERS, conventions="cryolike", voxel_size_angstrom=2.0)


def test_a_voxel_size_taken_from_the_pixels_is_a_warning(tmp_path, said):
    _, (warning,), _ = said(write(tmp_path / "m.mrc", ball(12, 2), 0.0))
    assert "the header has no voxel size; that of the pixels is taken, 3 angstrom" in warning


@pytest.mark.parametrize(
    ("n", "radius", "noise", "level", "reaches"),
    [
        (24, 9.0, 0.0, 0.0, True),
        (24, 2.5, 0.0, 0.0, False),  # a large box that is empty
        (24, 2.5, 0.0, 7.0, False),  # of any level
        (24, 2.5, 0.001, 0.0, False),  # and a little noise
        (24, 2.5, 0.3, 0.0, True),  # and more noise than structure
        (12, 9.0, 0.0, 0.0, False),  # a box as large as that of the images
    ],
)
def test_density_beyond_the_box_is_told(tmp_path, said, rng, n, radius, noise, level, reaches):
    values = ball(n, radius, noise, level, rng)
    np.save(tmp_path / "m.npy", values)
    torch.save(torch.from_numpy(values), tmp_path / "m.pt")
    for given in (
        write(tmp_path / "m.mrc", values, 3.0),
        tmp_path / "m.npy",
        tmp_path / "m.pt",
        values,
    ):
        _, warned, _ = said(given)
        assert len(warned) == reaches
        assert not reaches or "angstrom from its centre, but half a box is 18" in warned[0]


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 1, 2)])
def test_the_reach_of_a_map_is_where_its_density_ends(tmp_path, axes):
    z, y, x = np.mgrid[:20, :24, :28]
    values = ((x - 14) ** 2 * 4 + (y - 12) ** 2 * 9 + (z - 10) ** 2 < 81).astype(np.float32)
    path = write(tmp_path / "m.mrc", values, 2.0)
    content = bytearray(path.read_bytes())
    content[64:76] = np.array(axes, "<i4").tobytes()
    path.write_bytes(content)
    found = reach_angstrom(open_mrc_map(path).mapped(), (2.0, 2.0, 2.0))
    assert found == reach_angstrom(open_mrc_map(path).read(), (2.0, 2.0, 2.0))
    if axes == (1, 2, 3):
        r2 = 4 * ((x - 14) ** 2 + (y - 12) ** 2 + (z - 10) ** 2)[values > 0]
        assert np.mean(r2 > found**2) <= 0.01 < np.mean(r2 > (found - 2) ** 2)


@pytest.mark.parametrize(
    "values", [np.zeros((4, 4, 4)), np.full((4, 4, 4), np.nan), ball(6, 1).astype(float) * 1e200]
)
def test_the_reach_of_nothing(values):
    assert reach_angstrom(values, (1.0, 1.0, 1.0)) == 0


def test_a_stack_of_images_is_no_structure(tmp_path):
    with mrcfile.new(tmp_path / "particles.mrc") as file:
        file.set_data(np.ones((12, 12, 12), np.float32))
        file.set_image_stack()
    with pytest.raises(
        InputFileError, match=r"particles\.mrc: its header says that it is a stack of 12 images"
    ):
        open_structures(tmp_path, PARAMETERS)


def test_doubts_are_warnings(tmp_path, said):
    path = write(tmp_path / "m.mrc", ball(12, 2), 3.0)
    content = bytearray(path.read_bytes())
    content[88:92] = bytes(4)
    path.write_bytes(content)
    _, warnings, text = said(path)
    assert warnings == []  # many programs write their maps so
    assert "m: its header has the space group of image stacks, 0" in text
    content[36:40] = bytes(4)  # sections of the cell
    path.write_bytes(content)
    _, warnings, _ = said(path)
    assert warnings[0].startswith("m: its header says that it is a stack of images (space group 0)")


def test_maps_that_nothing_can_hold(tmp_path, monkeypatch):
    path = write(tmp_path / "m.mrc", ball(12, 2), 3.0)
    source = open_structure(path, PARAMETERS).source
    monkeypatch.setattr(maps, "BYTES_PER_VOXEL", 10**12)
    with pytest.raises(
        CannotFitError, match=r"m\.mrc: 12 x 12 x 12 voxels take 1728000 GB to project, and this"
    ):
        source.take(np.arange(1))
    content = bytearray(path.read_bytes())
    content[:12] = np.array([2000, 2000, 2000], "<i4").tobytes()
    path.write_bytes(content)
    os.truncate(path, 1024 + 4 * 2000**3)  # of holes
    with pytest.raises(
        InputFileError,
        match=r"2000 x 2000 x 2000 voxels are more than can be projected. Crop or bin",
    ):
        open_structure(path, PARAMETERS)


@pytest.mark.parametrize("suffix", ["npy", "pt"])
def test_archives_named_as_arrays(tmp_path, suffix):
    np.savez(tmp_path / "x.npz", a=np.ones((3, 3, 3)))
    (tmp_path / "x.npz").rename(tmp_path / f"x.{suffix}")
    with pytest.raises(InputFileError, match=rf"x\.{suffix}: "):
        open_structure(tmp_path / f"x.{suffix}", PARAMETERS)


@pytest.mark.parametrize(
    "shape", ["(10**9, 10**9, 10**9)", "(-1, 10, 10)", "(99999, 99999, 99999)"]
)
def test_arrays_that_claim_what_they_do_not_hold(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.encode())
    with pytest.raises(InputFileError, match=r"x\.npy: is not a readable \.npy file"):
        open_structure(tmp_path / "x.npy", PARAMETERS)


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 12, 12), (12, 12, 1)])
@pytest.mark.parametrize("suffix", ["npy", "pt"])
def test_planes_are_no_volumes(tmp_path, shape, suffix):
    path, values = tmp_path / f"x.{suffix}", np.ones(shape)
    np.save(path, values) if suffix == "npy" else torch.save(torch.from_numpy(values), path)
    with pytest.raises(InputFileError, match=rf"x\.{suffix}: .*(no volume|mmap)"):
        open_structure(path, PARAMETERS)


def test_maps_in_memory_are_looked_at_too(said):
    _, (warning,), text = said(Volume(ball(24, 9), (3.0, 3.0, 2.0)))
    assert "half a box is 18" in warning
    assert (
        "structure: 24 x 24 x 24 voxels of 3 x 3 x 2 angstrom (as you say), a box of 72 angstrom"
        in text
    )
