"""Files that options name: never in place of, nor added to, what is of another kind; and disks
that are full."""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path

import pytest

import cryolike_dask as cld
from cryolike_dask.compute.log import logging_to, reporting_to
from cryolike_dask.errors import OutputError
from cryolike_dask.io import outputs
from cryolike_dask.io.atomic import replacing
from tests.commands import in_process

GRID = ("--n-pixels", 16, "--pixel-size-angstrom", 2)
OURS = {
    outputs.LOG: b'{"time": "2026-01-01", "level": "info", "message": "finished", "name": "a"}\n',
    outputs.DASK_REPORT: b"<!DOCTYPE html>\n<title>Dask Performance Report</title>\n",
    outputs.STAR: b"# version 30001\n\ndata_optics\n\nloop_\n",
    outputs.NPY: b"\x93NUMPY\x01\x00v\x00{'descr'",
    outputs.NPZ: b"PK\x03\x04\x14\x00",
    outputs.RUN: b"# an example\nlikelihood:\n  kind: optimal_pose\n",
}
OTHERS = [
    b"ATOM      1  CA  LEU A   1\n",
    b"\x00\x00\x00\x18\x00",
    b"{}\n",
    b'{"time": 1}',
    b"[" * 5000,
    b"<html>\n",
]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.name)
def test_only_a_file_of_its_own_kind_may_be_there(kind, tmp_path):
    path = tmp_path / "file"
    assert outputs.own_output(path, kind) == path
    long_line = OURS[outputs.LOG].replace(b"finished", b"x" * 9000)
    for content in (b"", OURS[kind], *([long_line] if kind is outputs.LOG else [])):
        path.write_bytes(content)
        assert outputs.own_output(path, kind) == path
    for content in [*OTHERS, *(head for other, head in OURS.items() if other is not kind)]:
        path.write_bytes(content)
        with pytest.raises(
            OutputError, match=f"file: is there already, and is no {kind.name}. Name another"
        ):
            outputs.own_output(path, kind)
        assert path.read_bytes() == content


@pytest.fixture
def special(tmp_path):
    """What is no file: a folder, a pipe, a socket, a device, and links to them."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "to-device").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        names = [
            *(tmp_path / name for name in ("pipe", "folder", "to-pipe", "to-device", "socket")),
            "/dev/full",
        ]
        before = [os.stat(name) for name in names]
        yield names
        assert [os.stat(name).st_ino for name in names] == [status.st_ino for status in before]


def test_what_is_no_file_is_refused_by_all_who_write(special):
    for path in special:
        for kind in OURS:
            with pytest.raises(OutputError, match=r"is a (folder|pipe)"):
                outputs.own_output(path, kind)
        for writing in (replacing(path), logging_to(path)):
            with pytest.raises(OutputError, match=r"is a (folder|pipe)"), writing:
                pytest.fail("not refused")


def test_options_that_name_files(tmp_path, special, cluster):
    (tmp_path / "model.pdb").write_bytes(OTHERS[0])
    for path in [tmp_path / "model.pdb", *special[:3]]:
        for command in (
            ["parameters", *GRID, "--overwrite", "--output", path],
            ["config", "init", path, "--force"],
        ):
            if path.is_dir() and command[0] == "config":
                continue  # the file is made in it
            refused = in_process(*command)
            assert refused.returncode == 4
            assert f"error: {path}: is" in refused.stderr
        with pytest.raises(OutputError, match="is"), reporting_to(path, cluster):
            pytest.fail("not refused")
    assert (tmp_path / "model.pdb").read_bytes() == OTHERS[0]
    for _ in range(2):  # its own kind is replaced
        assert not in_process(
            "parameters", *GRID, "--overwrite", "--output", tmp_path / "p.npz"
        ).returncode
        assert not in_process("config", "init", tmp_path / "run.yaml", "--force").returncode


def test_a_log_is_added_to_a_log(tmp_path):
    path = tmp_path / "log"
    for text in ("first", "second"):
        with logging_to(path):
            logging.getLogger("cryolike_dask").info(text)
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == [
        "first",
        "second",
    ]


def test_a_full_disk_under_a_log_is_one_warning(tmp_path, monkeypatch, caplog, capfd):
    """/dev/full is a disk that is full; here the log is let through to it."""
    # and not what commands have left there
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    monkeypatch.setattr("cryolike_dask.compute.log.own_output", lambda path, kind: path)
    with logging_to("/dev/full"):
        for i in range(3):
            logging.getLogger("cryolike_dask").info("piece %d", i)
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == [
        "/dev/full: cannot be written ([Errno 28] No space left on device); the run goes on "
        "without it"
    ]
    assert "Logging error" not in capfd.readouterr().err


def test_a_full_disk_under_a_performance_report_is_one_warning(
    tmp_path, cluster, monkeypatch, caplog
):
    monkeypatch.setattr("cryolike_dask.compute.log.own_output", lambda path, kind: path)
    with reporting_to(Path("/dev/full"), cluster):
        cluster.submit(os.getpid, pure=False).result()
    assert (
        "/dev/full: the performance report cannot be written ([Errno 28] No space left"
        in caplog.text
    )
    with pytest.raises(ZeroDivisionError), reporting_to(Path("/dev/full"), cluster):
        1 / 0  # noqa: B018
    with (
        pytest.raises(OutputError, match="no such folder"),
        reporting_to(tmp_path / "nowhere" / "page", cluster),
    ):
        pytest.fail("not refused")


def test_parameters_may_go_into_a_new_folder(tmp_path):
    assert cld.make_parameters(16, 2.0, path=tmp_path / "new" / "parameters.npz")
    assert (tmp_path / "new" / "parameters.npz").is_file()
