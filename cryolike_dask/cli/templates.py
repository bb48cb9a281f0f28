"""The command that makes templates from structures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import RESUME, errors_for_people, out
from cryolike_dask.cli.inputs import need, need_each
from cryolike_dask.cli.options import (
    Conventions,
    ModelsOption,
    OutputFolder,
    Overwrite,
    ParametersFile,
    PlaceOptions,
    Plots,
    Recompute,
    SkipExist,
    Structures,
    TrajectoryOptions,
    client_in,
    keeps_complete,
    takes_options,
)
from cryolike_dask.errors import InputError

if TYPE_CHECKING:
    from cryolike_dask.geometry.viewing_angles import ViewingAngles


@app.command()
@takes_options()
def templates(
    *,
    structures: Structures,
    parameters: ParametersFile,
    output: OutputFolder,
    models: ModelsOption = "first",
    healpix_order: Annotated[
        int | None,
        typer.Option(
            help="Views at the pixel centres of HEALPix of this order instead of the grid."
        ),
    ] = None,
    viewing_angles: Annotated[
        Path | None,
        typer.Option(
            help="Text file of views: azimuth and polar angle in degrees, perhaps a weight."
        ),
    ] = None,
    conventions: Conventions = "standard",
    voxel_size_angstrom: Annotated[
        float | None, typer.Option(help="Of maps, angstrom, in place of what their headers say.")
    ] = None,
    recompute: Recompute = False,
    overwrite: Overwrite = False,
    plots: Plots = False,
    skip_exist: SkipExist = None,
    trajectory: TrajectoryOptions,
    place: PlaceOptions,
) -> None:
    """Make templates from structures.

    CryoLike finds them by template_file_list.npy if it is started in the folder in which this is
    called.
    """
    with errors_for_people(RESUME):
        keeps = keeps_complete(recompute=recompute, skip_exist=skip_exist)
        need_each(structures, "structures")
        need(parameters, "parameters")
        with client_in(place) as client:
            from cryolike_dask.structures.making import make_templates

            files = make_templates(
                trajectory.of(structures),
                parameters,
                output,
                models=models,
                viewing=_viewing(healpix_order, viewing_angles, parameters),
                conventions=conventions,
                voxel_size_angstrom=voxel_size_angstrom,
                skip_exist=keeps,
                overwrite=overwrite,
                client=client,
            )
        if plots:
            from cryolike_dask.analysis.plots.stack_plots import plot_templates, save_figure
            from cryolike_dask.io.parameters import read_parameters
            from cryolike_dask.stacks import open_template_file

            for file in files:
                save_figure(
                    plot_templates(open_template_file(file, read_parameters(parameters))),
                    file.with_suffix(".png"),
                )
        out.print(f"{len(files)} structure(s): templates are in {escape(str(output))}")


def _viewing(
    healpix_order: int | None, file: Path | None, parameters: Path
) -> ViewingAngles | None:
    """The viewing directions asked for; None for the grid of the parameters."""
    from cryolike_dask.geometry.symmetry import asymmetric_unit
    from cryolike_dask.geometry.viewing_angles import healpix_grid
    from cryolike_dask.io.parameters import read_parameters
    from cryolike_dask.io.viewing import read_viewing_angles

    if healpix_order is not None and file is not None:
        raise InputError("--healpix-order and --viewing-angles exclude each other")
    if healpix_order is not None:
        return asymmetric_unit(healpix_grid(healpix_order), read_parameters(parameters).symmetry)
    return None if file is None else read_viewing_angles(file)
