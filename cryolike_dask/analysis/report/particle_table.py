"""The table of particles in the page: a column for each thing that is known of them."""

from __future__ import annotations

import json
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.decoys.of_results import Q_VALUE
from cryolike_dask.analysis.image_names import Called
from cryolike_dask.analysis.report.sections import Section

MOST_ROWS = 20_000
"""Particles of a page, some 3 MB."""
KEY, TITLE = "particles", "Particles"
DEGREE = 180 / np.pi
NUMBERS = (
    (summaries.PROBABILITY, "probability", 4, 1.0),
    (summaries.MARGIN, "ahead by (nat)", 3, 1.0),
    (labels.CROSS_CORRELATION, "correlation", 4, 1.0),
    (Q_VALUE, "q-value", 3, 1.0),
    (labels.RESIDUAL_P_VALUE, "residual p", 3, 1.0),
    (labels.OPTIMAL_AZIMUTH, "azimuth (°)", 4, DEGREE),
    (labels.OPTIMAL_POLAR, "polar angle (°)", 4, DEGREE),
    (labels.OPTIMAL_INPLANE_ROTATION, "rotation (°)", 4, DEGREE),
    (labels.OPTIMAL_DISPLACEMENT_X, "shift x (Å)", 3, 1.0),
    (labels.OPTIMAL_DISPLACEMENT_Y, "shift y (Å)", 3, 1.0),
)
"""Variables, what columns are called, digits, and factors to the unit."""
WORDS = (
    (labels.MICROGRAPH, "micrograph"),
    (labels.OPTICS_GROUP, "optics group"),
    (labels.RANDOM_SUBSET, "half-set"),
    (labels.TRUE_STRUCTURE, "true structure"),
)


class Column(TypedDict):
    """A column: its values are texts, numbers of `words`, or numbers, None where not known; filters
    find theirs by key, or by title."""

    title: str
    kind: Literal["text", "word", "number"]
    values: list[Any]
    words: NotRequired[list[str]]
    key: NotRequired[str]


def particles_section(summary: xr.Dataset) -> Section:
    """What the page says above the table."""
    n, shown = summary.sizes[labels.IMAGE], len(rows_of_table(summary))
    text = [
        "Each particle under its best structure. A click on the head of a column sorts by it, "
        "another the other way."
    ]
    if shown < n:
        text.append(
            f"These are {shown:,} of {n:,} particles, evenly spread; cryolike-dask export and "
            "cryolike-dask matrix --csv write all."
        )
    return Section(KEY, TITLE, tuple(text))


def rows_of_table(summary: xr.Dataset) -> NDArray[np.int64]:
    """Images that the table has: all, or so many, evenly spread."""
    n = summary.sizes[labels.IMAGE]
    return np.unique(np.linspace(0, n - 1, min(n, MOST_ROWS)).astype(np.int64))


def table_as_json(summary: xr.Dataset, images: Called) -> str:
    """The table for the script of the page.

    Columns are texts, words that many particles share (numbers into a list), or numbers, null where
    they are not known.
    """
    rows = rows_of_table(summary)
    columns = [
        text_column("particle", images.name[rows]),
        words_column("structure", summary[summaries.BEST_STRUCTURE].values[rows]),
    ]
    for name, title, digits, factor in NUMBERS:
        if name in summary and summary[name].dims == (labels.IMAGE,):
            columns += numbers_column(title, summary[name].values[rows] * factor, digits)
    if images.defocus_angstrom is not None:
        columns += numbers_column("defocus (µm)", images.defocus_angstrom[rows] / 1e4, 3)
    for name, title in WORDS:
        if name in summary.coords:
            columns.append(words_column(title, summary[name].values[rows]))
    return as_json(columns)


def as_json(columns: list[Column]) -> str:
    """Columns for the script of the page; text that could end an element is escaped."""
    n = len(columns[0]["values"])
    text = json.dumps({"n": n, "columns": columns}, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def text_column(title: str, values: NDArray[Any]) -> Column:
    """A column of texts that are all different."""
    return {"title": title, "kind": "text", "values": values.tolist()}


def words_column(title: str, values: NDArray[Any], key: str = "") -> Column:
    """A column of words that many particles share."""
    words, which = np.unique(values.astype(str), return_inverse=True)
    shown = ["" if word == "-1" else word for word in words.tolist()]
    return {
        "title": title,
        "kind": "word",
        "words": shown,
        "values": which.tolist(),
        "key": key or title,
    }


def numbers_column(title: str, values: NDArray[Any], digits: int) -> list[Column]:
    """A column of numbers of so many digits; none if none is known."""
    known = np.isfinite(values) & (values != -1 if title == "residual p" else True)
    if not known.any():
        return []
    shown = [
        float(f"{value:.{digits}g}") if there else None
        for value, there in zip(values.tolist(), known.tolist(), strict=True)
    ]
    return [{"title": title, "kind": "number", "values": shown}]
