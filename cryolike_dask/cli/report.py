"""The command that writes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.inputs import InputsOfResults, need
from cryolike_dask.cli.options import takes_options


@app.command()
@takes_options()
def report(
    *,
    results: Annotated[Path, typer.Argument(help="Folder with results.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write; default: report.html in that folder.")
    ] = None,
    inputs: InputsOfResults,
    n_examples: Annotated[
        int, typer.Option(help="Best, and worst, fitting particles to show.")
    ] = 4,
    compare_with: Annotated[
        Path | None,
        typer.Option(help="Folder with results of an earlier run: a section says how they agree."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="A folder that gets each figure as SVG, PDF and PNG."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a web page that is no report of ours.")
    ] = False,
) -> None:
    """Write one page for a browser: how much of each structure, whether that can be believed, what
    to do next; then figures, particles, and what was run."""
    with errors_for_people():
        say("reading results ...")
        from cryolike_dask.analysis.report.report import write_report

        need(results, "results")
        if compare_with is not None:
            need(compare_with, "results")
        inputs.need()
        used = inputs.given_or_found(results, needed=n_examples > 0)
        page = write_report(
            results,
            output,
            templates=used.templates,
            particles=used.particles,
            parameters=used.parameters,
            n_examples=n_examples,
            compare_with=compare_with,
            figures=figures,
            overwrite=overwrite,
        )
        out.print(str(page), markup=False, highlight=False)
