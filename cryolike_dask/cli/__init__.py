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
    subset,
    decoys,
    particles,
    simulate,
    noise,
    matrix,
    populations,
    report,
    compare,
    calibrate,
    design,
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
    "compare",
    "config",
    "decoys",
    "demo",
    "design",
    "export",
    "likelihood",
    "matrix",
    "noise",
    "parameters",
    "particles",
    "plan",
    "populations",
    "report",
    "residuals",
    "run",
    "simulate",
    "subset",
    "templates",
    "verify",
]
