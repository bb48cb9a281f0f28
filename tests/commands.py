"""Commands, run in this process."""

from __future__ import annotations

import logging
import subprocess
import traceback

from typer.testing import CliRunner

from cryolike_dask.cli import app


def worked(done):
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def in_process(*arguments):
    """Run the command, and give what it did: imports are most of the time of a process of its
    own."""
    root, ours = logging.getLogger(), logging.getLogger("cryolike_dask")
    before = root.handlers[:], root.level, ours.level
    try:
        result = CliRunner().invoke(
            app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"}
        )
    finally:
        root.handlers[:], level, ours.level = before
        root.setLevel(level)
    unexpected = result.exception is not None and not isinstance(result.exception, SystemExit)
    told = "".join(traceback.format_exception(result.exception)) if unexpected else ""
    return subprocess.CompletedProcess(
        arguments, result.exit_code, result.stdout, result.stderr + told
    )
