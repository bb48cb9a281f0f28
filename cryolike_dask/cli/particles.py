"""The command that converts a particle set into image stacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import RESUME, errors_for_people, out
from cryolike_dask.cli.inputs import need, need_each
from cryolike_dask.cli.options import (
    Conventions,
    OutputFolder,
    Overwrite,
    ParametersFile,
    PlaceOptions,
    Plots,
    Recompute,
    SkipExist,
    client_in,
    keeps_complete,
    takes_options,
)
from cryolike_dask.labels import Downsampling


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How particles are read; called as parameters of `open_particles` are."""

    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="One MRC file for each STAR file: that of its images, wherever they were."
        ),
    ] = None
    folder: Annotated[
        Path | None, typer.Option(help="Project folder that the names of image files start from.")
    ] = None
    passthrough: Annotated[Path | None, typer.Option(help="cryoSPARC's passthrough file.")] = None
    pixel_size_angstrom: Annotated[
        float | None, typer.Option(help="Of the stored images, where the files do not say it.")
    ] = None
    downsample: Annotated[
        Downsampling, typer.Option(help="How images are brought to fewer pixels.")
    ] = "fourier"
    invert_contrast: Annotated[
        bool, typer.Option("--invert-contrast", help="Particles are dark on light.")
    ] = False
    background_radius_pixels: Annotated[
        float | None, typer.Option(help="Normalise by the pixels beyond this radius.")
    ] = None
    recenter: Annotated[
        bool, typer.Option("--recenter", help="Move each image by its recorded origin.")
    ] = False
    batch_size: Annotated[int, typer.Option(help="Images per stack.")] = 1024


@app.command()
@takes_options()
def particles(
    *,
    metadata: Annotated[
        list[Path],
        typer.Argument(
            help=".star or .cs files, or folders of cryoSPARC jobs.", show_default=False
        ),
    ],
    parameters: ParametersFile,
    output: OutputFolder,
    reading: ReadingOptions,
    n_stacks_max: Annotated[int | None, typer.Option(help="Convert the first stacks only.")] = None,
    write_pixels: Annotated[bool, typer.Option(help="Write the pixels too, into phys/.")] = True,
    conventions: Conventions = "standard",
    recompute: Recompute = False,
    overwrite: Overwrite = False,
    plots: Plots = False,
    skip_exist: SkipExist = None,
    place: PlaceOptions,
) -> None:
    """Convert a RELION or cryoSPARC particle set into image stacks."""
    with errors_for_people(RESUME):
        keeps = keeps_complete(recompute=recompute, skip_exist=skip_exist)
        need_each(metadata, "particles")
        need_each(reading.images or (), "images")
        need(reading.passthrough, "particles")
        need(reading.folder)
        need(parameters, "parameters")
        with client_in(place) as client:
            from cryolike_dask.particles.converting import convert_particles
            from cryolike_dask.particles.opening import open_particles

            stacks = convert_particles(
                metadata,
                parameters,
                output,
                **vars(reading),
                conventions=conventions,
                n_stacks_max=n_stacks_max,
                write_pixels=write_pixels,
                skip_exist=keeps,
                overwrite=overwrite,
                client=client,
            )
        if plots:
            from cryolike_dask.analysis.plots.stack_plots import plot_images, save_figure

            images = open_particles(metadata, parameters, **vars(reading), conventions=conventions)
            save_figure(plot_images(images), output / "particles.png")
        out.print(f"{len(stacks)} image stack(s) are in {escape(str(output))}")
