"""The section of the report on images of none of the structures."""

from __future__ import annotations

import xarray as xr

from cryolike_dask.analysis.decoys.of_results import (
    LEVEL,
    N_IMAGES_SHOWN,
    Q_VALUE,
    SHARE_ERROR,
    SHARE_SHOWN,
    decoy_competition,
    has_decoys,
)
from cryolike_dask.analysis.plots.structure_plots import plot_decoy_margin
from cryolike_dask.analysis.report.sections import Section, panel


def decoys_section(results: xr.Dataset) -> Section | None:
    """How many images show any of the structures, where decoys compete with these."""
    if not has_decoys(results):
        return None
    found = decoy_competition(results)
    known = found[Q_VALUE].notnull()
    n, n_known = found.sizes["image"], int(known.sum())
    key, title = "decoys", "Images of none of the structures"
    if not n_known:
        return Section(key, title, ("No image has results under all structures and decoys yet.",))
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
        plot_decoy_margin(found),
        "Histogram of the log-likelihood of the best structure over the best decoy.",
        "Right of 0 a structure fits better than all decoys. Images of neither lie on both sides, "
        "near 0.",
    )
    return Section(key, title, text, rows=tuple(rows), panels=(figure,))
