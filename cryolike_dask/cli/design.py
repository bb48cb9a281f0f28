"""The command that says what more particles like those of a run will tell."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryolike_dask import labels
from cryolike_dask.cli.app import app
from cryolike_dask.cli.calibrate import Simulation, folder_of
from cryolike_dask.cli.console import errors_for_people, out
from cryolike_dask.cli.inputs import InputsOfResults
from cryolike_dask.cli.options import PlaceOptions, takes_options

if TYPE_CHECKING:
    import xarray as xr

MOST_ROWS, MOST_COLUMNS = 30, 6
"""Structures of the tables that are printed: of particles needed, and of confusion."""


@app.command()
@takes_options()
def design(
    *,
    run: Annotated[
        Path,
        typer.Argument(help="Output folder of a run of two structures or more, or its run.yaml."),
    ],
    error: Annotated[
        float, typer.Option(help="Standard error of a share that is to be reached.")
    ] = 0.01,
    n_particles: Annotated[
        int | None,
        typer.Option(help="Particles of the data set that is planned; default: those of the run."),
    ] = None,
    shares: Annotated[
        Path | None,
        typer.Option(
            help="A text file of the share that each structure is supposed to have: a number a "
            "line, or a name and a number. Default: all the same."
        ),
    ] = None,
    inputs: InputsOfResults,
    n_images: Annotated[
        int, typer.Option("--images", help="Particles to simulate, of all structures together.")
    ] = 400,
    seed: Annotated[int, typer.Option(help="Same seed, same particles.")] = 0,
    plots: Annotated[bool, typer.Option(help="Draw it into design/design.png, too.")] = False,
    place: PlaceOptions,
) -> None:
    """Will the data tell? Confusion, information and the particles that are needed, from particles
    simulated with a run's own structures, optics, noise and poses.

    Writes design/design.zarr beside the results.
    """
    with errors_for_people():
        from cryolike_dask.io.counts import read_counts
        from cryolike_dask.simulation.design import design as designed
        from cryolike_dask.simulation.design import results_to_design, write_design

        told = None if shares is None else read_counts(shares)
        found = Simulation(n_images, seed).tried(
            run,
            inputs,
            place,
            partial(results_to_design, shares=told, error=error, n_particles=n_particles),
            partial(designed, shares=told, error=error, n_particles=n_particles),
        )
        written = [write_design(found, folder_of(run))]
        if plots:
            from cryolike_dask.analysis.plots.design_plots import plot_design
            from cryolike_dask.analysis.plots.stack_plots import save_figure
            from cryolike_dask.io.export_names import DESIGN_FIGURE

            written.append(folder_of(run) / DESIGN_FIGURE)
            save_figure(plot_design(found), written[-1])
        _show(found)
        for path in written:
            out.print(f"  {path}", markup=False, highlight=False)


def _show(found: xr.Dataset) -> None:
    """Print what was found: of each structure, what it is taken for, and what can be told apart."""
    names = [str(name) for name in found[labels.STRUCTURE].values]
    bits, error, bound = (
        float(found[f"mutual_information{what}"]) for what in ("", "_error", "_bound")
    )
    out.print(
        f"{found.attrs['n_images']:,} simulated particles, {len(names)} structures; an image tells "
        f"{bits:.2f} ± {error:.2f} of {bound:.3g} bit",
        highlight=False,
    )
    needed = _particles(found["particles_needed_worst"], found["particles_needed_worst_error"])
    out.print(
        f"particles for standard errors of all shares of {found.attrs['error']:g}: {needed}",
        highlight=False,
    )
    _show_structures(found, names)
    if len(names) <= MOST_COLUMNS:
        _show_confusion(found, names)
    _show_groups(found, names)


def _show_structures(found: xr.Dataset, names: list[str]) -> None:
    """A row for each structure, those that need most particles first where there are many."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("structure", overflow="fold")
    share = found["share"].values
    differ = bool((share != share[0]).any())
    for column in (*["share"] * differ, "probability", "best", "particles"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("most taken for", overflow="fold")
    needed = found["particles_needed"].values
    order = range(len(names))
    shown = order if len(names) <= MOST_ROWS else (-needed).argsort(kind="stable")[:MOST_ROWS]
    for i in shown:
        others = found["confusion"].values[i].copy()
        others[i] = -1
        most = int(others.argmax())
        table.add_row(
            Text(names[i]),
            *[f"{share[i]:.1%}"] * differ,
            _percent(found, "confusion", i, i),
            f"{float(found['confusion_best'][i, i]):.0%}",
            _particles(found["particles_needed"][i], found["particles_needed_error"][i]),
            Text(f"{names[most]} {others[most]:.0%}"),
        )
    out.print(table, highlight=False)
    if len(names) > MOST_ROWS:
        out.print(
            f"and {len(names) - MOST_ROWS} structures that need fewer particles", highlight=False
        )


def _show_confusion(found: xr.Dataset, names: list[str]) -> None:
    """Mean probabilities of all structures over images of each."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, title="mean probability", title_justify="left")
    table.add_column("shown")
    for name in names:
        table.add_column(Text(name), justify="right")
    for i, name in enumerate(names):
        row = [_percent(found, "confusion", i, j) for j in range(len(names))]
        table.add_row(Text(name), *row)
    out.print(table, highlight=False)


def _show_groups(found: xr.Dataset, names: list[str]) -> None:
    """What so many particles tell apart."""
    group = found[labels.GROUP].values
    n, n_groups = found.attrs["n_particles"], int(group.max()) + 1
    if n_groups == len(names):
        out.print(f"{n:,} particles tell all structures apart", highlight=False)
        return
    bits = float(found["group_mutual_information"])
    out.print(
        f"{n:,} particles: {n_groups} of {len(names)} structures are worth keeping ({bits:.2f} bit "
        "an image); not told apart, and best taken as one:",
        highlight=False,
    )
    for g in range(n_groups):
        members = [name for name, its in zip(names, group, strict=True) if its == g]
        if len(members) > 1:
            more = f" and {len(members) - MOST_COLUMNS} more" if len(members) > MOST_COLUMNS else ""
            needed = _particles(
                found["group_particles_needed"][g], found["group_particles_needed_error"][g]
            )
            text = (
                f"  {', '.join(members[:MOST_COLUMNS])}{more}: {needed} particles for their share"
            )
            out.print(text, markup=False, highlight=False)


def _percent(found: xr.Dataset, variable: str, i: int, j: int) -> str:
    value, error = (100 * float(found[name][i, j]) for name in (variable, f"{variable}_error"))
    return f"{value:.1f} ± {error:.1f}%"


def _particles(needed: xr.DataArray, its_error: xr.DataArray) -> str:
    value, error = float(needed), float(its_error)
    if not math.isfinite(value):
        return "never"
    known = math.isfinite(error) and value >= 1
    return f"{value:,.0f}" + (f" ± {error / value:.0%}" if known else "")
