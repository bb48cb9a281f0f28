"""Sections of the report on the run itself: what was run, and how long it took."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from cryolike_dask import labels
from cryolike_dask.analysis import summaries
from cryolike_dask.analysis.block_times import Blocks
from cryolike_dask.analysis.displacements_tried import displacements_tried
from cryolike_dask.analysis.plots import pose_plots
from cryolike_dask.analysis.plots.drawing import duration
from cryolike_dask.analysis.report.sections import Section, panel
from cryolike_dask.analysis.run_file import RunFile
from cryolike_dask.conventions import CRYOLIKE, STANDARD

MOST_NAMES = 5
IN_ROWS = {
    "folder",
    "folder_templates",
    "folder_particles",
    "template_source",
    "template_conventions",
    "n_pixels",
    "pixel_size_angstrom",
    "radius_max",
    "n_displacements",
    "max_displacement_angstrom",
    "displacements_x_angstrom",
    "displacements_y_angstrom",
    "n_inplanes",
    "conventions",
    "precision",
    "version",
    "device",
    "frame",
    "dist_radii",
    "noise",
    "noise_groups",
    "degrees_of_freedom",
    "b_factor",
    "search",
}
"""Attributes that rows of the table are made of, or that tell a reader nothing; each other one has
a row of its own."""


def run_section(
    summary: xr.Dataset, blocks: Blocks | None, described: RunFile | None = None
) -> Section:
    """Everything that is known of the run, as a table."""
    attrs = summary.attrs
    structures = [str(name) for name in summary[labels.STRUCTURE].values]
    n_done = int((summary[summaries.BEST_STRUCTURE] != summaries.NO_STRUCTURE).sum())
    n_stacks = len(np.unique(summary[labels.STACK])) if labels.STACK in summary.coords else 0
    images = f"{summary.sizes[labels.IMAGE]:,} in {n_stacks:,} stack(s), {n_done:,} with results"
    rows = {
        "Results": attrs.get("folder"),
        "Images": images,
        "Structures": f"{len(structures):,}: {_first(structures)}",
        "Templates": _with_remark(attrs.get("folder_templates"), _origin_of_templates(summary)),
        "Image stacks": attrs.get("folder_particles"),
        "Metadata": _first(_distinct(summary, labels.METADATA_FILE)),
        "Box": _box(summary),
        "Search": _search(summary),
        "Conventions": attrs.get("conventions"),
        "Precision": attrs.get("precision"),
        "Version of the run": attrs.get("version"),
        "Device": _with_remark(attrs.get("device"), _devices(blocks)),
        "Blocks finished": _period(blocks),
    }
    known = {name: str(value) for name, value in rows.items() if value}
    rows_of_all = (*known.items(), *_details(summary).items())
    return Section("run", "What was run", rows=rows_of_all, blocks=_as_it_was_told(described))


def _as_it_was_told(described: RunFile | None) -> tuple[tuple[str, str], ...]:
    """The command and the run.yaml, where there was one."""
    if described is None:
        return ()
    command = f"cryolike-dask run {shlex.quote(described.path)}"
    return (("Command", command), ("run.yaml", described.text))


def _details(summary: xr.Dataset) -> dict[str, str]:
    """Whatever else records say, such as the note that a run was given."""
    return {
        str(name).replace("_", " ").capitalize(): str(value)
        for name, value in summary.attrs.items()
        if name not in IN_ROWS and isinstance(value, (str, int, float, np.generic))
    }


def _first(names: Iterable[str], most: int = MOST_NAMES) -> str:
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _with_remark(value: str | None, remark: str) -> str:
    return " ".join(part for part in (value or "", f"({remark})" if remark else "") if part)


def _origin_of_templates(summary: xr.Dataset) -> str:
    source = summary.attrs.get("template_source")
    conventions = summary.attrs.get("template_conventions")
    parts = []
    if source in ("atoms", "map"):
        parts.append(f"made from {'a map' if source == 'map' else source}")
    if conventions in (STANDARD.name, CRYOLIKE.name):
        parts.append(f"{conventions} conventions")
    return ", ".join(parts)


def _distinct(summary: xr.Dataset, name: str) -> list[str]:
    """Values of a coordinate, each once; "" stands for those that are not known."""
    if name not in summary.coords:
        return []
    return [str(value) for value in dict.fromkeys(summary[name].values.tolist()) if value]


def _box(summary: xr.Dataset) -> str:
    names = ("n_pixels", "pixel_size_angstrom", "radius_max")
    n, size, limit = (summary.attrs.get(name) for name in names)
    if not n or not size:
        return ""
    finest = f", detail down to {n * size / (2 * limit):.3g} Å" if limit else ""
    return f"{n} pixels of {size:.4g} Å: {n * size:.4g} Å{finest}"


def _search(summary: xr.Dataset) -> str:
    x, y = displacements_tried(summary)
    n = summary.attrs.get("n_inplanes")
    parts = []
    if len(x):
        parts.append(
            f"{len(x):,} displacements, up to {np.abs(x).max():.4g} Å along x and "
            f"{np.abs(y).max():.4g} Å along y"
        )
    if n:
        parts.append(f"{n} in-plane rotations, {360 / n:.3g}° apart")
    if method := summary.attrs.get("search"):
        parts.append(str(method))
    return "; ".join(parts)


def _period(blocks: Blocks | None) -> str:
    return f"{blocks.first} to {blocks.last} (UTC)" if blocks is not None and len(blocks) else ""


def _devices(blocks: Blocks | None) -> str:
    used = [] if blocks is None else sorted(set(blocks.device.tolist()))
    return f"used: {_first(used)}" if used else ""


def time_section(path: Path | None, blocks: Blocks | None) -> Section | None:
    """Times of the blocks; nothing without a table of them."""
    if path is None or blocks is None or not len(blocks):
        return None
    text = [
        f"{len(blocks):,} blocks took {duration(float(blocks.seconds.sum()))} in all (median "
        f"{np.median(blocks.seconds):.3g} s). The blocks of all runs into this folder are "
        "counted; several workers compute at the same time.",
    ]
    if blocks.n_unreadable:
        text.append(f"{blocks.n_unreadable} rows of {path.name} cannot be read, and are left out.")
    histogram = panel(
        "block-times",
        partial(pose_plots.plot_block_times, path),
        f"Histogram of the seconds of {len(blocks)} blocks, by device.",
        "Seconds per block, by device. The first block of a worker takes longer.",
    )
    return Section("time", "Time", tuple(text), panels=(histogram,))
