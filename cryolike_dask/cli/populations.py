"""The command that estimates which share of the particles shows each structure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryolike_dask import labels
from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.inputs import need

if TYPE_CHECKING:
    import xarray as xr

MOST_ROWS = 30
"""Structures of the table that is printed, those of the largest shares."""


@app.command()
def populations(
    results: Annotated[Path, typer.Argument(help="Folder with results.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where to write; default: the folder with results.")
    ] = None,
    prior: Annotated[
        float, typer.Option(help="Concentration of the Dirichlet prior; 1: all shares alike.")
    ] = 1.0,
    counts: Annotated[
        Path | None,
        typer.Option(
            help="A text file of what each structure stands for, such as frames of a simulation: "
            "a number a line, or a name and a number."
        ),
    ] = None,
    draw: Annotated[
        bool | None,
        typer.Option(
            "--draw/--no-draw",
            help="Draw from the posterior; default: up to 10 million likelihoods.",
        ),
    ] = None,
    n_bootstrap: Annotated[
        int | None,
        typer.Option(
            help="Sets of images drawn again; default: 200 up to a million likelihoods, else 0."
        ),
    ] = None,
    decoys: Annotated[
        bool,
        typer.Option(
            "--decoys/--no-decoys",
            help="Let decoys of the run tell how many images show none of the structures.",
        ),
    ] = True,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
) -> None:
    """Estimate which share of the particles shows each structure, and how well that is known."""
    with errors_for_people():
        need(results, "results")
        say("reading results ...")
        from cryolike_dask.analysis.populations.of_folder import estimate_and_write

        found, written = estimate_and_write(
            results,
            results if folder is None else folder,
            counts,
            prior=prior,
            draw=draw,
            n_bootstrap=n_bootstrap,
            decoys=decoys,
            seed=seed,
        )
        _show(found)
        for path in written:
            out.print(f"  {path}", markup=False, highlight=False)


def _show(found: xr.Dataset) -> None:
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
