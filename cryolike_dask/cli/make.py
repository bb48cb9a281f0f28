"""Commands that make input files: parameters, templates, image stacks, simulated particles."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cryolike_dask.cli.app import (
    RESUME,
    Conventions,
    ConventionsOption,
    app,
    client_for,
    errors_for_people,
    out,
    runs_on_workers,
)
from cryolike_dask.cli.given import need, need_each
from cryolike_dask.cli.going_on import Recompute, SkipExist, goes_on
from cryolike_dask.errors import InputError, OutputError


class Precision(StrEnum):
    """Of templates, images and what is computed from them."""

    default = "default"
    single = "single"
    double = "double"


class AtomShape(StrEnum):
    """What stands for an atom or a residue."""

    default = "default"
    gaussian = "gaussian"
    hard_sphere = "hard-sphere"


class Models(StrEnum):
    """Of PDB and mmCIF files with several."""

    first = "first"
    all = "all"


class Downsampling(StrEnum):
    """How images are brought to fewer pixels."""

    fourier = "fourier"
    mean = "mean"
    max = "max"


class Noise(StrEnum):
    """Of simulated particles."""

    white = "white"
    coloured = "coloured"


ParametersFile = Annotated[
    Path, typer.Option("--parameters", help="parameters.npz, as `parameters` writes it.")
]
OutputFolder = Annotated[
    Path, typer.Option("--output", help="Folder for what is made; it is created.")
]
Structures = Annotated[
    list[Path],
    typer.Argument(
        help="PDB, mmCIF, MRC, .npy or .pt files, or folders of them.", show_default=False
    ),
]
ModelsOption = Annotated[
    Models, typer.Option(help="Models of PDB and mmCIF files; all: each as a structure.")
]
Overwrite = Annotated[bool, typer.Option(help="Replace what is in the output folder.")]
Plots = Annotated[bool, typer.Option(help="Draw the first few into a picture beside the output.")]


@app.command()
def parameters(
    n_pixels: Annotated[int, typer.Option(help="Pixels along a side of the images.")],
    pixel_size_angstrom: Annotated[float, typer.Option(help="Pixel size, angstrom.")],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("parameters.npz"),
    precision: Annotated[
        Precision, typer.Option(help="default: that of the data, single where there is none.")
    ] = (Precision.default),
    resolution_factor: Annotated[
        float, typer.Option(help="Band limit as a fraction of Nyquist's.")
    ] = 1.0,
    viewing_distance: Annotated[
        float | None,
        typer.Option(
            help="Distance of viewing directions, radian. Default: 1/(4 pi factor), 2370 views."
        ),
    ] = None,
    n_inplanes: Annotated[
        int | None, typer.Option(help="In-plane angles, even. Default: twice the pixels.")
    ] = None,
    atom_radii: Annotated[
        float | None,
        typer.Option(help="One radius for all, angstrom. Default: of each residue or element."),
    ] = None,
    atom_selection: Annotated[
        str | None, typer.Option(help='Such as "name CA" or "chain A and not resname GLY".')
    ] = None,
    use_protein_residue_model: Annotated[
        bool, typer.Option("--residues/--atoms", help="One sphere per residue, or all atoms.")
    ] = True,
    atom_shape: Annotated[
        AtomShape, typer.Option(help="default: hard-sphere.")
    ] = AtomShape.default,
    overwrite: Overwrite = False,
) -> None:
    """Write parameters.npz: the grid of images and templates, and how templates are made from
    atoms."""
    from cryolike_dask.io.outputs import NPZ, own_output
    from cryolike_dask.io.parameters import make_parameters

    with errors_for_people():
        own_output(output, NPZ)
        if output.exists() and not overwrite:
            raise OutputError(
                "is there already", source=output, remedy="Name another file, or pass --overwrite."
            )
        made = make_parameters(
            n_pixels,
            pixel_size_angstrom,
            str(precision),  # type: ignore[arg-type]
            resolution_factor,
            viewing_distance,
            n_inplanes,
            atom_radii,
            atom_selection,
            use_protein_residue_model,
            str(atom_shape),
            path=output,
        )
        box, finest = (
            made.grid.box_size_angstrom,
            made.grid.box_size_angstrom / (2 * made.radius_max),
        )
        out.print(
            f"{escape(str(output))}: box of {box:g} angstrom, band limit {finest:.3g} angstrom, "
            f"{made.grid.n_shells} shells x {made.n_inplanes} angles, {len(made.viewing_angles())} "
            f"viewing directions"
        )


@app.command()
@runs_on_workers
def templates(
    structures: Structures,
    parameters: ParametersFile,
    output: OutputFolder,
    models: ModelsOption = Models.first,
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
    conventions: ConventionsOption = Conventions.standard,
    voxel_size_angstrom: Annotated[
        float | None, typer.Option(help="Of maps, angstrom, in place of what their headers say.")
    ] = None,
    recompute: Recompute = False,
    overwrite: Overwrite = False,
    plots: Plots = False,
    skip_exist: SkipExist = None,
    **where: Any,
) -> None:
    """Make templates from structures.

    CryoLike finds them by template_file_list.npy if it is started in the folder in which this is
    called.
    """
    with errors_for_people(RESUME):
        keep = goes_on(recompute=recompute, skip_exist=skip_exist)
        need_each(structures, "structures")
        need(parameters, "parameters")
        with client_for(**where) as client:
            from cryolike_dask.structures.making import make_templates

            files = make_templates(
                structures,
                parameters,
                output,
                models=str(models),  # type: ignore[arg-type]
                viewing=_viewing(healpix_order, viewing_angles),
                conventions=str(conventions),  # type: ignore[arg-type]
                voxel_size_angstrom=voxel_size_angstrom,
                skip_exist=keep,
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


@app.command()
@runs_on_workers
def particles(
    metadata: Annotated[
        list[Path],
        typer.Argument(
            help=".star or .cs files, or folders of cryoSPARC jobs.", show_default=False
        ),
    ],
    parameters: ParametersFile,
    output: OutputFolder,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="One MRC file for each STAR file: that of its images, wherever they were."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Project folder that the names of image files start from.")
    ] = None,
    passthrough: Annotated[Path | None, typer.Option(help="cryoSPARC's passthrough file.")] = None,
    pixel_size_angstrom: Annotated[
        float | None, typer.Option(help="Of the stored images, where the files do not say it.")
    ] = None,
    downsample: Annotated[
        Downsampling, typer.Option(help="How images are brought to fewer pixels.")
    ] = (Downsampling.fourier),
    invert_contrast: Annotated[
        bool, typer.Option("--invert-contrast", help="Particles are dark on light.")
    ] = False,
    background_radius_pixels: Annotated[
        float | None, typer.Option(help="Normalise by the pixels beyond this radius.")
    ] = None,
    recenter: Annotated[
        bool, typer.Option("--recenter", help="Move each image by its recorded origin.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images per stack.")] = 1024,
    n_stacks_max: Annotated[int | None, typer.Option(help="Convert the first stacks only.")] = None,
    write_pixels: Annotated[bool, typer.Option(help="Write the pixels too, into phys/.")] = True,
    conventions: ConventionsOption = Conventions.standard,
    recompute: Recompute = False,
    overwrite: Overwrite = False,
    plots: Plots = False,
    skip_exist: SkipExist = None,
    **where: Any,
) -> None:
    """Convert a RELION or cryoSPARC particle set into image stacks."""
    reading: dict[str, Any] = {
        "images": images or None,
        "folder": folder,
        "passthrough": passthrough,
        "pixel_size_angstrom": pixel_size_angstrom,
        "downsample": str(downsample),
        "invert_contrast": invert_contrast,
        "background_radius_pixels": background_radius_pixels,
        "recenter": recenter,
        "batch_size": batch_size,
        "conventions": str(conventions),
    }
    with errors_for_people(RESUME):
        keep = goes_on(recompute=recompute, skip_exist=skip_exist)
        need_each(metadata, "particles")
        need_each(images or (), "images")
        need(passthrough, "particles")
        need(folder)
        need(parameters, "parameters")
        with client_for(**where) as client:
            from cryolike_dask.particles.converting import convert_particles
            from cryolike_dask.particles.opening import open_particles

            stacks = convert_particles(
                metadata,
                parameters,
                output,
                **reading,
                n_stacks_max=n_stacks_max,
                write_pixels=write_pixels,
                skip_exist=keep,
                overwrite=overwrite,
                client=client,
            )
        if plots:
            from cryolike_dask.analysis.plots.stack_plots import plot_images, save_figure

            save_figure(
                plot_images(open_particles(metadata, parameters, **reading)),
                output / "particles.png",
            )
        out.print(f"{len(stacks)} image stack(s) are in {escape(str(output))}")


@app.command()
@runs_on_workers
def simulate(
    structures: Structures,
    parameters: ParametersFile,
    output: OutputFolder,
    n_images: Annotated[int, typer.Option(help="Particles, of all structures together.")] = 1000,
    signal_to_noise: Annotated[
        float, typer.Option(help="Variance of the signal over that of the noise.")
    ] = 0.1,
    noise: Annotated[
        Noise, typer.Option(help="coloured: falls off with resolution.")
    ] = Noise.white,
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
    models: ModelsOption = Models.first,
    batch_size: Annotated[int, typer.Option(help="Images per .mrcs file.")] = 1024,
    seed: Annotated[int, typer.Option(help="Same seed, same particles.")] = 0,
    overwrite: Overwrite = False,
    **where: Any,
) -> None:
    """Simulate particles of structures, as MRCS and a STAR file with their true poses.

    Names of images start in the folder in which the command runs, as in a project of RELION; or,
    where the output is not below it, in the output folder.
    """
    options: dict[str, Any] = {
        "n_images": n_images,
        "signal_to_noise": signal_to_noise,
        "noise": str(noise),
        "populations": populations or None,
        "max_displacement_pixels": max_displacement_pixels,
        "optics": optics,
        "models": str(models),
        "batch_size": batch_size,
        "seed": seed,
        "overwrite": overwrite,
    }
    with errors_for_people():
        need_each(structures, "structures")
        need(parameters, "parameters")
        need(optics, "particles")
        with client_for(**where) as client:
            from cryolike_dask.simulation.simulate import simulate_particles

            star = simulate_particles(structures, parameters, output, **options, client=client)
        out.print(f"{n_images} particles (seed {seed}): {escape(str(star))}")
        typed = shlex.join(
            ["particles", str(star), "--parameters", str(parameters), "--output", "image-stacks"]
        )
        out.print(f"Next: cryolike-dask {escape(typed)}", highlight=False)


def _viewing(healpix_order: int | None, file: Path | None) -> Any:
    """The viewing directions asked for; None for the grid of the parameters."""
    from cryolike_dask.geometry.viewing_angles import healpix_grid
    from cryolike_dask.io.viewing import read_viewing_angles

    if healpix_order is not None and file is not None:
        raise InputError("--healpix-order and --viewing-angles exclude each other")
    if healpix_order is not None:
        return healpix_grid(healpix_order)
    return None if file is None else read_viewing_angles(file)
