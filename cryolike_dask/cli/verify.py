"""The command that checks results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say, words_of_command
from cryolike_dask.cli.inputs import InputsOfResults, need
from cryolike_dask.cli.options import takes_options


@app.command()
@takes_options()
def verify(
    *,
    output: Annotated[Path, typer.Argument(help="Folder with results.")],
    inputs: InputsOfResults,
    n_samples: Annotated[
        int, typer.Option(help="Images to compute again in double precision; 0: files only.")
    ] = 16,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
) -> None:
    """Check results against their completion records, and compute a random sample of them again.

    Exits with 1 if anything is wrong.
    """
    with errors_for_people():
        say("reading results ...")
        from cryolike_dask.runs.verification import verify_likelihood

        need(output, "results")
        inputs.need()
        used = inputs.given_or_found(output, needed=n_samples > 0)
        verification = verify_likelihood(
            output,
            used.parameters,
            templates=used.templates,
            images=used.particles,
            n_samples=n_samples,
            seed=seed,
        )
        words = words_of_command()
        for note in verification.notes:
            out.print(f"[bold]note:[/] {escape(words.say(note))}")
        for finding in verification.findings:
            out.print(f"[bold red]wrong:[/] {escape(words.say(finding))}")
        sample = verification.sample
        n_computed = sample.sizes["sample"]
        if n_computed:
            table = Table("largest of the sample", "difference", "allowed", box=None)
            for name in sample.dropna("quantity", how="all").quantity.values:
                quantity = sample.sel(quantity=name).dropna("sample", how="all")
                part_of_allowed = (quantity.difference / quantity.tolerance).fillna(float("inf"))
                worst = quantity.isel(sample=part_of_allowed.argmax("sample"))
                table.add_row(
                    str(name), f"{worst.difference.item():.2g}", f"{worst.tolerance.item():.2g}"
                )
            out.print(table)
        again = f"{n_computed} results" if n_computed else "no numbers"
        result = (
            "nothing is wrong" if verification.ok else f"{len(verification.findings)} finding(s)"
        )
        out.print(
            f"{verification.n_files} files of whole results are as recorded, {again} computed "
            f"again: {result}"
        )
        if not verification.ok:
            raise typer.Exit(1)
