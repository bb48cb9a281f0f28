"""The command line. The only file that prints."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from cryolike_dask import __version__
from cryolike_dask.errors import CryolikeError, InputError

app = typer.Typer(
    help="Image-to-structure likelihoods for cryo-EM.",
    no_args_is_help=True,
    rich_markup_mode=None,  # the panels cut the names of options
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)


class Device(StrEnum):
    """Where blocks are computed."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Conventions(StrEnum):
    """Whose numbers."""

    standard = "standard"
    cryolike = "cryolike"


TemplatesFolder = Annotated[Path, typer.Option("--templates", help="Folder with template_file_list.npy.")]
ParticlesFolder = Annotated[Path, typer.Option("--particles", help="Folder with fft/particles_fourier_stack_*.")]
OutputFolder = Annotated[Path, typer.Option("--output", help="Folder for the results; it is created.")]
ParametersFile = Annotated[
    Path | None, typer.Option("--parameters", help="parameters.npz; default: the one in the templates folder.")
]
NStacks = Annotated[int | None, typer.Option(help="Image stacks, from number 0 on. Default: all.")]
ITemplate = Annotated[str, typer.Option(help='Position in template_file_list.npy; several as "0,2"; or "all".')]
MaxDisplacement = Annotated[float, typer.Option(help="Largest displacement along each axis, pixels.")]
NDisplacements = Annotated[int, typer.Option(help="Displacements along this axis, both ends included.")]
Batch = Annotated[int | None, typer.Option(help="Tile inside a task; never changes a result.")]
Discover = Annotated[bool, typer.Option(help="Find the largest tiles that fit in memory.")]
SkipExist = Annotated[bool, typer.Option(help="Leave complete results of these very inputs and settings alone.")]
Overwrite = Annotated[bool, typer.Option(help="Replace results of another search or conventions in the output folder.")]
DeviceOption = Annotated[Device, typer.Option(help="auto: the GPU of each worker, if it has one.")]
ConventionsOption = Annotated[Conventions, typer.Option(help="cryolike: CryoLike's numbers, its errors included.")]
Workers = Annotated[
    int | None, typer.Option(help="Worker processes. Default: one per GPU, or per core; 0: none, this process alone.")
]
Scheduler = Annotated[str | None, typer.Option(help="Address of a running Dask scheduler, tcp://host:port.")]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_handler()], force=True)
    logging.getLogger("cryolike_dask").setLevel(logging.INFO)


@app.command("optimal-pose")
def optimal_pose(
    templates: TemplatesFolder,
    particles: ParticlesFolder,
    output: OutputFolder,
    parameters: ParametersFile = None,
    n_stacks: NStacks = None,
    i_template: ITemplate = "0",
    max_displacement_pixels: MaxDisplacement = 8.0,
    n_displacements_x: NDisplacements = 16,
    n_displacements_y: NDisplacements = 16,
    n_templates_per_batch: Batch = None,
    n_images_per_batch: Batch = None,
    discover_batch_size: Discover = False,
    skip_exist: SkipExist = False,
    overwrite: Overwrite = False,
    device: DeviceOption = Device.auto,
    conventions: ConventionsOption = Conventions.standard,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Find the best pose and the integrated likelihood of every image."""
    from cryolike_dask.run_likelihood import run_likelihood_optimal_pose

    _run(run_likelihood_optimal_pose, **locals())


@app.command("full-cross-correlation")
def full_cross_correlation(
    templates: TemplatesFolder,
    particles: ParticlesFolder,
    output: OutputFolder,
    parameters: ParametersFile = None,
    n_stacks: NStacks = None,
    i_template: ITemplate = "0",
    max_displacement_pixels: MaxDisplacement = 8.0,
    n_displacements_x: NDisplacements = 16,
    n_displacements_y: NDisplacements = 16,
    n_templates_per_batch: Batch = None,
    n_images_per_batch: Batch = None,
    discover_batch_size: Discover = False,
    skip_exist: SkipExist = False,
    overwrite: Overwrite = False,
    device: DeviceOption = Device.auto,
    conventions: ConventionsOption = Conventions.standard,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Correlate every image with every template at every displacement and rotation, and write all of it."""
    from cryolike_dask.run_likelihood import run_likelihood_full_cross_correlation

    _run(run_likelihood_full_cross_correlation, **locals())


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for inputs and results.")] = Path("cryolike-dask-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the structures and particles.")] = 0,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Two conformations, noisy particles of both: which particle is which? Made from a seed, run for real."""
    with _errors_for_people(), _client(workers, scheduler) as client:
        from cryolike_dask.demo import SIGNAL_TO_NOISE, STRUCTURES, make_demo_inputs, run_demo

        out.print(f"Making structures, templates and particles in {escape(str(output))} (seed {seed}) ...")
        files, truth = make_demo_inputs(output, seed)
        out.print(
            f"{len(truth.structure)} particles of {len(STRUCTURES)} conformations ({', '.join(STRUCTURES)}), "
            f"signal to noise {SIGNAL_TO_NOISE}, astigmatic optics. Comparing each with both ..."
        )
        outcome = run_demo(files, truth, client)
        table = Table(show_header=False, box=None)
        rate = outcome.n_images * len(STRUCTURES) / outcome.seconds
        poses = f"{outcome.n_templates} views x {outcome.n_displacements} shifts x {outcome.n_rotations} rotations"
        for name, value in {
            "search": poses,
            "poses within one grid step": f"{outcome.pose_recovered:.1%}",
            "assigned to the right conformation": f"{outcome.structure_recovered:.1%}",
            "speed": f"{rate:.0f} images per second under one structure ({outcome.seconds:.1f} s in all)",
            "dashboard (while it ran)": client.dashboard_link if client is not None else "no cluster: one process",
            "inputs": f"{files.folder_templates}, {files.folder_particles}",
            "results": str(files.folder_output),
        }.items():
            table.add_row(f"[bold]{name}[/]", escape(value))
        out.print(table)
        folders = ", ".join(repr(str(f)) for f in (files.folder_templates, files.folder_particles, files.folder_output))
        out.print(f"\nIn Python: cld.open_optimal_pose(cld.configure_likelihood_files({folders}, i_template='all'))")


def _run(run: Callable[..., Any], **options: Any) -> None:
    """Run one of the run_likelihood_* functions with the options of its command."""
    from cryolike_dask.run_likelihood import configure_displacement, configure_likelihood_files

    resume = "What was written is complete; run the same command with --skip-exist to go on."
    with _errors_for_people(resume), _client(options["workers"], options["scheduler"]) as client:
        files = configure_likelihood_files(
            options["templates"],
            options["particles"],
            options["output"],
            n_stacks=options["n_stacks"],
            i_template=_structures(options["i_template"]),
        )
        search = configure_displacement(
            options["max_displacement_pixels"], options["n_displacements_x"], options["n_displacements_y"]
        )
        passed = ("n_templates_per_batch", "n_images_per_batch", "discover_batch_size", "skip_exist", "overwrite")
        results = run(
            files,
            options["parameters"] or files.folder_templates / "parameters.npz",
            search,
            client=client,
            device=str(options["device"]),
            conventions=str(options["conventions"]),
            **{name: options[name] for name in passed},
        )
        out.print(f"{results.sizes['image']} images: results are in {escape(str(files.folder_output))}")


@contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """The client to run on: of a running scheduler, of a cluster on this machine, or none."""
    if scheduler is not None and workers is not None:
        raise InputError("--workers and --scheduler exclude each other")
    if workers == 0:
        yield None
    elif scheduler is not None:
        from distributed import Client

        try:
            client = Client(scheduler, timeout=5)
        except (OSError, TypeError, ValueError) as error:
            raise InputError(f"--scheduler {scheduler}: {error}", remedy="Give tcp://host:port.") from error
        with client:
            yield client
    else:
        from cryolike_dask.cluster import local_cluster

        logging.getLogger("distributed").setLevel(logging.WARNING)
        with local_cluster(workers) as client:
            err.print(f"dashboard: {client.dashboard_link}", style="dim")
            yield client


@contextmanager
def _errors_for_people(when_stopped: str = "") -> Iterator[None]:
    """Print what went wrong in one piece instead of a traceback."""
    try:
        yield
    except CryolikeError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from error
    except OSError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        err.print(f"Stopped. {when_stopped}")
        raise typer.Exit(130) from None


def _structures(text: str) -> int | list[int] | Literal["all"]:
    if text == "all":
        return "all"
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--i-template {text!r}", remedy='Give a number, several as "0,2", or "all".') from None
    return numbers[0] if len(numbers) == 1 else numbers


def _handler() -> logging.Handler:
    if sys.stderr.isatty():
        return RichHandler(console=err, show_path=False, show_time=False)
    return logging.StreamHandler(sys.stderr)


if __name__ == "__main__":
    app()
