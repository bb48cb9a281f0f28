"""`python -m cryolike_dask`: the command line."""

from cryolike_dask.cli import app

app()
