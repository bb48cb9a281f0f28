"""The command line: the only files that print."""

from cryolike_dask.cli import config, inputs, likelihood, matrix, plan, run, verify
from cryolike_dask.cli.app import app

__all__ = ["app", "config", "inputs", "likelihood", "matrix", "plan", "run", "verify"]
