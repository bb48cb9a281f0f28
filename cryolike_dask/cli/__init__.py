"""The command line: the only files that print."""

from cryolike_dask.cli import inputs, likelihood, plan, verify
from cryolike_dask.cli.app import app

__all__ = ["app", "inputs", "likelihood", "plan", "verify"]
