"""Figures as SVG inside of a page: its colours, light or dark, and its type."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cryolike_dask.io.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
HREF = f"{{{XLINK}}}href"
POINTS = 13.0
"""Size of type: a figure is 390 points wide, and a column of the page some 400 pixels."""
DOTS_PER_INCH, DOTS_OF_FILES = 160, 300
"""Of what is drawn point by point on a page; and in files, as journals ask for."""
FORMATS = ("svg", "pdf", "png")
OF_THE_PAGE = {
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
    "#262626": "var(--ink)",
    "#4c4c4c": "var(--soft)",
    "#4d4d4d": "var(--soft)",
    "#595959": "var(--soft)",
    "#b0b0b0": "var(--line)",
    "#cccccc": "var(--line)",
    "#e5e5e5": "var(--line)",
}
"""Blacks, greys and whites of figures, and the colours of the page that stand for them."""
COLOUR = re.compile(r"#[0-9a-f]{6}\b")
PLACE = re.compile(r"url\(#([^)]+)\)")


def drawn(draw: Callable[[], Figure]) -> Figure:
    """Draw a figure with type that can be read on a page."""
    import matplotlib

    with matplotlib.rc_context({"font.size": POINTS}):
        return draw()


def inline_svg(figure: Figure, key: str, alt: str) -> str:
    """A figure as an element of a page: names of its parts begin with `key`, so that those of two
    figures differ, and what is black, grey or white takes the colours of the page."""
    root = ElementTree.fromstring(_saved(figure, "svg", key))
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for style in root.findall(f"{{{SVG}}}defs/{{{SVG}}}style"):
        style.text = ""  # of the whole page otherwise
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": alt}
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.attrib[name] = f"{key}-{value}"
            elif name == HREF and value.startswith("#"):
                element.attrib[name] = f"#{key}-{value[1:]}"
            elif name != "aria-label":
                placed = PLACE.sub(rf"url(#{key}-\1)", value)
                element.attrib[name] = COLOUR.sub(_of_the_page, placed)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, "unicode")


def write_figure(figure: Figure, folder: Path, key: str) -> list[Path]:
    """Write a figure into a folder in each format, and say which files these are."""
    written = []
    for suffix in FORMATS:
        path = folder / f"{key}.{suffix}"
        with replacing(path) as file:
            file.write(_saved(figure, suffix, key, DOTS_OF_FILES))
        written.append(path)
    return written


def _saved(figure: Figure, suffix: str, key: str, dots: int = DOTS_PER_INCH) -> bytes:
    """A figure in a format, the same bytes each time; letters stay letters."""
    import matplotlib

    of_its_own = {"svg.fonttype": "none", "svg.hashsalt": key, "pdf.fonttype": 42}
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[suffix]
    stored = BytesIO()
    with matplotlib.rc_context(of_its_own):
        figure.savefig(stored, format=suffix, dpi=dots, metadata=dated)
    return stored.getvalue()


def _of_the_page(colour: re.Match[str]) -> str:
    return OF_THE_PAGE.get(colour[0], colour[0])
