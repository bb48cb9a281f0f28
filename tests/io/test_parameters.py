"""`parameters.npz`: what it holds comes back, defaults follow from the box, and what cannot be
used is refused."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.parameters import (
    make_parameters,
    parameters_entries,
    read_parameters,
    write_parameters,
)


@pytest.fixture
def path(tmp_path):
    """Where parameters go."""
    return tmp_path / "parameters.npz"


def save(path, parameters=None, **changes):
    """Write parameters with some entries changed."""
    entries = parameters_entries(ImageParameters(12, 1.5) if parameters is None else parameters)
    np.savez(
        path, **{k: np.empty(0) if v is None else v for k, v in {**entries, **changes}.items()}
    )


@pytest.mark.parametrize(
    "parameters",
    [
        ImageParameters(12, 1.5),
        ImageParameters(
            *(33, 1.346, 4.125, 48, 0.2, "double", 0.5),
            atom_radii=2.5,
            atom_selection="name CA and chain Ä",
            use_protein_residue_model=False,
            atom_shape="gaussian",
        ),
        ImageParameters(12, 1.5, symmetry="D7"),
        ImageParameters(12, 1.5, frame_origin=(1.5, 0, -2), superpose="name CA"),
        ImageParameters(12, 1.5, atom_shape="scattering"),
        ImageParameters(12, 1.5, atom_shape="scattering", atomic_b="file", bulk_solvent="babinet"),
        ImageParameters(12, 1.5, atom_shape="scattering", atomic_b=62.5, bulk_solvent=(0.6, 90)),
        ImageParameters(12, 1.5, atom_shape="scattering", use_protein_residue_model=True),
    ],
    ids=[
        "defaults",
        "all given",
        "symmetric",
        "in a frame",
        "scattering",
        "B of files",
        "one B",
        "residues win",
    ],
)
def test_round_trip(path, parameters):
    write_parameters(path, parameters)
    assert read_parameters(path) == parameters
    assert read_parameters(str(path)) == parameters
    assert read_parameters(parameters) is parameters


def test_scattering_is_written_in_words_that_the_older_program_knows(path):
    write_parameters(path, ImageParameters(12, 1.5, atom_shape="scattering", atomic_b=60))
    with np.load(path, allow_pickle=False) as entries:
        assert str(entries["atom_shape"]) == "gaussian"
        assert bool(entries["scattering"])
        assert entries["atomic_b"] == 60
        assert "bulk_solvent" not in entries
    write_parameters(path, ImageParameters(12, 1.5))
    with np.load(path, allow_pickle=False) as entries:  # no key more than ever
        assert not {"scattering", "atomic_b", "bulk_solvent"} & set(entries)


def test_scattering_takes_all_atoms_unless_residues_are_asked_for():
    for made_by in (ImageParameters, make_parameters):
        default, scattering = (
            made_by(12, 1.5, atom_shape=shape) for shape in ("default", "scattering")
        )
        assert (default.use_protein_residue_model, default.scatters) == (True, False)
        assert (scattering.use_protein_residue_model, scattering.scatters) == (False, True)
        wins = made_by(12, 1.5, atom_shape="scattering", use_protein_residue_model=True)
        assert (wins.use_protein_residue_model, wins.scatters) == (True, False)


def test_one_meaning_has_one_value():
    made = [
        ImageParameters(12, 1.5, atom_shape="scattering", **given)
        for given in (
            {},
            {"atomic_b": "none", "bulk_solvent": "none"},
            {"atomic_b": 0},
            {"atomic_b": np.float32(0), "bulk_solvent": None},
        )
    ]
    assert set(made) == {made[0]}
    assert made[0].atomic_b == 0.0
    babinet, given = (
        ImageParameters(12, 1.5, atom_shape="scattering", bulk_solvent=solvent)
        for solvent in ("babinet", [0.85, np.float64(200)])
    )
    assert babinet == given
    assert json.dumps(asdict(babinet)) == json.dumps(asdict(given))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"atomic_b": -1}, "atomic_b=-1 is not a number, 0 or more"),
        ({"atomic_b": 501}, "atomic_b=501 is more than 500"),
        ({"atomic_b": np.nan}, "atomic_b=nan"),
        ({"atomic_b": "60"}, "atomic_b='60' is not none, file or a number"),
        ({"atomic_b": True}, "atomic_b=True"),
        ({"bulk_solvent": "flat"}, "bulk_solvent='flat' is not none, babinet"),
        ({"bulk_solvent": (0.85,)}, r"bulk_solvent=\(0\.85,\) is not none"),
        ({"bulk_solvent": (1.0, 200)}, "bulk_solvent=1, 200 is not a share below 1"),
        ({"bulk_solvent": (0.5, -1)}, "bulk_solvent=-1"),
        ({"bulk_solvent": 0.5}, "bulk_solvent=0.5 is not none"),
        ({"atom_radii": 2.0}, "excludes atom_radii=2.0. Atoms that scatter have no"),
        (
            {"atomic_b": 9, "use_protein_residue_model": True},
            "atomic_b=9.0 is for atoms that",
        ),
        ({"atomic_b": "file", "atom_shape": "gaussian"}, "atomic_b='file' is for atoms"),
        ({"bulk_solvent": "babinet", "atom_shape": "default"}, "bulk_solvent=.* is for atoms that"),
    ],
    ids=str,
)
def test_b_factors_and_solvent_that_cannot_be(path, given, complaint):
    for made_by in (ImageParameters, make_parameters):
        with pytest.raises(InputError, match=complaint):
            made_by(12, 1.5, **{"atom_shape": "scattering", **given})


@pytest.mark.parametrize(
    "changes",
    [
        {"atomic_b": -3.0},
        {"atomic_b": "other"},
        {"atomic_b": np.ones(2)},
        {"bulk_solvent": np.ones(3)},
        {"bulk_solvent": 0.5},
        {"scattering": np.ones(2)},
    ],
    ids=str,
)
def test_files_of_scattering_that_cannot_be_used(path, changes):
    save(path, ImageParameters(12, 1.5, atom_shape="scattering"), **changes)
    with pytest.raises(InputFileError, match=r"parameters\.npz: "):
        read_parameters(path)


def test_defaults():
    parameters = ImageParameters(32, 1.1)
    assert (parameters.radius_max, parameters.n_inplanes, parameters.dist_radii) == (8.0, 64, 0.25)
    assert parameters.viewing_distance == pytest.approx(1 / (4 * math.pi), rel=1e-15)
    assert parameters.grid.n_shells == 33
    assert len(parameters.viewing_angles()) == 2370
    assert parameters.precision == "default"


def test_viewing_distance_follows_the_resolution_factor():
    parameters = ImageParameters(32, 1.1, radius_max=4.0)
    assert parameters.viewing_distance == pytest.approx(1 / (2 * math.pi), rel=1e-15)


def test_scalars_stand_for_squares(path):
    save(path, n_pixels=12, pixel_size=1.5)
    assert read_parameters(path) == ImageParameters(12, 1.5)
    save(path, n_pixels=np.array([12]), pixel_size=np.array([1.5]))
    assert read_parameters(path) == ImageParameters(12, 1.5)


@pytest.mark.parametrize(
    "given",
    [
        {"n_pixels": np.int64(12)},
        {"n_inplanes": np.int64(20)},
        {"pixel_size_angstrom": np.float32(1.5)},
        {"atom_radii": np.float32(2)},
        {"atom_radii": np.int64(2)},
    ],
    ids=str,
)
def test_numbers_of_numpy_become_plain(given):
    plain = {name: value.item() for name, value in given.items()}
    parameters, expected = (
        ImageParameters(**{"n_pixels": 12, "pixel_size_angstrom": 1.5, **g}) for g in (given, plain)
    )
    assert parameters == expected
    assert json.dumps(asdict(parameters)) == json.dumps(asdict(expected))  # as records hold them


@pytest.mark.parametrize("none", [np.empty(0), np.array(None)], ids=["empty", "pickled"])
def test_none_of_both_programs(path, none):
    save(path, atom_radii=none, atom_selection=none)
    assert (read_parameters(path).atom_radii, read_parameters(path).atom_selection) == (None, None)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_pixels": np.array([12, 14])}, r"n_pixels=\[12, 14\] is not square"),
        ({"pixel_size": np.array([1.5, 1.6])}, r"pixel_size=\[1\.5, 1\.6\] is not square"),
        ({"n_pixels": np.array([12, 12, 12])}, r"n_pixels=\[12, 12, 12\] is not square"),
        ({"n_pixels": np.zeros(0, int)}, r"n_pixels=\[\]"),
        ({"n_inplanes": 23}, r"n_inplanes=23 is not a positive even number"),
        ({"n_inplanes": -2}, r"n_inplanes=-2 is not a positive even number"),
        ({"n_inplanes": 24.5}, r"n_inplanes"),
        ({"n_pixels": 12.5}, r"n_pixels"),
        ({"n_pixels": 0}, r"n_pixels=0"),
        ({"pixel_size": np.nan}, r"pixel_size(_angstrom)?=\[?nan"),
        ({"pixel_size": -1.5}, r"pixel_size(_angstrom)?=-1\.5 is not positive"),
        ({"radius_max": np.inf}, r"radius_max=inf is not a finite number"),
        ({"radius_max": np.array([3.0, 4.0])}, r"radius_max"),
        ({"dist_radii": 0.0}, r"dist_radii=0\.0 is not positive"),
        ({"viewing_distance": -0.1}, r"viewing_distance=-0\.1 is not positive"),
        ({"viewing_distance": np.nan}, r"viewing_distance=nan is not positive"),
        ({"precision": "half"}, r"precision='half' is not default, single or double"),
        ({"atom_shape": "cube"}, r"atom_shape='cube'"),
        ({"pixel_size": "1.5 A"}, r"pixel_size"),
    ],
    ids=lambda value: (
        None if isinstance(value, str) else " ".join(f"{k}={v}" for k, v in value.items())
    ),
)
def test_what_cannot_be_used(path, changes, complaint):
    save(path, **changes)
    with pytest.raises(InputFileError, match=r"parameters\.npz: .*" + complaint):
        read_parameters(path)


@pytest.mark.parametrize("value", [None, 3, {"n_pixels": 12}, ["parameters.npz"]])
def test_neither_path_nor_parameters(value):
    with pytest.raises(
        InputError, match=f"params_input is a {type(value).__name__}.* Give the path"
    ):
        read_parameters(value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_inplanes": 21}, "n_inplanes=21"),
        ({"precision": "float32"}, "precision='float32'"),
        ({"n_pixels": 12.5}, "n_pixels=12.5"),
        ({"n_pixels": "12"}, "n_pixels='12'"),
        ({"n_inplanes": 24.0}, "n_inplanes=24.0"),
        ({"pixel_size_angstrom": None}, "pixel_size_angstrom=None"),
        ({"viewing_distance": -1.0}, "viewing_distance=-1.0"),
        (
            {"viewing_distance": 1e-300},
            "viewing_distance=1e-300 gives more than a million directions",
        ),
        ({"atom_radii": "2"}, "atom_radii='2' is not a number"),
        ({"atom_radii": -2.0}, "atom_radii=-2.0 is not positive"),
        ({"atom_radii": np.nan}, "atom_radii=nan is not positive"),
    ],
    ids=lambda value: (
        None if isinstance(value, str) else " ".join(f"{k}={v}" for k, v in value.items())
    ),
)
def test_parameters_by_hand(changes, complaint):
    for made_by in (ImageParameters, make_parameters):
        with pytest.raises(InputError, match=complaint):
            made_by(**{"n_pixels": 12, "pixel_size_angstrom": 1.5, **changes})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"view_step_degrees": 181}, "view_step_degrees=181 is more than half a turn. Give 180"),
        ({"view_step_degrees": 0}, "view_step_degrees=0 is not positive"),
        ({"view_step_degrees": -4}, "view_step_degrees=-4 is not positive"),
        ({"view_step_degrees": np.nan}, "view_step_degrees=nan is not positive"),
        ({"view_step_degrees": "4"}, "view_step_degrees='4' is not a number"),
        ({"view_step_degrees": 1e-9}, "view_step_degrees=1e-09 gives more than a million"),
        ({"view_step_degrees": 4, "viewing_distance": 0.1}, "exclude each other"),
        ({"resolution_angstrom": 9.9}, "finer than two pixels, which are 10 angstrom"),
        ({"resolution_angstrom": np.inf}, "resolution_angstrom=inf is not a finite number"),
        ({"resolution_angstrom": 121}, "resolution_angstrom=121 is more than the box of 120"),
        ({"resolution_angstrom": 20, "resolution_factor": 0.5}, "exclude each other"),
        ({"resolution_factor": 1.5}, "resolution_factor=1.5 is beyond the Nyquist frequency"),
    ],
    ids=str,
)
def test_what_cannot_be_a_step_or_a_resolution(changes, complaint):
    with pytest.raises(InputError, match=complaint):
        make_parameters(24, 5.0, **changes)


def test_degrees_and_angstrom_say_what_the_older_words_said():
    told = make_parameters(24, 5.0, resolution_angstrom=25, view_step_degrees=math.degrees(0.4))
    before = make_parameters(24, 5.0, resolution_factor=0.4, viewing_distance=0.4)
    assert told.radius_max == pytest.approx(before.radius_max, rel=1e-15)
    assert told.viewing_distance == pytest.approx(before.viewing_distance, rel=1e-15)
    assert told.resolution_angstrom == pytest.approx(25)
    assert told.view_step_degrees == pytest.approx(math.degrees(0.4))
    # a pixel size that was rounded
    assert make_parameters(24, 1.0 / 3, resolution_angstrom=0.6666666).radius_max == 6


def test_a_viewing_distance_in_degrees():
    with pytest.raises(
        InputError, match=r"viewing_distance=15 is more than half a turn\. It is in radian"
    ):
        make_parameters(24, 5.0, viewing_distance=15)
