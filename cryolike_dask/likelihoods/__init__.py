"""Images against templates: kernels (torch), blocks (one task), poses (numpy), interface (Dask and xarray)."""
