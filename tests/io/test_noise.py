"""Noise models in files: what is written comes back, the same model gives the same bytes, and
RELION's spectra are read as what they are."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.errors import InputError, InputFileError, OutputError
from cryolike_dask.geometry.noise import ALL_IMAGES, NoiseModel
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.noise import (
    noise_checksum,
    noise_entries,
    read_noise,
    write_noise,
    write_noise_unless_there,
)
from cryolike_dask.io.parameters import write_parameters
from cryolike_dask.io.star import write_star

GRID = ImageParameters(12, 1.5).grid
GROUPS = ("optics group a", "micrograph ü b.mrc", ALL_IMAGES)


@pytest.fixture
def model(rng):
    """Three groups, each with other numbers."""
    frequencies = np.linspace(0, 0.4, 9)
    variance = rng.uniform(0.5, 2, (3, 9))
    whole = NoiseModel.of_spectrum(frequencies, variance, GRID, GROUPS)
    return NoiseModel(
        **{
            **{name: getattr(whole, name) for name in noise_entries(whole)},
            "relative_error": rng.uniform(0, 0.1, (3, 9)),
            "n_images": np.array([5, 7, 0]),
            "band_limit": np.array([np.inf, 0.2, 0.3]),
            "share": np.array([1, 0.5, np.nan]),
            "reasons": ("the whole box", "masked", ""),
            "b_factor_angstrom2": np.array([0.0, 50, -20]),
            "b_factor_error": np.array([np.nan, 3, 4]),
        }
    )


def assert_same(one, other):
    """Every number, and every word."""
    for name, value in noise_entries(one).items():
        np.testing.assert_array_equal(value, noise_entries(other)[name], err_msg=name)


def test_round_trip(model, tmp_path):
    path, other = tmp_path / "noise.npz", tmp_path / "other.npz"
    write_noise(path, model)
    write_noise(other, read_noise(path))
    assert_same(read_noise(str(path)), model)
    assert path.read_bytes() == other.read_bytes()
    assert noise_checksum(path) == noise_checksum(other)


def test_first_writer_wins(model, tmp_path):
    path = tmp_path / "new" / "noise.npz"
    assert write_noise_unless_there(path, model)
    there = path.read_bytes()
    assert not write_noise_unless_there(path, model.take(np.array([0])))
    assert path.read_bytes() == there
    assert [file.name for file in path.parent.iterdir()] == ["noise.npz"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"variance": None}, "lacks variance"),
        ({"variance": np.zeros((3, 9))}, "zero, negative or not finite"),
        ({"variance": np.full((3, 9), np.nan)}, "zero, negative or not finite"),
        ({"variance": np.ones((3, 8))}, "variance has the shape"),
        ({"frequencies": np.arange(9)[::-1]}, "ascending"),
        ({"frequencies": np.zeros(1), "variance": np.ones((3, 1))}, "shape"),
        ({"groups": np.array(["a", "a", "b"])}, "groups"),
        ({"groups": np.arange(3)}, "groups holds int64"),
        ({"n_pixels": np.array(0)}, "n_pixels=0"),
        ({"pixel_size_angstrom": np.array(np.nan)}, "pixel_size_angstrom=nan"),
        ({"share": np.array([1, 0, 1.0])}, "share"),
        ({"b_factor_angstrom2": np.array([0, 0, 1e4])}, "b_factor=10000"),
    ],
)
def test_bad_files_are_refused(model, tmp_path, changes, what):
    path = tmp_path / "noise.npz"
    entries = {k: v for k, v in {**noise_entries(model), **changes}.items() if v is not None}
    np.savez(path, **entries)
    with pytest.raises(InputFileError, match=what) as error:
        read_noise(path)
    assert str(path) in str(error.value)


def test_files_that_are_none(model, tmp_path):
    path = tmp_path / "noise.npz"
    with pytest.raises(InputFileError, match="there is no such file"):
        read_noise(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputFileError, match=r"noise\.npz"):
        read_noise(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(InputFileError, match=r"is no noise model\. .*`cryolike-dask noise` makes"):
        read_noise(path)
    write_parameters(tmp_path / "parameters.npz", ImageParameters(12, 1.5))
    with pytest.raises(InputFileError, match="is no noise model, but holds parameters") as error:
        read_noise(tmp_path / "parameters.npz")
    assert "`cryolike-dask noise` makes" in str(error.value)
    with pytest.raises(InputError, match="not the path"):
        read_noise(None)
    with pytest.raises(InputError, match="dict is no noise model"):
        write_noise(path, {})
    with pytest.raises(OutputError, match="is a folder"):
        write_noise(tmp_path, model)


def relion(path, spectra, *, table="model_optics_groups", block="model_optics_group_", **general):
    """A model.star of spectra by name of the group."""
    general = {"rlnOriginalImageSize": [12], "rlnPixelSize": [1.5], **general}
    label = "rlnOpticsGroupName" if "optics" in table else "rlnGroupName"
    blocks = {
        "model_general": general,
        table: {label: list(spectra), "rlnGroupNrParticles": [9] * len(spectra)},
    }
    for number, sigma2 in enumerate(spectra.values(), 1):
        index = np.arange(len(sigma2))
        columns = {"rlnSpectralIndex": index, "rlnResolution": index / 18, "rlnSigma2Noise": sigma2}
        blocks[f"{block}{number}"] = columns
    write_star(path, blocks)


SIGMA2 = [0.0, 7, 6, 5, 4, 3, 2]


def test_relion(tmp_path):
    path = tmp_path / "run_model.star"
    relion(path, {"opticsGroup1": SIGMA2})
    model = read_noise(path)
    assert (model.groups, model.n_pixels, model.pixel_size_angstrom) == ((ALL_IMAGES,), 12, 1.5)
    np.testing.assert_allclose(model.frequencies, np.arange(1, 7) / 18)
    np.testing.assert_array_equal(model.variance, [SIGMA2[1:]])
    assert np.isinf(model.band_limit[0])
    assert np.isfinite(model.spectra(GRID)).all()


def test_relion_of_several_groups(tmp_path):
    path = tmp_path / "model.star"
    relion(path, {"a": SIGMA2, "b": [0.0, 9, 8, 7, 0, 0, 0]})
    model = read_noise(path)
    assert model.groups == ("optics group a", "optics group b")
    np.testing.assert_allclose(model.band_limit, [np.inf, 3 / 18])
    np.testing.assert_array_equal(model.variance[1], [9, 8, 7, 7, 7, 7])
    assert "6 angstrom" in model.reasons[1]
    assert np.isinf(model.spectra(GRID)[1]).any()
    assert model.find(np.array([["m", "b"], ["m", "a"]]), 2).tolist() == [1, 0]
    # before RELION 4 they are of micrographs
    older = {"table": "model_groups", "block": "model_group_"}
    relion(path, {"m1.mrc": SIGMA2, "m2.mrc": SIGMA2}, **older)
    assert read_noise(path).groups == ("micrograph m1.mrc", "micrograph m2.mrc")


@pytest.mark.parametrize(
    ("sigma2", "general", "what"),
    [
        ([0.0] * 7, {}, "is zero nearly everywhere"),
        ([0, 7, 0, 5, 4, 3, 2.0], {}, "zeros inside"),
        ([0, 7, -6, 5, 4, 3, 2.0], {}, "negative or not finite"),
        ([0, 7, np.nan, 5, 4, 3, 2], {}, "negative or not finite"),
        (SIGMA2, {"rlnPixelSize": [0]}, "0 angstrom"),
        (SIGMA2, {"rlnPixelSize": ["x"]}, "rlnPixelSize in data_model_general"),
    ],
)
def test_relion_that_cannot_be_used(tmp_path, sigma2, general, what):
    path = tmp_path / "model.star"
    relion(path, {"a": sigma2}, **general)
    with pytest.raises(InputFileError, match=what) as error:
        read_noise(path)
    assert str(path) in str(error.value)


def test_star_files_without_spectra(tmp_path):
    path = tmp_path / "particles.star"
    write_star(path, {"particles": {"rlnDefocusU": [1.0]}})
    with pytest.raises(InputFileError, match="holds no spectrum of the noise"):
        read_noise(path)
