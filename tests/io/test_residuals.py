"""The file of residuals: what is written is read, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.errors import InputFileError
from cryolike_dask.io.archives import write_archive
from cryolike_dask.io.residuals import Residuals, read_residuals, write_residuals

GOOD = {
    "stack": np.zeros(3, np.int64),
    "image_in_stack": np.arange(3),
    "residual_p_value": np.array([0.1, np.nan, 1.0]),
    "results": "abc",
}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "residuals.npz"
    assert read_residuals(path) is None
    write_residuals(path, Residuals(*GOOD.values()))
    found = read_residuals(path)
    np.testing.assert_array_equal(found.p_value, GOOD["residual_p_value"])
    np.testing.assert_array_equal(found.image_in_stack, np.arange(3))
    assert found.results == "abc"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"stack": np.zeros(2, np.int64)}, "stack"),
        ({"image_in_stack": np.zeros(3)}, "image_in_stack"),
        ({"residual_p_value": np.array([0.1, 2.0, 0.3])}, "residual_p_value"),
        ({"residual_p_value": np.array([0.1, -1.0, 0.3])}, "residual_p_value"),
        ({"residual_p_value": np.array(["a", "b", "c"])}, "residual_p_value"),
        ({"results": np.arange(3)}, "results"),
    ],
)
def test_anything_else_is_refused_by_its_name(tmp_path, change, name):
    path = tmp_path / "residuals.npz"
    write_archive(path, {**GOOD, **change})
    with pytest.raises(InputFileError, match=rf"{name}.*cryolike-dask residuals"):
        read_residuals(path)
    write_archive(path, {key: value for key, value in GOOD.items() if key != name})
    with pytest.raises(InputFileError):
        read_residuals(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nothing", b"\0" * 100])
def test_damage_is_told(tmp_path, content):
    path = tmp_path / "residuals.npz"
    path.write_bytes(content)
    with pytest.raises(InputFileError):
        read_residuals(path)
