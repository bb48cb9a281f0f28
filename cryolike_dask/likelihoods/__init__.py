"""Images against templates: interface (Dask and xarray), graph (its blocks), blocks (one task),
kernels (torch)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
