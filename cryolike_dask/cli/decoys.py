"""The command that writes decoys of structures."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out
from cryolike_dask.cli.inputs import need, need_each
from cryolike_dask.cli.options import (
    ModelsOption,
    OutputFolder,
    ParametersFile,
    Structures,
    takes_options,
)
from cryolike_dask.labels import DecoyKind


@app.command()
@takes_options()
def decoys(
    *,
    structures: Structures,
    parameters: ParametersFile,
    output: OutputFolder,
    n: Annotated[int, typer.Option("--n", help="Decoys of each structure.")] = 4,
    kind: Annotated[
        DecoyKind,
        typer.Option(
            help="phases: random beyond the envelope; residues: moved to each other's places."
        ),
    ] = "phases",
    seed: Annotated[int, typer.Option(help="Same seed, same decoys.")] = 0,
    models: ModelsOption = "first",
    voxel_size_angstrom: Annotated[
        float | None, typer.Option(help="Of maps, angstrom, in place of what their headers say.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
) -> None:
    """Write decoys: copies of structures that keep their envelope, and that no image shows.

    A run makes them by itself (--decoys); files are given to it with --decoy-structures.
    """
    with errors_for_people():
        need_each(structures, "structures")
        need(parameters, "parameters")
        from cryolike_dask.structures.decoys.files import make_decoys

        files = make_decoys(
            structures,
            parameters,
            output,
            n,
            kind=kind,
            seed=seed,
            models=models,
            voxel_size_angstrom=voxel_size_angstrom,
            overwrite=overwrite,
        )
        out.print(f"{len(files)} decoys are in {escape(str(output))}")
