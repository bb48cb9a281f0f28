"""The command that estimates which share of the particles shows each structure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.inputs import need
from cryolike_dask.cli.showing import show_shares


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
        show_shares(found)
        for path in written:
            out.print(f"  {path}", markup=False, highlight=False)
