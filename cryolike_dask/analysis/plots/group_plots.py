"""Figures of shares in groups of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolike_dask.analysis.group_shares import Grouped
from cryolike_dask.analysis.plots.drawing import COLOURS, new_panel, plain_title, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

APART = 0.16
"""Rows between the points of one group."""


def plot_groups(grouped: Grouped, names: Sequence[str], order: NDArray[np.int64]) -> Figure:
    """Show the share of some structures in each group, with its interval; dashed the mean over the
    groups that are shown."""
    shown = [short(grouped.called(g)) for g in range(len(grouped.names))]
    rows = np.arange(len(shown), dtype=np.float64)
    figure, axes = new_panel(5.4, max(2.9, 1.6 + 0.34 * len(shown)))
    for k, (j, colour) in enumerate(zip(order, COLOURS, strict=False)):
        share = grouped.share[:, j]
        low, high = grouped.interval[:, j].T
        at = rows + APART * (k - (len(order) - 1) / 2)
        error = [np.maximum(share - low, 0), np.maximum(high - share, 0)]
        axes.errorbar(
            share, at, xerr=error, fmt="o", color=colour, markersize=4, label=short(names[j])
        )
        mean = float((share * grouped.n_images).sum() / grouped.n_images.sum())
        axes.axvline(mean, color=colour, linestyle="--", linewidth=0.8)
    axes.set_yticks(rows, shown, fontsize="small", parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set(xlabel="share of the images")
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)
    plain_title(axes, f"by {grouped.kind}")
    return figure
