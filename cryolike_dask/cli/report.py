"""The command that writes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryolike_dask.cli.app import app, errors_for_people, given_or_found, out, say
from cryolike_dask.cli.given import need, need_inputs


@app.command()
def report(
    results: Annotated[Path, typer.Argument(help="Folder with results.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write; default: report.html in that folder.")
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            help="As they were given to the run; default: found by what lies beside the results."
        ),
    ] = None,
    particles: Annotated[
        Path | None,
        typer.Option(
            help="As they were given to the run; default: found by what lies beside the results."
        ),
    ] = None,
    parameters: Annotated[
        Path | None,
        typer.Option(
            help="parameters.npz; default: that of the run, or the one in the templates folder."
        ),
    ] = None,
    n_examples: Annotated[
        int, typer.Option(help="Best, and worst, fitting particles to show.")
    ] = 4,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a web page that is no report of ours.")
    ] = False,
) -> None:
    """Write one page for a browser: what fits, in which poses, how sure, and what to beware of."""
    with errors_for_people():
        say("reading results ...")
        from cryolike_dask.analysis.report.report import write_report

        need(results, "results")
        need_inputs(templates, particles, parameters)
        given = {"templates": templates, "particles": particles, "parameters": parameters}
        page = write_report(
            results,
            output,
            **given_or_found(results, needed=n_examples > 0, **given),
            n_examples=n_examples,
            overwrite=overwrite,
        )
        out.print(str(page), markup=False, highlight=False)
