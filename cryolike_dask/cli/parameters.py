"""The command that writes parameters.npz."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out
from cryolike_dask.cli.options import Older, Overwrite, tell_words_of_today
from cryolike_dask.errors import InputError, OutputError
from cryolike_dask.labels import AtomicB, AtomShape, BulkSolvent, Precision


@app.command()
def parameters(
    n_pixels: Annotated[int, typer.Option(help="Pixels along a side of the images.")],
    pixel_size_angstrom: Annotated[float, typer.Option(help="Pixel size, angstrom.")],
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("parameters.npz"),
    precision: Annotated[
        Precision, typer.Option(help="default: that of the data, single where there is none.")
    ] = "default",
    resolution_angstrom: Annotated[
        float | None,
        typer.Option(help="Resolution up to which images are compared. Default: two pixels."),
    ] = None,
    resolution_factor: Older = None,
    view_step_degrees: Annotated[
        float | None,
        typer.Option(
            help="From one viewing direction to the next. Default: 4.56 at full resolution, which "
            "is 2370 views, and in proportion to --resolution-angstrom."
        ),
    ] = None,
    viewing_distance: Older = None,
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
        bool | None,
        typer.Option(
            "--residues/--atoms",
            help="One sphere per residue, or all atoms. Default: atoms if they scatter.",
        ),
    ] = None,
    atom_shape: Annotated[
        AtomShape,
        typer.Option(help="scattering: by the factors of elements; default: hard-sphere."),
    ] = "default",
    atomic_b: Annotated[
        str,
        typer.Option(help="B-factor of atoms that scatter, angstrom^2: none, file, or a number."),
    ] = "none",
    bulk_solvent: Annotated[
        str,
        typer.Option(
            help='Solvent around atoms that scatter: none, babinet, or "0.85,200": a share and a '
            "B-factor."
        ),
    ] = "none",
    symmetry: Annotated[
        str,
        typer.Option(
            help="Point group of the structures, with RELION's axes: C4, D7, T, O, I1 to I4 (I is "
            "I2). Views are those of its asymmetric unit."
        ),
    ] = "C1",
    frame: Annotated[
        str | None,
        typer.Option(
            help="Origin of poses in structure files: the middle of this map, which they lie in, "
            "so that poses found with it hold; or file, their own. Default: the mean of the atoms."
        ),
    ] = None,
    superpose: Annotated[
        str | None,
        typer.Option(
            help='Superpose structures on the first by these atoms, such as "name CA and chain A".'
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write parameters.npz: the grid of images and templates, and how templates are made from
    atoms."""
    from cryolike_dask.geometry.symmetry import NO_SYMMETRY
    from cryolike_dask.io.outputs import NPZ, own_output
    from cryolike_dask.io.parameters import make_parameters

    with errors_for_people():
        tell_words_of_today(
            viewing_distance=viewing_distance,
            resolution_factor=resolution_factor,
            pixel_size_angstrom=pixel_size_angstrom,
        )
        own_output(output, NPZ)
        if output.exists() and not overwrite:
            raise OutputError(
                "is there already", source=output, remedy="Name another file, or pass --overwrite."
            )
        made = make_parameters(
            n_pixels,
            pixel_size_angstrom,
            precision,
            resolution_factor,
            viewing_distance,
            n_inplanes,
            atom_radii,
            atom_selection,
            use_protein_residue_model,
            atom_shape,
            resolution_angstrom=resolution_angstrom,
            view_step_degrees=view_step_degrees,
            atomic_b=_atomic_b(atomic_b),
            bulk_solvent=_bulk_solvent(bulk_solvent),
            symmetry=symmetry,
            frame=frame,
            superpose=superpose,
            path=output,
        )
        box = made.grid.box_size_angstrom
        unit = "" if made.symmetry == NO_SYMMETRY else f" of the asymmetric unit of {made.symmetry}"
        out.print(
            f"{escape(str(output))}: box of {box:g} angstrom, compared up to "
            f"{made.resolution_angstrom:.3g} angstrom, {made.grid.n_shells} shells x "
            f"{made.n_inplanes} angles, {len(made.viewing_angles())} viewing directions{unit}, "
            f"{made.view_step_degrees:.3g} degrees apart"
        )


def _atomic_b(text: str) -> AtomicB:
    if text == "none":
        return "none"
    if text == "file":
        return "file"
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--atomic-b {text!r} is not none, file or a number") from None


def _bulk_solvent(text: str) -> BulkSolvent:
    if text == "none":
        return "none"
    if text == "babinet":
        return "babinet"
    try:
        share, b_factor = map(float, text.split(","))
    except ValueError:
        raise InputError(
            f"--bulk-solvent {text!r} is not none, babinet, or a share and a B-factor",
            remedy="Such as --bulk-solvent 0.85,200",
        ) from None
    return share, b_factor
