"""The command that simulates particles."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out
from cryolike_dask.cli.inputs import need, need_each
from cryolike_dask.cli.options import (
    ModelsOption,
    OutputFolder,
    Overwrite,
    ParametersFile,
    PlaceOptions,
    Structures,
    TrajectoryOptions,
    client_in,
    takes_options,
)
from cryolike_dask.labels import Noise


@app.command()
@takes_options()
def simulate(
    *,
    structures: Structures,
    parameters: ParametersFile,
    output: OutputFolder,
    n_images: Annotated[int, typer.Option(help="Particles, of all structures together.")] = 1000,
    signal_to_noise: Annotated[
        float, typer.Option(help="Variance of the signal over that of the noise.")
    ] = 0.1,
    noise: Annotated[Noise, typer.Option(help="coloured: falls off with resolution.")] = "white",
    populations: Annotated[
        list[float] | None,
        typer.Option("--population", help="Share of each structure, given once for each."),
    ] = None,
    max_displacement_pixels: Annotated[
        float, typer.Option(help="Particles are off the middle by up to this.")
    ] = 4.0,
    optics: Annotated[
        Path | None, typer.Option(help="A .star or .cs file to draw the optics from.")
    ] = None,
    models: ModelsOption = "first",
    batch_size: Annotated[int, typer.Option(help="Images per .mrcs file.")] = 1024,
    seed: Annotated[int, typer.Option(help="Same seed, same particles.")] = 0,
    overwrite: Overwrite = False,
    trajectory: TrajectoryOptions,
    place: PlaceOptions,
) -> None:
    """Simulate particles of structures, as MRCS and a STAR file with their true poses.

    Names of images start in the folder in which the command runs, as in a project of RELION; or,
    where the output is not below it, in the output folder.
    """
    with errors_for_people():
        need_each(structures, "structures")
        need(parameters, "parameters")
        need(optics, "particles")
        with client_in(place) as client:
            from cryolike_dask.simulation.simulate import simulate_particles

            star = simulate_particles(
                trajectory.of(structures),
                parameters,
                output,
                n_images=n_images,
                signal_to_noise=signal_to_noise,
                noise=noise,
                populations=populations,
                max_displacement_pixels=max_displacement_pixels,
                optics=optics,
                models=models,
                batch_size=batch_size,
                seed=seed,
                overwrite=overwrite,
                client=client,
            )
        out.print(f"{n_images} particles (seed {seed}): {escape(str(star))}")
        typed = shlex.join(
            ["particles", str(star), "--parameters", str(parameters), "--output", "image-stacks"]
        )
        out.print(f"Next: cryolike-dask {escape(typed)}", highlight=False)
