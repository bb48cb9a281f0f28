"""What numbers can be: other units are refused, oddities are told with their rows, and real
optics pass in silence."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cryolike_dask.errors import InputError
from cryolike_dask.geometry.optics import OPTICS, optics_table, remarks_on
from cryolike_dask.geometry.plausible import QUANTITIES, Wording, refuse_implausible, unusual

COLUMNS = {
    "defocus_u_angstrom": 15000.0,
    "defocus_v_angstrom": 14000.0,
    "defocus_angle_radian": 0.5,
    "voltage_kilovolt": 300.0,
    "spherical_aberration_mm": 2.7,
    "amplitude_contrast": 0.1,
}


def test_every_optical_quantity_has_a_range():
    assert set(OPTICS.names) <= set(QUANTITIES)


@pytest.mark.parametrize(
    ("name", "value", "unit"),
    [
        ("voltage_kilovolt", 200000.0, "volts"),
        ("voltage_kilovolt", 0.2, "megavolts"),
        ("spherical_aberration_mm", 2.7e7, "angstrom"),
        ("spherical_aberration_mm", 1400.0, "micrometre"),
        ("amplitude_contrast", 7.0, "percent"),
        ("amplitude_contrast", 10.0, "percent"),
        ("defocus_angle_radian", -90.0, "degrees"),
        ("phase_shift_radian", 45.0, "degrees"),
        ("pixel_size_angstrom", 1.31e-10, "metre"),
        ("pixel_size_angstrom", 1.31e-4, "micrometre"),
    ],
)
def test_values_in_another_unit_are_refused_and_the_unit_is_guessed(name, value, unit):
    with pytest.raises(
        InputError,
        match=rf"{name}={re.escape(f'{value:g}')} of image\(s\) 1, 2 is not a value in .*: it "
        rf"looks like {unit}",
    ):
        refuse_implausible(name, np.array([np.mean(QUANTITIES[name].usual), value, value]))


@pytest.mark.parametrize("value", [1e300, -1e300, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("name", sorted(QUANTITIES))
def test_absurd_values_are_refused_with_row_and_value(name, value):
    usual, rows = np.mean(QUANTITIES[name].usual), Wording({name: "column"}, in_rows=True)
    complaint = (
        rf"column is {re.escape(f'{value:g}')} in row 2 \(from 0\), which is no value in "
        rf".*; 1 such row"
    )
    with pytest.raises(InputError, match=complaint):
        refuse_implausible(name, np.array([usual, usual, value]), rows)


@pytest.mark.parametrize(
    ("u", "v", "unit"),
    [
        (1.5, 1.4, "micrometre"),
        ([0.6, 2.9], [0.5, 2.8], "micrometre"),
        (-1.2, -1.3, "micrometre"),
        (2e-6, 1e-6, "metre"),
    ],
)
def test_a_set_with_defocus_in_another_unit_is_refused(u, v, unit):
    with pytest.raises(
        InputError,
        match=rf"defocus_u_angstrom=.* of image\(s\) 0, 1 .* looks like {unit}|defocus_v.*{unit}",
    ):
        optics_table(2, **{**COLUMNS, "defocus_u_angstrom": u, "defocus_v_angstrom": v})


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"defocus_u_angstrom": 0, "defocus_v_angstrom": 0},
            "are 0 for all 4 images: .* not to have been estimated",
        ),
        (
            {"defocus_u_angstrom": [0, 1e4, 0, 1e4], "defocus_v_angstrom": [0, 1e4, 0, 1e4]},
            r"are 0 for image\(s\) 0, 2, 2 of 4 images: .*estimated",
        ),
        (
            {"defocus_u_angstrom": -1e4, "defocus_v_angstrom": -9e3},
            "negative for all 4 images .overfocus.*positive",
        ),
        (
            {
                "defocus_u_angstrom": [1e4, 1.5, 1e4, 1e4],
                "defocus_v_angstrom": [1e4, 1.4, 1e4, 1e4],
            },
            r"1.5 .*\(1 of 4\)",
        ),
        (
            {"defocus_u_angstrom": 900, "defocus_v_angstrom": 800},
            r"900 for .* nanometre \(4 of 4\)",
        ),
        (
            {"defocus_u_angstrom": 1.2e5, "defocus_v_angstrom": 9e4},
            r"120000 for .*unusual for a value in angstrom",
        ),
        (
            {"defocus_v_angstrom": 0},
            r"far apart \(15000 and 0 angstrom\) for image\(s\) 0, 1, 2, 3, 4 of 4",
        ),
        ({"defocus_v_angstrom": 1.4}, "far apart"),
        (
            {"voltage_kilovolt": [300, 30, 300, 300]},
            r"voltage_kilovolt is 30 for image\(s\) 1, which is unusual .*1 of 4",
        ),
        ({"spherical_aberration_mm": 0.0027}, "looks like metre"),
        ({"spherical_aberration_mm": 27}, "spherical_aberration_mm is 27 .*unusual"),
        ({"amplitude_contrast": 0.7}, "amplitude_contrast is 0.7 .*unusual"),
        ({"b_factor_angstrom2": -80}, "b_factor_angstrom2 is -80 .*unusual"),
        ({"scale": -1}, "scale is -1 .*unusual"),
        (
            {"defocus_u_angstrom": 1.5, "defocus_v_angstrom": 1.4, "phase_shift_radian": np.pi / 2},
            r"1.5 for .*micrometre \(4 of 4\)",
        ),
    ],
)
def test_what_is_odd_is_told_once_and_counted(columns, said):
    (line,) = remarks_on(optics_table(4, **{**COLUMNS, **columns}))
    assert re.search(said, line), line


@pytest.mark.parametrize(
    "columns",
    [
        {"phase_shift_radian": np.pi / 2},
        {
            "phase_shift_radian": -1.2,
            "defocus_u_angstrom": 90.0,
            "defocus_v_angstrom": [50.0, 800.0],
        },
        {"amplitude_contrast": 1.0},
    ],
)
def test_images_in_focus_on_purpose_are_no_oddity(columns):
    assert (
        remarks_on(
            optics_table(
                2, **{**COLUMNS, "defocus_u_angstrom": 0, "defocus_v_angstrom": 0, **columns}
            )
        )
        == []
    )


def test_optics_of_any_microscope_pass_in_silence(rng):
    for _ in range(30):
        n = int(rng.integers(1, 50))
        mean, half = rng.uniform(2000, 40000, n), rng.uniform(-500, 500, n)
        table = optics_table(
            n,
            defocus_u_angstrom=mean + half,
            defocus_v_angstrom=mean - half,
            defocus_angle_radian=np.radians(rng.uniform(-360, 360, n)).astype(np.float32),
            phase_shift_radian=rng.choice([0.0, np.pi / 2])
            + rng.uniform(0, 1, n) * rng.choice([0, 1]),
            voltage_kilovolt=rng.choice([80, 100, 120, 200, 300, 400, 1000], n),
            spherical_aberration_mm=rng.choice([0, 0.001, 0.01, 1.2, 2.0, 2.7, 4.1, 6.3], n),
            amplitude_contrast=rng.choice([0, 0.07, 0.1, 0.2, 0.4, 1], n),
            b_factor_angstrom2=rng.uniform(0, 300, n),
            scale=rng.uniform(0.1, 2, n),
        )
        assert remarks_on(table) == []


def test_only_what_is_possible_is_unusual():
    for name, quantity in QUANTITIES.items():
        ends = np.array(quantity.possible)
        refuse_implausible(name, ends)
        assert quantity.possible[0] <= quantity.usual[0] < quantity.usual[1] <= quantity.possible[1]
        assert unusual(name, np.array(quantity.usual)) == []
