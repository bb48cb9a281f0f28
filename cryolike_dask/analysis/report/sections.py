"""Sections of the report, and the figures in them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

from cryolike_dask.analysis.lights import Light

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH, SHOWN_PER_INCH = 160, 88
"""Dots of figures as they are stored, and as a page shows them."""


@dataclass(frozen=True)
class Panel:
    """A figure of the page."""

    key: str
    png: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page: text, then a table or lights, then figures."""

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    panels: tuple[Panel, ...] = ()
    lights: Mapping[str, Light] = field(default_factory=dict)


def panel(key: str, figure: Figure, alt: str, caption: str) -> Panel:
    """Put a figure on the page."""
    stored = BytesIO()
    figure.savefig(stored, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    width, height = (round(inches * SHOWN_PER_INCH) for inches in figure.get_size_inches())
    return Panel(key, b64encode(stored.getvalue()).decode(), width, height, alt, caption)
