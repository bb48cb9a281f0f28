"""The command line: the only files that print."""

from cryolike_dask.cli import config, export, likelihood, make, matrix, plan, report, run, verify
from cryolike_dask.cli.app import app

__all__ = [
    "app",
    "config",
    "export",
    "likelihood",
    "make",
    "matrix",
    "plan",
    "report",
    "run",
    "verify",
]
