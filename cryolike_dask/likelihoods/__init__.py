"""The comparison of images with templates: kernels (torch), blocks (one task), poses (numpy), interface (Dask and xarray)."""
