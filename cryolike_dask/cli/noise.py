"""The command that estimates the noise of particles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cryolike_dask.cli.app import app
from cryolike_dask.cli.console import errors_for_people, out, say
from cryolike_dask.cli.inputs import need, need_comparable
from cryolike_dask.cli.likelihood import (
    DisplacementStep,
    MaxDisplacement,
    NStacks,
    ParametersFile,
)
from cryolike_dask.cli.options import (
    OlderNumber,
    PlaceOptions,
    TrajectoryOptions,
    client_in,
    displacements_of,
    takes_options,
)
from cryolike_dask.errors import InputError, OutputError, counted

if TYPE_CHECKING:
    from cryolike_dask.geometry.noise import NoiseModel
    from cryolike_dask.geometry.parameters import ImageParameters
    from cryolike_dask.stacks import ImageStack, TemplateStack

MOST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class NoiseOptions(TrajectoryOptions):
    """Particles whose noise is estimated, and structures that they show."""

    particles: Annotated[
        Path,
        typer.Option(help="Folder with fft/particles_fourier_stack_*; or a .star or .cs file."),
    ]
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for noise.npz and noise.png, such as that of results to come; or a file."
        ),
    ]
    templates: Annotated[
        Path | None,
        typer.Option(
            help="Folder with template_file_list.npy, or structures: what they explain is no "
            "noise. Default: signal is left in it."
        ),
    ] = None
    parameters: ParametersFile = None
    n_stacks: NStacks = None
    max_displacement_pixels: MaxDisplacement = 8.0
    displacement_step_pixels: DisplacementStep = None
    n_displacements_x: OlderNumber = None
    n_displacements_y: OlderNumber = None
    b_factor: Annotated[
        str | None,
        typer.Option(
            help="fit: fit one to each optics group, with --templates; none; or auto: fit if there "
            "are templates. Default: auto."
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option(help="Replace files that are there.")] = False

    @property
    def fits_b_factor(self) -> bool:
        """Whether B-factors are fitted, which needs structures."""
        if self.b_factor in (None, "auto"):
            return self.templates is not None
        if self.b_factor not in ("fit", "none"):
            raise InputError(
                f"--b-factor {self.b_factor} is not known", remedy="Give auto, fit or none."
            )
        if self.b_factor == "fit" and self.templates is None:
            raise InputError("--b-factor fit needs --templates")
        return self.b_factor == "fit"

    def files(self) -> tuple[Path, Path]:
        """The noise model and its plot, neither of which is there, or both may be replaced."""
        from cryolike_dask.io.layout import METADATA_SUFFIX, NOISE, NOISE_PLOT, RECORDS_OF_RESULTS
        from cryolike_dask.io.outputs import refuse_special

        is_file = self.output.suffix == METADATA_SUFFIX and not self.output.is_dir()
        model = self.output if is_file else self.output / NOISE
        plot = model.with_name(NOISE_PLOT) if not is_file else model.with_suffix(".png")
        if any(model.parent.glob(RECORDS_OF_RESULTS)):
            raise OutputError(
                "holds results, whose noise model is not to be replaced",
                source=model.parent,
                remedy="Name another folder or file.",
            )
        for path in (model, plot):
            if refuse_special(path).exists() and not self.overwrite:
                raise OutputError(
                    "is there already",
                    source=path,
                    remedy="Name another folder or file, or pass --overwrite.",
                )
        return model, plot

    def images(self, parameters: ImageParameters) -> ImageStack:
        """The images, opened."""
        from cryolike_dask.io.layout import LikelihoodFiles, holds_image_stacks
        from cryolike_dask.particles.opening import open_particles
        from cryolike_dask.stacks import open_images

        if holds_image_stacks(self.particles):
            files = LikelihoodFiles(None, self.particles, self.output, self.n_stacks)
            return open_images(files, parameters)
        if self.n_stacks is not None:
            raise InputError("--n-stacks is for a folder of image stacks", remedy="Leave it out.")
        return open_particles(self.particles, parameters)

    def structures(self, parameters: ImageParameters) -> list[TemplateStack] | None:
        """The templates, opened, with their displacements."""
        from cryolike_dask.io.layout import LikelihoodFiles, holds_templates
        from cryolike_dask.stacks import open_template_file
        from cryolike_dask.structures.opening import open_structures

        structures = self.one(self.templates)
        if self.templates is None:
            return None
        displacer = displacements_of(
            self.max_displacement_pixels,
            self.displacement_step_pixels,
            self.n_displacements_x,
            self.n_displacements_y,
        )
        if holds_templates(self.templates):
            paths = LikelihoodFiles(self.templates, None, self.output).template_files()
            stacks = [open_template_file(path, parameters) for path in paths]
        else:
            stacks = open_structures(structures, parameters)
        return [displacer(stack) for stack in stacks]

    def read_parameters(self) -> ImageParameters:
        """The grid of images and templates."""
        from cryolike_dask.io.layout import PARAMETERS, holds_templates
        from cryolike_dask.io.parameters import read_parameters

        if self.parameters is not None:
            return read_parameters(self.parameters)
        if self.templates is None or not holds_templates(self.templates):
            raise InputError("--parameters is needed", remedy="See `parameters --help`.")
        return read_parameters(self.templates / PARAMETERS)


@app.command("noise")
@takes_options()
def noise(options: NoiseOptions, place: PlaceOptions) -> None:
    """Estimate the noise of particles, and draw its spectrum.

    Commands that compute likelihoods do so themselves; they take what lies in their output folder,
    or what --noise names.
    """
    with errors_for_people():
        fits_b_factor = options.fits_b_factor
        if options.templates is None:
            need(options.particles, "image stacks", "particles")
        else:
            need_comparable(options.templates, options.particles)
        need(options.parameters, "parameters")
        path, plot = options.files()
        say("opening particles ...")
        parameters = options.read_parameters()
        images, structures = options.images(parameters), options.structures(parameters)
        with client_in(place) as client:
            from cryolike_dask.runs.noise_estimation import estimate_noise

            model = estimate_noise(images, structures, fit_b_factor=fits_b_factor, client=client)
        _write(model, path, plot)
        out.print(_table(model, parameters))
        out.print(f"{counted(len(model), 'group')}: {escape(str(path))}, drawn in {plot.name}")
        if structures is None:
            out.print("signal is left in it: give --templates to take it out")


def _write(model: NoiseModel, path: Path, plot: Path) -> None:
    from cryolike_dask.analysis.plots.noise_plots import plot_noise
    from cryolike_dask.analysis.plots.stack_plots import save_figure
    from cryolike_dask.io.noise import write_noise

    write_noise(path, model)
    save_figure(plot_noise(model), plot)


def _table(model: NoiseModel, parameters: ImageParameters) -> Table:
    """The groups, and what is known of each."""
    table = Table(box=None)
    for name in ("group", "images", "degrees of freedom", "because"):
        table.add_column(name)
    if fits := bool(model.b_factor_angstrom2.any()):
        table.add_column("B-factor")
    n_free = model.degrees_of_freedom(parameters.grid)
    for i in range(min(len(model), MOST_ROWS)):
        row = [model.groups[i], f"{model.n_images[i]:,}", f"{n_free[i]:.0f}", model.reasons[i]]
        if fits:
            b, error = model.b_factor_angstrom2[i], model.b_factor_error[i]
            row.append(f"{b:.0f} +- {error:.0f}" if error > 0 else f"{b:.0f}")
        table.add_row(*map(escape, row))
    if len(model) > MOST_ROWS:
        table.add_row(f"and {len(model) - MOST_ROWS} more")
    return table
