"""The command that makes a data set and recovers its truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out
from cryolike_dask.cli.options import PlaceOptions, client_in, takes_options


@app.command()
@takes_options()
def demo(
    *,
    output: Annotated[Path, typer.Option(help="Folder for inputs and results.")] = Path(
        "cryolike-dask-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the structures and particles.")] = 0,
    place: PlaceOptions,
) -> None:
    """Two conformations, noisy particles of both: which particle is which? Made from a seed, run
    for real."""
    with errors_for_people(), client_in(place) as client:
        from cryolike_dask.simulation.demo import (
            SIGNAL_TO_NOISE,
            STRUCTURES,
            make_demo_inputs,
            run_demo,
        )

        out.print(
            f"Making structures, particles and templates in {escape(str(output))} (seed {seed}) ..."
        )
        files, truth = make_demo_inputs(output, seed, client)
        out.print(
            f"{len(truth.structure)} particles of {len(STRUCTURES)} conformations "
            f"({', '.join(STRUCTURES)}), "
            f"signal to noise {SIGNAL_TO_NOISE}, astigmatic optics. Comparing each with both ..."
        )
        outcome = run_demo(files, truth, client)
        table = Table(show_header=False, box=None)
        rate = outcome.n_images * len(STRUCTURES) / outcome.seconds
        poses = (
            f"{outcome.n_templates} views x {outcome.n_displacements} shifts x "
            f"{outcome.n_rotations} rotations"
        )
        for name, value in {
            "search": poses,
            "poses within one view and one pixel": f"{outcome.pose_recovered:.1%}",
            "assigned to the right conformation": f"{outcome.structure_recovered:.1%}",
            "speed": f"{rate:.0f} images per second under one structure ({outcome.seconds:.1f} s "
            f"in all)",
            "dashboard (while it ran)": client.dashboard_link
            if client is not None
            else "no cluster: one process",
            "inputs": f"{files.folder_templates}, {files.folder_particles}",
            "results": str(files.folder_output),
        }.items():
            table.add_row(f"[bold]{name}[/]", escape(value))
        out.print(table)
        folder = escape(str(files.folder_output))
        out.print(
            f"\nNext: cryolike-dask report {folder}; in Python: cld.open_results({folder!r})",
            highlight=False,
        )
