"""Exit codes of commands, by kinds of errors."""

from __future__ import annotations

from cryolike_dask.errors import (
    CannotFitError,
    ClusterError,
    DeviceError,
    FailedPiecesError,
    InputError,
    OutputError,
)

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "`verify` has found something wrong, or an error that is none of these",
    2: "the command line cannot be understood: an option is not known, or has no value",
    3: "input: a value or a file that cannot be used, or inputs that do not fit each other",
    4: "output: the folder or file holds something else, or cannot be written",
    5: "cannot fit: larger than the memory or the disk",
    6: "failed stacks: some image stacks or structures failed, all others are done",
    7: "cluster: a scheduler or its workers, or the device that was asked for",
    130: "stopped by Ctrl-C",
}
STOPPED = 130
KINDS: tuple[tuple[type[Exception], int], ...] = (
    (InputError, 3),
    (OutputError, 4),
    (CannotFitError, 5),
    (FailedPiecesError, 6),
    (ClusterError, 7),
    (DeviceError, 7),
    (OSError, 4),
)
"""Errors by their class, the first that fits; files that cannot be read are input errors by the
time that they are told."""


def exit_code(error: BaseException) -> int:
    """The exit code that an error is told by."""
    return next((code for kind, code in KINDS if isinstance(error, kind)), 1)
