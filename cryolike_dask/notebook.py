"""What notebooks show of values: small tables in HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

LONGEST = 300
"""Characters of an entry: of more the first and the last are shown."""


def html_table(title: str, entries: Mapping[str, object]) -> str:
    """A table of names and values, in the colours of the page that it is shown in.

    Parameters
    ----------
    title : str
    entries : mapping of str to object
        Shown as text; None and "" are left out.
    """
    rows = "".join(
        f'<tr><th style="text-align:left;font-weight:normal;opacity:.7">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(_short(str(value)))}</td></tr>'
        for name, value in entries.items()
        if value is not None and value != ""
    )
    head = f'<tr><th colspan="2" style="text-align:left">{escape(title)}</th></tr>'
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _short(text: str) -> str:
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"
