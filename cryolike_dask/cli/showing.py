"""Results where one looks: shares and a histogram in the terminal, a page in the browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.markup import escape

from cryolike_dask import labels
from cryolike_dask.cli.console import out

if TYPE_CHECKING:
    import xarray as xr

N_BINS, WIDTH = 12, 52
"""Lines of a histogram, and characters of its longest bar: it fits into 80 columns."""
BUSY = 2.0
"""Programs for each core that want to compute, from which on times of a plan do not hold."""
MOST_ROWS = 30
"""Structures of the table of shares, those of the largest."""
BLOCKS, LETTERS = "█░", "#o"
"""What bars of the first and of the second group are made of; the latter where a terminal takes
letters only."""


def histogram(groups: Mapping[str, NDArray[np.float64]], *, ascii_only: bool = False) -> list[str]:
    """Lines of a histogram, one group's bars after the other's; the last line says which is which.

    Parameters
    ----------
    groups : mapping of str to array
        One or two groups; what is not finite is left out.
    ascii_only : bool
        Take letters for bars.
    """
    finite = {name: values[np.isfinite(values)] for name, values in groups.items()}
    every = np.concatenate([*finite.values()])
    if not len(every):
        return []
    low, high = float(every.min()), float(every.max())
    edges = np.linspace(low, high if high > low else low + 1, N_BINS + 1)
    counts = [np.histogram(values, edges)[0] for values in finite.values()]
    # each group's bar is rounded up, so that no particle is lost from sight
    scale = min(1.0, (WIDTH - len(counts)) / np.sum(counts, axis=0).max())
    marks = LETTERS if ascii_only else BLOCKS
    # as many decimals as tell one line from the next
    decimals = max(0, int(np.ceil(-np.log10(edges[1] - edges[0]))))
    lines = []
    for k, middle in enumerate((edges[1:] + edges[:-1]) / 2):
        bars = [
            mark * int(np.ceil(of_group[k] * scale))
            for mark, of_group in zip(marks, counts, strict=False)
        ]
        lines.append(f"{round(middle, decimals) + 0.0:>10.{decimals}f} |{''.join(bars)}")
    of_each = "  ".join(f"{mark} {name}" for mark, name in zip(marks, finite, strict=False))
    return [*lines, f"{'':>10}  {of_each}"]


def open_page(page: Path, *, asked: bool | None) -> bool:
    """Open a page in the browser, and say whether one took it.

    Parameters
    ----------
    page : Path
    asked : bool or None
        None: where somebody looks, at a terminal on a machine with a display.
    """
    if not (_is_looked_at() if asked is None else asked):
        return False
    try:
        return webbrowser.open(page.absolute().as_uri())
    except (OSError, webbrowser.Error):
        return False


def _is_looked_at() -> bool:
    is_here = sys.stdout.isatty() and not os.environ.get("SSH_CONNECTION")
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return is_here and (sys.platform in ("darwin", "win32") or bool(has_display))


def show_plan(planned: object) -> None:
    """Print a plan, and whether this machine was too busy for its times to hold."""
    from dask.system import CPU_COUNT  # with yaml, which most commands do not need

    out.print(escape(str(planned)))
    load = psutil.getloadavg()[0]
    if load > BUSY * CPU_COUNT:
        out.print(
            f"This machine is busy (load {load:.1f}, {CPU_COUNT} cores): times may be many times "
            "too long. Plan again when it is quiet."
        )


def show_shares(found: xr.Dataset) -> None:
    """Print a table of shares, the largest first."""
    from rich.table import Table
    from rich.text import Text

    low, high = found[labels.POPULATION_INTERVAL].values.T
    table = Table(box=None, pad_edge=False)
    for name, justify in (
        ("structure", "left"),
        ("share", "right"),
        ("sd", "right"),
        ("95%", "right"),
        ("not told from", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    share, sd = found[labels.POPULATION].values, found[labels.POPULATION_SD].values
    names, group = [str(n) for n in found[labels.STRUCTURE].values], found[labels.GROUP].values
    order = (-share).argsort(kind="stable")
    for i in order[:MOST_ROWS]:
        alike = [names[j] for j in order if group[j] == group[i] and j != i]
        more = f" and {len(alike) - 3} more" if len(alike) > 3 else ""
        table.add_row(
            Text(names[i]),
            f"{share[i]:.2%}",
            f"{sd[i]:.2%}",
            f"{low[i]:.2%} to {high[i]:.2%}",
            Text(", ".join(alike[:3]) + more),
        )
    out.print(
        f"{found.attrs['method']} of {found.attrs['n_images']:,} images, prior "
        f"{found.attrs['prior']}",
        highlight=False,
    )
    out.print(table, highlight=False)
    if len(order) > MOST_ROWS:
        out.print(f"and {len(order) - MOST_ROWS} structures of smaller shares", highlight=False)
    if labels.POPULATION_OF_NONE in found:
        low, high = found[labels.POPULATION_OF_NONE_INTERVAL].values
        out.print(
            f"none of these: {float(found[labels.POPULATION_OF_NONE]):.2%} of all images "
            f"({low:.2%} to {high:.2%}), by {found.attrs['n_decoys']} decoys; shares are of the "
            "others",
            highlight=False,
        )
