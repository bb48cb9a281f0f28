"""Grids and physical parameters: frozen dataclasses on numpy, with no torch, Dask or xarray."""
