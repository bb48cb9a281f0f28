"""The command that writes likelihood matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out
from cryolike_dask.cli.inputs import need


@app.command()
def matrix(
    output: Annotated[Path, typer.Argument(help="Folder with results.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where to write; default: the folder with results.")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Write text files too: a line per image.")
    ] = False,
    npy: Annotated[bool, typer.Option("--npy", help="Write .npy files too, for numpy.")] = False,
    csv: Annotated[
        bool,
        typer.Option("--csv", help="Write .csv files too, with names of images and structures."),
    ] = False,
    reweighting: Annotated[
        bool,
        typer.Option(
            "--reweighting", help="Write inputs of cryoER and the like too, each with its sign."
        ),
    ] = False,
) -> None:
    """Write the likelihood matrices, (structure, image), under CryoLike's names."""
    with errors_for_people():
        from cryolike_dask.analysis.dataset import open_results
        from cryolike_dask.analysis.matrix_files import (
            write_likelihood_matrix,
            write_reweighting_inputs,
        )

        need(output, "results")
        results = open_results(output)
        target = output if folder is None else folder
        written = write_likelihood_matrix(results, target, text=text, npy=npy, csv=csv)
        if reweighting:
            written += write_reweighting_inputs(results, target / "reweighting")
        sizes = f"{results.sizes['structure']:,} structure(s) x {results.sizes['image']:,} images"
        out.print(f"{sizes}:", highlight=False)
        for path in written:
            out.print(f"  {path}", markup=False, highlight=False)
