"""Figures of noise models: which lines are drawn, and what they are called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import cryolike_dask as cld
from cryolike_dask.analysis.plots.noise_plots import relative_variance
from cryolike_dask.errors import InputError

FREQUENCIES = np.linspace(0, 0.3, 13)
GRID = cld.ImageParameters(12, 1.5).grid


def model_of(n_groups):
    """White noise, and more of the lowest frequencies in each further group."""
    slopes = np.arange(n_groups)[:, None]
    groups = [f"optics group $a_{i}$" for i in range(n_groups)]
    model = cld.NoiseModel.of_spectrum(FREQUENCIES, 1 / (1 + slopes * FREQUENCIES), GRID, groups)
    return replace(model, n_images=np.arange(n_groups) + 5)


def test_each_group_is_a_line_with_its_error_up_to_where_its_noise_ends():
    model = replace(
        model_of(2),
        relative_error=np.full((2, 13), 0.1),
        band_limit=np.array([np.inf, 0.2]),
    )
    figure = cld.plot_noise(model)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert [len(line.get_xdata()) for line in lines] == [13, 9]
    np.testing.assert_allclose(lines[0].get_ydata(), 1)
    assert len(axes.collections) == 2
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["optics group $a_0$ (5 images)", "optics group $a_1$ (6 images)"]
    assert axes.get_xlabel() == "spatial frequency (1/Å)"
    low, high = axes.get_ylim()
    assert (low, high) == (0.5, 2)


def test_variance_is_relative_to_its_geometric_mean_over_rings():
    f, variance = relative_variance(model_of(3), 2)
    assert np.average(np.log(variance), weights=f) == pytest.approx(0)
    assert variance[0] / variance[-1] == pytest.approx(1.6)


def test_of_many_groups_those_of_most_images_are_drawn():
    figure = cld.plot_noise(model_of(15))
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [name.split("$")[1] for name in named] == [f"a_{i}" for i in range(3, 15)]
    assert figure.axes[0].get_title() == "12 of 15 groups; 3 are of fewer images"


def test_what_is_no_noise_model():
    with pytest.raises(InputError, match="dict is no noise model"):
        cld.plot_noise({})
