"""The table of blocks that runs append to."""

from __future__ import annotations

import pytest

from cryolike_dask.analysis.block_times import read_blocks
from cryolike_dask.errors import InputFileError
from tests.analysis.making import write_blocks


def test_blocks_are_read_and_damaged_rows_counted(tmp_path):
    path = tmp_path / "blocks.csv"
    write_blocks(path, [1.5, 2.5, "x", "nan", -1, 0.5])
    with open(path, "a") as file:
        file.write("2026-01-01T00:00:59,half a ro")
    blocks = read_blocks(path)
    assert blocks.seconds.tolist() == [1.5, 2.5, 0.5]
    assert blocks.device.tolist() == ["cpu"] * 3
    assert blocks.n_unreadable == 4
    assert (blocks.first, blocks.last) == ("2026-01-01 00:00:00", "2026-01-01 00:00:05")


def test_what_is_no_table_of_blocks_is_refused(tmp_path):
    for content, match in (
        (b"", "lacks device, seconds, time"),
        (b"\x89PNG\r\n\x00\x1a", "no table of blocks"),
    ):
        (tmp_path / "blocks.csv").write_bytes(content)
        with pytest.raises(InputFileError, match=match):
            read_blocks(tmp_path / "blocks.csv")
    with pytest.raises(InputFileError, match=r"nowhere\.csv: there is no such file"):
        read_blocks(tmp_path / "nowhere.csv")
