"""The command that tries a run's probabilities on particles simulated for it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.inputs import InputsOfResults, need, need_description
from cryolike_dask.cli.options import PlaceOptions, client_in, takes_options
from cryolike_dask.errors import InputFileError, number

if TYPE_CHECKING:
    import xarray as xr

Found = TypeVar("Found")


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
        from cryolike_dask.analysis.calibration_light import calibration_in_words
        from cryolike_dask.simulation.calibrate import calibrate, results_to_try

        simulation = Simulation(n_images, seed)
        calibration = simulation.tried(run, inputs, place, results_to_try, calibrate)
        table = Table(show_header=False, box=None)
        for name, value in calibration_in_words(calibration).items():
            table.add_row(f"[bold]{name}[/]", value)
        out.print(table)


@dataclass(frozen=True)
class Simulation:
    """So many particles to be simulated for a run."""

    n_images: int
    seed: int

    def tried(
        self,
        run: Path,
        inputs: InputsOfResults,
        place: PlaceOptions,
        refusing: Callable[..., xr.Dataset],
        trying: Callable[..., Found],
    ) -> Found:
        """What is found with them; results that cannot be tried are refused before workers
        start."""
        number("seed", self.seed, whole=True, at_least=0)
        results = folder_of(run)
        need(results, "results")
        inputs.need()
        used = inputs.given_or_found(results, needed=True)
        opened = refusing(
            results,
            self.n_images,
            templates=used.templates is not None,
            particles=used.particles is not None,
        )
        with client_in(place) as client:
            say(f"simulating {self.n_images} particles, and comparing them ...")
            return trying(
                opened,
                templates=used.templates,
                particles=used.particles,
                parameters=used.parameters,
                n_images=self.n_images,
                seed=self.seed,
                client=client,
            )


def folder_of(run: Path) -> Path:
    """The output folder that a run, or its description, names."""
    if run.is_dir() or not run.exists():
        return run
    need_description(run)
    from cryolike_dask.config.reading import read_config

    output = read_config(run).output
    if not output.exists():
        raise InputFileError(
            f"its results, in {output}, are not there",
            source=run,
            remedy=f"Run it first: {shlex.join(['cryolike-dask', 'run', str(run)])}",
        )
    return output
