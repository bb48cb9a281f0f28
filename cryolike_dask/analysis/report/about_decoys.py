"""The section of the report on images of none of the structures."""

from __future__ import annotations

from functools import partial

import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis.decoys.of_results import (
    LEVEL,
    N_IMAGES_SHOWN,
    Q_VALUE,
    SHARE_ERROR,
    SHARE_SHOWN,
)
from cryolike_dask.analysis.plots.structure_plots import plot_decoy_margin
from cryolike_dask.analysis.report.sections import Panel, Section, panel

Part = tuple[tuple[str, ...], tuple[tuple[str, str], ...], tuple[Panel, ...]]
"""Paragraphs, rows and figures."""
SMALL = 0.01
"""A p-value that is worth counting."""


def none_section(results: xr.Dataset, competition: xr.Dataset | None) -> Section | None:
    """How many images show any of the structures, where decoys compete with these, and how many
    residuals are not those of noise, where they were fitted."""
    key, title = "decoys", "Images of none of the structures"
    parts = [part for part in (_of_decoys(competition), _of_residuals(results)) if part is not None]
    if not parts:
        return None
    text, rows, panels = (sum(of, ()) for of in zip(*parts, strict=True))
    return Section(key, title, text, rows=rows, panels=panels)


def _of_decoys(found: xr.Dataset | None) -> Part | None:
    if found is None:
        return None
    known = found[Q_VALUE].notnull()
    n, n_known = found.sizes["image"], int(known.sum())
    if not n_known:
        return ("No image has results under all structures and decoys yet.",), (), ()
    n_decoys = found.attrs["n_decoys"]
    text = (
        f"{n_decoys:,} decoys, which no image shows, compete with the structures for each image. "
        "An image of neither prefers any of them alike, so that those that decoys win tell how "
        "many structures win by chance. The q-value of an image is the part of false ones among "
        "all that are at least as clear as it.",
        "Images of another molecule may fit a structure better than they fit its decoys, and are "
        "then not told: --decoy-structures with one of its kind tells more of them. Where "
        "structures resemble each other more than their decoys do, rates are stated too high.",
    )
    levels, n_shown = found[LEVEL].values.tolist(), found[N_IMAGES_SHOWN].values.tolist()
    counts = {f"{level:.0%}": n for level, n in zip(levels, n_shown, strict=True)}
    share, error = float(found[SHARE_SHOWN]), float(found[SHARE_ERROR])
    rows = [
        ("images compared", f"{n_known:,} of {n:,}"),
        ("part that shows a structure", f"{share:.1%} \u00b1 {error:.1%}, or more"),
        *(
            (f"shown at a false discovery rate of {level}", f"{count:,} ({count / n_known:.1%})")
            for level, count in counts.items()
        ),
    ]
    figure = panel(
        "decoys",
        partial(plot_decoy_margin, found),
        "Histogram of the log-likelihood of the best structure over the best decoy.",
        "Right of 0 a structure fits better than all decoys. Images of neither lie on both sides, "
        "near 0.",
    )
    return text, tuple(rows), (figure,)


def _of_residuals(results: xr.Dataset) -> Part | None:
    if labels.RESIDUAL_P_VALUE not in results.coords:
        return None
    p_values = results[labels.RESIDUAL_P_VALUE].values
    n, n_small = int((p_values >= 0).sum()), int((p_values < SMALL).sum())
    text = (
        "What the best projection leaves of an image should be noise. Images whose residuals have "
        "another shape over shells may show something else; or the noise, or the envelope, is not "
        "what is supposed. Images of noise alone, and structures that are a little off, are not "
        "seen so.",
    )
    row = (
        f"residuals that noise leaves less often than once in {1 / SMALL:.0f}",
        f"{n_small:,} of {n:,}; {SMALL * n:,.0f} would be by chance",
    )
    return text, (row,), ()
