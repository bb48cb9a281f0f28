"""The command that sees whether what is left of images is noise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryolike_dask.cli.app import app
from cryolike_dask.cli.calibrate import Simulation
from cryolike_dask.cli.console import errors_for_people, out
from cryolike_dask.cli.inputs import InputsOfResults
from cryolike_dask.cli.options import PlaceOptions, takes_options

LEVEL = 0.01


@app.command()
@takes_options()
def residuals(
    *,
    run: Annotated[Path, typer.Argument(help="Output folder of a run, or its run.yaml.")],
    inputs: InputsOfResults,
    n_images: Annotated[
        int, typer.Option("--images", help="Particles to simulate, 80 or more.")
    ] = 400,
    seed: Annotated[int, typer.Option(help="Same seed, same particles.")] = 0,
    place: PlaceOptions,
) -> None:
    """Is what the best projection leaves of each image noise? Held against particles simulated
    with a run's own structures, optics, noise and poses.

    Writes residuals.npz beside the results, from where exports and the report have it.
    """
    with errors_for_people():
        from cryolike_dask.simulation.residual_fit import fit_residuals, results_to_fit

        simulation = Simulation(n_images, seed)
        p_values = simulation.tried(run, inputs, place, results_to_fit, fit_residuals).values
        n, n_small = int((p_values >= 0).sum()), int((p_values < LEVEL).sum())
        out.print(
            f"{n_small:,} of {n:,} images have residuals that noise leaves less often than once in "
            f"{1 / LEVEL:.0f}; {LEVEL * n:,.0f} would by chance"
        )
