"""The command that tries a run's probabilities on particles simulated for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.inputs import InputsOfResults, need, need_description
from cryolike_dask.cli.options import PlaceOptions, client_in, takes_options


@app.command()
@takes_options()
def calibrate(
    *,
    run: Annotated[
        Path,
        typer.Argument(help="Output folder of a run of two structures or more, or its run.yaml."),
    ],
    inputs: InputsOfResults,
    n_images: Annotated[
        int, typer.Option("--images", help="Particles to simulate, of all structures together.")
    ] = 400,
    seed: Annotated[int, typer.Option(help="Same seed, same particles.")] = 0,
    place: PlaceOptions,
) -> None:
    """Can the probabilities be believed? Tried on particles simulated with a run's own structures,
    optics, noise and poses.

    Writes calibration.json beside the results, which the report shows.
    """
    with errors_for_people():
        results = folder_of(run)
        need(results, "results")
        inputs.need()
        used = inputs.given_or_found(results, needed=True)
        from cryolike_dask.analysis.calibration import calibration_in_words
        from cryolike_dask.simulation.calibrate import calibrate, results_to_try

        # before workers start
        opened = results_to_try(
            results,
            n_images,
            templates=used.templates is not None,
            particles=used.particles is not None,
        )
        with client_in(place) as client:
            say(f"simulating {n_images} particles, and comparing them ...")
            calibration = calibrate(
                opened,
                templates=used.templates,
                particles=used.particles,
                parameters=used.parameters,
                n_images=n_images,
                seed=seed,
                client=client,
            )
        table = Table(show_header=False, box=None)
        for name, value in calibration_in_words(calibration).items():
            table.add_row(f"[bold]{name}[/]", value)
        out.print(table)


def folder_of(run: Path) -> Path:
    """The output folder that a run, or its description, names."""
    if run.is_dir() or not run.exists():
        return run
    need_description(run)
    from cryolike_dask.config.reading import read_config

    return read_config(run).output
