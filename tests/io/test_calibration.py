"""The file of a calibration: written and read, and refused where it is damaged."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.calibration import RunCalibration, read_calibration, write_calibration

MADE = RunCalibration(
    n_images=400,
    n_structures=2,
    seed=3,
    slope=0.97,
    slope_error=0.08,
    intercept=0.1,
    intercept_error=0.2,
    n_right=350,
    n_promised=352.5,
    correlation=0.31,
    correlation_of_run=0.3,
    views_between=True,
    results="abc",
    version="0.1.0",
)


def test_round_trip(tmp_path):
    path = tmp_path / "calibration.json"
    assert read_calibration(path) is None
    write_calibration(path, MADE)
    assert read_calibration(path) == MADE
    assert read_calibration(path).n_decided == 0
    counted = replace(MADE, n_decided=300, n_decided_right=299, decided_promised=298.7)
    write_calibration(path, counted)
    assert read_calibration(path) == counted
    before = json.loads(path.read_text())
    for name in ("n_decided", "n_decided_right", "decided_promised"):
        del before[name]
    path.write_text(json.dumps(before))
    assert repr(read_calibration(path)) == repr(MADE)
    many = replace(MADE, n_structures=3, intercept=math.nan, intercept_error=math.nan)
    write_calibration(path, many)
    again = read_calibration(path)
    assert math.isnan(again.intercept)
    assert replace(again, intercept=0, intercept_error=0) == replace(
        many, intercept=0, intercept_error=0
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"slope": "steep"}, "slope='steep'"),
        ({"slope": 1e300}, "slope"),
        ({"n_images": -1}, "n_images"),
        ({"n_images": True}, "n_images"),
        ({"n_right": 401}, "contradicts"),
        ({"n_decided": 3, "n_decided_right": 4}, "contradicts"),
        ({"n_decided": 401}, "contradicts"),
        ({"n_decided": None}, "n_decided"),
        ({"slope": None}, "contradicts"),
        ({"slope_error": -1}, "contradicts"),
        ({"views_between": 1}, "views_between"),
        ({"results": None}, "results"),
    ],
)
def test_what_is_never_written_is_not_believed(tmp_path, change, told):
    path = tmp_path / "calibration.json"
    write_calibration(path, MADE)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputFileError, match=told) as caught:
        read_calibration(path)
    assert str(path) in str(caught.value)
    assert "calibrate" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, '{"n_images": NaN}'])
def test_damage_is_told(tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(InputFileError, match=r"calibration\.json"):
        read_calibration(path)
