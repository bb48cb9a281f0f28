"""Commands that compute likelihoods."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from cryolike_dask.cli.app import (
    RESUME,
    Conventions,
    ConventionsOption,
    app,
    client_for,
    errors_for_people,
    out,
    runs_on_workers,
    say,
)
from cryolike_dask.cli.given import need, need_comparable
from cryolike_dask.cli.going_on import Recompute, SkipExist, goes_on
from cryolike_dask.errors import InputError


class OnError(StrEnum):
    """What to do when an image stack fails."""

    stop = "stop"
    quarantine = "quarantine"


class Device(StrEnum):
    """Where blocks are computed."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


TemplatesFolder = Annotated[
    Path,
    typer.Option(
        "--templates",
        help="Folder with template_file_list.npy; or a structure file, or a folder of them, "
        "projected while it runs.",
    ),
]
ParticlesFolder = Annotated[
    Path,
    typer.Option(
        "--particles",
        help="Folder with fft/particles_fourier_stack_*; or a .star or .cs file, read while it "
        "runs.",
    ),
]
OutputFolder = Annotated[
    Path, typer.Option("--output", help="Folder for the results; it is created.")
]
ParametersFile = Annotated[
    Path | None,
    typer.Option("--parameters", help="parameters.npz; default: the one in the templates folder."),
]
NStacks = Annotated[int | None, typer.Option(help="Image stacks, from number 0 on. Default: all.")]
ITemplate = Annotated[
    str,
    typer.Option(
        help='Which structures: a position in the list of templates, from 0; several as "0,2"; or '
        '"all".'
    ),
]
MaxDisplacement = Annotated[
    float, typer.Option(help="Largest displacement along each axis, pixels.")
]
NDisplacements = Annotated[
    int, typer.Option(help="Displacements along this axis, both ends included.")
]
Batch = Annotated[
    int | None, typer.Option(help="Tile inside a task; changes no result beyond rounding.")
]
Discover = Annotated[
    bool, typer.Option(help="Choose tiles by the device and its free memory, not by batch sizes.")
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        help="What compression may leave out of templates. Default: 1e-6 in single precision, 0 in "
        "double."
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(help="Replace results of another search or conventions in the output folder."),
]
OnErrorOption = Annotated[
    OnError,
    typer.Option(
        help="When an image stack fails: stop, or leave it out, go on, and list it at the end."
    ),
]
LogFile = Annotated[
    Path | None, typer.Option(help="Append what happens to this file, one JSON object a line.")
]
PerformanceReport = Annotated[
    Path | None, typer.Option(help="Write Dask's report to this file, for a browser.")
]
DeviceOption = Annotated[Device, typer.Option(help="auto: the GPU of each worker, if it has one.")]


@app.command("optimal-pose")
@runs_on_workers
def optimal_pose(
    templates: TemplatesFolder,
    particles: ParticlesFolder,
    output: OutputFolder,
    parameters: ParametersFile = None,
    n_stacks: NStacks = None,
    i_template: ITemplate = "all",
    max_displacement_pixels: MaxDisplacement = 8.0,
    n_displacements_x: NDisplacements = 16,
    n_displacements_y: NDisplacements = 16,
    n_templates_per_batch: Batch = None,
    n_images_per_batch: Batch = None,
    discover_batch_size: Discover = False,
    tolerance: Tolerance = None,
    recompute: Recompute = False,
    overwrite: Overwrite = False,
    on_error: OnErrorOption = OnError.stop,
    log_file: LogFile = None,
    performance_report: PerformanceReport = None,
    device: DeviceOption = Device.auto,
    conventions: ConventionsOption = Conventions.standard,
    skip_exist: SkipExist = None,
    **where: Any,
) -> None:
    """Find the best pose and the integrated likelihood of every image."""
    _run("run_likelihood_optimal_pose", **locals())


@app.command("full-cross-correlation")
@runs_on_workers
def full_cross_correlation(
    templates: TemplatesFolder,
    particles: ParticlesFolder,
    output: OutputFolder,
    parameters: ParametersFile = None,
    n_stacks: NStacks = None,
    i_template: ITemplate = "all",
    max_displacement_pixels: MaxDisplacement = 8.0,
    n_displacements_x: NDisplacements = 16,
    n_displacements_y: NDisplacements = 16,
    n_templates_per_batch: Batch = None,
    n_images_per_batch: Batch = None,
    discover_batch_size: Discover = False,
    tolerance: Tolerance = None,
    recompute: Recompute = False,
    overwrite: Overwrite = False,
    on_error: OnErrorOption = OnError.stop,
    log_file: LogFile = None,
    performance_report: PerformanceReport = None,
    device: DeviceOption = Device.auto,
    conventions: ConventionsOption = Conventions.standard,
    skip_exist: SkipExist = None,
    **where: Any,
) -> None:
    """Correlate every image with every template at every displacement and rotation, and write
    all of it."""
    _run("run_likelihood_full_cross_correlation", **locals())


@app.command()
@runs_on_workers
def demo(
    output: Annotated[Path, typer.Option(help="Folder for inputs and results.")] = Path(
        "cryolike-dask-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the structures and particles.")] = 0,
    **where: Any,
) -> None:
    """Two conformations, noisy particles of both: which particle is which? Made from a seed, run
    for real."""
    with errors_for_people(), client_for(**where) as client:
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


def _run(name: str, **options: Any) -> None:
    """Run one of the run_likelihood_* functions with the options of its command."""
    batches = ("n_templates_per_batch", "n_images_per_batch", "discover_batch_size")
    passed = (*batches, "tolerance", "overwrite", "log_file", "performance_report")
    words = ("device", "on_error")
    with errors_for_people(RESUME):
        keep = goes_on(recompute=options["recompute"], skip_exist=options["skip_exist"])
        say("opening templates and particles ...")
        run = getattr(import_module("cryolike_dask.run_likelihood"), name)
        inputs = inputs_of(options)  # what is wrong with them is said before workers start
        with client_for(**options["where"]) as client:
            results = run(
                **inputs,
                **{name: options[name] for name in passed},
                **{name: str(options[name]) for name in words},
                skip_exist=keep,
                client=client,
            )
            out.print(
                f"{results.sizes['image']} images: results are in {escape(str(options['output']))}"
            )


def inputs_of(options: dict[str, Any]) -> dict[str, Any]:
    """Templates, particles and the search, as the commands of a run take them."""
    from cryolike_dask.io.layout import PARAMETERS, holds_image_stacks, holds_templates
    from cryolike_dask.particles.opening import open_particles
    from cryolike_dask.run_likelihood import configure_displacement, configure_likelihood_files
    from cryolike_dask.structures.opening import open_structures

    templates, particles = options["templates"], options["particles"]
    conventions: Any = str(options["conventions"])
    need_comparable(templates, particles)
    need(options["parameters"], "parameters")
    in_files, converted = holds_templates(templates), holds_image_stacks(particles)
    if not in_files and options["parameters"] is None:
        raise InputError(
            f"{templates} holds structures: --parameters is needed",
            remedy="See `parameters --help`.",
        )
    parameters: Path = options["parameters"] or templates / PARAMETERS
    return {
        "file_config": configure_likelihood_files(
            templates if in_files else None,
            particles if converted else None,
            options["output"],
            n_stacks=options["n_stacks"],
            i_template=_structures(options["i_template"]),
        ),
        "params_input": parameters,
        "displacer": configure_displacement(
            options["max_displacement_pixels"],
            options["n_displacements_x"],
            options["n_displacements_y"],
        ),
        "templates": None
        if in_files
        else open_structures(templates, parameters, conventions=conventions),
        "images": None
        if converted
        else open_particles(particles, parameters, conventions=conventions),
        "conventions": conventions,
    }


def _structures(text: str) -> int | list[int] | Literal["all"]:
    if text == "all":
        return "all"
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"--i-template {text!r}", remedy='Give a number, several as "0,2", or "all".'
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers
