"""MDAnalysis, which reads what simulations write: imported when needed, for it is an extra."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from cryolike_dask.errors import CryolikeError, InputError, InputFileError

PACKAGE = "MDAnalysis"
_ONE_AT_A_TIME = RLock()


def library(module: str = PACKAGE) -> Any:
    """Import a module of MDAnalysis.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        with quiet():
            return importlib.import_module(module)
    except ImportError as error:
        if (error.name or PACKAGE).split(".")[0] != PACKAGE:
            raise
        raise InputError(
            "trajectories are read by MDAnalysis, which is not installed",
            remedy='Install it: pip install "cryolike_dask[trajectories]".',
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Use the library without what it tells those who program with it, and the log; one thread at a
    time, for neither these nor its readers are made for several."""
    with _ONE_AT_A_TIME:
        log = logging.getLogger(PACKAGE)
        level = log.level
        try:
            log.setLevel(logging.CRITICAL)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            log.setLevel(level)


@contextmanager
def reading_by_library(path: str | Path, what: str) -> Iterator[None]:
    """Say which file it is that the library cannot read.

    Raises
    ------
    InputFileError
        In place of whatever the library raises: its readers raise errors of many kinds.
    """
    try:
        yield
    except CryolikeError:
        raise
    except ImportError as error:
        raise InputFileError(
            f"needs a package that is not installed to be read: {error}", source=path
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputFileError(f"{what} ({reason})", source=path) from error
