"""Figures that a notebook shows without being told to."""

from __future__ import annotations

import io

from matplotlib import figure


class Figure(figure.Figure):
    """A figure of matplotlib, of no window, that a notebook shows where it is the value of a
    cell."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()
