"""Optics groups of several metadata files: of two microscopes they are two, of one they are one."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from cryolike_dask.io.star import write_star
from cryolike_dask.particles.opening import read_particles
from tests.particles.described import star, write_mrcs


def relion(path, groups, image_file="a.mrcs", **optics):
    """A STAR file with an optics table of some groups, by number: columns of RELION's."""
    given = {
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
        "rlnImagePixelSize": 3.0,
        "rlnImageSize": 16,
        **optics,
    }
    n = len(groups)
    table = {label: np.resize(value, n) for label, value in given.items()}
    particles = {
        "rlnImageName": [f"{i + 1}@{image_file}" for i in range(n)],
        "rlnOpticsGroup": groups,
        **{name: np.full(n, 1e4) for name in ("rlnDefocusU", "rlnDefocusV")},
        "rlnDefocusAngle": np.zeros(n),
    }
    write_star(path, {"optics": {"rlnOpticsGroup": groups, **table}, "particles": particles})
    return path


@pytest.fixture
def folder(tmp_path):
    write_mrcs(tmp_path / "a.mrcs", np.zeros((4, 16, 16)), 3.0)
    return tmp_path


def groups(*paths):
    """The optics groups of particles of these files, or None."""
    found = read_particles(list(paths)).optics_group
    return None if found is None else found.tolist()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"rlnVoltage": 200.0}, "200 kilovolt, not 300"),
        ({"rlnSphericalAberration": 0.01}, "0.01 mm of spherical aberration, not 2.7"),
        ({"rlnImagePixelSize": 3.2}, "3.2 angstrom a pixel, not 3"),
    ],
)
def test_groups_of_two_microscopes_are_two(folder, caplog, other, told):
    one = relion(folder / "one.star", [1, 2])
    two = relion(folder / "two.star", [1, 2, 3], **other)
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        assert groups(one, two) == [1, 2, 1001, 1002, 3]
    assert f"optics group 1 of two.star is another than that of one.star ({told})" in caplog.text
    # each is called the same, whatever comes after it; that of the first file as if it were alone
    three = relion(folder / "three.star", [1], **other)
    assert groups(one, two, three) == [1, 2, 1001, 1002, 3, 1001]
    assert groups(one) == [1, 2]
    assert "5 images in 5 optics group(s)" in read_particles([one, two]).described()


def test_groups_of_one_microscope_are_one(folder, caplog):
    """As in files that a particle set was cut into."""
    files = [relion(folder / f"{name}.star", [1, 2]) for name in "ab"]
    with caplog.at_level(logging.INFO, "cryolike_dask"):
        assert groups(*files) == [1, 2, 1, 2]
    assert "optics group(s) 1, 2 of several files have the same optics" in caplog.text
    assert "in 2 optics group(s)" in read_particles(files).described()


def test_files_without_groups(folder):
    """They have none, unless they must be told from others."""
    old = [star(folder / f"old{i}.star", n=2) for i in range(2)]
    assert groups(*old) is None
    other = star(folder / "other.star", n=2, voltage_kilovolt=200.0)
    assert groups(*old, other) == [1, 1, 1, 1, 2001, 2001]
    assert groups(relion(folder / "new.star", [1]), other) == [1, 1001, 1001]
