"""The command line: the only files that print."""

# isort: off
# `--help` lists commands in the order in which they are imported here.
from cryolike_dask.cli import (
    likelihood,
    demo,
    plan,
    export,
    parameters,
    templates,
    decoys,
    particles,
    simulate,
    noise,
    matrix,
    report,
    calibrate,
    residuals,
    run,
    verify,
    config,
)
from cryolike_dask.cli.app import app
# isort: on

__all__ = [
    "app",
    "calibrate",
    "config",
    "decoys",
    "demo",
    "export",
    "likelihood",
    "matrix",
    "noise",
    "parameters",
    "particles",
    "plan",
    "report",
    "residuals",
    "run",
    "simulate",
    "templates",
    "verify",
]
