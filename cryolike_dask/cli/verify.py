"""The command that checks results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cryolike_dask.cli.app import app, errors_for_people, given_or_found, out, say
from cryolike_dask.cli.given import need, need_inputs
from cryolike_dask.cli.telling import words_of_command

Templates = Annotated[
    Path | None,
    typer.Option(
        "--templates",
        help="As they were given to the run; default: found by what lies beside the results.",
    ),
]
Particles = Annotated[
    Path | None,
    typer.Option(
        "--particles",
        help="As they were given to the run; default: found by what lies beside the results.",
    ),
]
Parameters = Annotated[
    Path | None,
    typer.Option(
        "--parameters",
        help="parameters.npz; default: that of the run, or the one in the templates folder.",
    ),
]


@app.command()
def verify(
    output: Annotated[Path, typer.Argument(help="Folder with results.")],
    templates: Templates = None,
    particles: Particles = None,
    parameters: Parameters = None,
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
        need_inputs(templates, particles, parameters)
        given = {"templates": templates, "particles": particles, "parameters": parameters}
        inputs = given_or_found(output, needed=n_samples > 0, **given)
        found = verify_likelihood(
            *(output, inputs.get("parameters")),
            templates=inputs.get("templates"),
            images=inputs.get("particles"),
            n_samples=n_samples,
            seed=seed,
        )
        words = words_of_command()
        for note in found.notes:
            out.print(f"[bold]note:[/] {escape(words.say(note))}")
        for finding in found.findings:
            out.print(f"[bold red]wrong:[/] {escape(words.say(finding))}")
        if found.sample.sizes["sample"]:
            table = Table("largest of the sample", "difference", "allowed", box=None)
            used = found.sample.dropna("quantity", how="all")
            for name in used.quantity.values:
                of_one = used.sel(quantity=name)
                worst = of_one.isel(
                    sample=(of_one.difference / of_one.tolerance)
                    .fillna(float("inf"))
                    .argmax("sample")
                )
                table.add_row(
                    str(name), f"{worst.difference.item():.2g}", f"{worst.tolerance.item():.2g}"
                )
            out.print(table)
        n_again = found.sample.sizes["sample"]
        again = f"{n_again} results computed again" if n_again else "no numbers computed again"
        checked = f"{found.n_files} files of whole results are as recorded, {again}"
        out.print(
            f"{checked}: {'nothing is wrong' if found.ok else f'{len(found.findings)} finding(s)'}"
        )
        if not found.ok:
            raise typer.Exit(1)
