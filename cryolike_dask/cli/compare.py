"""The command that holds two runs against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.inputs import need

MOST_SHOWN = 10
"""Images and settings that the terminal gets; the page has all."""


@app.command()
def compare(
    *,
    run1: Annotated[Path, typer.Argument(help="Folder with results.")],
    run2: Annotated[Path, typer.Argument(help="Another, of the same particles or some of them.")],
    output: Annotated[
        Path | None,
        typer.Option(help="The page to write; default: comparison.html in the second folder."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a web page that is none of ours.")
    ] = False,
) -> None:
    """Hold two runs against each other: which particles change their structure, how
    log-likelihood ratios agree, and what differs in settings.

    Images are matched by their names, structures by theirs.
    """
    with errors_for_people():
        say("reading results ...")
        from cryolike_dask.analysis.compare.compare import compare_runs
        from cryolike_dask.analysis.report.about_comparison import sentence_of
        from cryolike_dask.analysis.report.comparison_page import write_page
        from cryolike_dask.io.export_names import COMPARISON

        need(run1, "results")
        need(run2, "results")
        comparison = compare_runs(run1, run2)
        page = write_page(comparison, output or run2 / COMPARISON, overwrite=overwrite)
        out.print(escape(sentence_of(comparison)))
        names = [str(name) for name in comparison["run"].values]
        changed = comparison.isel(image=comparison["changed"].values)
        if changed.sizes["image"]:
            surest = changed.isel(image=(-changed["probability"].min("run")).argsort().values)
            shown = surest.isel(image=slice(MOST_SHOWN))
            table = Table("changed", *map(escape, names), box=None)
            for image, *best in zip(
                shown["rlnImageName"].values, *shown["best_structure"].values, strict=True
            ):
                table.add_row(*(escape(str(text)) for text in (image, *best)))
            out.print(table)
            if changed.sizes["image"] > MOST_SHOWN:
                out.print(f"... and {changed.sizes['image'] - MOST_SHOWN:,} more")
        settings = Table(box=None)
        for title in ("setting", *names):
            settings.add_column(escape(title), overflow="fold")
        values = comparison["setting_value"].values
        for row in zip(comparison["setting"].values, *values, strict=True):
            settings.add_row(*(escape(str(text)) for text in row))
        if comparison.sizes["setting"]:
            out.print(settings)
        out.print(str(page), markup=False, highlight=False)
