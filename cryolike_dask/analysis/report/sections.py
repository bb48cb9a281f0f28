"""Sections of the report, and the figures in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryolike_dask.analysis.report.svg import drawn, inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS_PER_INCH, LEAST_PIXELS_PER_INCH = 82, 62
WIDE = 7.0
"""Inches: a figure that is as wide has a row of the page for itself."""


@dataclass(frozen=True, eq=False)
class Panel:
    """A figure of the page."""

    key: str
    figure: Figure
    alt: str
    caption: str

    @property
    def svg(self) -> str:
        """The element of the page."""
        return inline_svg(self.figure, self.key, self.alt)

    @property
    def is_wide(self) -> bool:
        """Whether it has a row of the page for itself."""
        return bool(self.figure.get_figwidth() >= WIDE)

    @property
    def width(self) -> int:
        """Pixels that it takes where there is room."""
        return round(PIXELS_PER_INCH * float(self.figure.get_figwidth()))

    @property
    def least(self) -> int:
        """Pixels below which nothing can be read; a narrow page moves it sideways."""
        return round(LEAST_PIXELS_PER_INCH * float(self.figure.get_figwidth()))


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    before: str = ""
    """What it says, in a sentence, below a heading in place of a caption that is seen."""


@dataclass(frozen=True)
class Section:
    """A part of the page: text, then tables, then figures, then text as it stands in a file."""

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    panels: tuple[Panel, ...] = ()
    blocks: tuple[tuple[str, str], ...] = ()

    @property
    def is_wide(self) -> bool:
        """Whether it has a row of the page for itself."""
        return len(self.panels) > 1 or bool(self.tables) or any(p.is_wide for p in self.panels)


def panel(key: str, draw: Callable[[], Figure], alt: str, caption: str) -> Panel:
    """Draw a figure for the page."""
    return Panel(key, drawn(draw), alt, caption)
