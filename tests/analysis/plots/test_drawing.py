"""Figures show themselves."""

import cryolike_dask as cld
from cryolike_dask.analysis.plots.drawing import new_figure


def test_a_figure_shows_itself_in_a_notebook(build):
    images, _ = build.stacks(n_images=2)
    for figure in (cld.plot_images(images), new_figure()):
        assert figure._repr_png_().startswith(b"\x89PNG")
